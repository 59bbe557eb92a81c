"""Findings: errors, warnings, notes and repairs, each with its place in a file, and how they are printed."""

from __future__ import annotations

import codecs
import json
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal, TextIO
from unicodedata import east_asian_width

from lrc.runtime.translation import Message, _, localized, split_place

Level = Literal["error", "warning", "note", "repair"]
SHOWN = 40  # characters of a value in a message
# The word printed before each; the worst come last, where they are noticed.
WORDS: dict[Level, str] = {
    "repair": _("repaired"),
    "note": _("note"),
    "warning": _("warning"),
    "error": _("error"),
}
# Descriptions of kinds.
KINDS = {
    "ambiguous-answer": _("the right option appears twice"),
    "answer": _("answer written otherwise"),
    "c3-question": _("c3 question"),
    "conflicting-answers": _("same question, other answer"),
    "control": _("control characters"),
    "csv": _("csv"),
    "cut-off": _("cut-off texts"),
    "date-cell": _("date cells"),
    "date-serial": _("dates that became numbers"),
    "decimal-id": _("ids ending in .0"),
    "delimiter": _("delimiter"),
    "ditto-option": _("option given as 同上"),
    "ditto-passage": _("passage given as 同上"),
    "ditto-question": _("question given as 同上"),
    "doubled-column": _("doubled column"),
    "duplicate-option": _("option text twice"),
    "duplicate-question": _("question twice"),
    "empty-answer": _("empty answer"),
    "empty-column": _("empty column"),
    "empty-option": _("empty option"),
    "empty-passage": _("empty passage"),
    "empty-question": _("empty question"),
    "empty-row": _("empty row"),
    "encoding": _("encoding"),
    "entity": _("HTML entities"),
    "enumeration": _("marks before the options"),
    "error-cell": _("error cell"),
    "error-text": _("texts that look like error values"),
    "escape": _("_x…_ escapes"),
    "exponent": _("options such as 1.23E+17"),
    "exponent-id": _("ids that became 1.23E+17"),
    "fewer-options": _("fewer options than columns"),
    "field-not-read": _("field not read"),
    "footer-row": _("footer row"),
    "format-not-exact": _("format not exact"),
    "formula": _("formulas read by their value"),
    "formula-id": _("ids like formulas"),
    "formula-without-value": _("formula without value"),
    "fraction-lost": _("fractions that became decimals"),
    "hidden-column": _("hidden column"),
    "hidden-row": _("hidden row"),
    "hidden-sheet": _("hidden sheet"),
    "hidden-sheets": _("hidden sheets"),
    "impossible-answer": _("impossible answer"),
    "json-value": _("json value"),
    "key-without-effect": _("keys without effect"),
    "line-break": _("line break"),
    "long-decimal": _("numbers with many decimals"),
    "long-number": _("long number"),
    "lost-character": _("characters that were lost"),
    "merged-cell": _("merged cell"),
    "named-passage": _("named passage"),
    "near-duplicate-passage": _("passages that are nearly the same"),
    "no-column": _("no column"),
    "no-good-rows": _("no good rows"),
    "no-header": _("no header"),
    "no-ids": _("no ids"),
    "no-options": _("no options"),
    "no-question": _("no question"),
    "not-copied": _("not copied"),
    "number-or-text": _("answer may be a number or a text"),
    "number-too-large": _("number too large to be shown as hours"),
    "number-format": _("numbers read as shown"),
    "options-from-zero": _("options from zero"),
    "other-asking": _("another way of asking"),
    "other-model": _("another model"),
    "other-sheets": _("sheets not read"),
    "padded-format": _("numbers with leading zeros"),
    "passage-remark": _("passage that may name another one"),
    "partial-passage": _("passages that are parts of one another"),
    "percent-format": _("percentages read as shown"),
    "percent-lost": _("percent signs lost"),
    "placeholder": _("placeholder"),
    "probabilities": _("scores that look like probabilities"),
    "remark-in-header": _("headers with a remark"),
    "repeated-header": _("repeated header"),
    "rounded-id": _("ids with lost digits"),
    "shortened-passage": _("passages shortened"),
    "shifted-row": _("shifted rows"),
    "stored-number": _("stored number"),
    "struck-text": _("struck text"),
    "structure": _("structure"),
    "test-id": _("ids of a test workbook"),
    "text-format": _("text format"),
    "text-formula": _("text formula"),
    "time-serial": _("times that became numbers"),
    "title-row": _("title row"),
    "too-few-cells": _("too few cells"),
    "too-many-cells": _("too many cells"),
    "too-many-options": _("too many options"),
    "train-test-overlap": _("passages shared with the training data"),
    "two-row-header": _("two row header"),
    "unnamed-model": _("model not named"),
    "unread-answers": _("unread answers"),
    "unread-columns": _("columns not read"),
    "unread-option": _("unread options"),
    "unread-text": _("unread text"),
    "white-space": _("white space at the ends"),
    "zero-width": _("zero-width characters"),
}
# Pieces of a line that are not broken: an equation; a command, to be copied, which is in backticks, or after a colon up
# to the end, or installs something; a Chinese character or a word, with brackets before and punctuation after it; and a
# short remark in square brackets, where there is room.
_WIDE, _OPENING, _CLOSING = "\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef", "（「『《【", "，。；：？！、）」』》】…"
_LAST = r"(?:(?<=: )|(?<=：))(?:cd \S+ && .+|lrc [a-z-]+ \S*[-./'\"A-Z].*)$"  # not a sentence about lrc
_COMMAND = rf"{_LAST}|\(?pip install(?: [^\s,;){_WIDE}]+)+[,;)]?"
_WHOLE = rf"\(?\w+ = [^\s{_WIDE}]+|[^\s`{_WIDE}]*`[^`]*`[^\s{_WIDE}]*|{_COMMAND}"
_PIECE = rf"\s+|[{_OPENING}]*(?:{_WHOLE}|[{_WIDE}]|[^\s{_WIDE}]+)[{_CLOSING}]*\s*"
_PIECES, _REMARKS = re.compile(_PIECE), re.compile(rf"\[[^][]{{1,40}}\]|{_PIECE}")
ROWS_SHOWN = 5  # of a kind, which may have thousands
ERRORS_SHOWN = 50  # of a kind


