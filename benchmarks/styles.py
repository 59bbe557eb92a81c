"""What each way of asking costs in training: time a question, tokens, positions of the head, and peak memory.

    python benchmarks/styles.py [--questions 48] [--rounds 3] [--vocab-size 151936] [--row-tokens 1536] [--memory]

The same questions of the reference run's workbook, tokenizer and random model as in training.py, one template (plain)
and eight questions a step:

- `digit`: the options are listed, the number of the right one and an end are learnt;
- `digit_after`: the same, with each number after its option;
- `text`: they are not; the right one's text and an end are learnt;
- `contrast`: the same with 0.8 of the loss the contrast between all options' texts;
- `judge`: each option in a prompt of its own, 是 against 否, all of the loss the contrast;
- `judge-listed`: the same with the options listed before.

The sides take turns in one process; `--memory` runs one step of each in a process of its own.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench import interleave, llama, machine, peak_in_process, report_ratio, report_speed, rise
from training import _arguments, _lora, _tokenizer, packed_rows, workbook_records

STEP = 8
SIDES = {
    "digit": ("digit", True, 0.0),
    "digit_after": ("digit_after", True, 0.0),
    "text": ("text", False, 0.0),
    "contrast": ("text", False, 0.8),
    "judge": ("judge", False, 1.0),
    "judge-listed": ("judge", True, 1.0),
}


@dataclass
class Side:
    """A trainer over one epoch of the questions in one style."""

    trainer: Any

    def counts(self) -> tuple[int, int, int]:
        """Tokens computed, tokens one by one, and positions where the head runs."""
        rows = packed_rows(self.trainer)
        sequences = [one for batch in self.trainer.get_train_dataloader() for one in batch.sequences]
        separate = sum(len(one.inputs) for one in sequences)
        return sum(map(len, rows)), separate, sum(len(row.heads) for row in rows)


def make_side(name: str, records: list[Any], flags: argparse.Namespace) -> Side:
    """The trainer of a style."""
    from lrc.tokenization.prompt import Prompt
    from lrc.tokenization.token_dataset import tokenize
    from lrc.training.contrastive_loss import Objective
    from lrc.training.dataloader import SequenceSource
    from lrc.training.trainer import Packing, TreeTrainer

    style, listed, contrast = SIDES[name]
    tokenizer = _tokenizer()
    prompt = Prompt(tokenizer, "plain", style, listed)
    dataset = tokenize(records, prompt, stage="tokenize")
    compared = "character" if contrast else None
    trainer = TreeTrainer(
        model=llama(flags.vocab_size),
        args=_arguments(STEP, bf16=False, gradient_checkpointing=False),
        peft_config=_lora(),
        processing_class=tokenizer,
        train_dataset=dataset,
        source=SequenceSource(dataset, records, prompt, 1, 0, compared, supervised=contrast < 1),
        validation=None,
        packing=Packing(row_tokens=flags.row_tokens),
        objective=Objective(contrast),
    )
    return Side(trainer)


def main() -> None:
    """Read the command line and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sides", nargs="+", default=list(SIDES), choices=SIDES)
    parser.add_argument("--vocab-size", type=int, default=151936)
    parser.add_argument("--row-tokens", type=int, default=1536)
    parser.add_argument("--memory", action="store_true", help="also the peak of one step, in a process of its own")
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    warnings.simplefilter("ignore")
    if flags.peak_of:
        print(rise(make_side(flags.peak_of, workbook_records(STEP), flags).trainer.train))
        return
    peaks = {name: peak_in_process(name) for name in flags.sides} if flags.memory else {}
    print(machine())
    for name, peak in peaks.items():
        print(f"{name}: peak of a step of {STEP} questions {peak:,.0f} MiB above the model")
    if flags.rounds:
        _compare(flags)


def _compare(flags: argparse.Namespace) -> None:
    records = workbook_records(flags.questions)
    sides = {name: make_side(name, records, flags) for name in flags.sides}
    runs: dict[str, Callable[[], Any]] = {name: side.trainer.train for name, side in sides.items()}
    seconds = interleave(runs, flags.rounds)
    for name, taken in seconds.items():
        unique, separate, heads = sides[name].counts()
        report_speed(name, taken, len(records) * flags.rounds, separate * flags.rounds)
        print(f"    {unique:,} tokens computed, the head at {heads:,} positions")
    first = flags.sides[0]
    for name in flags.sides[1:]:
        report_ratio(f"time of {name} against {first}", seconds[name], seconds[first])


if __name__ == "__main__":
    main()
