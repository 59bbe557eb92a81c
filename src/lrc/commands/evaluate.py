"""`lrc evaluate`: accuracy of a model or of predictions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lrc.answering import submission
from lrc.answering.answer import answer, load_scorer, read_questions_to_answer, write_scores
from lrc.answering.options import ScoringOptions
from lrc.data.alpaca import Record, with_question
from lrc.metrics.accuracy import Figures, accuracy, accuracy_by, confusion, mcnemar, paired, passages_of
from lrc.metrics.calibration import at_bound, calibration
from lrc.metrics.verdict import judge, size
from lrc.runtime.errors import DataError
from lrc.runtime.findings import wrapped
from lrc.runtime.outputs import new_file, refuse_file
from lrc.runtime.processes import processes
from lrc.tokenization.prompt import question_of

LENGTHS = (150, 300, 450)  # characters of a passage, where one length group ends and the next begins


def evaluate_model(
    model: str,
    data: Path,
    *,
    asking: ScoringOptions,
    output: Path | None,
    scores: Path | None = None,
    passage_blind: bool = False,
    sheet: str | None = None,
    columns: Mapping[str, str] | None = None,
    as_json: bool = False,
    force: bool = False,
) -> None:
    """Answer labelled questions and print how many answers are right.

    Args:
        scores: where to write every option's score, as JSON lines.
        passage_blind: also ask without the passage, to see how much of the accuracy is reading.
        sheet: the sheet of a workbook; the first visible one by default.
        columns: see `datafile.read_questions`.
        as_json: print the figures as JSON rather than as lines.

    Raises:
        LrcError: the model, the data or an output stands in the way.
    """
    if output is not None:
        refuse_file(output, data, force=force)
    if scores is not None:
        refuse_file(scores, data, *filter(None, [output]), force=force)
    records, answers = _labelled(data, sheet, columns)
    scorer = load_scorer(model, asking)
    found = answer(scorer, records)
    blind = answer(scorer, [_without_passage(record) for record in records]) if passage_blind else []
    if not processes().is_main_process:
        return
    if scores is not None:
        write_scores(scores, records, found, force=force)
    predictions = [score.prediction for score in found]
    figures = measure(records, predictions, answers)
    passages = passages_of(map(question_of, records))
    figures["probabilities"] = calibration([score.log_probs for score in found], answers, passages, scorer.temperature)
    if blind:
        without = [score.prediction for score in blind]
        test = _compared(predictions, without, answers, passages)
        figures["passage_blind"] = {**accuracy(without, answers, passages), **test}
    if asking.votes > 1:
        figures["consistency"] = sum(score.consistent for score in found) / len(found)
    _tell(figures, output, as_json=as_json, force=force)


def evaluate_predictions(
    files: Sequence[Path],
    data: Path,
    *,
    output: Path | None,
    sheet: str | None = None,
    columns: Mapping[str, str] | None = None,
    as_json: bool = False,
    force: bool = False,
) -> None:
    """Print how many answers of one or two submissions are right, and whether the two differ.

    Raises:
        LrcError: the files are not about the same questions, or the output exists.
    """
    if output is not None:
        refuse_file(output, data, *files, force=force)
    records, answers = _labelled(data, sheet, columns)
    predictions = [_paired(file, records, data) for file in files]
    figures = measure(records, predictions[0], answers)
    if len(predictions) == 2:
        second = measure(records, predictions[1], answers)
        figures["second"] = second
        figures |= _compared(predictions[0], predictions[1], answers, passages_of(map(question_of, records)))
    _tell(figures, output, as_json=as_json, force=force)


def measure(records: Sequence[Record], predictions: Sequence[int], answers: Sequence[int]) -> dict[str, Any]:
    """All figures about one set of predictions; the lexical baselines on the same questions stand beside it."""
    questions = [question_of(record) for record in records]
    groups = [sum(len(question.passage) >= length for length in LENGTHS) for question in questions]
    verdict, passages = judge(questions, predictions), passages_of(questions)
    by_length = accuracy_by(groups, predictions, answers, passages)
    return {
        **verdict.figures,
        "verdict": str(verdict),
        "by_position": accuracy_by(answers, predictions, answers, passages),
        "by_length": {_group(k): figures for k, figures in by_length.items()},
        "confusion": confusion(predictions, answers),
        "baselines": verdict.baselines,
        "best_baseline": {"name": verdict.best, "paired": verdict.test},
    }


def _compared(
    first: Sequence[int], second: Sequence[int], answers: Sequence[int], passages: Sequence[str]
) -> dict[str, dict[str, float]]:
    """The paired test by passage, and McNemar's, which takes questions as independent."""
    return {"paired": paired(first, second, answers, passages), "mcnemar": dict(mcnemar(first, second, answers))}


