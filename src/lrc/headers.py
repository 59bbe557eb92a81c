"""Which column is which: the first row of a table, read as people write it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from lrc.errors import DataError
from lrc.questions import MAX_OPTIONS, MIN_OPTIONS
from lrc.tables import Table, TableRow

_NAMES = {
    "文章": ("文章", "passage", "article", "context", "flores_passage"),
    "問題": ("問題", "问题", "question"),
    "正確答案": ("正確答案", "正确答案", "答案", "answer", "correct_answer_num"),
    "ID": ("id", "題號", "题号"),
}
_ROLES = {name: role for role, names in _NAMES.items() for name in names}
_OPTION = re.compile(r"(?:[選选][項项]|option_?|mc_answer)([0-9]{1,3}|[一二三四五六七八a-h])")
_DIGITS = ("一二三四五六七八", "abcdefgh")


@dataclass(frozen=True)
class Columns:
    """The places of the columns that lrc reads, from 0, and their headers as the table writes them."""

    id: int | None
    passage: int
    question: int
    options: tuple[int, ...]
    answer: int | None
    headers: tuple[str, ...]


def find_columns(table: Table, header: TableRow) -> Columns:
    """Find the columns by their headers, white space, width of digits and script apart.

    Raises:
        DataError: a column is missing or stands twice, or the options are not numbered from 1 without a gap.
    """
    headers = tuple("".join(text.split()) for text in header.cells)
    places = _places(headers)
    if not any(role.startswith("選項") for role in places):  # else a column A may be anything
        places |= _places([f"option{text}" if len(text) == 1 else "" for text in headers])
    numbers = sorted(int(role.removeprefix("選項")) for role in places if role.startswith("選項"))
    where = f"{table.file}, row {header.number}"
    findings = [
        f"{where}: {' and '.join(headers[place] for place in doubled)} are both {role}; keep one of them"
        for role, doubled in places.items()
        if len(doubled) > 1
    ]
    findings += [
        f"{where}: no column {role}, only {_shown(headers)}; add it, or correct the header{_elsewhere(table)}"
        for role in ("文章", "問題", *_missing_options(numbers))
        if role not in places
    ]
    if numbers and (numbers[-1] > MAX_OPTIONS or numbers[0] < 1):
        shown = f"options {numbers[0]} to {numbers[-1]}, expected 1 to {MAX_OPTIONS}"
        findings.append(f"{where}: {shown}; remove the others")
    if findings:
        raise DataError(*findings)
    return Columns(
        id=places.get("ID", [None])[0],
        passage=places["文章"][0],
        question=places["問題"][0],
        options=tuple(places[f"選項{number}"][0] for number in numbers),
        answer=places.get("正確答案", [None])[0],
        headers=headers,
    )


def _places(headers: Sequence[str]) -> dict[str, list[int]]:
    """Where each role's columns stand."""
    places: dict[str, list[int]] = {}
    for place, text in enumerate(headers):
        if role := _role(text):
            places.setdefault(role, []).append(place)
    return places


def _role(header: str) -> str | None:
    """The canonical name of a header. It is no text to learn from, so normalising it loses nothing."""
    normal = unicodedata.normalize("NFKC", header).casefold()
    text = "".join(sign for sign in normal if not sign.isspace() and unicodedata.category(sign) != "Cf")
    text = text.rstrip(":")
    if found := _OPTION.fullmatch(text):
        number = next((digits.index(found[1]) + 1 for digits in _DIGITS if found[1] in digits), None)
        return f"選項{number or int(found[1])}"
    return _ROLES.get(text)


def _missing_options(numbers: Sequence[int]) -> list[str]:
    expected = range(1, max(MIN_OPTIONS, *numbers, 0) + 1 if not numbers or numbers[-1] <= MAX_OPTIONS else 1)
    return [f"選項{number}" for number in expected]


def _shown(headers: Sequence[str]) -> str:
    shown = ", ".join(header[:20] for header in headers[:12] if header)
    return shown or "empty cells"


def _elsewhere(table: Table) -> str:
    others = ", ".join(table.other_sheets)
    return f", or choose another sheet with --sheet: {others}" if others else ""
