"""`lrc evaluate`: measures the accuracy of a model, or of predictions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrc.answering import submission
from lrc.answering.options import ScoringOptions
from lrc.answering.partial_scores import PartialScores, remove_partial_scores
from lrc.answering.scored_model import identify_model
from lrc.answering.training_data import warn_of_training_data
from lrc.data.alpaca import Record, question_of, with_question
from lrc.data.score_files import tied_options
from lrc.data.sources import read_questions_to_answer
from lrc.metrics.accuracy import (
    Figures,
    accuracy,
    accuracy_by,
    compare_paired,
    confusion,
    mcnemar,
    mean_credit,
    passages_of,
)
from lrc.metrics.baselines import credit
from lrc.metrics.calibration import at_bound, calibration
from lrc.metrics.option_scores import OptionScores
from lrc.metrics.verdict import NAMES, describe_size, judge, verdict_of
from lrc.runtime.errors import DataError
from lrc.runtime.exit_status import is_step
from lrc.runtime.findings import name_line, print_json, wrap_line
from lrc.runtime.finished_outputs import (
    DONE,
    Inputs,
    is_finished,
    key_of,
    refuse_other_output,
    remember,
    write_once,
)
from lrc.runtime.outputs import new_file, refuse_existing, refuse_file
from lrc.runtime.progress import importing, notify
from lrc.runtime.translation import Message, _, localized

if TYPE_CHECKING:
    from lrc.answering.scoring import Scorer

# Flags on which the figures depend, besides those in `facts`.
FLAGS = ("passage_blind", "sheet", "columns")
LENGTHS = (150, 300, 450)  # characters of a passage, at which the next group of lengths begins

Line = tuple[str, str]  # of the printed figures: a name and a value


def evaluate_model(
    model: str,
    data: Path,
    *,
    options: ScoringOptions,
    output: Path | None,
    scores: Path | None = None,
    passage_blind: bool = False,
    sheet: str | None = None,
    columns: Mapping[str, str] | None = None,
    as_json: bool = False,
    force: bool = False,
) -> None:
    """Answer labelled questions, and print the accuracy.

    Args:
        model: a base or merged model: a folder, or a name on the Hub.
        data: the labelled questions.
        options: adapters, and how questions are answered.
        output: where to write the figures. Scores are kept in a hidden file next to it until it is written, so that the
            same call resumes after a kill. If the same call has already written it, its figures are printed again.
        scores: where to write every option's score, as JSON lines.
        passage_blind: also answer without the passage, to see how much of the accuracy is due to reading.
        sheet: the sheet of a workbook; the first visible one by default.
        columns: see `sources.DataFile`.
        as_json: print the figures as JSON.
        force: overwrite existing outputs.

    Raises:
        LrcError: the model, the data or an output cannot be used.
    """
    if output is not None:
        refuse_file(output, data, force=True)  # whether they may be overwritten turns out below
    if scores is not None:
        refuse_file(scores, data, *filter(None, [output]), force=True)
    # The arguments of the command, with the same names as in `lrc.cli`.
    asked = {"model": model, "data": data, "scores": scores, "passage_blind": passage_blind, "sheet": sheet}
    asked |= {"columns": columns, **asdict(options)}
    if written := output or scores:
        refuse_other_output(written, asked, force=force)
    inputs = Inputs([data])
    records, answers = _read_labelled(data, sheet, columns)
    inputs.refuse_changed()
    with importing():  # what can be refused without it has been
        import lrc.answering.load  # noqa: F401, which takes the seconds
        from lrc.runtime.processes import lock_together

    with nullcontext() if output is None else lock_together(output):
        _evaluate(asked, output, inputs, records, answers, options, as_json=as_json, force=force)


def _evaluate(
    asked: Mapping[str, Any],
    output: Path | None,
    inputs: Inputs,
    records: Sequence[Record],
    answers: Sequence[int],
    options: ScoringOptions,
    *,
    as_json: bool,
    force: bool,
) -> None:
    from lrc.answering.answer import answer, facts, score_lines, write_scores
    from lrc.answering.load import load_scorer
    from lrc.runtime.processes import processes

    scores, partial = asked["scores"], None
    words = []
    if output or scores:
        words = [
            facts(asked["model"], options, inputs.sums[asked["data"]]),
            str(scores),
            *(asked[name] for name in FLAGS),
        ]
    if output is not None:
        partial = PartialScores.for_output(output, words, processes().process_index)
        if not force and is_finished(output, asked, partial.key):
            if processes().is_main_process:
                _print(json.loads(output.read_text(encoding="utf-8")), as_json=as_json)
                notify(DONE.format(output=output))
                remove_partial_scores(output)  # a kill may have left them
            return
        refuse_existing(output, force=force)
    over = force or (partial is not None and partial.exists)  # existing scores are then those of this run
    if scores is not None and output is not None:
        refuse_existing(scores, force=over)
    scorer = load_scorer(asked["model"], options)
    if processes().is_main_process:
        folders = [*options.adapters, Path(asked["model"])]
        warn_of_training_data(asked["data"], inputs.sums[asked["data"]], folders)
    found = answer(scorer, records, partial)
    blind = answer(scorer, list(map(_without_passage, records))) if asked["passage_blind"] else []
    if not processes().is_main_process:
        return
    inputs.refuse_changed()
    if scores is not None and output is not None:
        write_scores(scores, records, found, identify_model(asked["model"], options, scorer.asked), force=over)
    elif scores is not None:
        named = identify_model(asked["model"], options, scorer.asked)
        lines = "".join(score_lines(records, found, named)).encode()
        write_once(scores, asked, inputs, lambda path: path.write_bytes(lines), key=key_of(words), force=force)
    figures = _figures(scorer, records, answers, found, blind)
    if options.votes > 1:
        figures["consistency"] = sum(score.consistent for score in found) / len(found)
    if output is not None and partial is not None:
        content = _document(figures).encode()
        remember(output, asked, partial.key, hashlib.sha256(content).hexdigest(), *filter(None, [scores]))
        with new_file(output, force=force) as temporary:
            temporary.write_bytes(content)
        remove_partial_scores(output)
    _print(figures, as_json=as_json)


def _figures(
    scorer: Scorer,
    records: Sequence[Record],
    answers: Sequence[int],
    found: Sequence[OptionScores],
    blind: Sequence[OptionScores],
) -> dict[str, Any]:
    """All figures about a model's scores; `blind` are the scores without the passage, or empty."""
    predictions = [score.prediction for score in found]
    figures = measure(records, predictions, answers)
    passages = passages_of(map(question_of, records))
    tied = [tied_options(score.log_probs) for score in found]
    figures["ties"] = sum(len(one) > 1 for one in tied)
    figures["accuracy_with_ties_shared"] = mean_credit(credit(tied, answers), passages)["accuracy"]
    figures["probabilities"] = calibration([score.log_probs for score in found], answers, passages, scorer.temperature)
    if blind:
        without = [score.prediction for score in blind]
        test = _compare(predictions, without, answers, passages)
        figures["passage_blind"] = {**accuracy(without, answers, passages), **test}
    return figures


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
    """Print the accuracy of one or two submissions, and whether the two differ.

    Args:
        files: the submissions.
        data: the labelled questions.
        output: where to write the figures.
        sheet: the sheet of a workbook; the first visible one by default.
        columns: see `sources.DataFile`.
        as_json: print the figures as JSON.
        force: overwrite an existing output.

    Raises:
        LrcError: the files are not about the same questions, or the output exists.
    """
    asked = {"predictions": files, "data": data, "sheet": sheet, "columns": columns}
    if output is not None:
        refuse_other_output(output, asked, force=force)
        refuse_file(output, data, *files, force=True)
    inputs = Inputs([data, *files])
    records, answers = _read_labelled(data, sheet, columns)
    predictions = [_read_predictions(file, records, data) for file in files]
    figures = measure(records, predictions[0], answers)
    if len(predictions) == 2:
        second = measure(records, predictions[1], answers)
        figures["second"] = second
        figures |= _compare(predictions[0], predictions[1], answers, passages_of(map(question_of, records)))
    if output is not None:
        content = _document(figures).encode()
        write_once(output, asked, inputs, lambda path: path.write_bytes(content), force=force)
    _print(figures, as_json=as_json)


