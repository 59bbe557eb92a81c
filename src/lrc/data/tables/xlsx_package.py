"""Opens an .xlsx file as a zip of XML parts, within bounds; hostile files are refused.

All sizes and XML prologs are checked here before any library reads the file, so that none meets a zip bomb or a
document type declaration, which can define entities.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from xml.parsers import expat
from zipfile import BadZipFile, ZipFile, ZipInfo

from lrc.runtime.errors import DataError
from lrc.runtime.library_errors import describe_error
from lrc.runtime.translation import _

MAX_UNPACKED = 512 << 20  # bytes; 430,000 rows of the size of the reference's
MAX_RATIO, RATIO_FROM = 100, 4 << 20  # a sheet is compressed to about a tenth; small parts may be to less
MAX_PARTS = 10_000
WORKBOOK = "xl/workbook.xml"

Start = Callable[[str, dict[str, str]], None]  # (element's name without prefix, attributes)
Text = Callable[[str], None]
End = Callable[[str], None]  # element's name without prefix
Plain = Callable[[bytes], bool]
_CHUNK = 1 << 17
_MAX_UNIT = 4 << 20  # bytes
_OLE = bytes.fromhex("D0CF11E0A1B11AE1")  # compound files: old .xls, and encrypted workbooks of any age


@contextmanager
def open_package(path: Path, main: str = WORKBOOK) -> Iterator[ZipFile]:
    """Open a workbook after checking its format, its sizes, and that no part declares a document type.

    Args:
        path: of the workbook.
        main: the part that every workbook of its format has.

    Raises:
        DataError: it is not such a workbook, or it is encrypted, damaged, hostile, or too large when unpacked.
    """
    with path.open("rb") as file:
        _refuse_other_formats(path, file)
        try:
            with ZipFile(file) as package:
                _refuse_bombs(path, package.infolist())
                if find_part(package, main) is None:
                    what = _("a zip file, but not an {suffix} workbook").format(suffix=path.suffix.lower())
                    raise DataError(
                        _("{file}: {what}; save it as .xlsx, and name it so").format(file=path.name, what=what)
                    )
                for part in package.namelist():
                    if part.lower().endswith((".xml", ".rels")):
                        _check_prolog(package, part)
                yield package
        except (BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
            raise DataError(
                _("{file}: damaged ({reason}); save it again with a spreadsheet").format(
                    file=path.name, reason=describe_error(error)
                )
            ) from error


def find_part(package: ZipFile, name: str) -> str | None:
    """The name of a part as the package spells it, since programs differ in upper and lower case; None if missing."""
    return next((part for part in package.namelist() if part.lower() == name.lower()), None)


def parse(
    package: ZipFile,
    name: str,
    start: Start | None = None,
    text: Text | None = None,
    plain: Plain | None = None,
    unit: bytes = b"",
    end: End | None = None,
) -> None:
    """Stream an XML part through expat; a part that does not exist is skipped.

    Args:
        package: from `open_package`.
        name: of the part, in any case.
        start: called for the start of each element.
        text: called for text, which may come in pieces.
        plain: a fast path, as a call for each element is slow: called with the bytes of whole units, returns whether it
            has handled them. If it has, no other handler is called for them.
        unit: the end tag of a unit.
        end: called for the end of each element.

    Raises:
        DataError: the part has a document type declaration or is not well-formed.
    """
    part = find_part(package, name)
    if part is None:
        return
    parser = _make_parser(package, part)
    parser.buffer_text = True
    begin = None if start is None else _without_prefix(start)
    if end is not None:
        parser.EndElementHandler = lambda name: end(name[name.find(":") + 1 :])
    ordinary, head = plain is not None, True
    try:
        for piece in _pieces(package, part, unit):
            # After the first comment, CDATA section or cut unit, what looks like a tag may not be one.
            ordinary = ordinary and piece.endswith(unit) and not _has_markup(piece)
            skip = ordinary and plain is not None and plain(piece)
            if skip and not head:
                continue
            parser.StartElementHandler = None if skip else begin
            parser.CharacterDataHandler = None if skip else text
            parser.Parse(piece)
            head = False
        parser.Parse(b"", True)
    except (expat.ExpatError, ValueError) as error:  # the latter of a handler, about a value
        raise DataError(
            _("{package}: {part} is damaged ({reason}); save it again").format(
                package=_name(package), part=part, reason=describe_error(error)
            )
        ) from error


def _has_markup(piece: bytes) -> bool:
    """Whether there is a comment, a CDATA section, a processing instruction after the declaration, or UTF-16."""
    return b"<!" in piece or piece.find(b"<?", 4) >= 0 or b"\0" in piece


def _pieces(package: ZipFile, part: str, unit: bytes) -> Iterator[bytes]:
    """The bytes of a part in pieces that end with a unit, unless a unit is larger than _MAX_UNIT."""
    rest = b""
    with package.open(part) as stream:
        while chunk := stream.read(_CHUNK):
            rest += chunk
            found = rest.rfind(unit)
            cut = found + len(unit) if found >= 0 else len(rest) if len(rest) > _MAX_UNIT else 0
            if cut:
                yield rest[:cut]
                rest = rest[cut:]
    if rest:
        yield rest


class _Root(Exception):
    """Raised at the first element, after which no document type declaration can follow."""


def _check_prolog(package: ZipFile, part: str) -> None:
    def root(*_: object) -> None:
        raise _Root

    parser = _make_parser(package, part)
    parser.StartElementHandler = root
    # A part that is not XML only matters if it is read, and then `parse` refuses it.
    with suppress(_Root, expat.ExpatError), package.open(part) as stream:
        while chunk := stream.read(_CHUNK):
            parser.Parse(chunk)


def _make_parser(package: ZipFile, part: str) -> expat.XMLParserType:
    """A parser that refuses document type declarations."""

    def refuse(*_declared: object) -> None:
        raise DataError(
            _(
                "{package}: {part} declares a document type, which could define entities; no spreadsheet "
                "writes that: save the sheet again with one"
            ).format(package=_name(package), part=part)
        )

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    return parser


def _refuse_other_formats(path: Path, file: BinaryIO) -> None:
    if path.name.startswith("~$"):
        text = _("{file}: Excel's note that {name} is open, and not the workbook; give {name} itself")
        raise DataError(text.format(file=path.name, name=path.name.removeprefix("~$")))
    head = file.read(8)
    if head == _OLE:
        encrypted = "EncryptedPackage".encode("utf-16-le") in head + file.read(64 << 20)
        raise DataError(
            (
                _("{file}: encrypted; open it in a spreadsheet, remove the password and save it")
                if encrypted
                else _("{file}: an old Excel file (.xls); open it in a spreadsheet and save it as .xlsx")
            ).format(file=path.name)
        )
    if not head.startswith(b"PK"):
        what = _("not an {suffix} workbook").format(suffix=path.suffix.lower()) if head else _("empty")
        raise DataError(
            _("{file}: {what}; save the sheet as .xlsx, or as .csv in UTF-8").format(file=path.name, what=what)
        )
    file.seek(0)


def _refuse_bombs(path: Path, parts: list[ZipInfo]) -> None:
    unpacked = sum(part.file_size for part in parts)
    if unpacked > MAX_UNPACKED or len(parts) > MAX_PARTS:
        text = _(
            "{file}: unpacks to {count:,} parts of {size:,} MB in all, more than {most:,} parts or {max_unpacked} MB; "
            "save the sheet as .csv"
        )
        size = {"size": round(unpacked / (1 << 20)), "max_unpacked": MAX_UNPACKED >> 20}
        raise DataError(text.format(file=path.name, count=len(parts), most=MAX_PARTS, **size))
    if len({part.filename.lower() for part in parts}) < len(parts):
        # Libraries differ in which of the two they read, so it may not be the one that was checked.
        raise DataError(_("{file}: has a part twice; save it again with a spreadsheet").format(file=path.name))
    for part in parts:
        if part.file_size > RATIO_FROM and part.file_size > MAX_RATIO * part.compress_size:
            ratio = part.file_size / max(part.compress_size, 1)
            text = _("{filename} unpacks to {ratio:,.0f} times its size, more than {max_ratio}").format(
                filename=part.filename, ratio=ratio, max_ratio=MAX_RATIO
            )
            raise DataError(_("{file}: {text}; save the sheet as .csv").format(file=path.name, text=text))


def _without_prefix(start: Start) -> Start:
    return lambda name, attributes: start(name[name.find(":") + 1 :], attributes)


def _name(package: ZipFile) -> str:
    return Path(package.filename or "workbook").name
