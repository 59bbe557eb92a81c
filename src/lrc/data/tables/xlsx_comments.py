"""Puts back what openpyxl drops of the comments of a workbook: fonts, and the size, colour and place of boxes.

A comment is in two parts of a package: its text in one, and its box in a drawing in VML, which Excel does not always
write as well-formed XML. Both are therefore changed as text, and only by what the original itself contains.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Set
from functools import partial
from html import unescape
from typing import NamedTuple
from zipfile import ZipFile

from lrc.data.tables.bookparts import find_sheets
from lrc.data.tables.table import letters
from lrc.data.tables.xlsx_package import find_part, parse

_COMMENT = re.compile(r'<comment\b[^>]*\bref="(?P<cell>[A-Z]+\d+)"[^>]*>.*?</comment>', re.DOTALL)
_TEXT = re.compile(r"<text>.*?</text>", re.DOTALL)
_PHONETIC, _STRING = re.compile(r"<rPh\b.*?</rPh>", re.DOTALL), re.compile(r"<t(?:\s[^>]*)?>([^<]*)</t>")
_SHAPE = re.compile(r"<(?:\w+:)?shape\s(?P<head>[^>]*)>(?P<body>.*?)</(?:\w+:)?shape>", re.DOTALL)
_DATA = re.compile(r"<(?P<prefix>(?:\w+:)?)ClientData\b[^>]*>")
_NUMBER = r"<(?:\w+:)?{}>\s*(\d+)\s*<"
_ROW, _COLUMN = re.compile(_NUMBER.format("Row")), re.compile(_NUMBER.format("Column"))
_ANCHOR, _VISIBLE = re.compile(r"<(?:\w+:)?Anchor>([\d\s,]+)<"), re.compile(r"<(?:\w+:)?Visible\s*/?>(?!\s*False)")
_LENGTH = r"(?:^|;)\s*{}:\s*([\d.]+)(pt|px|in|cm|mm|pc)?"
_WIDTH, _HEIGHT = re.compile(_LENGTH.format("width")), re.compile(_LENGTH.format("height"))
_PIXELS = {"pt": 4 / 3, "px": 1.0, "in": 96.0, "cm": 96 / 2.54, "mm": 9.6 / 2.54, "pc": 16.0, "": 1.0, None: 1.0}


class Box(NamedTuple):
    """The box of a comment, as VML has it."""

    style: str
    fill: str
    anchor: str  # where it begins and ends, in columns, rows and pixels; takes precedence over the style in Excel
    shown: bool  # also while the mouse is elsewhere

    @property
    def size(self) -> tuple[float, float] | None:
        """Width and height in pixels; None if the style gives neither."""
        found = _WIDTH.search(self.style), _HEIGHT.search(self.style)
        if found[0] is None or found[1] is None:
            return None
        return float(found[0][1]) * _PIXELS[found[0][2]], float(found[1][1]) * _PIXELS[found[1][2]]


class SheetComments(NamedTuple):
    """The comments of a sheet, by cell."""

    texts: Mapping[str, str]  # the element `text`, with its runs
    boxes: Mapping[str, Box]


def read_comments(package: ZipFile) -> dict[str, SheetComments]:
    """Read the comments of each sheet that has some, by the sheet's name."""
    found = {}
    for title, sheet in find_sheets(package).items():
        texts, drawing = (_read(package, sheet.part, kind) for kind in ("/comments", "/vmlDrawing"))
        if texts:
            found[title] = SheetComments(_find_texts(texts), _find_boxes(drawing))
    return found


def restore_comments(package: ZipFile, originals: Mapping[str, SheetComments]) -> dict[str, bytes]:
    """Give the comments of a copy their fonts and boxes again.

    Args:
        package: the copy as openpyxl wrote it.
        originals: from `read_comments`.

    Returns:
        The changed parts of the copy, by name. To a comment with more lines than before, the box is at least as large.
    """
    changed = {}
    for title, sheet in find_sheets(package).items():
        if (original := originals.get(title)) is None:
            continue
        name = find_related(package, sheet.part, "/comments")
        drawing = find_related(package, sheet.part, "/vmlDrawing")
        if name is None or drawing is None:
            continue
        content, vml = package.read(name).decode(), package.read(drawing).decode()
        now = _find_texts(content)
        same = {cell for cell, text in original.texts.items() if _plain(text) == _plain(now.get(cell))}
        changed[name] = _COMMENT.sub(partial(_restore_text, originals=original.texts), content).encode()
        changed[drawing] = _SHAPE.sub(partial(_restore_box, boxes=original.boxes, same=same), vml).encode()
    return changed


