"""`lrc generate`: answers every question of a file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lrc.answering.answered_workbook import check_output, fill_in, is_workbook, refuse_uncopyable
from lrc.answering.certainty import describe_certainty
from lrc.answering.options import ScoringOptions
from lrc.answering.partial_scores import PartialScores, remove_partial_scores
from lrc.answering.scored_model import identify_model
from lrc.answering.submission import submission
from lrc.data.alpaca import Record
from lrc.data.sources import read_questions_to_answer
from lrc.runtime.findings import print_findings, print_lines
from lrc.runtime.finished_outputs import DONE, Inputs, is_finished, refuse_other_output, remember
from lrc.runtime.outputs import new_file, refuse_existing, refuse_file
from lrc.runtime.progress import importing, notify
from lrc.runtime.translation import _


def generate(
    model: str,
    data: Path,
    output: Path,
    *,
    options: ScoringOptions,
    scores: Path | None = None,
    sheet: str | None = None,
    columns: Mapping[str, str] | None = None,
    force: bool = False,
) -> None:
    """Answer the questions of a file, and write the submission, in the order of the file.

    Scores are kept in a hidden file next to the output until that is written: the same call resumes after a kill.

    Args:
        model: a base or merged model: a folder, or a name on the Hub.
        data: a workbook or a JSON file.
        output: a CSV, or an .xlsx: a copy of the workbook with answers and probabilities next to the questions.
        options: adapters, and how questions are answered.
        scores: where to write every option's score, as JSON lines.
        sheet: the sheet of a workbook; the first visible one by default.
        columns: see `sources.DataFile`.
        force: overwrite existing outputs.

    Raises:
        LrcError: the model, the data or the output cannot be used; nothing is written then.
    """
    check_output(output, data)
    refuse_file(output, data, force=True)  # whether it may be overwritten is checked below
    if scores is not None:
        refuse_file(scores, data, output, force=True)
    # The arguments of the command, with the same names as in `lrc.cli`.
    asked = {"model": model, "data": data, "scores": scores, "sheet": sheet, "columns": columns, **asdict(options)}
    refuse_other_output(output, asked, force=force)
    inputs = Inputs([data])
    records = read_questions_to_answer(data, sheet, columns)
    inputs.refuse_changed()
    if is_workbook(output):
        refuse_uncopyable(data)
    with importing():  # what can be refused without it has been
        import lrc.answering.load  # noqa: F401, which takes the seconds
        from lrc.runtime.processes import lock_together

    with lock_together(output):
        _generate(asked, output, inputs, records, options, force=force)


def _generate(
    asked: Mapping[str, Any],
    output: Path,
    inputs: Inputs,
    records: Sequence[Record],
    options: ScoringOptions,
    *,
    force: bool,
) -> None:
    from lrc.answering.answer import answer, facts, write_scores
    from lrc.answering.load import load_scorer
    from lrc.runtime.processes import processes

    model, data, scores = asked["model"], asked["data"], asked["scores"]
    state, read = processes(), [asked["sheet"], asked["columns"]]
    known = facts(model, options, inputs.sums[data])
    partial = PartialScores.for_output(output, [known, str(scores), *read], state.process_index)
    begun = partial.exists  # existing scores are then those of this run
    if not force and is_finished(output, asked, partial.key):
        if state.is_main_process:
            remove_partial_scores(output)  # a kill may have left them
            print_lines(DONE.format(output=output))
        return
    refuse_existing(output, force=force)
    if scores is not None:
        refuse_existing(scores, force=force or begun)
    scorer = load_scorer(model, options)
    found = answer(scorer, records, partial)
    if not state.is_main_process:
        return
    ids, answers = [record.id for record in records], [score.prediction for score in found]
    if is_workbook(output):
        content, lost = fill_in(data, records, found, sheet=asked["sheet"], columns=asked["columns"])
        print_findings(lost)
    else:
        content = submission(ids, answers)
    inputs.refuse_changed()
    if scores is not None:
        write_scores(scores, records, found, identify_model(model, options, scorer.asked), force=force or begun)
    remember(output, asked, partial.key, hashlib.sha256(content).hexdigest(), *filter(None, [scores]))
    with new_file(output, force=force) as temporary:
        temporary.write_bytes(content)
    remove_partial_scores(output)
    if options.votes > 1:
        share = sum(score.consistent for score in found) / len(found)
        text = _("consistency: {share:.4f} of the questions get the same answer under all option orders")
        notify(text.format(share=share))
    print_lines(_("{output}: {count} answers").format(output=output, count=len(found)))
    print(*describe_certainty(ids, found), sep="\n")
