"""The public C3 format → questions.

C3 (Sun et al. 2020, "Investigating Prior Knowledge for Challenging Chinese Machine Reading Comprehension") is
a JSON array of `[[passage lines], [{"question", "choice", "answer"}, …], id]`, where `answer` is the text of
the right choice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lrc.cleaning import clean
from lrc.enumeration import TAKEN_OFF, without_enumeration
from lrc.errors import DataError
from lrc.findings import Finding
from lrc.questions import MAX_OPTIONS, MIN_OPTIONS, Question
from lrc.workbook import Workbook

_SKIP = "correct it"


@dataclass(frozen=True)
class _Asked:
    """One question as the file has it, and where."""

    passage: Any
    item: Any
    id: str
    row: int


def read_c3(content: list[Any], path: Path) -> Workbook:
    """Read the questions of a C3 file. Their count through it, from 1, stands for a workbook's row.

    A question's id is the passage's id and its number there, such as `7-66-1`. Text is cleaned as in a
    workbook.

    Args:
        content: what the JSON file holds.
        path: where it is from.

    Raises:
        DataError: an entry has another form, or there are no questions.
    """
    asked = list(_asked(content, path.name))
    if not asked:
        raise DataError(f"{path.name}: no questions in it; expected C3 JSON with at least one")
    labelled = any(isinstance(one.item, dict) and one.item.get("answer") for one in asked)
    questions, findings = [], []
    for one in asked:
        try:
            questions.append(_question(one, labelled))
        except ValueError as error:
            findings.append(Finding("error", "c3-question", path.name, f"id {one.id} {error}; {_SKIP}", one.row))
    if findings and not labelled:
        raise DataError(*findings)
    for place, question in enumerate(questions):
        if bare := without_enumeration(question.options):
            questions[place] = replace(question, options=bare)
            told = f"id {question.id} {TAKEN_OFF}"
            findings.append(Finding("repair", "enumeration", path.name, told, question.row))
    findings += _twice(questions, path.name)
    return Workbook(path, None, labelled, tuple(questions), tuple(findings), len(asked))


def _asked(content: list[Any], file: str) -> Iterator[_Asked]:
    row = 0
    for number, entry in enumerate(content, start=1):
        match entry:
            case [list() as lines, list() as items, str() | int() as name]:
                for place, item in enumerate(items, start=1):
                    row += 1
                    yield _Asked(lines, item, f"{name}-{place}", row)
            case _:
                raise DataError(f"{file}, entry {number}: is not [[passage lines], [questions], id] as in C3")


def _question(asked: _Asked, labelled: bool) -> Question:
    """Make the question.

    Raises:
        ValueError: it cannot be one; the message goes after its id.
    """
    if not isinstance(asked.item, dict):
        raise ValueError("is no object with question, choice and answer")
    passage = "\n".join(_cleaned(line, "passage") for line in asked.passage)
    question = _cleaned(asked.item.get("question"), "question")
    choices = asked.item.get("choice")
    if not isinstance(choices, list) or not MIN_OPTIONS <= len(choices) <= MAX_OPTIONS:
        raise ValueError(f"has not {MIN_OPTIONS} to {MAX_OPTIONS} choices")
    options = tuple(_cleaned(choice, "choice") for choice in choices)
    if not passage.strip() or not question or not all(options):
        raise ValueError("has an empty passage, question or choice")
    answer = _answer(asked.item, options) if labelled else None
    return Question(asked.id, passage, question, options, answer, asked.row)


def _answer(item: dict[str, Any], options: tuple[str, ...]) -> int:
    text = _cleaned(item.get("answer"), "answer")
    if text not in options:
        raise ValueError(f"has the answer 「{text[:20]}」, which is none of its choices")
    return options.index(text) + 1


def _cleaned(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"has a {name} that is no text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"has half a surrogate pair in its {name}") from None
    return clean(value)[0]


def _twice(questions: list[Question], file: str) -> Iterator[Finding]:
    """Warn where the right choice's text stands twice: C3 does not say which of the two it means."""
    for question in questions:
        if question.answer and question.options.count(question.options[question.answer - 1]) > 1:
            text = f"id {question.id} has its right choice twice; the first counts as right"
            yield Finding("warning", "ambiguous-answer", file, text, question.row)
