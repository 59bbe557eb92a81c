"""Reads questions from JSON in the format of the public C3 dataset.

C3 (Sun et al. 2020, "Investigating Prior Knowledge for Challenging Chinese Machine Reading Comprehension") is
a JSON array of `[[passage lines], [{"question", "choice", "answer"}, …], id]`, where `answer` is the text of
the right choice. Its number or letter is understood, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lrc.data.questions import MAX_OPTIONS, MIN_OPTIONS, Question
from lrc.data.tables.answer_marks import FROM_ZERO, CountedFromZeroError, read_answers
from lrc.data.tables.cleaning import clean, unpaired_surrogate
from lrc.data.tables.enumeration import LEFT, REMOVED, remove_enumerations
from lrc.data.tables.workbook import Workbook
from lrc.runtime.errors import DataError
from lrc.runtime.findings import Finding, Level
from lrc.runtime.translation import _, message_of

_CURE = _("correct it")


@dataclass(frozen=True)
class _Entry:
    """One question as the file has it."""

    passage: list[Any]  # its lines
    item: Any  # the object with question, choices and answer, not checked yet
    id: str
    row: int


def read_c3(content: list[Any], path: Path) -> Workbook:
    """Read the questions of a C3 file; text is cleaned as in a workbook.

    Args:
        content: the JSON array.
        path: the file that it is from, for findings.

    Returns:
        The good questions, and a finding for each bad one. The id of a question is that of its passage and its number
        there, from 1, such as `7-66-1`; its `row` is its number in the file.

    Raises:
        DataError: an entry has another form, there are no questions, the answers count from 0, or a question of a file
            without answers is bad.
    """
    entries = list(_read_entries(content, path.name))
    if not entries:
        raise DataError(_("{file}: no questions in it; expected C3 JSON with at least one").format(file=path.name))
    labelled = any(isinstance(one.item, dict) and one.item.get("answer") not in (None, "") for one in entries)
    questions: list[Question] = []
    answers: list[str] = []
    findings: list[Finding] = []
    for entry in entries:
        try:
            questions.append(_make_question(entry))
            answers.append(_read_answer(entry.item) if labelled else "")
        except ValueError as error:
            findings.append(_make_error(path, entry.id, entry.row, message_of(error)))
            del questions[len(answers) :]  # the question is good, its answer is not
    if labelled:
        questions, errors = _add_answers(questions, answers, path)
        findings += errors
    elif findings:
        raise DataError(*findings)
    found, left = remove_enumerations(
        [question.options for question in questions], [question.question for question in questions]
    )
    for place, bare in found.items():
        questions[place] = replace(questions[place], options=bare)
    findings += [_make_finding("repair", "enumeration", path, questions[place], REMOVED) for place in found]
    findings += [_make_finding("warning", "enumeration", path, questions[place], LEFT) for place in left]
    findings += _warn_of_ambiguous_answers(questions, path)
    return Workbook(path, None, labelled, tuple(questions), tuple(findings), len(entries))


def _make_error(path: Path, name: str, row: int, text: str) -> Finding:
    name = name.encode(errors="backslashreplace").decode()  # half of a character cannot be printed
    return Finding(
        "error", "c3-question", path.name, _("id {name} {text}; {skip}").format(name=name, text=text, skip=_CURE), row
    )


def _make_finding(level: Level, kind: str, path: Path, question: Question, text: str) -> Finding:
    return Finding(level, kind, path.name, _("id {id} {text}").format(id=question.id, text=text), question.row)


def _add_answers(questions: list[Question], answers: list[str], path: Path) -> tuple[list[Question], list[Finding]]:
    """The questions with an answer that is understood, and findings about the others and about repairs.

    Raises:
        DataError: the answers count from 0.
    """
    try:
        readings = read_answers(answers, [question.options for question in questions], by_text=True)
    except CountedFromZeroError as error:
        first, count = questions[error.places[0]], len(error.places)
        raise DataError(
            _(
                "{file}, row {row}: id {id} has the answer 0, {count:,} questions in all, and {others} has {last}: "
                "they count from 0; {cure}"
            ).format(
                file=path.name,
                row=first.row,
                id=first.id,
                count=count,
                others=error.count or _("none"),
                last=error.last,
                cure=FROM_ZERO,
            )
        ) from error
    answered, findings = [], []
    for question, text, reading in zip(questions, answers, readings, strict=True):
        if reading.number is None:
            shown = _("has the answer 「{text}」, which is not one of its choices").format(text=text[:20])
            findings.append(_make_error(path, question.id, question.row or 0, shown))
            continue
        answered.append(replace(question, answer=reading.number))
        if question.options[reading.number - 1] != text:
            shown = _("has the answer 「{text}」; read as choice {number}").format(
                text=text[:20], number=reading.number
            )
            findings.append(_make_finding("repair", "answer", path, question, shown))
    return answered, findings


def _read_entries(content: list[Any], file: str) -> Iterator[_Entry]:
    row = 0
    for number, entry in enumerate(content, start=1):
        match entry:
            case [list() as lines, list() as items, str() | int() as name]:
                passage = clean(str(name))[0]
                for place, item in enumerate(items, start=1):
                    row += 1
                    yield _Entry(lines, item, f"{passage}-{place}", row)
            case _:
                raise DataError(
                    _("{file}, entry {number}: is not [[passage lines], [questions], id] as in C3").format(
                        file=file, number=number
                    )
                )


def _make_question(entry: _Entry) -> Question:
    """Make a question without its answer.

    Raises:
        ValueError: the entry is not a question; the message follows its id.
    """
    if not isinstance(entry.item, dict):
        raise ValueError(_("is not an object with question, choice and answer"))
    name = _clean(entry.id, "id")
    passage = "\n".join(_clean(line, "passage") for line in entry.passage)
    question = _clean(entry.item.get("question"), "question")
    choices = entry.item.get("choice")
    if not isinstance(choices, list) or not MIN_OPTIONS <= len(choices) <= MAX_OPTIONS:
        raise ValueError(
            _("does not have {min_options} to {max_options} choices").format(
                min_options=MIN_OPTIONS, max_options=MAX_OPTIONS
            )
        )
    options = tuple(_clean(choice, "choice") for choice in choices)
    if not passage.strip() or not question or not all(options):
        raise ValueError(_("has an empty passage, question or choice"))
    return Question(name, passage, question, options, None, entry.row)


def _read_answer(item: dict[str, Any]) -> str:
    answer = item.get("answer")
    return str(answer) if type(answer) is int else _clean(answer, "answer")


def _clean(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(_("has no text as its {name}").format(name=name))
    if unpaired_surrogate(value):
        raise ValueError(_("has an unpaired surrogate in its {name}").format(name=name))
    return clean(value)[0]


def _warn_of_ambiguous_answers(questions: list[Question], path: Path) -> Iterator[Finding]:
    """Warn if the text of the right choice appears twice, since C3 does not tell which of the two is meant."""
    for question in questions:
        if question.answer and question.options.count(question.options[question.answer - 1]) > 1:
            text = _("has its right choice twice; the first counts as right")
            yield _make_finding("warning", "ambiguous-answer", path, question, text)
