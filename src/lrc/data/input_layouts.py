"""The text of an Alpaca record's input: its two layouts, written and read back."""

from __future__ import annotations

import re
from typing import Literal

from lrc.data.questions import MAX_OPTIONS, MIN_OPTIONS, Question

Layout = Literal["lines", "reference"]
QuestionParts = tuple[str, str, tuple[str, ...]]  # passage, question, options

# What str.splitlines() breaks at: no reader of a record should see a line break inside a question or an
# option.
_LINE_BREAKS = re.compile("\r\n|[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_NUMBERED = re.compile(rf"([1-{MAX_OPTIONS}]): (.*)", re.DOTALL)
# The reference layout is parsed with four options only, which all of the reference run's workbooks have.
_MARKS = ("問題:", "1: ", "2: ", "3: ", "4: ")
_ONE_MORE = "5: "


def write_input(question: Question, layout: Layout) -> str:
    """Write passage, question and options in one text.

    Args:
        layout: `lines` gives question and options a line each; `reference` is, byte for byte, what the
            reference run's converter wrote.
    """
    options = list(enumerate(question.options, start=1))
    if layout == "reference":
        glued = "".join(f"{number}: {option}" for number, option in options)
        return f"{question.passage}問題:{question.question}{glued}\n"
    lines = (f"{number}: {one_line(option)}" for number, option in options)
    return "\n".join((write_unlisted(question), *lines))


def write_unlisted(question: Question) -> str:
    """Write passage and question as `lines` does, without the options."""
    return f"{question.passage}\n問題：{one_line(question.question)}"


def parse_input(text: str) -> QuestionParts | None:
    """Read passage, question and options out of an input in either layout.

    Returns:
        None where the text has neither layout, or could be read in more than one way.
    """
    return _parse_lines(text) or _parse_reference(text)


def one_line(text: str) -> str:
    """The text with every line break in it turned into a space."""
    return _LINE_BREAKS.sub(" ", text)


def _parse_lines(text: str) -> QuestionParts | None:
    """Read the `lines` layout from its end, where question and options have a line each."""
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
    """Read the `reference` layout where its marks can stand one after the other in a single way."""
    first, last = _first_places(text), _last_places(text)
    if first is None or first != last or not text.endswith("\n"):
        return None
    starts = [0, *(place + len(mark) for place, mark in zip(first, _MARKS, strict=True))]
    passage, question, *options = (text[a:b] for a, b in zip(starts, [*first, len(text) - 1], strict=True))
    return None if _ONE_MORE in options[-1] else (passage, question, tuple(options))


def _first_places(text: str) -> list[int] | None:
    """Where each mark stands, as early as it can after the one before; None where one is missing."""
    places, start = [], 0
    for mark in _MARKS:
        place = text.find(mark, start)
        if place < 0:
            return None
        places.append(place)
        start = place + len(mark)
    return places


def _last_places(text: str) -> list[int] | None:
    """Where each mark stands, as late as it can before the one after; None where one is missing."""
    places, end = [], len(text)
    for mark in reversed(_MARKS):
        place = text.rfind(mark, 0, end)
        if place < 0:
            return None
        places.append(place)
        end = place
    return places[::-1]
