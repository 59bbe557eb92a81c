"""Answer every question of a file: `lrc generate`, or `accelerate launch … -m lrc.generate` with the same flags."""

from __future__ import annotations

from pathlib import Path

from accelerate import PartialState

from lrc.answering import Asking, answer, load_scorer, read_askable, write_scores
from lrc.output import refuse_existing
from lrc.progress import say
from lrc.submission import write_submission


def generate(
    model: str, data: Path, output: Path, *, asking: Asking, scores: Path | None = None, force: bool = False
) -> None:
    """Write the submission of a workbook's or a JSON file's questions, a line a question, in the file's order.

    Args:
        scores: where to write every option's score, as JSON lines.

    Raises:
        LrcError: the model, the data or the output stands in the way; nothing is written then.
    """
    for path in filter(None, (output, scores)):
        refuse_existing(path, force=force)
    records = read_askable(data)
    found = answer(load_scorer(model, asking), records)
    if not PartialState().is_main_process:
        return
    if scores is not None:
        write_scores(scores, records, found, force=force)
    write_submission(output, [record.id for record in records], [score.prediction for score in found], force=force)
    if asking.votes > 1:
        share = sum(score.consistent for score in found) / len(found)
        say(f"consistency: {share:.4f} of the questions have one answer under all option orders")
    print(f"{output}: {len(found)} answers")


if __name__ == "__main__":
    import sys

    from lrc.cli import main

    main(["generate", *sys.argv[1:]])
