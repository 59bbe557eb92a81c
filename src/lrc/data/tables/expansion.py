"""How long a workbook's shared strings are: a short file may name one long string in every cell."""

from __future__ import annotations

from zipfile import ZipFile

from lrc.data.tables.xlsx_package import parse

STRINGS, _END = "xl/sharedStrings.xml", b"</si>"


def string_sizes(package: ZipFile) -> tuple[list[int], set[int]]:
    """For each shared string a number between its characters and its bytes with all their markup.

    Returns:
        The numbers, and the places of the strings of which a part is struck through.

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


def is_on(attributes: dict[str, str]) -> bool:
    """Whether an element that switches something, such as `strike`, switches it on."""
    return attributes.get("val", "1") in ("1", "true")
