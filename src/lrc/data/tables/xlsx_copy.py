"""A copy of a workbook to write into: formats, widths and other sheets stay as they are.

openpyxl does the copying. What it does not know, such as shapes, is named; a text never becomes a formula; and the same
workbook with the same changes gives the same bytes.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from xml.sax.saxutils import escape
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile, ZipInfo

from lrc.data.tables.table import letters
from lrc.data.tables.xlsx_package import find_part, open_package
from lrc.runtime.errors import DataError, OutputError
from lrc.runtime.findings import Finding, Level
from lrc.runtime.translation import _

if TYPE_CHECKING:
    from openpyxl.cell.cell import Cell, MergedCell
    from openpyxl.worksheet.worksheet import Worksheet

COPIED = (".xlsx", ".xlsm")
MAX_XML = 128 << 20  # bytes; openpyxl takes some twenty times as much memory
MAX_CELL = 32_767  # characters that a cell can hold
AUTHOR = "lrc"
FILLS: dict[Level | Literal["changed"], str] = {
    "error": "FFC7CE",
    "warning": "FFEB9C",
    "note": "E7E6E6",
    "repair": "DDEBF7",
    "changed": "C6E0B4",
}
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_LIKE_AN_ESCAPE = re.compile("_(?=x[0-9A-Fa-f]{4}_)")
_SHAPE = re.compile(rb"<(?:\w+:)?(?:sp|cxnSp)[ />]")
_BLANK = re.compile(rb"<t>(\s+)</t>")
_FORMULA = re.compile(
    rb'(?P<cell><c r="(?P<name>[A-Z]+\d+)"[^>]*)>(?P<formula><f(?:[^>]*/>|[^>]*>[^<]*</f>))<v ?(?:/>|></v>)'
)
# Folders of a package whose parts openpyxl writes in its own way, or that a spreadsheet makes anew.
_REWRITTEN = re.compile(r"_rels|docProps|xl|xl/(?:worksheets|theme|drawings|printerSettings|comments|_rels).*")


def check_copy(source: Path, output: Path, flag: str) -> None:
    """Refuse what cannot be copied, by its name alone.

    Raises:
        DataError: the source is no .xlsx or .xlsm workbook.
        OutputError: the copy would have another format.
    """
    suffix = source.suffix.lower()
    if suffix not in COPIED:
        raise DataError(
            _("{name}: {flag} copies an .xlsx workbook; save this file as .xlsx first").format(
                name=source.name, flag=flag
            )
        )
    if output.suffix.lower() != suffix:
        raise OutputError(
            _("{output}: is a copy of {name}; let its name end in {suffix}, too").format(
                output=output, name=source.name, suffix=suffix
            )
        )


class WorkbookCopy:
    """A workbook in memory, one sheet of which is written into.

    Args:
        path: an .xlsx or .xlsm file.
        sheet: the sheet; None takes the first visible one.

    Raises:
        DataError: it cannot be read, or is too large for that.
    """

    def __init__(self, path: Path, sheet: str | None = None) -> None:
        self.path = path
        self.notes: list[str] = []  # what openpyxl says of what it leaves out
        self.book = self._load()
        visible = (one for one in self.book.worksheets if one.sheet_state == "visible")
        self.sheet: Worksheet = self.book[sheet] if sheet else next(visible, self.book.worksheets[0])
        self._merged: dict[tuple[int, int], Any] | None = None
        self._marked: dict[str, str] = {}  # the colour of each marked cell

    def _load(self) -> Any:
        from openpyxl import load_workbook

        with open_package(self.path) as package:
            self.dated = find_part(package, "docProps/core.xml") is not None
            size = sum(part.file_size for part in package.infolist() if part.filename.endswith(".xml"))
        if size > MAX_XML:
            raise DataError(
                _("{file}: {size:,} MB of XML, more than {max_xml} MB to copy; split it").format(
                    file=self.path.name, size=size >> 20, max_xml=MAX_XML >> 20
                )
            )
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                book = load_workbook(self.path, rich_text=True, keep_vba=self.path.suffix.lower() == ".xlsm")
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, BadZipFile) as error:
            what = " ".join(str(error).split())[:200]
            raise DataError(
                _("{file}: cannot be copied ({what}); save it again with a spreadsheet").format(
                    file=self.path.name, what=what
                )
            ) from error
        self.notes += dict.fromkeys(str(one.message) for one in caught if issubclass(one.category, UserWarning))
        return book

    def write(self, row: int, column: int, value: str | int | float) -> None:
        """Write a value into a cell; a text stays a text, whatever it begins with.

        Args:
            row, column: from 1. A cell that is merged with others is taken out of them first.

        Raises:
            OutputError: the text is longer than a cell can hold.
        """
        if value == "":
            return
        self._unmerge(row, column)
        set_value(self.sheet.cell(row, column), value)

    def _unmerge(self, row: int, column: int) -> None:
        if self._merged is None:
            self._merged = {place: found for found in self.sheet.merged_cells.ranges for place in found.cells}
        if (found := self._merged.get((row, column))) is None:
            return
        self.sheet.unmerge_cells(str(found))
        self._merged = {place: one for place, one in self._merged.items() if one is not found}

    def mark(self, row: int, column: int, fill: Level | Literal["changed"], text: str = "") -> None:
        """Colour a cell, and add a line to its comment.

        Args:
            row, column: from 1; of merged cells the first is marked.
        """
        from openpyxl.cell.cell import MergedCell
        from openpyxl.styles import PatternFill

        cell = self.sheet.cell(row, column)
        if isinstance(cell, MergedCell):
            found = next(one for one in self.sheet.merged_cells.ranges if cell.coordinate in one)
            cell = self.sheet.cell(found.min_row, found.min_col)
        cell.fill = PatternFill("solid", fgColor=FILLS[fill])
        self._marked[cell.coordinate] = FILLS[fill]
        if not _is_dark(cell.font.color):  # it would not be read on a pale fill
            cell.font = _restyled(cell.font, color="000000")
        if text:
            _comment(cell, text)

    def add_sheet(self, title: str, widths: Sequence[float]) -> Worksheet:
        """A new sheet after all others, which prints on pages as wide as it; the one that is shown first stays that.

        Args:
            widths: of its columns, in characters.
        """
        sheet = self.book.create_sheet(title)  # openpyxl numbers a title that is taken
        for column, width in enumerate(widths):
            sheet.column_dimensions[letters(column)].width = width
        sheet.page_setup.orientation = "landscape"
        sheet.page_setup.fitToHeight = 0
        sheet.sheet_properties.pageSetUpPr.fitToPage = True
        return sheet

    def link(self, cell: Any, place: str) -> None:
        """Have a cell of an added sheet lead to a place, such as `B7`, of the sheet that is written into."""
        from openpyxl.styles import Alignment
        from openpyxl.worksheet.hyperlink import Hyperlink

        title = self.sheet.title.replace("'", "''")
        cell.hyperlink = Hyperlink(ref=cell.coordinate, location=f"'{title}'!{place}")
        cell.font = _restyled(cell.font, underline="single", color="0563C1")
        cell.alignment = Alignment(horizontal="center", vertical="top")

    def to_bytes(self) -> bytes:
        """The workbook as a file holds it; see `left_out` for what is missing."""
        from openpyxl.writer.excel import ExcelWriter

        if not self.dated:  # openpyxl would take this moment
            self.book.properties.created = self.book.properties.modified = datetime(1980, 1, 1)
        self._show_marks()
        packed = BytesIO()
        ExcelWriter(self.book, ZipFile(packed, "w", ZIP_DEFLATED)).save()
        return _repack(packed, self._formula_values())

    def _show_marks(self) -> None:
        """Put the marks above the sheet's conditional formats, which would cover them."""
        from openpyxl.formatting.formatting import ConditionalFormattingList
        from openpyxl.formatting.rule import FormulaRule
        from openpyxl.styles import PatternFill

        formats = list(self.sheet.conditional_formatting)
        covered: dict[str, list[str]] = {}
        for place, fill in self._marked.items():
            if any(place in one for one in formats):
                covered.setdefault(fill, []).append(place)
        if not covered:
            return
        # Excel goes by the priority of rules, others by their order.
        self.sheet.conditional_formatting = ConditionalFormattingList()
        for fill, places in covered.items():
            rule = FormulaRule(["TRUE"], fill=PatternFill("solid", bgColor=fill), stopIfTrue=True)
            self.sheet.conditional_formatting.add(" ".join(places), rule)
        for one in formats:
            for rule in one.rules:
                rule.priority += len(covered)
                self.sheet.conditional_formatting.add(one, rule)
        self._marked.clear()

    def _formula_values(self) -> dict[str, dict[str, Any]]:
        """What the original's formulas came to, by the copy's part and by cell; openpyxl writes them without."""
        from openpyxl import load_workbook

        cells = {
            f"xl/worksheets/sheet{number}.xml": (sheet.title, _formulas(sheet))
            for number, sheet in enumerate(self.book.worksheets, start=1)
        }
        if not any(names for _, names in cells.values()):
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they were noted above
            values = load_workbook(self.path, data_only=True)
        return {
            part: {name: values[title][name].value for name in names}
            for part, (title, names) in cells.items()
            if title in values.sheetnames
        }

    def left_out(self, copy: bytes) -> list[Finding]:
        """What of the original is not in the copy: warnings, one for all of it."""
        with ZipFile(self.path) as before, ZipFile(BytesIO(copy)) as after:
            old, new = _count(before), _count(after)
        lost = [f"{old[name] - new[name]} {name}" for name in old if old[name] > new[name]]
        if not lost and not self.notes:
            return []
        text = _("not in the copy: {names}; the original has it").format(names="; ".join([*lost, *self.notes]))
        return [Finding("warning", "not-copied", self.path.name, text)]


