"""How much text a sheet's cells hold: a short file may name one long shared string in every cell."""

from __future__ import annotations

from zipfile import ZipFile

from lrc.errors import DataError
from lrc.package import parse

MAX_TEXT = 512 << 20  # characters, over all cells
STRINGS = "xl/sharedStrings.xml"


def refuse_expansion(package: ZipFile, sheet: str, string_cells: int, file: str) -> None:
    """Refuse a sheet whose shared strings would not fit into memory once every cell has its own.

    Args:
        sheet: the part of the sheet.
        string_cells: how many of its cells name a shared string.
        file: the workbook's name.

    Raises:
        DataError: the cells hold too much text, or the shared strings are damaged.
    """
    lengths = _string_lengths(package)
    # The exact sum needs another pass over the sheet, which ordinary workbooks are spared.
    if string_cells * max(lengths, default=0) > MAX_TEXT and (total := _total(package, sheet, lengths)) > MAX_TEXT:
        text = f"its cells hold {total:,} characters, more than {MAX_TEXT:,}"
        raise DataError(f"{file}: {text}; save the sheet as .csv")


def _string_lengths(package: ZipFile) -> list[int]:
    lengths: list[int] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        if name == "si":
            lengths.append(0)

    def text(piece: str) -> None:
        if lengths:
            lengths[-1] += len(piece)

    parse(package, STRINGS, start, text)
    return lengths


def _total(package: ZipFile, sheet: str, lengths: list[int]) -> int:
    total = 0
    shared = inside = False

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal shared, inside
        if name == "c":
            shared = attributes.get("t") == "s"
        inside = shared and name == "v"

    def text(piece: str) -> None:
        nonlocal total, inside
        if inside and piece.isdecimal() and len(piece) < 10 and int(piece) < len(lengths):
            total += lengths[int(piece)]
        inside = False

    parse(package, sheet, start, text)
    return total
