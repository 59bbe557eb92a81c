"""A table as it is in a file: numbered rows of shown text, and what is special about a cell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from lrc.runtime.findings import Finding

WHOLE_ROW = -1  # the column of a finding about a row as a whole


class CellFinding(NamedTuple):
    """What was found in one cell, before its header is known: an `error` leaves it without a text that can be used."""

    level: Literal["error", "warning", "repair"]
    kind: str
    text: str  # follows the column's name, or stands alone for a whole row
    shown: str = ""  # what the cell shows all the same: the text of those that it is merged with


class TableRow(NamedTuple):
    """One row; `cells` may be shorter than the header."""

    number: int  # as the spreadsheet counts, the first row being 1
    cells: list[str]
    findings: Mapping[int, CellFinding]  # by column, from 0


NO_FINDINGS: Mapping[int, CellFinding] = {}


@dataclass(frozen=True)
class Table:
    """A sheet of a workbook, or a CSV file."""

    file: str
    sheet: str | None
    other_sheets: tuple[str, ...]
    rows: Iterator[TableRow]  # can be read once; empty rows are among them
    findings: tuple[Finding, ...] = ()  # about the file as a whole
    hidden: frozenset[int] = frozenset()  # columns


def letters(column: int) -> str:
    """A column as a spreadsheet calls it: 0 is A, 26 is AA."""
    text = ""
    column += 1
    while column:
        column, rest = divmod(column - 1, 26)
        text = chr(ord("A") + rest) + text
    return text