def _labelled(data: Path, sheet: str | None, columns: Mapping[str, str] | None) -> tuple[list[Record], list[int]]:
    records = read_questions_to_answer(data, sheet, columns)
    answers = [question_of(record).answer for record in records]
    missing = [record.id for record, number in zip(records, answers, strict=True) if number is None]
    if missing:
        raise DataError(f"{data}: {len(missing)} questions have no answer, first {missing[0]}; give a labelled file")
    return records, [number for number in answers if number is not None]


def _without_passage(record: Record) -> Record:
    return with_question(record, replace(question_of(record), passage=""))


def _paired(file: Path, records: Sequence[Record], data: Path) -> list[int]:
    """The predictions of a submission, a question each."""
    ids = [record.id for record in records]
    answers = submission.paired(submission.read_submission(file), ids, str(file), str(data))
    limits = [len(question_of(record).options) for record in records]
    for name, number, limit in zip(ids, answers, limits, strict=True):
        if number > limit:
            raise DataError(f"{file}, id {name}: Answer is {number}, expected 1 to {limit}")
    return answers


def _group(k: int) -> str:
    low, high = (0, *LENGTHS)[k], (*LENGTHS, None)[k]
    return f"{low}+" if high is None else f"{low}-{high - 1}"


def _tell(figures: dict[str, Any], output: Path | None, *, as_json: bool, force: bool) -> None:
    text = json.dumps(figures, ensure_ascii=False, indent=2)
    if output is not None:
        with new_file(output, force=force) as temporary:
            temporary.write_text(f"{text}\n", encoding="utf-8")
    print(*([text] if as_json else _table(figures)), sep="\n")


def _table(figures: dict[str, Any]) -> list[str]:
    """The verdict, then the figures in groups, each under its heading."""
    head = [f"accuracy              {_share(figures)}"]
    if "second" in figures:
        head += [f"second                {_share(figures['second'])}", *_difference(figures["paired"])]
    if "passage_blind" in figures:
        blind = figures["passage_blind"]
        head += [f"without the passage   {_share(blind)}", *_difference(blind["paired"])]
    belief = _belief(figures["probabilities"]) if "probabilities" in figures else []
    if "consistency" in figures:
        belief.append(f"consistency           {figures['consistency']:.4f}")
    groups = {
        "Baselines, which read nothing": _shares(figures["baselines"], "{}"),
        "By position of the right answer": _shares(figures["by_position"], "answer {}"),
        "How often each option was chosen": _confusion(figures["confusion"]),
        "By length of the passage": _shares(figures["by_length"], "{} characters"),
        "Probabilities": belief,
    }
    told = [line for name, lines in groups.items() if lines for line in ("", name, *lines)]
    return [*wrapped(figures["verdict"]), "", *head, *told]


def _shares(parts: Mapping[Any, Figures], name: str) -> list[str]:
    return [f"{name.format(key):<22}{_share(part)}" for key, part in parts.items()]


def _confusion(table: Sequence[Sequence[int]]) -> list[str]:
    """A line a right answer that occurs: how often it was answered with each option."""
    width = max(len(str(count)) for row in table for count in row)
    shown = {k: "  ".join(f"{count:>{width}}" for count in row) for k, row in enumerate(table, start=1) if any(row)}
    return [f"{f'where {k} is right':<22}{counts}" for k, counts in shown.items()]


def _difference(pair: Mapping[str, float]) -> list[str]:
    return [
        f"right in one only     {pair['first_only']} and {pair['second_only']}, "
        f"McNemar's exact test p = {pair['p_value_mcnemar']:.4f}",
        f"difference            {pair['difference']:+.4f} ({pair['ci_low']:+.4f} to {pair['ci_high']:+.4f}), "
        f"permuted by passage p = {pair['p_value']:.4f}",
    ]


def _belief(figures: Mapping[str, float]) -> list[str]:
    """How far the probabilities can be believed, with the temperature that validation chose and without."""
    lines = []
    for key, name in (("log_loss", "log loss"), ("calibration_error", "calibration error")):
        fitted = f", {figures[f'{key}_at_1']:.4f} at 1" if figures["temperature"] != 1 else ""
        lines.append(f"{name:<22}{figures[key]:.4f} at temperature {figures['temperature']:.4g}{fitted}")
    if bound := at_bound(figures["temperature"]):
        lines.append(f"temperature {figures['temperature']:<10.4g}{bound}")
    return lines


def _share(figures: Figures) -> str:
    low, high = figures["ci_low"], figures["ci_high"]
    return f"{figures['accuracy']:.4f}  ({low:.4f} to {high:.4f})  {size(figures)}"
