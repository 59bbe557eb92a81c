"""Reads a sheet of a binary workbook (.xlsb). Number formats are not read, so values are shown as they are stored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, time, timedelta
from pathlib import Path
from typing import BinaryIO, cast
from zipfile import ZipFile

from lrc.data.tables.cell_text import Value, show_value
from lrc.data.tables.table import NO_FINDINGS, CellFinding, Table, TableRow
from lrc.data.tables.xlsx import LONG_NUMBER, ROUNDED, choose_sheet, from_a1, open_calamine, open_values, refuse_size
from lrc.data.tables.xlsx_package import open_package
from lrc.runtime.translation import _

WORKBOOK = "xl/workbook.bin"
_SHEETS = "xl/worksheets/"
_ROW, _CELLS = 0, range(2, 12)  # record numbers, [MS-XLSB] 2.3.1: BrtRowHdr, and BrtCellRk to BrtFmlaError
_SAVE = _("save it as .xlsx to have it read as shown")


@contextmanager
def open_binary(path: Path, sheet: str | None) -> Iterator[Table]:
    """Open a sheet as a table, the first visible one by default.

    Raises:
        DataError: there is no such sheet, or it spans too many cells; see also `xlsx_package.open_package`.
    """
    from python_calamine import SheetVisibleEnum

    with open_package(path, WORKBOOK) as package:
        for part in package.namelist():
            if part.startswith(_SHEETS) and part.endswith(".bin"):
                refuse_size(path, part, *_find_last_cell(package, part))
    with open_calamine(path) as workbook:
        hidden = {one.name: one.visible != SheetVisibleEnum.Visible for one in workbook.sheets_metadata}
    name, others, unseen, findings = choose_sheet(path, hidden, sheet)
    with open_values(path, name) as values:
        width = (values.end or (0, -1))[1] + 1
        rows = (_make_row(number, row) for number, row in enumerate(from_a1(path.name, values, width), start=1))
        yield Table(path.name, name, others, rows, findings, hidden_sheets=unseen)


def _make_row(number: int, values: list[Value]) -> TableRow:
    findings = {column: finding for column, value in enumerate(values) if (finding := _examine(value))}
    return TableRow(number, list(map(show_value, values)), findings or NO_FINDINGS)


def _examine(value: Value) -> CellFinding | None:
    if isinstance(value, date | time | timedelta):
        return CellFinding(
            "warning",
            "date-cell",
            _("is a date or a time, read as {show}; {save}").format(show=show_value(value), save=_SAVE),
        )
    if isinstance(value, float) and abs(value) >= ROUNDED:
        return CellFinding("warning", "long-number", LONG_NUMBER.format(shown=show_value(value)))
    if isinstance(value, float) and not value.is_integer():
        return CellFinding(
            "warning",
            "stored-number",
            _("is a number, read as stored, {show}; {save}").format(show=show_value(value), save=_SAVE),
        )
    return None


def _find_last_cell(package: ZipFile, part: str) -> tuple[int, int]:
    """The last row in use, from 1, and the last column in use, from 0."""
    row = last_row = 0
    last_column = -1
    with package.open(part) as stream:
        for record, size in _iter_records(cast(BinaryIO, stream)):
            content = stream.read(size)
            number = int.from_bytes(content[:4], "little")
            if record == _ROW:
                row = number + 1
            elif record in _CELLS:
                last_row, last_column = max(last_row, row), max(last_column, number)
    return last_row, last_column


def _iter_records(stream: BinaryIO) -> Iterator[tuple[int, int]]:
    """The type and the size in bytes of each record; the caller reads its content from the stream."""
    while head := stream.read(1):
        record = head[0]
        if record & 0x80:
            record = record & 0x7F | (stream.read(1) or b"\0")[0] << 7
        size = shift = 0
        for _byte in range(4):
            piece = (stream.read(1) or b"\0")[0]
            size |= (piece & 0x7F) << shift
            shift += 7
            if not piece & 0x80:
                break
        yield record, size
