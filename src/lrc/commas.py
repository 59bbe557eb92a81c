"""The rows of a CSV file: UTF-8, with or without a byte-order mark, read as a stream."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from lrc.errors import DataError
from lrc.tables import NO_NOTES, WHOLE_ROW, Note, Table, TableRow

MAX_LINE = 1 << 20  # characters; a spreadsheet's cell holds 32,767
_SAVE = "save it as 'CSV UTF-8' in a spreadsheet"
_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"PK\x03\x04": "", b"\xd0\xcf\x11\xe0": ""}
_ENCODINGS = {"Big5 (cp950)": "cp950", "GB18030": "gb18030"}  # what spreadsheets of the region write
_HEADERS = ("文章", "問題", "问题", "選項", "选项", "題號", "题号")


@contextmanager
def open_csv(path: Path) -> Iterator[Table]:
    """Open a CSV file.

    Raises:
        DataError: another encoding (named where it can be told), NUL characters, or quotes that do not close.
            The rows raise it as they are read.
    """
    _refuse_other_formats(path)
    with path.open(encoding="utf-8-sig", newline="") as file:
        yield Table(path.name, None, (), _rows(path, file))


def _rows(path: Path, file: TextIO) -> Iterator[TableRow]:
    number, width = 0, 0
    try:
        # strict: a stray quote is an error, where lax reading would glue cells together
        for number, cells in enumerate(csv.reader(_lines(path, file), strict=True), start=1):
            width = width or len(cells)
            yield TableRow(number, cells, NO_NOTES if len(cells) <= width else _beyond(cells, width))
    except UnicodeDecodeError as error:
        raise DataError(_wrong_encoding(path, number + 1, error)) from error
    except csv.Error as error:
        cure = "put quotes around the cell and double those in it"
        raise DataError(f"{path.name}, row {number + 1}: {error}; {cure}") from error


def _beyond(cells: list[str], width: int) -> dict[int, Note]:
    if not any(cell.strip() for cell in cells[width:]):
        return {}
    text = f"{len(cells)} cells under {width} headers; put quotes around a cell that has a comma in it"
    return {WHOLE_ROW: Note("trouble", "too-many-cells", text)}


def _lines(path: Path, file: TextIO) -> Iterator[str]:
    number = 0
    while line := file.readline(MAX_LINE):
        number += 1
        if len(line) == MAX_LINE:
            raise DataError(f"{path.name}, line {number}: longer than {MAX_LINE:,} characters; {_SAVE}")
        if "\x00" in line:
            raise DataError(f"{path.name}, line {number}: has a NUL character, which no text has; {_SAVE}")
        yield line


def _refuse_other_formats(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(4)
    for mark, name in _MARKS.items():
        if head.startswith(mark):
            encoded = f"encoded as {name}, expected UTF-8; {_SAVE}"
            raise DataError(f"{path.name}: {encoded if name else 'a workbook, not CSV; rename it to .xlsx'}")


def _wrong_encoding(path: Path, row: int, error: UnicodeDecodeError) -> str:
    with path.open("rb") as file:
        header = file.readline(1 << 16)
    for name, codec in _ENCODINGS.items():
        text = header.decode(codec, errors="ignore")
        if any(word in text for word in _HEADERS):
            return f"{path.name}: encoded as {name}, expected UTF-8; {_SAVE}"
    byte = error.object[error.start]
    return f"{path.name}, near row {row}: byte 0x{byte:02x} is not UTF-8; {_SAVE}"