@dataclass(frozen=True)
class Finding:
    """One finding.

    `kind` is a short stable name to count by, such as `empty-option`; `text` gives the value and the cure. An error
    excludes a row or a file, a warning is about a possible mistake, a note says what was skipped, and a repair has been
    made.
    """

    level: Level
    kind: str
    file: str  # empty if `text` names the place itself
    text: str
    row: int | None = None  # the workbook's row number, the header being row 1
    column: str | None = None  # the header of the column
    options: tuple[int, ...] = ()  # the numbers, from 1, of the options that it is about, if it has no column
    place: str = ""  # in a file without rows: `record 3`, `line 7`

    @classmethod
    def of_line(cls, line: str) -> Finding:
        """Make an error of a line; file and place are taken from the values of a `Message`."""
        if (placed := split_place(line)) is None:
            return cls("error", "structure", "", line)
        return cls("error", "structure", placed.file, placed.text, placed.row, place=placed.place)

    def with_renamed(self, old: str, new: str) -> Finding:
        """A copy with `old` replaced by `new` in file and text."""
        text = self.text.with_renamed(old, new) if isinstance(self.text, Message) else self.text.replace(old, new)
        return replace(self, file=self.file.replace(old, new), text=text)

    def __str__(self) -> str:
        """The line to print, in English: `AI.xlsx, row 17: 正確答案 is 5, expected 1 to 4; correct it`."""
        return self.line("en")

    def line(self, language: str | None = None) -> str:
        """The line to print in a language, by default that of the process; see `translation`."""
        return " ".join(localized(self.sentence, language).splitlines())

    @property
    def sentence(self) -> str:
        """The same as a message, for a language that is chosen later."""
        if not self.file:
            return self.text
        if self.place:
            return _("{file}, {place}: {text}").format(file=self.file, place=self.place, text=self.text)
        if self.row is None:
            return _("{file}: {text}").format(file=self.file, text=self.text)
        return _("{file}, row {row}: {text}").format(file=self.file, row=self.row, text=self.text)


def spell_kind(kind: str) -> str:
    """The description of a kind: `percent-lost` is `percent signs lost`."""
    return KINDS.get(kind, kind.replace("-", " "))


def count_kinds(findings: Iterable[Finding], level: Level) -> dict[str, int]:
    """The number of findings of `level` of each kind, sorted by kind."""
    return dict(sorted(Counter(finding.kind for finding in findings if finding.level == level).items()))


def format_findings(findings: Iterable[Finding], language: str | None = None) -> Iterator[str]:
    """The lines to print for findings: one for each kind, with its rows; one for each error. Errors come last.

    Args:
        findings: any number, in any order.
        language: of the lines, by default that of the process; see `translation`.
    """
    groups: dict[tuple[Level, str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.level, finding.file, finding.kind), []).append(finding)
    for level, word in WORDS.items():
        found = [group for (other, _file, _kind), group in groups.items() if other == level]
        if level == "error":
            errors = _by_place([error for group in found for error in group])
            lines = [error.line(language) for error in limit_findings(errors)]
        else:
            lines = [_line(group, language) for group in found]
        yield from (localized(_("{level}: {line}").format(level=word, line=line), language) for line in lines)