def measure(records: Sequence[Record], predictions: Sequence[int], answers: Sequence[int]) -> dict[str, Any]:
    """All figures about a set of predictions, including the baselines on the same questions.

    Args:
        records: the questions.
        predictions: the number of the chosen option of each, from 1.
        answers: the number of the right option of each, from 1.

    Returns:
        Figures as JSON values, which `lrc evaluate --output` writes.
    """
    questions = [question_of(record) for record in records]
    groups = [sum(len(question.source_passage) >= length for length in LENGTHS) for question in questions]
    verdict, passages = judge(questions, predictions), passages_of(questions)
    by_length = accuracy_by(groups, predictions, answers, passages)
    return {
        **verdict.figures,
        "verdict": verdict.text,
        "by_position": accuracy_by(answers, predictions, answers, passages),
        "by_length": {_group(k): figures for k, figures in by_length.items()},
        "confusion": confusion(predictions, answers),
        "baselines": verdict.baselines,
        "best_baseline": {"name": verdict.best, "paired": verdict.test, "least_p_value": verdict.least_p_value},
    }


def _compare(
    first: Sequence[int], second: Sequence[int], answers: Sequence[int], passages: Sequence[str]
) -> dict[str, dict[str, float]]:
    """The paired test by passage, and McNemar's test, which assumes that questions are independent."""
    return {
        "paired": compare_paired(first, second, answers, passages),
        "mcnemar": dict(mcnemar(first, second, answers)),
    }


