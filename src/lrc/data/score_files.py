"""Reads files of option scores: those of `lrc generate --scores`, and the samples of lm-evaluation-harness.

Both are JSON lines with one line per question. lrc's have `scores`, log-probabilities. The harness's (`--log_samples`,
a multiple-choice task) have the log-likelihood of each choice in `filtered_resps` or `resps`, and the record in `doc`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, log
from operator import eq
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from lrc.data.harness_targets import READINGS, Target, read_target
from lrc.data.questions import MAX_OPTIONS, MIN_OPTIONS, Question, hash_content
from lrc.data.tables.json_array import DoubledKeyError, unique_keys
from lrc.runtime.errors import DataError, cannot_read
from lrc.runtime.exit_status import is_first
from lrc.runtime.findings import Finding, print_findings
from lrc.runtime.library_errors import describe_error
from lrc.runtime.translation import _

LEAST = 1e-300  # stands for a probability that is too small for a float
_ABOUT = ("passage", "question", "options", "row")  # the parts of a question that a line or its `doc` may hold

TIE = 1e-6  # the largest difference of two log-probabilities that is due to rounding: float32 has seven digits

ROUNDED = 0.02  # how far a sum of probabilities with two decimals may be from 1

Parsed = TypeVar("Parsed")


class ScoredModel(NamedTuple):
    """The model that scores are of, as far as their file names it."""

    name: str = ""
    sha256: str = ""  # of its weights
    asked: Mapping[str, Any] = MappingProxyType({})  # how: template, answer_style, votes …; empty if not known

    @property
    def identity(self) -> str:
        """What two files of the same model have in common; empty if that is not known."""
        return self.sha256 or self.name

    def may_be(self, other: ScoredModel) -> bool:
        """Whether both are the same model, and nothing tells that it was asked in another way."""
        return self.identity == other.identity and not self.describe_difference(other)

    def describe_difference(self, other: ScoredModel) -> tuple[str, ...]:
        """In what both were asked in other ways, such as `votes: 1 / 4`, as far as both tell."""
        keys = [key for key in self.asked if key in other.asked and self.asked[key] != other.asked[key]]
        return tuple(f"{key}: {self.asked[key]} / {other.asked[key]}" for key in keys)


@dataclass(frozen=True)
class ScoredQuestion:
    """The scores of one question, from one line."""

    id: str | None  # None if the line has none
    scores: tuple[float, ...]  # of each option, natural logarithms; -inf for an option that cannot be chosen
    probabilities: tuple[float, ...] = ()  # of each option; empty if the line has none
    prediction: int | None = None  # the number of an option, from 1; None if the line has none
    about: Mapping[str, Any] = field(default_factory=dict)  # what the line says of its question, see _ABOUT
    model: ScoredModel = ScoredModel()
    content: str = ""  # see `questions.hash_content`; empty if the line has neither a hash nor all of the texts
    target: Target | None = None  # of a sample of the harness

    @property
    def calibrated(self) -> tuple[float, ...]:
        """The logarithms of the probabilities, which are at the model's temperature; without these, the scores."""
        pairs = zip(self.probabilities, self.scores, strict=False)
        return tuple(log(max(one, LEAST)) if isfinite(score) else score for one, score in pairs) or self.scores


def read_scores(path: Path) -> list[ScoredQuestion]:
    """Read a file of scores.

    Returns:
        The questions in the order of the lines; the harness's in the order of their `doc_id`.

    Raises:
        DataError: the file cannot be read or is empty, or a line has no scores; one finding for each such line. Or its
            lines name several models, or several ways of asking one.
    """
    found = parse_lines(path, _parse_line, _("give what `lrc generate --scores` writes"))
    if not found:
        raise DataError(_("{path}: holds no scores; give what `lrc generate --scores` writes").format(path=path))
    first = found[0][1].model
    if other := next((one.model for _place, one in found if one.model.identity != first.identity), None):
        unnamed = _("a model without a name")
        text = _("{path}: has lines of {one} and of {other}; give a file for each model")
        raise DataError(text.format(path=path, one=first.name or unnamed, other=other.name or unnamed))
    if ways := next(filter(None, (first.describe_difference(one.model) for _place, one in found)), ()):
        text = _("{path}: its lines were asked in different ways ({ways}); give a file for each way")
        raise DataError(text.format(path=path, ways=ways))
    return [scored for _place, scored in sorted(found, key=lambda one: one[0])]


