"""Makes workbooks for tests: real .xlsx files, through openpyxl, and hostile ones, through zipfile."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from openpyxl import Workbook
from openpyxl.worksheet.worksheet import Worksheet

LABELLED = ("ID", "文章", "問題", "選項1", "選項2", "選項3", "選項4", "正確答案")
TEST = ("題號", "文章", "問題", "選項1", "選項2", "選項3", "選項4")


def row(number: int = 1, **changes: Any) -> list[Any]:
    """A labelled row; `changes` by header."""
    cells: dict[str, Any] = {
        "ID": number,
        "文章": f"第{number}篇文章：小明在公園裡放風箏。",
        "問題": f"第{number}題：小明在做什麼？",
        "選項1": "放風箏",
        "選項2": "釣魚",
        "選項3": "睡覺",
        "選項4": "讀書",
        "正確答案": 1,
    }
    return list((cells | changes).values())


def test_row(number: int = 1, **changes: Any) -> list[Any]:
    """A row of a test workbook; `changes` by header."""
    cells = dict(zip(LABELLED, row(number), strict=True))
    return list(({header: cells.get(header, number) for header in TEST} | changes).values())


test_row.__test__ = False  # type: ignore[attr-defined]


def write_xlsx(
    path: Path,
    rows: Sequence[Sequence[Any]],
    headers: Sequence[Any] = LABELLED,
    change: Callable[[Worksheet], None] | None = None,
) -> Path:
    """Write a workbook with one sheet; `change` may do more to it."""
    book = Workbook()
    sheet = book.active
    assert isinstance(sheet, Worksheet)
    for cells in (headers, *rows):
        sheet.append(list(cells))
    if change is not None:
        change(sheet)
    book.save(path)
    return path


def write_csv(
    path: Path, rows: Sequence[Sequence[Any]], headers: Sequence[Any] = LABELLED, encoding: str = "utf-8"
) -> Path:
    """Write a CSV file as spreadsheets do."""
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file).writerows([headers, *rows])
    return path


def replace_part(path: Path, part: str, change: Callable[[bytes], bytes], **more: bytes) -> Path:
    """Change the bytes of one part of a workbook, and put `more` parts in."""
    with zipfile.ZipFile(path) as package:
        parts = {name: package.read(name) for name in package.namelist()}
    parts |= {part: change(parts[part])} | more
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as package:
        for name, content in parts.items():
            package.writestr(name, content)
    return path
