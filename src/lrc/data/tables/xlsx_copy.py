"""A copy of a workbook to write into; formats, widths and other sheets are kept.

openpyxl makes the copy. What it cannot copy, such as shapes, is reported; a text never becomes a formula; and the same
workbook with the same changes gives the same bytes.
"""

from __future__ import annotations

import posixpath
import re
import warnings
from collections.abc import Sequence
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from xml.sax.saxutils import escape
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile, ZipInfo

from lrc.data.tables.table import letters
from lrc.data.tables.xlsx_comments import SheetComments, read_comments, restore_comments
from lrc.data.tables.xlsx_features import COMMENTS, compare_packages
from lrc.data.tables.xlsx_package import find_part, open_package
from lrc.runtime.errors import DataError, OutputError
from lrc.runtime.findings import Finding, Level
from lrc.runtime.library_errors import describe_error
from lrc.runtime.translation import _

if TYPE_CHECKING:
    from openpyxl.cell.cell import Cell, MergedCell
    from openpyxl.worksheet.worksheet import Worksheet

COPIED = (".xlsx", ".xlsm")
MAX_XML = 128 << 20  # bytes; openpyxl takes about twenty times as much memory
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
_BLANK = re.compile(rb"<t>(\s+)</t>")
# A link of a picture, whose relationship openpyxl does not write; and a relationship within the package.
_PICTURE_LINK = re.compile(rb"<(?P<name>(?:\w+:)?hlink(?:Click|Hover))\b[^>]*?(?:/>|>.*?</(?P=name)>)", re.DOTALL)
_RELATION = re.compile(rb'<Relationship (?![^>]*TargetMode="External")[^>]*Target="(?P<target>[^"]*)"[^>]*/>')
_FORMULA = re.compile(
    rb'(?P<cell><c r="(?P<name>[A-Z]+\d+)"[^>]*)>(?P<formula><f(?:[^>]*/>|[^>]*>[^<]*</f>))<v ?(?:/>|></v>)'
)