def parse_lines(path: Path, parse: Callable[[Any, int], Parsed], cure: str) -> list[Parsed]:
    """Parse the JSON lines of a file; empty lines are passed over.

    Args:
        path: the file.
        parse: takes the value of a line, and its number; raises ValueError, TypeError, KeyError or
            OverflowError if that is wrong.
        cure: what to do about wrong lines.

    Raises:
        DataError: the file cannot be read or is not UTF-8, or lines are wrong; one finding for each of these.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        text = _("{path}: byte {start} is not UTF-8; {cure}")
        raise DataError(text.format(path=path, start=error.start, cure=cure)) from error
    except OSError as error:
        raise DataError(cannot_read(path, error)) from error
    parsed, findings = list[Parsed](), list[str]()
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip():
                parsed.append(parse(json.loads(line, object_pairs_hook=unique_keys), number))
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            text = _("{path}, line {number}: {reason}; {cure}")
            findings.append(text.format(path=path, number=number, reason=_explain(error), cure=cure))
    if findings:
        raise DataError(*findings)
    return parsed


def _explain(error: Exception) -> str:
    """What is wrong with a line, from the error that it raised."""
    if isinstance(error, KeyError):
        return _("{name} is missing").format(name=error.args[0])
    if isinstance(error, DoubledKeyError):
        return _("key {name} appears twice").format(name=error)
    if isinstance(error, OverflowError):
        return _("holds a number that is too large")
    return describe_error(error)


def tied_options(log_probs: Sequence[float | None]) -> tuple[int, ...]:
    """The numbers of the options that share the highest log-probability, ascending; one if none is tied.

    A prediction is the one with the highest, the first of equal ones; which one that is says nothing about a tie.

    Args:
        log_probs: of each option; -inf or None for one that cannot be chosen.
    """
    highest = max(one for one in log_probs if one is not None)
    return tuple(number for number, one in enumerate(log_probs, start=1) if one is not None and one >= highest - TIE)


def match_scores(
    path: Path,
    scored: Sequence[ScoredQuestion],
    questions: Sequence[Question],
    data: Path,
    *,
    calibrated: bool = False,
) -> NDArray[Any]:
    """Arrange the scores of a file in the order of `questions`; see `align`.

    Args:
        path: the file of scores, for errors.
        scored: what it holds.
        questions: the questions that are scored.
        data: their file, for errors.
        calibrated: take the logarithms of the probabilities of each line that has them, instead of its scores.

    Returns:
        (questions, largest number of options) float64; -inf where there is no such option, or it has no text.

    Raises:
        DataError: the two files are not about the same questions, or an option has no score.
    """
    placed = align(path, scored, questions, data)
    width = max(len(question.options) for question in questions)
    matrix, findings = np.full((len(questions), width), -np.inf), []
    for place, (one, question) in enumerate(zip(placed, questions, strict=True)):
        if len(one.scores) != len(question.options):
            text = _(
                "{path}: question {id} has {count} scores, expected one for each of its {options} options; score "
                "{data} again"
            )
            count, options = len(one.scores), len(question.options)
            findings.append(text.format(path=path, id=question.id, count=count, options=options, data=data.name))
            continue
        values = one.calibrated if calibrated else one.scores
        for number in question.choosable:
            matrix[place, number - 1] = values[number - 1]
        if not np.isfinite(matrix[place, np.array(question.choosable) - 1]).all():
            findings.append(
                _("{path}: question {id} has an option without a score; score {name} again").format(
                    path=path, id=question.id, name=data.name
                )
            )
    if findings:
        raise DataError(*findings)
    return matrix


def align(
    path: Path, scored: Sequence[ScoredQuestion], questions: Sequence[Question], data: Path
) -> Sequence[ScoredQuestion]:
    """Put the lines of a file into the order of `questions`.

    They stay in their order if their ids are those of the questions in order, or if none has an id and their number is
    right, which is reported unless their texts tell the order. Otherwise they are matched by id, which must not repeat.
    What the lines say of their questions must agree with these: texts, or a hash of them, and of most the answer.

    Args:
        path: the file of scores, for errors.
        scored: what it holds.
        questions: the questions that are scored.
        data: their file, for errors.

    Raises:
        DataError: the two files are not about the same questions, or ids repeat.
    """
    placed = _place(path, scored, questions, data)
    pairs = list(zip(placed, questions, strict=True))
    repeat = len({question.id for question in questions}) < len(questions)  # only then the row has to tell
    if other := [(question, part) for one, question in pairs if (part := _differs(one, question, repeat))]:
        (question, part), count = other[0], len(other)
        text = _(
            "{path}: differs from {data} in {count:,} questions, first question {id}, whose {part} is another; "
            "score {data} with that model"
        )
        raise DataError(text.format(path=path, count=count, data=data.name, id=question.id, part=part))
    _refuse_other_answers(path, pairs, data)
    if is_first() and any(one.id is None for one in placed) and not prove_order(zip(placed, placed, strict=True)):
        text = _("its lines have no ids; they were taken in the order of {data}").format(data=data.name)
        print_findings([Finding("warning", "no-ids", path.name, text)])
    warn_of_probabilities(path, placed)
    return placed


def warn_of_probabilities(path: Path, scored: Sequence[ScoredQuestion]) -> None:
    """Say so if the scores of each line are at least 0 and sum to 1, but for rounding; logarithms are below 0."""
    lines = [[score for score in one.scores if isfinite(score)] for one in scored]
    if is_first() and all(min(line) >= 0 and abs(sum(line) - 1) <= ROUNDED for line in lines):
        text = _(
            "its scores are at least 0 and sum to 1 in each line, like probabilities, and are taken as logarithms; "
            "write the natural logarithm of each probability into scores, null for 0"
        )
        print_findings([Finding("warning", "probabilities", path.name, text)])


def prove_order(pairs: Iterable[tuple[ScoredQuestion, ScoredQuestion]]) -> bool:
    """Whether pairs of lines that do not differ tell of which question they are: each pair of another one."""
    texts = [_shared_texts(one, other) for one, other in pairs]
    return "" not in texts and len(set(texts)) == len(texts)


def _shared_texts(one: ScoredQuestion, other: ScoredQuestion) -> str:
    """What two lines that do not differ both tell of the texts of their question; empty if that is nothing."""
    if one.content and other.content:
        return one.content
    parts = sorted((one.about.keys() & other.about.keys()) - {"row"})
    return json.dumps([one.about[part] for part in parts]) if parts else ""


def _differs(scored: ScoredQuestion, question: Question, by_row: bool) -> str:
    """The first part in which a line's question differs from a question, but for white space; empty if none does.

    Where a line has a hash of the texts only, that is its `content`.
    """
    for part, said in scored.about.items():
        own = getattr(question, part)
        if part == "row":
            same = own is None or own == said or not by_row
        elif part == "options":
            same = list(map(_strip, own)) == list(map(_strip, said))
        else:
            same = _strip(own) == _strip(said)
        if not same:
            return part
    return "content" if scored.content not in ("", question.content) else ""


def _refuse_other_answers(path: Path, pairs: Sequence[tuple[ScoredQuestion, Question]], data: Path) -> None:
    """Refuse samples of the harness whose right answers are mostly others than those of the questions.

    Raises:
        DataError: they are, however the harness's task names them.
    """
    labelled = [(one.target, question) for one, question in pairs if one.target and question.answer is not None]
    read = [[reading(target, question.options) for reading in READINGS] for target, question in labelled]
    count = sum(any(numbers) for numbers in read)
    answers = [question.answer for _target, question in labelled]
    right = max(sum(map(eq, numbers, answers)) for numbers in zip(*read, strict=True)) if read else 0
    if 2 * right >= count:
        return
    text = _(
        "{path}: its `target` is another answer than that of {data} in {wrong:,} of {count:,} questions, so that its "
        "choices are not the options in their order; give the samples of a task whose choices are the options of {data}"
    )
    raise DataError(text.format(path=path, data=data.name, wrong=count - right, count=count))


def _strip(text: str) -> str:
    return "".join(text.split())


def _place(
    path: Path, scored: Sequence[ScoredQuestion], questions: Sequence[Question], data: Path
) -> Sequence[ScoredQuestion]:
    ids, wanted = [one.id for one in scored], [question.id for question in questions]
    if len(ids) == len(wanted) and (ids == wanted or set(ids) == {None}):
        return scored
    by_id = {one.id: one for one in scored}
    if len(by_id) < len(ids) or len(set(wanted)) < len(wanted):
        raise DataError(
            _(
                "{path}: its {count} questions are not those of {data} in their order, and ids that "
                "repeat cannot be matched; score that file"
            ).format(path=path, count=len(ids), data=data)
        )
    if missing := [name for name in wanted if name not in by_id]:
        raise DataError(
            _("{path}: has no scores of {count} questions of {data}, first {missing}; score {data} again").format(
                path=path, count=len(missing), data=data, missing=missing[0]
            )
        )
    if len(ids) > len(wanted):
        raise DataError(
            _("{path}: has scores of {count} questions, {data} has {count2}; score that file").format(
                path=path, count=len(ids), data=data, count2=len(wanted)
            )
        )
    return [by_id[name] for name in wanted]


def _parse_line(line: Any, number: int) -> tuple[int, ScoredQuestion]:
    """The position of a line's question in the file, and its scores.

    Raises:
        ValueError, TypeError: it has none.
    """
    if not isinstance(line, dict):
        raise ValueError(_("is not a JSON object"))
    if "scores" in line:
        name, scores = line.get("id"), parse_scores(line["scores"])
        probabilities = parse_probabilities(line.get("probabilities"), len(scores))
        name = None if name is None else str(name)
        about, model = _read_about(line), _read_model(line)
        content = _read_content(line, about)
        return number, ScoredQuestion(name, scores, probabilities, line.get("prediction"), about, model, content)
    responses = line.get("filtered_resps", line.get("resps"))
    if not isinstance(responses, list):
        raise ValueError(_("has neither scores nor filtered_resps"))
    document, place = line.get("doc"), line.get("doc_id", number)
    name = document.get("id") if isinstance(document, dict) else None
    if type(place) is not int:
        raise ValueError(_("doc_id is {place}, expected a whole number").format(place=repr(place)))
    about = _read_about(document) if isinstance(document, dict) else {}
    scores = parse_scores(list(map(_unwrap, responses)))
    name, content = None if name is None else str(name), _read_content({}, about)
    return place, ScoredQuestion(name, scores, about=about, content=content, target=read_target(line))


def _read_about(line: Mapping[str, Any]) -> dict[str, Any]:
    """What a line or a document says of its question; values of other types have another meaning."""
    kinds = {"passage": str, "question": str, "options": list, "row": int}
    found = {part: line[part] for part in _ABOUT if type(line.get(part)) is kinds[part]}
    if not all(isinstance(text, str) for text in found.get("options", ())):
        del found["options"]
    return found


def _read_content(line: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """The hash of a line's question: what it says, or that of its texts if it has all of them."""
    if isinstance(said := line.get("content_sha256"), str):
        return said
    if not {"passage", "question", "options"} <= about.keys():
        return ""
    return hash_content(about["passage"], about["question"], about["options"])


