"""How the time of training grows with the questions, and with the questions a passage.

    python benchmarks/growth.py [--rounds 3] [--questions 12 48 192] [--passages 12] [--trl]

Model, tokens and settings of training.py. First epochs of 12, 48 and 192 questions as the workbook shares them, then
epochs of the same passages with the first 1, 2, 4 and 8 questions of each (`--trl`: TRL at batch 1 beside the latter).
The sizes take turns in one process; a row gives processor seconds a question: the mean of the rounds, and their range.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from typing import Any

from bench import interleave, machine
from training import Side, make_side, workbook_passages, workbook_records

A_PASSAGE = (1, 2, 4, 8)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-warm-up", action="store_true", help="let the first run count")
    parser.add_argument("--questions", type=int, nargs="+", default=[12, 48, 192])
    parser.add_argument("--passages", type=int, default=12)
    parser.add_argument("--trl", action="store_true", help="also TRL at batch 1 in the second table")
    parser.add_argument("--step", type=int, default=24, help="questions an optimizer step")
    parser.add_argument("--vocab-size", type=int, default=55296)
    parser.add_argument("--row-tokens", type=int)
    flags = parser.parse_args()
    warnings.simplefilter("ignore")
    print(machine())
    grow("questions", {str(count): workbook_records(count) for count in flags.questions}, ["lrc"], flags)
    names = ["lrc", "trl-1"] if flags.trl else ["lrc"]
    grow("questions a passage", {str(count): first_of_each(flags.passages, count) for count in A_PASSAGE}, names, flags)


def grow(what: str, sizes: dict[str, list[Any]], names: Sequence[str], flags: argparse.Namespace) -> None:
    """Train all sizes in turn, and print one line for each."""
    sides: dict[str, Side] = {}
    for size, records in sizes.items():
        for name in names:
            sides[f"{size} {what}, {name}"] = make_side(name, records, flags)
    runs = {name: side.run for name, side in sides.items()}
    seconds = interleave(runs, flags.rounds, warm_up=not flags.no_warm_up)
    for name, taken in seconds.items():
        count = len(sizes[name.split()[0]])
        each = [second / count for second in taken]
        print(
            f"{name}: {sides[name].tokens}{sum(each) / len(each):.3f} s a question "
            f"(min {min(each):.3f}, max {max(each):.3f})",
            flush=True,
        )


def first_of_each(passages: int, count: int) -> list[Any]:
    """The first questions of passages that have as many as the largest size asks for."""
    from lrc.data.alpaca import to_record

    groups = [group for group in workbook_passages() if len(group) >= max(A_PASSAGE)]
    if len(groups) < passages:
        raise SystemExit(f"--passages is {passages}, but the workbook has {len(groups)} of {max(A_PASSAGE)} questions")
    return [to_record(question) for group in groups[:passages] for question in group[:count]]


if __name__ == "__main__":
    main()