def check_copy(source: Path, output: Path, flag: str) -> None:
    """Refuse a file that cannot be copied, judging by its name.

    Args:
        source: the workbook.
        output: the path of the copy.
        flag: the flag that asks for a copy, for errors.

    Raises:
        DataError: the source is not an .xlsx or .xlsm workbook.
        OutputError: the copy has another suffix.
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
    """A workbook in memory, with one sheet to write into.

    Args:
        path: an .xlsx or .xlsm file.
        sheet: the sheet to write into; None takes the first visible one.

    Raises:
        DataError: the workbook cannot be read, or is too large.
    """

    def __init__(self, path: Path, sheet: str | None = None) -> None:
        self.path = path
        self.book, self.sheet = self._load(sheet)
        self._merged: dict[tuple[int, int], Any] | None = None
        self._marked: dict[str, str] = {}  # the colour of each marked cell

    def _load(self, sheet: str | None) -> tuple[Any, Worksheet]:
        from openpyxl import load_workbook

        with open_package(self.path) as package:
            self.comments = read_comments(package)
            self.dated = find_part(package, "docProps/core.xml") is not None
            size = sum(part.file_size for part in package.infolist() if part.filename.endswith(".xml"))
        if size > MAX_XML:
            raise DataError(
                _("{file}: {size:,} MB of XML, more than {max_xml} MB to copy; split it").format(
                    file=self.path.name, size=size >> 20, max_xml=MAX_XML >> 20
                )
            )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about what it leaves out, see `left_out`
                book = load_workbook(self.path, rich_text=True, keep_vba=self.path.suffix.lower() == ".xlsm")
            self.lost_comments = sum(_prepare_comments(book[title], one) for title, one in self.comments.items())
            visible = (one for one in book.worksheets if one.sheet_state == "visible")
            return book, book[sheet] if sheet else next(visible, book.worksheets[0])
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, BadZipFile, OSError) as error:
            what = describe_error(" ".join(str(error).split())[:200])
            raise DataError(
                _("{file}: cannot be copied ({what}); save it again with a spreadsheet").format(
                    file=self.path.name, what=what
                )
            ) from error

    def write(self, row: int, column: int, value: str | int | float) -> None:
        """Write a value into a cell; a text stays a text, whatever it begins with. Merged cells are unmerged first.

        Args:
            row, column: from 1.
            value: "" leaves the cell as it is.

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
            row, column: from 1; of merged cells, the first is marked.
            fill: decides on the colour, see `FILLS`.
            text: the line; empty adds none.
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
            _add_comment(cell, text)

    def add_sheet(self, title: str, widths: Sequence[float]) -> Worksheet:
        """Add a sheet after all others, which is printed in landscape and one page wide. The active sheet stays active.

        Args:
            title: its name; openpyxl adds a number if it is taken.
            widths: of its columns, in characters.
        """
        sheet = self.book.create_sheet(title)
        for column, width in enumerate(widths):
            sheet.column_dimensions[letters(column)].width = width
        sheet.page_setup.orientation = "landscape"
        sheet.page_setup.fitToHeight = 0
        sheet.sheet_properties.pageSetUpPr.fitToPage = True
        return sheet

    def link(self, cell: Any, place: str) -> None:
        """Link a cell of an added sheet to a cell of the sheet that is written into, such as `B7`."""
        from openpyxl.styles import Alignment
        from openpyxl.worksheet.hyperlink import Hyperlink

        title = self.sheet.title.replace("'", "''")
        cell.hyperlink = Hyperlink(ref=cell.coordinate, location=f"'{title}'!{place}")
        cell.font = _restyled(cell.font, underline="single", color="0563C1")
        cell.alignment = Alignment(horizontal="center", vertical="top")

    def to_bytes(self) -> bytes:
        """The content of the .xlsx file; see `left_out` for what it lacks."""
        if not self.dated:  # openpyxl would write the current time
            self.book.properties.created = self.book.properties.modified = datetime(1980, 1, 1)
        self._show_marks()
        packed = BytesIO()
        _writer_in_memory()(self.book, ZipFile(packed, "w", ZIP_DEFLATED)).save()
        with ZipFile(packed) as package:
            comments = restore_comments(package, self.comments)
        return _repack(packed, self._formula_values(), comments)

    def _show_marks(self) -> None:
        """Give the marks priority over the sheet's conditional formats, which would hide them."""
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
        # Excel sorts rules by their priority, other programs by their order.
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
        """The stored values of the original's formulas, by part of the copy and by cell; openpyxl omits them."""
        from openpyxl import load_workbook

        cells = {
            f"xl/worksheets/sheet{number}.xml": (sheet.title, _formulas(sheet))
            for number, sheet in enumerate(self.book.worksheets, start=1)
        }
        if not any(names for _, names in cells.values()):
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = load_workbook(self.path, data_only=True)
        return {
            part: {name: values[title][name].value for name in names}
            for part, (title, names) in cells.items()
            if title in values.sheetnames
        }

    def left_out(self, copy: bytes) -> list[Finding]:
        """Find what the copy lacks of the original.

        Args:
            copy: the content of the file, from `to_bytes`.

        Returns:
            One warning that lists it all; none if nothing is missing.
        """
        with ZipFile(self.path) as before, ZipFile(BytesIO(copy)) as after:
            lost = compare_packages(before, after)
        if self.lost_comments:
            lost[COMMENTS] = self.lost_comments
        if not lost:
            return []
        names = tuple(_("{name} ({count:,})").format(name=name, count=count) for name, count in lost.items())
        text = _("not in the copy: {names}; the original has it").format(names=names)
        return [Finding("warning", "not-copied", self.path.name, text)]


def _writer_in_memory() -> Any:
    """openpyxl's writer without its temporary files, as the folder for these may be full."""
    from openpyxl.drawing.spreadsheet_drawing import SpreadsheetDrawing
    from openpyxl.worksheet._writer import WorksheetWriter
    from openpyxl.writer.excel import ExcelWriter

    class WriterInMemory(ExcelWriter):
        _archive: ZipFile

        def write_worksheet(self, ws: Any) -> None:
            ws._drawing = SpreadsheetDrawing()
            ws._drawing.charts, ws._drawing.images = ws._charts, ws._images
            content = BytesIO()
            writer: Any = WorksheetWriter(ws, content)
            writer.write()
            ws._rels = writer._rels
            self._archive.writestr(ws.path[1:], content.getvalue())
            self.manifest.append(ws)

    return WriterInMemory