def _read_model(line: Mapping[str, Any]) -> ScoredModel:
    name, sha256 = (line.get(key) for key in ("model", "model_sha256"))
    asked = line.get("asked")
    return ScoredModel(
        name if isinstance(name, str) else "",
        sha256 if isinstance(sha256, str) else "",
        asked if isinstance(asked, dict) else {},
    )


def _unwrap(response: Any) -> Any:
    """The log-likelihood of one choice: the first element of a list or of two nested ones, perhaps as text."""
    while isinstance(response, list) and response:
        response = response[0]
    try:
        return float(response) if isinstance(response, str) else response
    except ValueError:
        raise ValueError(_("its scores are not all numbers")) from None


def parse_scores(scores: Any) -> tuple[float, ...]:
    """The scores of a line; -inf for an option that cannot be chosen.

    Raises:
        ValueError: they are no list of numbers of which at least one is finite.
    """
    if not isinstance(scores, list) or not MIN_OPTIONS <= len(scores) <= MAX_OPTIONS:
        raise ValueError(
            _("its scores are not a list of {min_options} to {max_options}").format(
                min_options=MIN_OPTIONS, max_options=MAX_OPTIONS
            )
        )
    numbers = [float("-inf") if score is None else score for score in scores]
    if any(isinstance(score, bool) or not isinstance(score, int | float) for score in numbers):
        raise ValueError(_("its scores are not all numbers"))
    if not any(map(isfinite, numbers)) or any(score != score or score == float("inf") for score in numbers):
        raise ValueError(_("its scores are not finite"))
    return tuple(map(float, numbers))


def parse_probabilities(probabilities: Any, count: int) -> tuple[float, ...]:
    """The probabilities of a line; empty if it has none.

    Raises:
        ValueError: they are not one for each of the scores.
    """
    found = probabilities or []
    numbers = isinstance(found, list) and all(type(one) in (int, float) and 0 <= one <= 1 for one in found)
    if not numbers or (found and len(found) != count):
        text = _("probabilities are {probabilities}, expected {size} from 0 to 1")
        raise ValueError(text.format(probabilities=str(found), size=count))
    return tuple(map(float, found))
