"""What was found in a file: errors, warnings, notes and repairs, each with its place, and the one way to tell them."""

from __future__ import annotations

import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TextIO
from unicodedata import east_asian_width

Level = Literal["error", "warning", "note", "repair"]
# What is printed before each; the worst come last, where they are seen.
WORDS: dict[Level, str] = {"repair": "repaired", "note": "note", "warning": "warning", "error": "error"}
# Kinds whose name alone does not say it; of the others the words of the name do.
KINDS = {
    "ambiguous-answer": "the right option appears twice",
    "answer": "answer written otherwise",
    "conflicting-answers": "same question, other answer",
    "control": "control characters",
    "date-cell": "date cells",
    "date-serial": "dates that became numbers",
    "decimal-id": "ids ending in .0",
    "ditto-passage": "passage given as 同上",
    "ditto-question": "question given as 同上",
    "duplicate-option": "option text twice",
    "duplicate-question": "question twice",
    "entity": "HTML entities",
    "enumeration": "marks before the options",
    "escape": "_x…_ escapes",
    "exponent-id": "ids that became 1.23E+17",
    "fewer-options": "fewer options than columns",
    "formula": "formulas read by their value",
    "fraction-lost": "fractions that became decimals",
    "long-decimal": "numbers with many decimals",
    "near-duplicate-passage": "passages that are nearly the same",
    "number-or-text": "answer may be a number or a text",
    "other-sheets": "sheets not read",
    "percent-format": "percentages read as shown",
    "percent-lost": "percent signs lost",
    "rounded-id": "ids with lost digits",
    "test-id": "ids of a test workbook",
    "time-serial": "times that became numbers",
    "train-test-overlap": "passages shared with the training data",
    "unread-columns": "columns not read",
    "white-space": "white space at the ends",
    "zero-width": "zero-width characters",
}
# What a line is made of that cannot be broken: a Chinese character or a word, with the marks and the space behind it.
_WIDE, _CLOSING = "\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef", "，。；：？！、）」』》】…"
_PIECES = re.compile(rf"\s+|[{_WIDE}][{_CLOSING}]*\s*|[^\s{_WIDE}]+[{_CLOSING}]*\s*")
ROWS_SHOWN = 5  # of a kind, which may have thousands
ERRORS_SHOWN = 50  # of a kind


@dataclass(frozen=True)
class Finding:
    """One thing found.

    `kind` is a short stable name to count by, such as `empty-option`; `text` gives the value and the cure. An error
    leaves a row or a file out, a warning may be a mistake, a note tells what was skipped, a repair is done.
    """

    level: Level
    kind: str
    file: str  # empty where `text` names the place itself
    text: str
    row: int | None = None  # the workbook's row number, the header being row 1
    column: str | None = None  # the header of the column
    options: tuple[int, ...] = ()  # the numbers of the options that it is about, from 1, where it has no column

    def __str__(self) -> str:
        """The line that a person reads: `AI.xlsx, row 17: 正確答案 is 5, expected 1 to 4; correct it`."""
        place = self.file if self.row is None else f"{self.file}, row {self.row}"
        return " ".join((f"{place}: {self.text}" if place else self.text).splitlines())


def spell_kind(kind: str) -> str:
    """A kind in words: `percent-lost` is `percent signs lost`."""
    return KINDS.get(kind, kind.replace("-", " "))


def count_kinds(findings: Iterable[Finding], level: Level) -> dict[str, int]:
    """How many findings of `level` there are of each kind, by kind."""
    return dict(sorted(Counter(finding.kind for finding in findings if finding.level == level).items()))


def format_findings(findings: Iterable[Finding]) -> Iterator[str]:
    """The lines that tell findings: one a kind with its rows, and one an error; the errors come last."""
    groups: dict[tuple[Level, str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.level, finding.file, finding.kind), []).append(finding)
    for level, word in WORDS.items():
        if level == "error":
            errors = [finding for (found, _, _), group in groups.items() if found == level for finding in group]
            yield from (f"{word}: {finding}" for finding in shortened(errors))
        else:
            yield from (f"{word}: {_line(group)}" for (found, _, _), group in groups.items() if found == level)


def print_findings(findings: Iterable[Finding]) -> None:
    """Print findings on stderr."""
    for line in format_findings(findings):
        for piece in wrapped(line, stream=sys.stderr):
            print(piece, file=sys.stderr, flush=True)


def wrapped(line: str, indent: int = 4, stream: TextIO | None = None) -> list[str]:
    """A line as lines of the terminal's width, broken between words; as it is where the output is no terminal.

    Chinese has no spaces: it may be broken between any two characters, but not before a punctuation mark.
    """
    if not (stream or sys.stdout).isatty():
        return [line]
    room = max(40, shutil.get_terminal_size().columns)
    lines, current = [], ""
    for piece in _PIECES.findall(line):
        if current.strip() and columns_of(current + piece.rstrip()) > room:
            lines.append(current.rstrip())
            current = " " * indent + piece.lstrip()
        else:
            current += piece
    return [*lines, current.rstrip()]


def columns_of(text: str) -> int:
    """How many columns of a terminal a text takes: a Chinese character has two."""
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)


def shortened(errors: Sequence[Finding]) -> list[Finding]:
    """The first errors of each kind, in their order, and one more for the others of a kind."""
    seen: Counter[tuple[str, str]] = Counter()
    kept: list[Finding] = []
    for error in errors:
        seen[error.file, error.kind] += 1
        if seen[error.file, error.kind] <= ERRORS_SHOWN:
            kept.append(error)
    more = [
        Finding("error", kind, file, _more(kind, count - ERRORS_SHOWN))
        for (file, kind), count in seen.items()
        if count > ERRORS_SHOWN
    ]
    return kept + more


def _more(kind: str, count: int) -> str:
    return f"{count:,} more of the kind “{spell_kind(kind)}”; lrc check --json lists all"


def with_cure(errors: Sequence[Finding], cure: str) -> list[Finding]:
    """The first errors of each kind, each that has a cure with one more: `fill it in, or leave the row out with …`."""
    cured = [replace(error, text=f"{error.text}, or {cure}") if "; " in error.text else error for error in errors]
    return shortened(cured)


def _line(group: Sequence[Finding]) -> str:
    """One line for all findings of a kind."""
    first = group[0]
    if len(group) == 1:
        return str(first)
    rows = list(dict.fromkeys(finding.row for finding in group if finding.row is not None))
    shown = ", ".join(map(str, rows[:ROWS_SHOWN])) + (", …" if len(rows) > ROWS_SHOWN else "")
    where = f" (row{'s' * (len(rows) > 1)} {shown})" if rows else ""
    text = " ".join(first.text.splitlines())
    return f"{first.file}: {spell_kind(first.kind)}, {len(group):,} times{where}; the first: {text}"