def set_value(cell: Cell | MergedCell, value: str | int | float) -> None:
    """Set the value of a cell; a text stays a text, even =1+1 and #N/A.

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
    cell.value = make_writable(value)
    cell.data_type = "s"
    if value.startswith(("=", "+", "-", "@", "#", "'")):
        cell.quotePrefix = True  # so that it stays a text when a person edits it


def embolden(cell: Cell | MergedCell) -> None:
    """Make the text of a cell bold; its font is kept."""
    cell.font = _restyled(cell.font, bold=True)


def _restyled(font: Any, **changes: Any) -> Any:
    from openpyxl.styles import Font

    kept = ("name", "size", "bold", "italic", "strike", "underline", "vertAlign", "color", "charset", "family")
    return Font(**({name: getattr(font, name) for name in kept} | changes))


def _is_dark(color: Any) -> bool:
    """Whether text of this colour is readable on a pale fill."""
    from openpyxl.styles.colors import COLOR_INDEX

    if color is None or color.type == "auto":
        return True
    if color.type == "theme":
        return color.theme in (1, 3)  # the dark text colours; the others depend on the theme
    if color.type == "indexed":
        rgb = COLOR_INDEX[color.indexed] if color.indexed < len(COLOR_INDEX) else "00000000"
    else:
        rgb = color.rgb
    red, green, blue = (part / 255 for part in bytes.fromhex(rgb[-6:]))
    # Relative luminance (Rec. 709); the standard red is dark enough to be kept.
    return 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2 < 0.25


def make_writable(text: str) -> str:
    """Make a text valid in XML: forbidden characters become U+FFFD, and text that looks like an escape is escaped."""
    return _LIKE_AN_ESCAPE.sub("_x005F_", _FORBIDDEN.sub("\ufffd", text))


def _add_comment(cell: Any, text: str) -> None:
    from openpyxl.comments import Comment

    text, author, width, height = _FORBIDDEN.sub("\ufffd", text), AUTHOR, 320, 0
    if (before := cell.comment) is not None:
        text, author = f"{before.text}\n{text}", before.author or AUTHOR
        width, height = max(width, before.width), before.height
    lines = sum(1 + len(line) // 40 for line in text.split("\n"))
    cell.comment = Comment(text, author, height=max(min(20 + 18 * lines, 400), height), width=width)


def _prepare_comments(sheet: Worksheet, comments: SheetComments) -> int:
    """Give the comments of a sheet their sizes, which openpyxl does not read. Returns how many it has left out."""
    left_out = 0
    for name in comments.texts:
        if (comment := sheet[name].comment) is None:  # on a cell that is merged with those before it
            left_out += 1
            continue
        if comment.author == "None":  # which is how openpyxl reads an author without a name
            comment.author = ""
        if (box := comments.boxes.get(name)) is not None and box.size is not None:
            comment.width, comment.height = map(round, box.size)
    return left_out


def _formulas(sheet: Worksheet) -> list[str]:
    return [cell.coordinate for row in sheet.iter_rows() for cell in row if cell.data_type == "f"]


def _repack(packed: BytesIO, values: dict[str, dict[str, Any]], comments: dict[str, bytes]) -> bytes:
    """Add to a package what openpyxl omits: white space that is preserved in rich text, values of formulas, comments.

    What openpyxl refers to without writing it is left out, since Excel takes such a workbook for a damaged one.

    The parts have no modification times, as in spreadsheets' own files, so that equal content gives equal bytes.
    """
    plain = BytesIO()
    with ZipFile(packed) as before, ZipFile(plain, "w", ZIP_DEFLATED) as after:
        there = set(before.namelist())
        for part in before.infolist():
            content = comments.get(part.filename) or before.read(part)
            if part.filename.startswith("xl/worksheets/sheet"):
                content = _BLANK.sub(rb'<t xml:space="preserve">\1</t>', content)
                content = _insert_values(content, values.get(part.filename, {}))
            elif part.filename.startswith("xl/drawings/drawing"):
                content = _PICTURE_LINK.sub(b"", content)
            elif part.filename.endswith(".rels"):
                content = _drop_dangling(content, part.filename, there)
            after.writestr(ZipInfo(part.filename), content, ZIP_DEFLATED)
    return plain.getvalue()


def _drop_dangling(relations: bytes, name: str, there: set[str]) -> bytes:
    """Leave out relationships with parts that are not in the package, such as the macros of an .xlsm that has none."""
    folder = posixpath.join("/", posixpath.dirname(posixpath.dirname(name)))

    def keep(found: re.Match[bytes]) -> bytes:
        target = posixpath.normpath(posixpath.join(folder, found["target"].decode())).lstrip("/")
        return found[0] if target in there else b""

    return _RELATION.sub(keep, relations)


def _insert_values(content: bytes, values: dict[str, Any]) -> bytes:
    def fill(found: re.Match[bytes]) -> bytes:
        value = values.get(found["name"].decode())
        if value is None:
            return found[0]
        kind, text = _encode_value(value)
        return found["cell"] + kind + b">" + found["formula"] + b"<v>" + text + b"</v>"

    return _FORMULA.sub(fill, content) if values else content


def _encode_value(value: Any) -> tuple[bytes, bytes]:
    """The type attribute and the text of a formula's value in the XML of a sheet."""
    from openpyxl.cell.cell import ERROR_CODES
    from openpyxl.utils.datetime import to_excel

    if isinstance(value, bool):
        return b' t="b"', b"%d" % value
    if isinstance(value, str):
        return (b' t="e"' if value in ERROR_CODES else b' t="str"'), escape(make_writable(value)).encode()
    return b"", str(value if isinstance(value, int | float) else to_excel(value)).encode()
