"""Answering on a CPU in bfloat16 against float32: pace and equal answers, interleaved in one process.

    python benchmarks/formats.py BASE --data AI1000.xlsx [--questions 60] [--rounds 1] [--template plain]

BASE is a folder with a real base model, small enough to be in memory in both formats; the questions are those of the
workbook sorted by passage, so that they share it. Both sides are `lrc generate --dtype` without its files.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bench import interleave, machine, report_ratio, report_speed, shared_questions

FORMATS = ("float32", "bfloat16")


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("--data", default="AI1000.xlsx", help="a workbook in LRC_SHARED_DATA")
    parser.add_argument("--questions", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--template", default="plain")
    parser.add_argument("--answer-style", default="digit")
    flags = parser.parse_args()
    from lrc.answering.load import load_scorer
    from lrc.answering.options import ScoringOptions
    from lrc.data.alpaca import to_record

    questions = sorted(shared_questions(flags.data), key=lambda question: question.passage)[: flags.questions]
    records = [to_record(question) for question in questions]
    asking = {"template": flags.template, "answer_style": flags.answer_style}
    scorers = {name: load_scorer(str(flags.base), ScoringOptions(**asking, dtype=name)) for name in FORMATS}
    found: dict[str, Any] = {}

    def ask(name: str) -> None:
        found[name] = scorers[name](records)

    seconds = interleave({name: lambda name=name: ask(name) for name in FORMATS}, flags.rounds, warm_up=False)
    tokens = sum(len(scorers["float32"].prompt.prompt(record)) for record in records)
    print(machine())
    for name, taken in seconds.items():
        report_speed(name, taken, len(records) * flags.rounds, tokens * flags.rounds)
    report_ratio("bfloat16 against float32", seconds["float32"], seconds["bfloat16"], target=(">=", 1.8))
    same = [one.prediction == other.prediction for one, other in zip(*(found[name] for name in FORMATS), strict=True)]
    right = {
        name: sum(score.prediction == question.answer for score, question in zip(found[name], questions, strict=True))
        for name in FORMATS
    }
    print(f"equal answers: {sum(same)} of {len(same)}; right: {right}")


if __name__ == "__main__":
    main()