def print_findings(findings: Iterable[Finding]) -> None:
    """Print findings on stderr."""
    for line in format_findings(findings):
        for piece in wrap_line(line, stream=sys.stderr):
            print(piece, file=sys.stderr, flush=True)


def wrap_line(line: str, indent: int = 4, stream: TextIO | None = None) -> list[str]:
    """Wrap a line to the width of the terminal; if the output is not a terminal, return it as it is.

    Args:
        line: the line.
        indent: spaces before all lines but the first.
        stream: the output; stdout by default.
    """
    if not (stream or sys.stdout).isatty():
        return [line]
    return wrap(line, max(40, shutil.get_terminal_size().columns), indent)


def wrap(line: str, columns: int, indent: int = 0) -> list[str]:
    """Wrap a line to a width in terminal columns.

    Chinese, which has no spaces, is broken between any two characters, but not before a punctuation mark or after an
    opening bracket. A command in backticks stays in one line, even if that is longer than the width.

    Args:
        line: the line.
        columns: the width.
        indent: spaces before all lines but the first.
    """
    lines, current = [], ""
    found = _REMARKS.findall(line)
    broken = (_PIECES.findall(one) if one[0] == "[" and columns_of(one) > columns - indent else [one] for one in found)
    for piece in chain.from_iterable(broken):
        if current.strip() and columns_of(current + piece.rstrip()) > columns:
            lines.append(current.rstrip())
            current = " " * indent + piece.lstrip()
        else:
            current += piece
    return [*lines, current.rstrip()]


def abridge(text: str, most: int = SHOWN) -> str:
    """A text cut to the characters that a message has room for."""
    return text if len(text) <= most else f"{text[:most]}…"


def columns_of(text: str) -> int:
    """The number of terminal columns that a text takes; a Chinese character takes two."""
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)


def pad(text: str, columns: int) -> str:
    """Pad a text with spaces to a width in terminal columns; a longer one stays as it is."""
    return text + " " * (columns - columns_of(text))


def name_line(name: str, text: str, columns: int = 14) -> str:
    """A line of a list on stdout: a name, then a text that begins in the same column in all of them, also where the
    terminal is too narrow for one line.
    """
    return "\n".join(wrap_line(pad(localized(name), columns) + localized(text), columns))


def print_lines(*lines: str) -> None:
    """Print lines for people on stdout, in the user's language, and wrapped to the width of a terminal."""
    for line in lines:
        print(*wrap_line(localized(line)), sep="\n")


def print_json(document: object, indent: int = 2) -> None:
    """Print a document on stdout as JSON, in ASCII where stdout is not UTF-8, so that it can be read all the same."""
    is_utf8 = codecs.lookup(getattr(sys.stdout, "encoding", None) or "utf-8").name == "utf-8"
    print(json.dumps(document, ensure_ascii=not is_utf8, indent=indent))


def print_next(command: str) -> None:
    """Print the command to run next on stdout, or a sentence that ends with it; the command stays in one line."""
    print_lines(_("next: {line}").format(line=command))


def limit_findings(errors: Sequence[Finding]) -> list[Finding]:
    """The first `ERRORS_SHOWN` errors of each kind and file, and one more that counts the rest."""
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
    text = _("{count:,} more of the kind “{kind}”; lrc check --json lists all")
    return text.format(count=count, kind=spell_kind(kind))


def add_cure(errors: Sequence[Finding], cure: str) -> list[Finding]:
    """Add another cure to errors that have one: `fill it in, or leave the row out with …`; see `limit_findings`."""
    cured = [
        replace(error, text=_("{text}, or {cure}").format(text=error.text, cure=cure)) if "; " in error.text else error
        for error in errors
    ]
    return limit_findings(cured)


def _by_place(findings: Sequence[Finding]) -> list[Finding]:
    """Sort findings by row, file after file; those of a whole file come after its rows."""
    files = {file: number for number, file in enumerate(dict.fromkeys(one.file for one in findings))}
    return sorted(findings, key=lambda one: (files[one.file], one.row is None, one.row or 0))


def _line(group: Sequence[Finding], language: str | None) -> str:
    """One line for all findings of a kind."""
    first = group[0]
    if len(group) == 1:
        return first.line(language)
    rows = list(dict.fromkeys(finding.row for finding in group if finding.row is not None))
    text = _("{file}: {kind}, {count:,} times; the first: {text}")
    if len(rows) == 1:
        text = _("{file}: {kind}, {count:,} times (row {rows}); the first: {text}")
    elif rows:
        text = _("{file}: {kind}, {count:,} times (rows {rows}); the first: {text}")
    shown = (*map(str, rows[:ROWS_SHOWN]), *["…"] * (len(rows) > ROWS_SHOWN))
    filled = text.format(file=first.file, kind=spell_kind(first.kind), count=len(group), rows=shown, text=first.text)
    return " ".join(localized(filled, language).splitlines())
