"""Reads a sheet of an OpenDocument spreadsheet (.ods), which stores the text that each cell shows.

The format is OASIS OpenDocument 1.3, part 3, 9. One element may stand for many rows or cells
(`number-columns-repeated`), so the cells are counted while they are expanded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import ZipFile

from lrc.data.tables.cell_text import show_number
from lrc.data.tables.headers import LOOKED_AT
from lrc.data.tables.table import ERROR_CELL, NO_FINDINGS, WHOLE_ROW, CellFinding, Table, TableRow
from lrc.data.tables.xlsx import MAX_CELLS, MAX_TEXT, Merged, choose_sheet
from lrc.data.tables.xlsx_package import open_package, parse
from lrc.runtime.errors import DataError
from lrc.runtime.translation import _

CONTENT, _MANIFEST = "content.xml", "META-INF/manifest.xml"
_CELLS = ("table-cell", "covered-table-cell")
# Elements whose text does not belong to a cell.
_ASIDE = ("annotation", "tracked-changes", "shapes", "forms", "named-expressions")
_SPACES = {"tab": "\t", "line-break": "\n"}
_HIDDEN = ("collapse", "filter")
_MAX_ROWS, _MAX_COLUMNS = 1 << 20, 1 << 14

Attributes = dict[str, str]


@contextmanager
def open_document(path: Path, sheet: str | None) -> Iterator[Table]:
    """Open a sheet as a table, the first visible one by default.

    Raises:
        DataError: there is no such sheet, the file is encrypted, or the sheet has too many cells; see also
            `xlsx_package.open_package`.
    """
    with open_package(path, CONTENT) as package:
        _refuse_encrypted(path, package)
        names = _Names()
        parse(package, CONTENT, names.start)
        name, others, unseen, findings = choose_sheet(path, names.hidden, sheet)
        reader = _Reader(path, name)
        parse(package, CONTENT, reader.start, reader.text, end=reader.end)
    yield Table(path.name, name, others, reader.marked(), findings, frozenset(reader.hidden_columns), unseen)


def _refuse_encrypted(path: Path, package: ZipFile) -> None:
    found: list[str] = []
    parse(package, _MANIFEST, lambda name, _: found.append(name) if name == "encryption-data" else None)
    if found:
        raise DataError(
            _("{file}: encrypted; open it in a spreadsheet, remove the password and save it").format(file=path.name)
        )


class _Names:
    """Collects the names of the sheets, and whether each is hidden by its style."""

    def __init__(self) -> None:
        self.hidden: dict[str, bool] = {}
        self.style = ""
        self.unseen: set[str] = set()

    def start(self, name: str, attributes: Attributes) -> None:
        """Handle the start of an element."""
        given = _strip_prefixes(attributes)
        if name == "style":
            self.style = given.get("name", "")
        elif name == "table-properties" and given.get("display") == "false":
            self.unseen.add(self.style)
        elif name == "table" and "name" in given:
            self.hidden.setdefault(given["name"], given.get("style-name") in self.unseen)


@dataclass
class _Cell:
    """The cell that is being read."""

    attributes: Attributes
    paragraphs: list[str] = field(default_factory=list)

    @property
    def shown(self) -> str:
        """The text that the cell shows."""
        text = "\n".join(self.paragraphs)
        if text or "value" not in self.attributes:
            return text or self.attributes.get("string-value", "")
        return show_number(float(self.attributes["value"]))


class _Reader:
    """Collects the rows of one sheet."""

    def __init__(self, path: Path, sheet: str) -> None:
        self.file, self.sheet = path.name, sheet
        self.rows: list[TableRow] = []
        self.merged: dict[int, list[tuple[int, int, int]]] = {}
        self.hidden_columns: set[int] = set()
        self.inside = self.aside = 0  # how many tables, and elements of _ASIDE, are open
        self.number, self.column, self.size, self.count = 1, 0, 0, 0
        self.row: Attributes = {}
        self.cells: dict[int, str] = {}
        self.findings: dict[int, CellFinding] = {}
        self.cell: _Cell | None = None

    def start(self, name: str, attributes: Attributes) -> None:
        """Handle the start of an element."""
        self.aside += name in _ASIDE
        if self.aside:
            return
        given = _strip_prefixes(attributes)
        if name == "table":
            self.inside += bool(self.inside) or given.get("name") == self.sheet
        if self.inside != 1:  # a table inside a cell is not part of the sheet
            return
        if name == "table-column":
            self._add_column(given)
        elif name == "table-row":
            self.row, self.column = given, 0
        elif name in _CELLS:
            self.cell = _Cell(given)
        elif name == "p" and self.cell:
            self.cell.paragraphs.append("")
        elif name in _SPACES:
            self.text(_SPACES[name])
        elif name == "s":
            self.text(" " * min(_read_repeat(given, "c", 1 << 15), 1 << 15))

    def text(self, piece: str) -> None:
        """Handle text: add it to the last paragraph of the open cell, if there is one."""
        if self.cell and self.cell.paragraphs and not self.aside and self.inside == 1:
            self.cell.paragraphs[-1] += piece

    def end(self, name: str) -> None:
        """Handle the end of an element."""
        if name in _ASIDE:
            self.aside -= 1
        elif not self.aside and self.inside:
            if name == "table":
                self.inside -= 1
            elif self.inside == 1 and name in _CELLS and self.cell:
                self._add_cell(self.cell)
                self.cell = None
            elif self.inside == 1 and name == "table-row":
                self._finish_row()

    def marked(self) -> Iterator[TableRow]:
        """The rows, with findings about merged cells."""
        merged = Merged(self.merged)
        # A row ends with its last cell, but a header must be as wide as the table: columns may have no name.
        width = max((len(row.cells) for row in self.rows), default=0)
        for place, row in enumerate(self.rows):
            if place < LOOKED_AT:
                row.cells.extend([""] * (width - len(row.cells)))
            findings = {**merged(row.number, row.cells), **row.findings} if self.merged else row.findings
            yield row._replace(findings=findings or NO_FINDINGS)

    def _add_column(self, given: Attributes) -> None:
        count = _read_repeat(given, "number-columns-repeated", _MAX_COLUMNS)
        if given.get("visibility") in _HIDDEN:
            self.hidden_columns.update(range(self.column, self.column + count))
        self.column += count

    def _add_cell(self, cell: _Cell) -> None:
        count = _read_repeat(cell.attributes, "number-columns-repeated", _MAX_COLUMNS)
        text, finding = cell.shown, _examine(cell)
        if text or finding:
            self._count(count, len(text) * count)
            self.cells |= dict.fromkeys(range(self.column, self.column + count), text)
            if finding:
                self.findings[self.column] = finding
        rows = _read_repeat(cell.attributes, "number-rows-spanned", _MAX_ROWS)
        columns = _read_repeat(cell.attributes, "number-columns-spanned", _MAX_COLUMNS)
        if rows > 1 or columns > 1:
            for column in range(self.column, self.column + columns):
                self.merged.setdefault(column, []).append((self.number, self.number + rows - 1, self.column))
        self.column += count

    def _finish_row(self) -> None:
        count = _read_repeat(self.row, "number-rows-repeated", _MAX_ROWS)
        if self.cells:
            for empty in range(self.rows[-1].number + 1 if self.rows else 1, self.number):
                self._count(1, 0)
                self.rows.append(TableRow(empty, [], NO_FINDINGS))
            width = max(self.cells) + 1
            if self.row.get("visibility") in _HIDDEN:
                self.findings[WHOLE_ROW] = CellFinding("warning", "hidden-row", _("is a hidden row; it was read"))
            for number in range(self.number, self.number + count):
                self._count(width, sum(map(len, self.cells.values())))
                cells = [self.cells.get(column, "") for column in range(width)]
                self.rows.append(TableRow(number, cells, dict(self.findings)))
        self.number += count
        self.cells, self.findings = {}, {}

    def _count(self, cells: int, size: int) -> None:
        self.count, self.size = self.count + cells, self.size + size
        if self.count > MAX_CELLS or self.size > MAX_TEXT:
            raise DataError(
                _(
                    "{file}: sheet {sheet} spans too many cells; clear those far from the table, or save it as .csv"
                ).format(file=self.file, sheet=self.sheet)
            )


def _examine(cell: _Cell) -> CellFinding | None:
    kind = cell.attributes.get("value-type", "")
    if "error" in cell.attributes.get("value-types", kind):
        return CellFinding("error", "error-cell", ERROR_CELL)
    if "formula" in cell.attributes:
        return CellFinding(
            "repair", "formula", _("is a formula; its stored value {shown} was read").format(shown=cell.shown)
        )
    if kind in ("date", "time"):
        text = _("is a date or a time; read as shown, {shown}: type it as text if that is wrong").format(
            shown=cell.shown
        )
        return CellFinding("warning", "date-cell", text)
    return None


def _strip_prefixes(attributes: Attributes) -> Attributes:
    """Strip the prefixes of attributes. Two are called value-type, only one of which tells errors: both are kept."""
    bare = {key.rpartition(":")[2]: value for key, value in attributes.items()}
    if "value-type" in bare:
        bare["value-types"] = " ".join(value for key, value in attributes.items() if key.endswith(":value-type"))
    return bare


def _read_repeat(attributes: Attributes, key: str, most: int) -> int:
    value = attributes.get(key, "")
    return min(int(value[:9]), most) if value.isdecimal() and int(value[:9]) > 0 else 1
