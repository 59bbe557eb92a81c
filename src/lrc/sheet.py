"""The rows of one sheet as a reader of it sees them.

calamine gives the values fast, but tells nothing of number formats, formulas and error values: one pass over
the XML does. That pass measures the sheet as well, so that one that would not fit into memory is refused
before calamine sees it.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import repeat
from pathlib import Path
from zipfile import ZipFile

from lrc.cells import EPOCH, EPOCH_1904, Value, kind_of, show
from lrc.errors import DataError
from lrc.expansion import refuse_expansion
from lrc.package import open_package, parse
from lrc.parts import number_formats, sheet_parts, uses_1904
from lrc.tables import NO_NOTES, Note, Table, TableRow

MAX_CELLS = 16_000_000  # of the rectangle from A1 to the last cell in use; calamine holds all of it

_REFERENCE = re.compile(r"([A-Z]{1,3})([0-9]{1,7})")
_LONGEST = len("XFD1048576")
_CONTENT = {"v", "is", "f"}  # what a cell in use has inside
Place = tuple[int, int]  # row from 1, column from 0


@dataclass
class Marks:
    """What the XML tells of a sheet beside its values."""

    formats: dict[Place, str] = field(default_factory=dict)  # number formats that matter
    formulas: set[Place] = field(default_factory=set)
    errors: set[Place] = field(default_factory=set)
    merged: list[tuple[Place, Place]] = field(default_factory=list)  # first and last cell, both included
    last: Place = (0, -1)
    string_cells: int = 0  # cells that name a shared string

    def rows(self) -> set[int]:
        """The rows with a format, a formula or an error."""
        return {row for row, _ in (*self.formats, *self.formulas, *self.errors)}

    def merged_columns(self) -> dict[int, list[tuple[int, int]]]:
        """The merged ranges in each column in use, as sorted pairs of first and last row."""
        columns: dict[int, list[tuple[int, int]]] = {}
        for (top, left), (bottom, right) in sorted(self.merged):
            for column in range(left, min(right, self.last[1]) + 1):
                columns.setdefault(column, []).append((top, bottom))
        return columns


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
        _refuse_span(path, name, marks.last)
        refuse_expansion(package, parts[name], marks.string_cells, path.name)
        epoch = EPOCH_1904 if uses_1904(package) else EPOCH
    try:
        with CalamineWorkbook.from_path(path) as workbook:
            values = workbook.get_sheet_by_name(name)
            left = values.start[1] if values.start else 0
            rows = _whole(values.iter_rows(), left, marks.last[1] + 1)
            others = tuple(other for other in parts if other != name)
            yield Table(path.name, name, others, _rows(rows, marks, epoch))
    except CalamineError as error:
        raise DataError(f"{path.name}: cannot be read ({error}); save it again as .xlsx") from error


def scan(package: ZipFile, part: str) -> Marks:
    """Read a sheet's XML once for everything but its values."""
    codes = number_formats(package)
    special = {str(index): code for index, code in enumerate(codes) if kind_of(code)}
    marks = Marks()
    cell: dict[str, str] = {}
    row = column = last_row = last_column = 0
    letters: dict[str, int] = {}

    def place() -> Place:
        found = _REFERENCE.fullmatch(cell.get("r", ""))
        return (int(found[2]), _column(found[1])) if found else (row, column - 1)

    def begin(name: str, attributes: dict[str, str]) -> None:
        nonlocal cell, row, column, last_row, last_column
        if name == "c":
            cell = attributes
            column += 1
            if attributes.get("s") in special:
                marks.formats[place()] = special[attributes["s"]]
            kind = attributes.get("t")
            if kind == "s":
                marks.string_cells += 1
            elif kind == "e":
                marks.errors.add(place())
        elif name in _CONTENT:
            reference = cell.get("r", "")[:_LONGEST]
            label = reference.rstrip("0123456789")
            if label not in letters:
                letters[label] = _column(label)
            last_row = max(last_row, row, int(reference[len(label) :] or 0))
            last_column = max(last_column, letters[label] if label else column - 1)
            if name == "f":
                marks.formulas.add(place())
        elif name == "row":
            number = attributes.get("r", "")[:_LONGEST]
            row = int(number) if number.isdecimal() else row + 1
            column = 0
        elif name == "mergeCell":
            ends = [_place(end) for end in attributes.get("ref", "").split(":")]
            if len(ends) == 2:
                marks.merged.append((ends[0], ends[1]))

    parse(package, part, begin)
    marks.last = (last_row, last_column)
    return marks


def _refuse_span(path: Path, sheet: str, last: Place) -> None:
    rows, columns = last[0], last[1] + 1
    if rows * columns > MAX_CELLS:
        raise DataError(
            f"{path.name}: sheet {sheet} spans {rows:,} rows and {columns:,} columns; "
            "clear the cells far from the table, or save it as .csv"
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
            cells = [show(value, marks.formats.get(place), epoch) for place, value in zip(places, row, strict=True)]
            found = map(_note, repeat(marks), places, row, cells)
            notes = {column: note for column, note in enumerate(found) if note}
        else:
            cells, notes = [value if isinstance(value, str) else show(value) for value in row], {}
        if merged:
            notes |= _merged(merged, number, cells)
        yield TableRow(number, cells, notes or NO_NOTES)


def _note(marks: Marks, place: Place, value: Value, shown: str) -> Note | None:
    if place in marks.errors:
        return Note("trouble", "error-cell", "is an error value; put the text itself into the cell")
    if place in marks.formulas:
        if value == "":
            cure = "open the workbook in a spreadsheet and save it, or type the value"
            return Note("trouble", "formula-without-value", f"is a formula without a stored value; {cure}")
        return Note("repair", "formula", f"is a formula; its stored value {shown} was read")
    if place not in marks.formats or isinstance(value, str):
        return None
    kind = kind_of(marks.formats[place])
    if kind == "date":
        return Note(
            "warning",
            "date-cell",
            f"is a date or a time; read as shown, {shown}: type it as text if that is wrong",
        )
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


def _column(letters: str) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + ord(letter) - ord("A") + 1
    return number - 1


def _place(reference: str) -> Place:
    found = _REFERENCE.fullmatch(reference)
    return (int(found[2]), _column(found[1])) if found else (0, -1)
