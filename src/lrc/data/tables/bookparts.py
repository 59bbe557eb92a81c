"""Reads the parts of an .xlsx package other than the cells: the list of sheets, the styles, and the date system."""

from __future__ import annotations

import posixpath
from typing import NamedTuple
from zipfile import ZipFile

from lrc.data.tables.cell_text import BUILT_IN
from lrc.data.tables.xlsx_package import WORKBOOK, find_part, parse

RELATIONS, STYLES = "xl/_rels/workbook.xml.rels", "xl/styles.xml"


class Sheet(NamedTuple):
    """A worksheet."""

    part: str  # its name in the package
    hidden: bool


def find_sheets(package: ZipFile) -> dict[str, Sheet]:
    """The worksheets by name, in the workbook's order; chart sheets are left out."""
    targets: dict[str, str] = {}
    sheets: dict[str, Sheet] = {}

    def relation(name: str, attributes: dict[str, str]) -> None:
        if name == "Relationship" and attributes.get("Type", "").endswith("/worksheet"):
            target = posixpath.join("/xl", attributes.get("Target", ""))
            targets[attributes.get("Id", "")] = posixpath.normpath(target).lstrip("/")

    def sheet(name: str, attributes: dict[str, str]) -> None:
        if name == "sheet":
            key = next((value for key, value in attributes.items() if key.rpartition(":")[2] == "id"), "")
            if key in targets:
                hidden = attributes.get("state", "visible") != "visible"
                sheets[attributes.get("name", "")] = Sheet(targets[key], hidden)

    parse(package, RELATIONS, relation)
    parse(package, WORKBOOK, sheet)
    found = {name: (find_part(package, sheet.part), sheet.hidden) for name, sheet in sheets.items()}
    return {name: Sheet(part, hidden) for name, (part, hidden) in found.items() if part is not None}


def read_styles(package: ZipFile) -> tuple[list[str], set[str]]:
    """Read the cell styles.

    Returns:
        The number format code of each style, by its index; `General` for an unknown format. And the indices, as text,
        of the styles whose font is struck through.
    """
    codes: dict[str, str] = {str(number): code for number, code in BUILT_IN.items()}
    formats: list[str] = []
    fonts: list[bool] = []  # whether each is struck through
    struck: set[str] = set()
    section = ""

    def style(name: str, attributes: dict[str, str]) -> None:
        nonlocal section
        if name in ("numFmts", "fonts", "cellStyleXfs", "cellXfs", "cellStyles", "dxfs"):
            section = name
        elif name == "numFmt" and section == "numFmts":
            codes[attributes.get("numFmtId", "")] = attributes.get("formatCode", "")
        elif name == "font" and section == "fonts":
            fonts.append(False)
        elif name == "strike" and section == "fonts" and fonts:
            fonts[-1] = is_on(attributes)
        elif name == "xf" and section == "cellXfs":
            font = attributes.get("fontId", "")
            if font.isdecimal() and int(font[:6]) < len(fonts) and fonts[int(font[:6])]:
                struck.add(str(len(formats)))
            formats.append(codes.get(attributes.get("numFmtId", ""), "General"))

    parse(package, STYLES, style)
    return formats, struck


def uses_1904(package: ZipFile) -> bool:
    """Whether day 0 of the workbook's dates is 1904-01-01."""
    found = False

    def properties(name: str, attributes: dict[str, str]) -> None:
        nonlocal found
        found = found or name == "workbookPr" and attributes.get("date1904") in ("1", "true")

    parse(package, WORKBOOK, properties)
    return found


def is_on(attributes: dict[str, str]) -> bool:
    """Whether an on/off element such as `strike` is on."""
    return attributes.get("val", "1") in ("1", "true")
