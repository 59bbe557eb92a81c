"""Reads a sheet of an .xlsx workbook as a person sees it.

calamine returns the values fast, but not the number formats, formulas and errors; one pass over the XML finds these.
The pass also measures the sheet, so that one that would not fit into memory is refused before calamine opens it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING

from lrc.data.tables.bookparts import find_sheets, uses_1904
from lrc.data.tables.cell_text import EPOCH, EPOCH_1904, Value, kind_of, show_cell, show_number, show_value
from lrc.data.tables.number_formats import SYSTEM, Shown
from lrc.data.tables.table import ERROR_CELL, NO_FINDINGS, WHOLE_ROW, CellFinding, Table, TableRow, letters
from lrc.data.tables.xlsx_package import open_package
from lrc.data.tables.xlsx_scan import Marks, Place, scan
from lrc.runtime.errors import DataError
from lrc.runtime.findings import Finding
from lrc.runtime.translation import _

if TYPE_CHECKING:
    from python_calamine import CalamineSheet

MAX_CELLS = 16_000_000  # in the rectangle from A1 to the last cell in use, all of which calamine keeps in memory
MAX_TEXT = 1 << 30  # bytes of text, with shared strings counted once for each cell
ROUNDED = 1e15  # a spreadsheet keeps 15 significant digits
LONG_NUMBER = _(
    "is {shown}, a number beyond the 15 digits that a spreadsheet keeps; its last digits may be lost: type it as text"
)


@contextmanager
def open_sheet(path: Path, sheet: str | None) -> Iterator[Table]:
    """Open a sheet as a table, the first visible one by default.

    Raises:
        DataError: there is no such sheet, or it spans too many cells; see also `xlsx_package.open_package`.
    """
    with open_package(path) as package:
        sheets = find_sheets(package)
        hidden_by_name = {one: found.hidden for one, found in sheets.items()}
        name, others, unseen, findings = choose_sheet(path, hidden_by_name, sheet)
        marks = scan(package, sheets[name].part)
        refuse_size(path, name, *marks.last, marks.text_size)
        epoch = EPOCH_1904 if uses_1904(package) else EPOCH
    with open_values(path, name) as values:
        rows = from_a1(path.name, values, marks.last[1] + 1)
        hidden = frozenset(marks.hidden_columns)
        yield Table(path.name, name, others, _iter_rows(rows, marks, epoch), findings, hidden, unseen)


@contextmanager
def open_values(path: Path, sheet: str) -> Iterator[CalamineSheet]:
    """Open the values of a sheet with calamine.

    Raises:
        DataError: calamine cannot read the workbook.
    """
    from python_calamine import CalamineError, CalamineWorkbook

    try:
        with CalamineWorkbook.from_path(path) as workbook:
            yield workbook.get_sheet_by_name(sheet)
    except CalamineError as error:
        raise DataError(
            _("{file}: cannot be read ({reason}); save it again as .xlsx").format(file=path.name, reason=error)
        ) from error


def from_a1(file: str, values: CalamineSheet, width: int) -> Iterator[list[Value]]:
    """Iterate over rows that begin in column A and have `width` cells: calamine trims columns without values.

    Args:
        file: its name, for errors.
        values: the sheet.
        width: the number of columns in use.

    Raises:
        DataError: a duration has more days than Python's can have.
    """
    left = values.start[1] if values.start else 0
    before: list[Value] = [""] * left
    number = 0
    try:
        for number, row in enumerate(values.iter_rows(), start=1):  # noqa: B007
            after: list[Value] = [""] * (width - left - len(row))
            yield before + row + after if left or after else row
    except OverflowError as error:
        text = _(
            "a number that is shown as hours, such as [h]:mm, is too large for that; give its cell the format General"
        )
        raise DataError(Finding("error", "number-too-large", file, text, number + 1)) from error


def choose_sheet(
    path: Path, sheets: Mapping[str, bool], wanted: str | None
) -> tuple[str, tuple[str, ...], tuple[str, ...], tuple[Finding, ...]]:
    """Choose a sheet, the first visible one by default.

    Args:
        path: of the workbook, for errors.
        sheets: by name, whether each sheet is hidden.
        wanted: the name that the user gives.

    Returns:
        The name of the sheet, the names of the other visible sheets and of the other hidden ones, and findings about
        these.

    Raises:
        DataError: there is no sheet, or none of the wanted name.
    """
    if not sheets:
        raise DataError(_("{file}: has no sheet with cells; save it as .xlsx").format(file=path.name))
    if wanted is not None and wanted not in sheets:
        text = _("{file}: no sheet {wanted}; choose one of {sheets} with --sheet")
        raise DataError(text.format(file=path.name, wanted=wanted, sheets=tuple(sheets)))
    name = next((one for one, hidden in sheets.items() if not hidden), next(iter(sheets))) if wanted is None else wanted
    others = tuple(one for one, hidden in sheets.items() if one != name and not hidden)
    unseen = tuple(one for one, hidden in sheets.items() if one != name and hidden)
    findings = []
    if sheets[name]:
        findings.append(
            Finding("warning", "hidden-sheet", path.name, _("sheet {name} is hidden; it was read").format(name=name))
        )
    if unseen and wanted is None:
        text = _("hidden sheets were skipped: {names}; choose with --sheet").format(names=unseen)
        findings.append(Finding("note", "hidden-sheets", path.name, text))
    return name, others, unseen, tuple(findings)


def refuse_size(path: Path, sheet: str, rows: int, last_column: int, text_size: int = 0) -> None:
    """Refuse a sheet that would not fit into memory.

    Raises:
        DataError: it spans too many cells, or has too much text.
    """
    columns = last_column + 1
    if rows * columns > MAX_CELLS:
        raise DataError(
            _(
                "{file}: sheet {sheet} spans {rows:,} rows and {columns:,} columns; clear the cells far from the "
                "table, or save it as .csv"
            ).format(file=path.name, sheet=sheet, rows=rows, columns=columns)
        )
    if text_size > MAX_TEXT:
        text = _("{file}: sheet {sheet} holds {size:,} MB of text, more than {limit:,}; save it as .csv")
        raise DataError(text.format(file=path.name, sheet=sheet, size=text_size >> 20, limit=MAX_TEXT >> 20))


def _iter_rows(values: Iterator[list[Value]], marks: Marks, epoch: datetime) -> Iterator[TableRow]:
    special, merged = marks.rows(), Merged(marks.merged_columns()) if marks.merged else None
    for number, row in enumerate(values, start=1):
        if number in special:
            places = [(number, column) for column in range(len(row))]
            formatted = [show_cell(one, marks.formats.get(at), epoch) for at, one in zip(places, row, strict=True)]
            cells = [one.text for one in formatted]
            found = map(_examine, repeat(marks), places, row, formatted)
            findings = {column: finding for column, finding in enumerate(found) if finding}
        else:
            cells, findings = [value if type(value) is str else show_value(value) for value in row], {}
        numbers = [value for value in row if type(value) is float]
        if numbers and (max(numbers) >= ROUNDED or min(numbers) <= -ROUNDED):
            worse = {column: finding for column, finding in findings.items() if finding.level != "repair"}
            findings = findings | _find_long_numbers(row, cells) | worse
        if merged:
            findings |= merged(number, cells)
        if number in marks.hidden_rows and any(cells):
            findings[WHOLE_ROW] = CellFinding("warning", "hidden-row", _("is a hidden row; it was read"))
        yield TableRow(number, cells, findings or NO_FINDINGS)


def _find_long_numbers(row: list[Value], cells: list[str]) -> dict[int, CellFinding]:
    """Warnings of numbers that may have lost their last digits, most often ids."""
    return {
        column: CellFinding("warning", "long-number", LONG_NUMBER.format(shown=shown))
        for column, (value, shown) in enumerate(zip(row, cells, strict=True))
        if type(value) is float and abs(value) >= ROUNDED
    }


def _examine(marks: Marks, place: Place, value: Value, formatted: Shown) -> CellFinding | None:
    """The finding about a cell, the worst if there are several."""
    shown = formatted.text
    if place in marks.errors:
        return CellFinding("error", "error-cell", ERROR_CELL)
    if place in marks.struck and value != "":
        text = _("has text that is struck through and was read: {shown}; delete it if it is not meant").format(
            shown=shown[:20]
        )
        return CellFinding("warning", "struck-text", text)
    if place in marks.formulas:
        if value == "":
            text = _(
                "is a formula without a stored value; open the workbook in a spreadsheet and save it, or type the value"
            )
            return CellFinding("error", "formula-without-value", text)
        return CellFinding(
            "repair", "formula", _("is a formula; its stored value {shown} was read").format(shown=shown)
        )
    code = marks.formats.get(place)
    if code is None or value == "":
        return None
    kind = kind_of(code)
    if not formatted.exact and kind != "date":
        code = code.replace(SYSTEM, "")
        text = _(
            "has the format {code}, which cannot be shown exactly; read as {shown}: type it as text if that is wrong"
        ).format(code=code, shown=shown)
        return CellFinding("warning", "format-not-exact", text)
    if isinstance(value, str):
        text = _("is a text shown as {shown}; read as shown").format(shown=shown)
        return None if shown == value else CellFinding("repair", "text-format", text)
    if kind == "date":
        text = _(
            "is a date or a time; its format {code} may show otherwise than {shown}: type it as text if that is wrong"
        )
        if formatted.exact:
            text = _("is a date or a time; read as shown, {shown}: type it as text if that is wrong")
        return CellFinding("warning", "date-cell", text.format(code=code, shown=shown))
    if isinstance(value, int | float) and shown == show_number(value):
        return None
    return CellFinding(
        "repair",
        f"{kind}-format",
        _("is a number shown as {shown}; read as shown").format(shown=shown),
    )


class Merged:
    """Finds merged cells, which show the text of the first of them.

    Args:
        columns: the merged ranges in each column, sorted: first and last row, and first column; see
            `Marks.merged_columns`.
    """

    def __init__(self, columns: dict[int, list[tuple[int, int, int]]]) -> None:
        self.columns, self.shown = columns, dict[tuple[int, int], str]()

    def __call__(self, number: int, cells: list[str]) -> dict[int, CellFinding]:
        """Empty the cells of a row that are merged with cells above or to the left, in place.

        Returns:
            An error for each of them, by column. Rows must come in order.
        """
        findings = {}
        for column, ranges in self.columns.items():
            place = bisect_right(ranges, (number, MAX_CELLS, 0)) - 1
            if place < 0 or ranges[place][1] < number or column >= len(cells):
                continue
            top, _last, left = ranges[place]
            if (number, column) == (top, left):
                self.shown[top, left] = cells[column]
                continue
            cells[column] = ""  # a value left under a merged cell is not shown
            if left < column:
                text = _("is merged with column {letters}; unmerge and fill in each").format(letters=letters(left))
                findings[column] = CellFinding("error", "merged-cell", text)
            else:
                text = _("is merged with the cells from row {top} on; unmerge and fill in each").format(top=top)
                findings[column] = CellFinding("error", "merged-cell", text, self.shown.get((top, left), ""))
        return findings
