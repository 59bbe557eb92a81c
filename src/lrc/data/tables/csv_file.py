"""Reads the rows of a CSV file as spreadsheets write it, and detects its delimiter and encoding."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TextIO

from lrc.data.tables.headers import LOOKED_AT, role_of
from lrc.data.tables.table import TOO_FEW, WHOLE_ROW, CellFinding, Table, TableRow
from lrc.runtime.errors import DataError
from lrc.runtime.findings import Finding
from lrc.runtime.library_errors import describe_error
from lrc.runtime.translation import _

MAX_LINE = 1 << 20  # characters; a spreadsheet's cell holds 32,767
_SAVE = _("save it as 'CSV UTF-8' in a spreadsheet")
_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_ENCODINGS = {"Big5": "cp950", "GB18030": "gb18030"}  # what spreadsheets of the region write
_DELIMITERS = {",": _("commas"), "\t": _("tabs"), ";": _("semicolons"), "|": _("bars")}
_CHUNK = 1 << 20
# The most frequent characters of Chinese: text that was decoded wrongly has next to none of them.
_FREQUENT = frozenset(
    "的一是不了在人有我他這这個个們们中來来上大為为和國国地到以說说時时要就出會会可也你對对生能而子那得於于著着下自之年過过發发"
    "後后作用道行所然家種种事成方多經经麼么去法學学如都同現现當当沒没動动面起看定天分還还進进好小部其些主樣样理心她本前開开但因"
    "只從从想實实何者哪什誰谁列"
)
_HEADER = 3  # columns that a header has at least, such as question and two options
_BEGUN = 4  # cells; a row with fewer is a title, a heading or a footer
_LEAST = 0.1  # share of these among the characters that are not ASCII; a third or more in Chinese text


@contextmanager
def open_csv(path: Path) -> Iterator[Table]:
    """Open a CSV file as a table.

    The encoding is UTF-8, UTF-16, or else Big5 or GB18030 if the header or the text is Chinese in it. The delimiter is
    a comma, a tab, a semicolon or a bar, or what a first line such as `sep=;` says.

    Raises:
        DataError: the encoding is another one; or, as the rows are read: a quote is not closed, a line is too long or
            has a NUL character.
    """
    encoding, name = _detect_encoding(path)
    with path.open(encoding=encoding, newline="") as file:
        delimiter, stated = _detect_delimiter(path, file)
        file.seek(0)
        if stated:
            file.readline()
        findings = []
        if name:
            text = _(
                "is encoded as {name} and was read as such; characters that {name} lacks were lost when it was saved: "
                "{save}"
            ).format(name=name, save=_SAVE)
            findings.append(Finding("warning", "encoding", path.name, text))
        if delimiter != "," and path.suffix.lower() == ".csv":
            text = _("its cells are separated by {delimiter}; read so").format(
                delimiter=_DELIMITERS.get(delimiter, delimiter)
            )
            findings.append(Finding("repair", "delimiter", path.name, text))
        yield Table(path.name, None, (), _iter_rows(path, file, delimiter), tuple(findings))


def _detect_encoding(path: Path) -> tuple[str, str]:
    """The codec that decodes the whole file, and the name of the encoding unless it is UTF-8 or UTF-16.

    Raises:
        DataError: the file is a workbook, or in none of the known encodings.
    """
    with path.open("rb") as file:
        head = file.read(4)
        if head.startswith(_WORKBOOKS):
            raise DataError(_("{file}: a workbook, not CSV; rename it to .xlsx").format(file=path.name))
    wide = head.startswith(_UTF16)
    encoding, codec = ("UTF-16", "utf-16") if wide else ("UTF-8", "utf-8-sig")
    if (wrong := _find_undecodable(path, codec)) is None:
        return codec, ""
    likely = {} if wide else {name: _rate_chinese(path, other) for name, other in _ENCODINGS.items()}
    if any(likely.values()):
        name = max(likely, key=lambda name: likely[name])
        return _ENCODINGS[name], name
    line, byte = wrong
    raise DataError(
        _("{file}, near line {line}: byte 0x{byte:02x} is not {encoding}; {save}").format(
            file=path.name, line=line, byte=byte, encoding=encoding, save=_SAVE
        )
    )


def _find_undecodable(path: Path, codec: str) -> tuple[int, int] | None:
    """The line, from 1, and the value of the first byte that a codec cannot decode; None if it decodes all."""
    decoder, lines = codecs.getincrementaldecoder(codec)(), 1
    with path.open("rb") as file:
        while True:
            chunk = file.read(_CHUNK)
            try:
                lines += decoder.decode(chunk, final=not chunk).count("\n")
            except UnicodeDecodeError as error:
                return lines + error.object[: error.start].count(b"\n"), error.object[error.start]
            if not chunk:
                return None


def _rate_chinese(path: Path, codec: str) -> float:
    """How likely it is that a codec is the right one, since others may decode a file as well.

    Returns:
        1 if it gives a Chinese header; else the share of frequent characters among those that are not ASCII; 0 if it
        cannot decode the file, or that share is too small.
    """
    if _find_undecodable(path, codec) is not None:
        return 0
    with path.open(encoding=codec, newline="") as file:
        first = [row for delimiter in _DELIMITERS for row in _read_first_rows(file, delimiter)]
        if any(role_of(cell) and not cell.isascii() for row in first for cell in row):
            return 1
        file.seek(0)
        signs = [sign for sign in file.read(_CHUNK) if not sign.isascii()]
    share = sum(sign in _FREQUENT for sign in signs) / max(len(signs), 1)
    return share if share >= _LEAST else 0


def _detect_delimiter(path: Path, file: TextIO) -> tuple[str, bool]:
    """The delimiter that a line `sep=;` states, else the one that gives the best header; and whether it is stated."""
    first = file.readline(MAX_LINE).strip().strip('"')
    if first.lower().startswith("sep=") and len(first) == 5:
        return first[4], True
    if path.suffix.lower() == ".tsv":
        return "\t", False
    scores = {
        delimiter: max(((_count_roles(row), len(row)) for row in _read_first_rows(file, delimiter)), default=(0, 0))
        for delimiter in _DELIMITERS
    }
    return max(scores, key=lambda delimiter: scores[delimiter]), False


def _read_first_rows(file: TextIO, delimiter: str) -> list[list[str]]:
    file.seek(0)
    lines = (line.replace("\0", "") for line in iter(lambda: file.readline(MAX_LINE), ""))
    try:
        return list(islice(csv.reader(lines, delimiter=delimiter), LOOKED_AT))
    except csv.Error:  # with this delimiter a quote is in the wrong place
        return []


def _count_roles(row: Sequence[str]) -> int:
    """How many roles the cells of a row have if it is a header."""
    return len({role for cell in row if (role := role_of(cell))})


def _iter_rows(path: Path, file: TextIO, delimiter: str) -> Iterator[TableRow]:
    number, width, known = 0, 0, False  # the number of columns, and whether that is the header's
    named = 0  # the same of the rows with a name, of which a header may have two
    lines = _iter_lines(path, file)
    try:
        # strict: a stray quote is an error; otherwise, cells would be joined silently.
        for number, cells in enumerate(csv.reader(lines, strict=True, delimiter=delimiter), start=1):
            roles = _count_roles(cells) if number <= LOOKED_AT else 0
            named = max(named, _find_width(cells)) if roles else named
            if roles >= _HEADER:
                width, known = named, True
            elif number <= LOOKED_AT and known and not any(cells[:2]):
                width = max(width, _find_width(cells))  # a second row of the header, below the empty cells of the first
            elif not width or roles and not known:
                width = max(width, len(cells))
            findings = _unwrap_texts(cells)
            if len(cells) > width:
                findings |= _find_surplus(cells, width, delimiter)
            elif len(cells) < width and sum(map(bool, cells)) >= _BEGUN:
                text = _("{count} cells under {width} headers; put in what is missing, or the commas of empty cells")
                found = text.format(count=len(cells), width=width)
                findings[WHOLE_ROW] = CellFinding("error", TOO_FEW, found)
            yield TableRow(number, cells, findings)
    except csv.Error as error:
        cure = _("put quotes around the cell and double those in it")
        raise DataError(
            Finding(
                "error",
                "csv",
                path.name,
                _("{reason}; {cure}").format(reason=describe_error(error), cure=cure),
                number + 1,
            )
        ) from error


def _find_width(header: Sequence[str]) -> int:
    """The number of columns up to the last one with a name."""
    return max((place for place, cell in enumerate(header, start=1) if cell.strip()), default=0)


def _unwrap_texts(cells: list[str]) -> dict[int, CellFinding]:
    """Replace ="001", which keeps a spreadsheet from reading a number, by the text 001, in place."""
    findings = {}
    for column, cell in enumerate(cells):
        if cell.startswith('="') and cell.endswith('"') and len(cell) > 2 and '"' not in cell[2:-1]:
            cells[column] = cell[2:-1]
            findings[column] = CellFinding(
                "repair",
                "text-formula",
                _("is {cell}; read as the text {cells}").format(cell=cell, cells=cells[column]),
            )
    return findings


def _find_surplus(cells: list[str], width: int, delimiter: str) -> dict[int, CellFinding]:
    """The error that a row has text in more cells than the header."""
    if not any(cell.strip() for cell in cells[width:]):
        return {}
    text = _("{count} cells under {width} headers; put quotes around a cell that has {signs} in it").format(
        count=_find_width(cells), width=width, signs=_DELIMITERS.get(delimiter, delimiter)
    )
    return {WHOLE_ROW: CellFinding("error", "too-many-cells", text)}


def _iter_lines(path: Path, file: TextIO) -> Iterator[str]:
    number = 0
    while line := file.readline(MAX_LINE):
        number += 1
        if len(line) == MAX_LINE:
            raise DataError(
                _("{file}, line {number}: longer than {max_line:,} characters; {save}").format(
                    file=path.name, number=number, max_line=MAX_LINE, save=_SAVE
                )
            )
        if "\x00" in line:
            raise DataError(
                _("{file}, line {number}: has a NUL character; {save}").format(
                    file=path.name, number=number, save=_SAVE
                )
            )
        yield line
