"""How long a workbook's shared strings are: a short file may name one long string in every cell."""

from __future__ import annotations

from zipfile import ZipFile

from lrc.data.tables.xlsx_package import parse

STRINGS, _END = "xl/sharedStrings.xml", b"</si>"


def string_sizes(package: ZipFile) -> list[int]:
    """For each shared string a number between its characters and its bytes with all their markup.

    Raises:
        DataError: the part is damaged or hostile.
    """
    sizes: list[int] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        if name == "si":
            sizes.append(0)

    def text(piece: str) -> None:
        if sizes:
            sizes[-1] += len(piece)

    def plain(piece: bytes) -> bool:
        strings = piece.split(_END)[:-1]
        if piece.count(b"<si") != len(strings) or b"<si/" in piece or b":si>" in piece:
            return False
        sizes.extend(map(len, strings))
        return True

    parse(package, STRINGS, start, text, plain, _END)
    return sizes
