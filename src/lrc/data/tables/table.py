"""The table that the reader of each format returns: numbered rows of text, and findings about cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from lrc.runtime.findings import Finding
from lrc.runtime.translation import Message, _

ERROR_VALUE = _("is an error value; put the text itself into the cell")
TOO_FEW = "too-few-cells"  # the kind of a row in CSV that ends before the header does
WHOLE_ROW = -1  # the column of a finding about a row as a whole


class CellFinding(NamedTuple):
    """A finding about one cell, made before the header of its column is known."""

    level: Literal["error", "warning", "repair"]  # the text of a cell with an error is not used
    kind: str
    text: str  # follows the name of the column; for a whole row it stands alone
    shown: str = ""  # for a merged cell, the text of the first of the cells that are merged


class TableRow(NamedTuple):
    """One row of a table, be it a title, a header, a question or empty."""

    number: int  # as in the spreadsheet, from 1; in JSON 0 is the row of keys
    cells: list[str]  # the text that each cell shows; may be shorter than the header
    findings: Mapping[int, CellFinding]  # by column, from 0


NO_FINDINGS: Mapping[int, CellFinding] = {}


@dataclass(frozen=True)
class Table:
    """A sheet of a workbook, a CSV file, or the objects of a JSON file."""

    file: str  # its name
    sheet: str | None
    other_sheets: tuple[str, ...]  # the visible ones
    rows: Iterator[TableRow]  # including empty rows; can be iterated over once
    findings: tuple[Finding, ...] = ()  # about the whole file
    hidden: frozenset[int] = frozenset()  # the hidden columns, from 0
    hidden_sheets: tuple[str, ...] = ()  # the others that are hidden

    @property
    def elsewhere(self) -> Message | str:
        """The end of a cure, which names the other sheets; empty if there are none."""
        hidden = (_("{sheet} (hidden)").format(sheet=name) for name in self.hidden_sheets)
        sheets = (*self.other_sheets, *hidden)
        return _(", or choose another sheet with --sheet: {sheets}").format(sheets=sheets) if sheets else ""


def letters(column: int) -> str:
    """The name of a column in a spreadsheet: 0 is A, 26 is AA."""
    text = ""
    column += 1
    while column:
        column, rest = divmod(column - 1, 26)
        text = chr(ord("A") + rest) + text
    return text
