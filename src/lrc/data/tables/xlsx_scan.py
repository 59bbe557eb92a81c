"""Scans the XML of a sheet for what calamine does not return: formats, formulas, errors, merged cells and the size."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from string import ascii_uppercase, digits
from zipfile import ZipFile

from lrc.data.tables.bookparts import is_on, read_styles
from lrc.data.tables.cell_text import kind_of
from lrc.data.tables.xlsx_package import parse

Place = tuple[int, int]  # row from 1, column from 0

_REFERENCE = re.compile(r"([A-Z]{1,3})([0-9]{1,7})")
_LONGEST = len("XFD1048576")
_COLUMNS = 16_384
_TRUE = ("1", "true")
_ROW_END = b"</row>"
_CELL = re.compile(rb'<c r="([A-Z]{1,3}[0-9]{1,7})"[^>]*(?<!/)>')  # a cell with content
_SHARED = re.compile(rb't="s"[^>]*><v>([0-9]{1,9})</v>')
_UNUSUAL_CELL = re.compile(rb'<c[\s>/](?!r="[A-Z]{1,3}[0-9]{1,7}")')
_UNUSUAL = (b"<f", b't="e"', b"<mergeCell", b" hidden=", b' ht="0', b' width="0', b":c ", b" =", b"strike")
_UNUSUAL_VALUE = re.compile(rb'=[^"]')


@dataclass
class Marks:
    """What the XML of a sheet says about its cells apart from their values."""

    formats: dict[Place, str] = field(default_factory=dict)  # the number formats that change what is shown
    formulas: set[Place] = field(default_factory=set)
    errors: set[Place] = field(default_factory=set)
    struck: set[Place] = field(default_factory=set)  # cells with text that is struck through
    merged: list[tuple[Place, Place]] = field(default_factory=list)  # the first and the last cell, inclusive
    hidden_rows: set[int] = field(default_factory=set)  # from 1
    hidden_columns: set[int] = field(default_factory=set)  # from 0
    last: Place = (0, -1)  # the last row and the last column in use
    text_size: int = 0  # of the shared strings, counted once for each cell; see `string_sizes` for the unit

    def rows(self) -> set[int]:
        """The rows with a format, a formula, an error or struck text."""
        return {row for row, _ in (*self.formats, *self.formulas, *self.errors, *self.struck)}

    def merged_columns(self) -> dict[int, list[tuple[int, int, int]]]:
        """The merged ranges in each column in use, sorted: the first and the last row, and the first column."""
        columns: dict[int, list[tuple[int, int, int]]] = {}
        for (top, left), (bottom, right) in sorted(self.merged):
            for column in range(left, min(right, self.last[1]) + 1):
                columns.setdefault(column, []).append((top, bottom, left))
        return columns


def scan(package: ZipFile, part: str) -> Marks:
    """Scan the XML of a sheet.

    Args:
        package: from `open_package`.
        part: the name of the sheet's part.

    Raises:
        DataError: the sheet, the styles or the shared strings are damaged or hostile.
    """
    formats, struck = read_styles(package)
    special = {str(index): code for index, code in enumerate(formats) if kind_of(code)}
    scanner = _Scanner(special, struck, *string_sizes(package))
    parse(package, part, scanner.start, scanner.text, scanner.plain, _ROW_END)
    return scanner.marks


class _Scanner:
    """Scans a sheet in order: whole rows at once if nothing in them is special, else element by element."""

    def __init__(self, special: dict[str, str], struck: set[str], sizes: list[int], struck_strings: set[int]) -> None:
        self.marks, self.special, self.sizes = Marks(), special, sizes
        self.struck, self.struck_strings = struck, struck_strings
        self.cell: dict[str, str] = {}
        self.row = self.column = 0
        self.in_shared = False
        styles = b"|".join(sorted(index.encode() for index in {*special, *struck}))
        marked = [re.compile(rb' s="(?:' + styles + rb')"')] if styles else []
        self.unusual = (_UNUSUAL_CELL, _UNUSUAL_VALUE, *marked)

    def plain(self, rows: bytes) -> bool:
        """Handle whole rows at once; returns false if a cell in them is special."""
        if any(sign in rows for sign in _UNUSUAL) or any(sign.search(rows) for sign in self.unusual):
            return False
        shared = list(map(int, _SHARED.findall(rows)))
        if len(shared) != rows.count(b't="s"') or max(shared, default=-1) >= len(self.sizes):
            return False
        if not self.struck_strings.isdisjoint(shared):
            return False
        self.marks.text_size += sum(map(self.sizes.__getitem__, shared))
        cells = b",".join(_CELL.findall(rows))
        if cells:
            numbers = set(cells.translate(None, ascii_uppercase.encode()).split(b","))
            letters = set(cells.translate(None, digits.encode()).split(b","))
            self._use(max(map(int, numbers)), max(map(_column, letters)))
        return True

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """Handle the start of an element."""
        self.in_shared = False
        if name == "c":
            self.cell = attributes
            self.column += 1
            self._mark(attributes)
        elif name == "strike" and is_on(attributes):
            self.marks.struck.add(self._place())
        elif name in ("v", "is", "f"):
            place = self._place()
            self._use(*place)
            self.in_shared = name == "v" and self.cell.get("t") == "s"
            if name == "f":
                self.marks.formulas.add(place)
        elif name == "row":
            number = attributes.get("r", "")[:_LONGEST]
            self.row = int(number) if number.isdecimal() else self.row + 1
            self.column = 0
            if _is_hidden(attributes, "ht"):
                self.marks.hidden_rows.add(self.row)
        elif name == "col" and _is_hidden(attributes, "width"):
            self._hide(attributes.get("min", ""), attributes.get("max", ""))
        elif name == "mergeCell":
            ends = [_REFERENCE.fullmatch(end) for end in attributes.get("ref", "").split(":")]
            if len(ends) == 2 and ends[0] and ends[1]:
                self.marks.merged.append((_place(ends[0]), _place(ends[1])))

    def text(self, piece: str) -> None:
        """Handle text: in a cell with a shared string it is the index of the string."""
        if self.in_shared and piece.isdecimal() and len(piece) < 10 and int(piece) < len(self.sizes):
            self.marks.text_size += self.sizes[int(piece)]
            if int(piece) in self.struck_strings:
                self.marks.struck.add(self._place())
        self.in_shared = False

    def _mark(self, attributes: dict[str, str]) -> None:
        if attributes.get("s") in self.special:
            self.marks.formats[self._place()] = self.special[attributes["s"]]
        if attributes.get("s") in self.struck:
            self.marks.struck.add(self._place())
        if attributes.get("t") == "e":
            self.marks.errors.add(self._place())

    def _hide(self, first: str, last: str) -> None:
        if first.isdecimal() and last.isdecimal():
            self.marks.hidden_columns.update(range(int(first[:6]) - 1, min(int(last[:6]), _COLUMNS)))

    def _place(self) -> Place:
        """The position of the cell; a cell without a reference follows the one before it."""
        reference = self.cell.get("r", "")
        if not reference:
            return self.row, self.column - 1
        found = _REFERENCE.fullmatch(reference)
        return _place(found) if found else (10**9, 10**9)  # beyond any grid

    def _use(self, row: int, column: int) -> None:
        last = self.marks.last
        self.marks.last = (max(last[0], row), max(last[1], column))


def _is_hidden(attributes: dict[str, str], size: str) -> bool:
    """Whether a row or a column is hidden, or has the height or width 0."""
    return attributes.get("hidden") in _TRUE or re.fullmatch(r"0(?:\.0*)?", attributes.get(size, "")) is not None


def _place(reference: re.Match[str]) -> Place:
    return int(reference[2]), _column(reference[1].encode())


def _column(letters: bytes) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + letter - ord("A") + 1
    return number - 1


STRINGS, _END = "xl/sharedStrings.xml", b"</si>"


def string_sizes(package: ZipFile) -> tuple[list[int], set[int]]:
    """Measure the shared strings.

    Returns:
        The size of each, which is between its number of characters and its number of bytes with markup; and the indices
        of the strings of which a part is struck through.

    Raises:
        DataError: the part is damaged or hostile.
    """
    sizes: list[int] = []
    struck: set[int] = set()

    def start(name: str, attributes: dict[str, str]) -> None:
        if name == "si":
            sizes.append(0)
        elif name == "strike" and is_on(attributes):
            struck.add(len(sizes) - 1)

    def text(piece: str) -> None:
        if sizes:
            sizes[-1] += len(piece)

    def plain(piece: bytes) -> bool:
        strings = piece.split(_END)[:-1]
        if piece.count(b"<si") != len(strings) or b"<si/" in piece or b":si>" in piece or b"strike" in piece:
            return False
        sizes.extend(map(len, strings))
        return True

    parse(package, STRINGS, start, text, plain, _END)
    return sizes, struck