def set_value(cell: Cell | MergedCell, value: str | int | float) -> None:
    """Give a cell a value; what is a text stays one, even =1+1 and #N/A.

    Raises:
        OutputError: the text is longer than a cell can hold.
    """
    if not isinstance(value, str):
        cell.value = value
        return
    if len(value) > MAX_CELL:
        raise OutputError(
            _("{coordinate}: {count:,} characters, more than the {max_cell:,} of a cell").format(
                coordinate=cell.coordinate, count=len(value), max_cell=MAX_CELL
            )
        )
    cell.value = writable(value)
    cell.data_type = "s"
    if value.startswith(("=", "+", "-", "@", "#", "'")):
        cell.quotePrefix = True  # so that it stays one when a person edits it


def embolden(cell: Cell | MergedCell) -> None:
    """Make a cell's text bold, in the workbook's own font."""
    cell.font = _restyled(cell.font, bold=True)


def _restyled(font: Any, **changes: Any) -> Any:
    from openpyxl.styles import Font

    kept = ("name", "size", "bold", "italic", "strike", "underline", "vertAlign", "color", "charset", "family")
    return Font(**({name: getattr(font, name) for name in kept} | changes))


def _is_dark(color: Any) -> bool:
    """Whether letters of a colour can be read on a pale fill."""
    from openpyxl.styles.colors import COLOR_INDEX

    if color is None or color.type == "auto":
        return True
    if color.type == "theme":
        return color.theme in (1, 3)  # the dark colours of a text; the others may be any
    if color.type == "indexed":
        rgb = COLOR_INDEX[color.indexed] if color.indexed < len(COLOR_INDEX) else "00000000"
    else:
        rgb = color.rgb
    red, green, blue = (part / 255 for part in bytes.fromhex(rgb[-6:]))
    return 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2 < 0.25  # a person's red stays