def _read_labelled(data: Path, sheet: str | None, columns: Mapping[str, str] | None) -> tuple[list[Record], list[int]]:
    records = read_questions_to_answer(data, sheet, columns)
    answers = [question_of(record).answer for record in records]
    missing = [record.id for record, number in zip(records, answers, strict=True) if number is None]
    if missing:
        raise DataError(
            _("{data}: {count} questions have no answer, first {missing}; give a labelled file").format(
                data=data, count=len(missing), missing=missing[0]
            )
        )
    return records, [number for number in answers if number is not None]


def _without_passage(record: Record) -> Record:
    return with_question(record, replace(question_of(record), passage=""))


def _read_predictions(file: Path, records: Sequence[Record], data: Path) -> list[int]:
    """The predictions of a submission, in the order of the records."""
    ids = [record.id for record in records]
    answers = submission.match_answers(submission.read_submission(file), ids, str(file), str(data))
    limits = [len(question_of(record).options) for record in records]
    for name, number, limit in zip(ids, answers, limits, strict=True):
        if number > limit:
            raise DataError(
                _("{file}, id {name}: Answer is {number}, expected 1 to {limit}").format(
                    file=file, name=name, number=number, limit=limit
                )
            )
    return answers


def _group(k: int) -> str:
    low, high = (0, *LENGTHS)[k], (*LENGTHS, None)[k]
    return f"{low}+" if high is None else f"{low}-{high - 1}"


def _document(figures: Mapping[str, Any]) -> str:
    return json.dumps(figures, ensure_ascii=False, indent=2) + "\n"


