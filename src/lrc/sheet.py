"""The rows of one sheet as a reader of it sees them.

calamine gives the values fast, but tells nothing of number formats, formulas and error values: one pass over
the XML does. That pass measures the sheet as well, so that one that would not fit into memory is refused
before calamine sees it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import repeat
from pathlib import Path

from lrc.bookparts import sheet_parts, uses_1904
from lrc.cells import EPOCH, EPOCH_1904, Value, kind_of, show, show_cell, show_number
from lrc.errors import DataError
from lrc.marks import Marks, Place, scan
from lrc.numberformat import Shown
from lrc.package import open_package
from lrc.tables import NO_NOTES, Note, Table, TableRow

MAX_CELLS = 16_000_000  # of the rectangle from A1 to the last cell in use; calamine holds all of it

_ROUNDED = 1e15  # a spreadsheet keeps 15 digits

MAX_TEXT = 1 << 30  # bytes of text, once every cell has its own


@contextmanager
def open_sheet(path: Path, sheet: str | None) -> Iterator[Table]:
    """Open one sheet of a workbook, the first one by default.

    Raises:
        DataError: see `package.open_package`; no such sheet, or one that spans too many cells.
    """
    from python_calamine import CalamineError, CalamineWorkbook

    with open_package(path) as package:
        parts = sheet_parts(package)
        name = _choose(path, tuple(parts), sheet)
        marks = scan(package, parts[name])
        _refuse_size(path, name, marks)
        epoch = EPOCH_1904 if uses_1904(package) else EPOCH
    try:
        with CalamineWorkbook.from_path(path) as workbook:
            values = workbook.get_sheet_by_name(name)
            left, width = values.start[1] if values.start else 0, marks.last[1] + 1
            rows = values.iter_rows() if (left, values.width) == (0, width) else _whole(values.iter_rows(), left, width)
            others = tuple(other for other in parts if other != name)
            yield Table(path.name, name, others, _rows(rows, marks, epoch))
    except CalamineError as error:
        raise DataError(f"{path.name}: cannot be read ({error}); save it again as .xlsx") from error


def _refuse_size(path: Path, sheet: str, marks: Marks) -> None:
    rows, columns = marks.last[0], marks.last[1] + 1
    where = f"{path.name}: sheet {sheet}"
    if rows * columns > MAX_CELLS:
        cure = "clear the cells far from the table, or save it as .csv"
        raise DataError(f"{where} spans {rows:,} rows and {columns:,} columns; {cure}")
    if marks.text_size > MAX_TEXT:
        raise DataError(
            f"{where} holds {marks.text_size >> 20:,} MB of text, more than {MAX_TEXT >> 20:,}; save it as .csv"
        )


def _choose(path: Path, names: tuple[str, ...], wanted: str | None) -> str:
    if not names:
        raise DataError(f"{path.name}: has no sheet with cells; save it as .xlsx")
    if wanted is None:
        return names[0]
    if wanted not in names:
        raise DataError(f"{path.name}: no sheet {wanted}; choose one of {', '.join(names)} with --sheet")
    return wanted


def _whole(rows: Iterator[list[Value]], left: int, width: int) -> Iterator[list[Value]]:
    """The rows from column A to the last in use: calamine trims columns without a value, errors included."""
    before: list[Value] = [""] * left
    for row in rows:
        after: list[Value] = [""] * (width - left - len(row))
        yield before + row + after if left or after else row


def _rows(values: Iterator[list[Value]], marks: Marks, epoch: datetime) -> Iterator[TableRow]:
    special, merged = marks.rows(), marks.merged_columns()
    for number, row in enumerate(values, start=1):
        if number in special:
            places = [(number, column) for column in range(len(row))]
            formatted = [show_cell(one, marks.formats.get(at), epoch) for at, one in zip(places, row, strict=True)]
            cells = [one.text for one in formatted]
            found = map(_note, repeat(marks), places, row, formatted)
            notes = {column: note for column, note in enumerate(found) if note}
        else:
            cells, notes = [value if type(value) is str else show(value) for value in row], {}
        numbers = [value for value in row if type(value) is float]
        if numbers and (max(numbers) >= _ROUNDED or min(numbers) <= -_ROUNDED):
            notes = _long_numbers(row, cells) | notes
        if merged:
            notes |= _merged(merged, number, cells)
        yield TableRow(number, cells, notes or NO_NOTES)


def _long_numbers(row: list[Value], cells: list[str]) -> dict[int, Note]:
    """Numbers of which a spreadsheet has lost the last digits: an id, most often."""
    cure = "a number beyond the 15 digits that a spreadsheet keeps; its last digits may be lost: type it as text"
    return {
        column: Note("warning", "long-number", f"is {shown}, {cure}")
        for column, (value, shown) in enumerate(zip(row, cells, strict=True))
        if type(value) is float and abs(value) >= _ROUNDED
    }


def _note(marks: Marks, place: Place, value: Value, formatted: Shown) -> Note | None:
    shown = formatted.text
    if place in marks.errors:
        return Note("trouble", "error-cell", "is an error value; put the text itself into the cell")
    if place in marks.formulas:
        if value == "":
            cure = "open the workbook in a spreadsheet and save it, or type the value"
            return Note("trouble", "formula-without-value", f"is a formula without a stored value; {cure}")
        return Note("repair", "formula", f"is a formula; its stored value {shown} was read")
    code = marks.formats.get(place)
    if code is None or value == "":
        return None
    if not formatted.exact:
        text = (
            f"has the format {code}, which cannot be shown exactly; read as {shown}: type it as text if that is wrong"
        )
        return Note("warning", "format-not-exact", text)
    kind = kind_of(code)
    if isinstance(value, str):
        text = f"is a text shown as {shown}; read as shown"
        return None if shown == value else Note("repair", "text-format", text)
    if kind == "date":
        return Note(
            "warning",
            "date-cell",
            f"is a date or a time; read as shown, {shown}: type it as text if that is wrong",
        )
    if isinstance(value, int | float) and shown == show_number(value):
        return None
    return Note("repair", f"{kind}-format", f"is a number shown as {shown}; read as shown")


def _merged(columns: dict[int, list[tuple[int, int]]], number: int, cells: list[str]) -> dict[int, Note]:
    notes = {}
    for column, text in enumerate(cells):
        ranges = columns.get(column, [])
        place = bisect_right(ranges, (number, MAX_CELLS)) - 1
        if not text and place >= 0 and ranges[place][1] >= number:
            text = f"is merged with the cells from row {ranges[place][0]} on; unmerge and fill in each"
            notes[column] = Note("trouble", "merged-cell", text)
    return notes