def writable(text: str) -> str:
    """A text as XML can hold it: what it cannot becomes U+FFFD, and what only looks like an escape stays."""
    return _LIKE_AN_ESCAPE.sub("_x005F_", _FORBIDDEN.sub("\ufffd", text))


def _comment(cell: Any, text: str) -> None:
    from openpyxl.comments import Comment

    text = _FORBIDDEN.sub("\ufffd", text)
    if cell.comment is not None:
        text = f"{cell.comment.text}\n{text}"
    lines = sum(1 + len(line) // 40 for line in text.split("\n"))
    cell.comment = Comment(text, AUTHOR, height=min(20 + 18 * lines, 400), width=320)


def _formulas(sheet: Worksheet) -> list[str]:
    return [cell.coordinate for row in sheet.iter_rows() for cell in row if cell.data_type == "f"]


def _repack(packed: BytesIO, values: dict[str, dict[str, Any]]) -> bytes:
    """The same package with what openpyxl forgets: white space of its own format, and what formulas come to.

    The parts' times are left out, as spreadsheets do, so that the same content is the same bytes.
    """
    plain = BytesIO()
    with ZipFile(packed) as before, ZipFile(plain, "w", ZIP_DEFLATED) as after:
        for part in before.infolist():
            content = before.read(part)
            if part.filename.startswith("xl/worksheets/sheet"):
                content = _BLANK.sub(rb'<t xml:space="preserve">\1</t>', content)
                content = _with_values(content, values.get(part.filename, {}))
            after.writestr(ZipInfo(part.filename), content, ZIP_DEFLATED)
    return plain.getvalue()


def _with_values(content: bytes, values: dict[str, Any]) -> bytes:
    def fill(found: re.Match[bytes]) -> bytes:
        value = values.get(found["name"].decode())
        if value is None:
            return found[0]
        kind, text = _encode_value(value)
        return found["cell"] + kind + b">" + found["formula"] + b"<v>" + text + b"</v>"

    return _FORMULA.sub(fill, content) if values else content


def _encode_value(value: Any) -> tuple[bytes, bytes]:
    """The type and the text of a formula's value, as a sheet stores them."""
    from openpyxl.cell.cell import ERROR_CODES
    from openpyxl.utils.datetime import to_excel

    if isinstance(value, bool):
        return b' t="b"', b"%d" % value
    if isinstance(value, str):
        return (b' t="e"' if value in ERROR_CODES else b' t="str"'), escape(writable(value)).encode()
    return b"", str(value if isinstance(value, int | float) else to_excel(value)).encode()


def _count(package: ZipFile) -> Counter[str]:
    """How much there is of what openpyxl may leave out."""
    return Counter(_parts(package))


def _parts(package: ZipFile) -> Iterator[str]:
    for name in package.namelist():
        folder = name.rpartition("/")[0]
        if name.endswith("vbaProject.bin"):
            yield "macros"
        elif re.fullmatch(r"xl/drawings/drawing\d+\.xml", name):
            yield from ["shapes"] * len(_SHAPE.findall(package.read(name)))
        elif name == "xl/sharedStrings.xml":
            yield from ["escaped _x…_"] * package.read(name).count(b"_x005F_")
        elif "/_rels" not in name and folder and not _REWRITTEN.fullmatch(folder):
            yield folder.removeprefix("xl/")
