"""The `input` text of an Alpaca record: writes its two layouts and parses them back."""

from __future__ import annotations

import re
from typing import Literal

from lrc.data.questions import MAX_OPTIONS, MIN_OPTIONS, Question

Layout = Literal["lines", "reference"]
QuestionParts = tuple[str, str, tuple[str, ...]]  # passage, question, options

# All that str.splitlines() breaks at, so that no program sees a line break inside a question or an option.
_LINE_BREAKS = re.compile("\r\n|[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_NUMBERED = re.compile(rf"([1-{MAX_OPTIONS}]): (.*)", re.DOTALL)
# The reference layout is parsed with exactly four options, as in all of the reference run's workbooks.
_MARKS = ("問題:", "1: ", "2: ", "3: ", "4: ")
_ONE_MORE = "5: "


def write_input(question: Question, layout: Layout) -> str:
    """Write passage, question and options as one text.

    Args:
        question: the question; a line break in it or in an option becomes a space in the layout `lines`.
        layout: `lines` puts the question and each option on a line of its own; `reference` is, byte for byte, what the
            reference run's converter wrote.
    """
    if layout == "reference":
        joined = "".join(f"{number}: {option}" for number, option in enumerate(question.options, start=1))
        return f"{question.passage}問題:{question.question}{joined}\n"
    return write_listed(question)


def write_listed(question: Question, *, number_after: bool = False) -> str:
    """Write passage, question and options in the layout `lines`.

    Args:
        question: the question.
        number_after: write the number of an option after its text, `甲＝1`, which is no layout of a record.
    """
    numbered = enumerate(map(one_line, question.options), start=1)
    lines = (f"{text}＝{number}" if number_after else f"{number}: {text}" for number, text in numbered)
    return "\n".join((write_unlisted(question), *lines))


def write_unlisted(question: Question) -> str:
    """Write passage and question in the layout `lines`, without the options."""
    return f"{question.passage}\n問題：{one_line(question.question)}"


def parse_input(text: str) -> QuestionParts | None:
    """Parse passage, question and options from an `input` in either layout.

    Returns:
        None if the text has neither layout, or can be split in more than one way.
    """
    return _parse_lines(text) or _parse_reference(text)


def one_line(text: str) -> str:
    """Replace every line break by a space."""
    return _LINE_BREAKS.sub(" ", text)


def _parse_lines(text: str) -> QuestionParts | None:
    """Parse the layout `lines` from its end, where the question and the options have a line each."""
    lines = text.split("\n")
    options: list[str] = []
    while len(lines) > 2 and (numbered := _NUMBERED.fullmatch(lines[-1])):
        lines.pop()
        options.insert(0, numbered[2])
        if numbered[1] == "1":
            break
    last = lines.pop()
    if not lines or not last.startswith("問題：") or not MIN_OPTIONS <= len(options) <= MAX_OPTIONS:
        return None
    parts = "\n".join(lines), last.removeprefix("問題："), tuple(options)
    return parts if write_input(Question("", *parts), "lines") == text else None


def _parse_reference(text: str) -> QuestionParts | None:
    """Parse the layout `reference`, if its markers can only be matched in one way."""
    first, last = _find_marks_forwards(text), _find_marks_backwards(text)
    if first is None or first != last or not text.endswith("\n"):
        return None
    starts = [0, *(place + len(mark) for place, mark in zip(first, _MARKS, strict=True))]
    passage, question, *options = (text[a:b] for a, b in zip(starts, [*first, len(text) - 1], strict=True))
    return None if _ONE_MORE in options[-1] else (passage, question, tuple(options))


def _find_marks_forwards(text: str) -> list[int] | None:
    """The offset of each marker, the earliest one after the marker before it; None if one is missing."""
    places, start = [], 0
    for mark in _MARKS:
        place = text.find(mark, start)
        if place < 0:
            return None
        places.append(place)
        start = place + len(mark)
    return places


def _find_marks_backwards(text: str) -> list[int] | None:
    """The offset of each marker, the latest one before the marker after it; None if one is missing."""
    places, end = [], len(text)
    for mark in reversed(_MARKS):
        place = text.rfind(mark, 0, end)
        if place < 0:
            return None
        places.append(place)
        end = place
    return places[::-1]