def find_related(package: ZipFile, part: str, kind: str) -> str | None:
    """The name of the part of a kind, such as `/comments`, that a part refers to."""
    folder, name = posixpath.split(part)
    targets: list[str] = []

    def relation(element: str, attributes: dict[str, str]) -> None:
        if element == "Relationship" and attributes.get("Type", "").endswith(kind):
            targets.append(posixpath.normpath(posixpath.join("/", folder, attributes.get("Target", ""))).lstrip("/"))

    parse(package, f"{folder}/_rels/{name}.rels", relation)
    return find_part(package, targets[0]) if targets else None


def _read(package: ZipFile, part: str, kind: str) -> str:
    name = find_related(package, part, kind)
    return "" if name is None else package.read(name).decode("utf-8-sig", "replace")


def _find_texts(content: str) -> dict[str, str]:
    found = ((one["cell"], _TEXT.search(one[0])) for one in _COMMENT.finditer(content))
    return {cell: text[0] for cell, text in found if text is not None}


def _find_boxes(vml: str) -> dict[str, Box]:
    boxes = {}
    for shape in _SHAPE.finditer(vml):
        if (cell := _cell_of(shape)) is not None:
            anchor = _ANCHOR.search(shape["body"])
            shown = _VISIBLE.search(shape["body"]) is not None
            style, fill = (_attribute(shape["head"], name) for name in ("style", "fillcolor"))
            boxes[cell] = Box(" ".join(style.split()), fill, " ".join(anchor[1].split()) if anchor else "", shown)
    return boxes


def _cell_of(shape: re.Match[str]) -> str | None:
    """The cell that a shape is the comment of, such as `B7`; None for another shape."""
    row, column = _ROW.search(shape["body"]), _COLUMN.search(shape["body"])
    if row is None or column is None or 'ObjectType="Note"' not in shape["body"].replace("'", '"'):
        return None
    return f"{letters(int(column[1]))}{int(row[1]) + 1}"


def _attribute(head: str, name: str) -> str:
    found = re.search(rf"(?:^|\s){name}=(?:\"([^\"]*)\"|'([^']*)')", head)
    return "" if found is None else (found[1] if found[1] is not None else found[2].replace('"', "&quot;"))


def _plain(text: str | None) -> str:
    """What is read in a comment."""
    return unescape("".join(_STRING.findall(_PHONETIC.sub("", text or "")))).replace("\r\n", "\n")


def _restore_text(comment: re.Match[str], originals: Mapping[str, str]) -> str:
    """A comment with the runs of the original, and a run more if a text has been added."""
    original, now = originals.get(comment["cell"]), _TEXT.search(comment[0])
    if original is None or now is None or not _plain(now[0]).startswith(_plain(original)) or "<r>" not in original:
        return comment[0]
    added = _plain(now[0])[len(_plain(original)) :]
    escaped = added.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    run = f'<r><t xml:space="preserve">{escaped}</t></r>' if added else ""
    return comment[0].replace(now[0], original.replace("</text>", f"{run}</text>"))


def _restore_box(shape: re.Match[str], boxes: Mapping[str, Box], same: Set[str]) -> str:
    cell = _cell_of(shape)
    if cell is None or (box := boxes.get(cell)) is None:
        return shape[0]
    head, data = shape["head"], _DATA.search(shape["body"])
    style = _attribute(head, "style")
    if box.shown:
        style = style.replace("visibility:hidden", "visibility:visible")
    if cell in same and box.size is not None:
        style = box.style
    head = head.replace(f'style="{_attribute(head, "style")}"', f'style="{style}"')
    if box.fill:
        head = head.replace(f'fillcolor="{_attribute(head, "fillcolor")}"', f'fillcolor="{box.fill}"')
    tags = "".join(
        f"<{data['prefix']}{tag}</{data['prefix']}{tag.partition('>')[0]}>" if data else ""
        for tag in ([f"Anchor>{box.anchor}"] if box.anchor and cell in same else []) + ["Visible>"] * box.shown
    )
    body = _DATA.sub(lambda one: one[0] + tags, shape["body"], count=1)
    return shape[0].replace(shape["head"], head, 1).replace(shape["body"], body, 1)