def _print(figures: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(figures)
    else:
        print(*_table(figures), sep="\n")


def _table(figures: dict[str, Any]) -> list[str]:
    """The verdict, then groups of figures with headings."""
    head: list[Line] = [(_("questions"), describe_size(figures)), (_("accuracy"), _share(figures))]
    if figures.get("ties"):
        head.append((_("ties"), _describe_ties(figures)))
    if "second" in figures:
        head += [(_("second"), _share(figures["second"])), *_difference(figures["paired"])]
    if "passage_blind" in figures:
        blind = figures["passage_blind"]
        head += [(_("without the passage"), _share(blind)), *_difference(blind["paired"])]
    belief = _belief(figures["probabilities"]) if "probabilities" in figures else []
    if "consistency" in figures:
        belief.append((_("consistency"), f"{figures['consistency']:.4f}"))
    named: list[Line] = [(NAMES.get(name, name), _baseline(part)) for name, part in figures["baselines"].items()]
    groups: dict[str, list[Line]] = {
        _("Baselines without a model"): named,
        _("By position of the right answer"): _shares(figures["by_position"], _("answer {key}")),
        _("How often each option was chosen"): _confusion(figures["confusion"]),
        _("By length of the passage"): _shares(figures["by_length"], _("{key} characters")),
        _("Probabilities"): belief,
    }
    grouped = [line for name, lines in groups.items() if lines for line in ("", localized(name), *_spell(lines))]
    verdict = verdict_of(figures)
    told = verdict.tell(None if is_step() else verdict.next)
    return [*wrap_line(localized(told)), "", *_spell(head), *grouped]


def _describe_ties(figures: Mapping[str, Any]) -> Message:
    """In how many questions options share the highest score, and what the accuracy is without an arbitrary choice."""
    text = _(
        "{ties:,} of {n:,} answers are arbitrary, since options share the highest score (of equal ones, the first is "
        "taken); credited in part, the accuracy is {accuracy_with_ties_shared:.4f}"
    )
    return text.format(**figures)


def _baseline(figures: Figures) -> Message:
    """A baseline's accuracy, and in how many questions it cannot tell its best options apart."""
    if not figures.get("ties"):  # which an earlier version did not count
        return _share(figures)
    return _("{share}  ties: {ties:.0f}").format(share=_share(figures), ties=figures["ties"])


def _spell(lines: Sequence[Line]) -> Iterator[str]:
    return (name_line(name, value, 22) for name, value in lines)


def _shares(parts: Mapping[Any, Figures], name: Message) -> list[Line]:
    text = _("{share}  n = {n:.0f}")
    return [(name.format(key=key), text.format(share=_share(part), n=part["n"])) for key, part in parts.items()]


def _confusion(table: Sequence[Sequence[int]]) -> list[Line]:
    """For each right answer that occurs, how often each option was chosen."""
    width = max(len(str(count)) for row in table for count in row)
    shown = {k: "  ".join(f"{count:>{width}}" for count in row) for k, row in enumerate(table, start=1) if any(row)}
    return [(_("where {k} is right").format(k=k), counts) for k, counts in shown.items()]


def _difference(pair: Mapping[str, float]) -> list[Line]:
    return [
        (
            _("only one is right"),
            _("{first_only} (first) and {second_only} (second), McNemar's exact test p = {p_value_mcnemar:.4f}").format(
                **pair
            ),
        ),
        (
            _("difference"),
            _("{difference:+.4f} ({ci_low:+.4f} to {ci_high:+.4f}), permuted by passage p = {p_value:.4f}").format(
                **pair
            ),
        ),
    ]


def _belief(figures: Mapping[str, float]) -> list[Line]:
    """How well the probabilities are calibrated, with the fitted temperature and with 1."""
    lines: list[Line] = []
    temperature = figures["temperature"]
    for key, name in (("log_loss", _("log loss")), ("calibration_error", _("calibration error"))):
        text = _("{value:.4f} at temperature {temperature:.4g}")
        if temperature != 1:
            text = _("{value:.4f} at temperature {temperature:.4g}, {at_1:.4f} at 1")
        at_1 = figures.get(f"{key}_at_1", 0.0)
        lines.append((name, text.format(value=figures[key], temperature=temperature, at_1=at_1)))
    if bound := at_bound(temperature):
        lines.append((_("temperature {temperature:.4g}").format(temperature=temperature), bound))
    return lines


def _share(figures: Figures) -> Message:
    return _("{accuracy:.4f}  ({ci_low:.4f} to {ci_high:.4f})").format(**figures)
