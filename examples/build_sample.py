"""Builds sample.xlsx and sample_test.xlsx from sample_questions.yaml: `python examples/build_sample.py`.

The workbooks have the columns of the reference's, and on purpose a few cells as untidy as real ones:
every kind that `lrc convert` repairs, none that it refuses. Equal sources give equal bytes.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from openpyxl import Workbook
from openpyxl.writer.excel import ExcelWriter

FOLDER = Path(__file__).parent
OPTIONS = ("選項1", "選項2", "選項3", "選項4")
LABELLED = ("ID", "文章", "問題", *OPTIONS, "正確答案", "資料來源")
UNLABELLED = ("題號", "文章", "問題", *OPTIONS)
LONG_AGO = datetime(2020, 1, 1)  # a workbook records when it was made; a fixed date keeps the bytes the same

Untidy = Mapping[tuple[int, str], Callable[[Any], object]]  # (row, column): what was typed instead of the value

UNTIDY_SAMPLE: Untidy = {
    (3, "文章"): lambda text: f"  {text}\n",  # outer white space
    (4, "正確答案"): lambda answer: f"選項{answer}",
    (5, "選項1"): lambda option: f"{option[:3]}\n{option[3:]}",  # a line break inside an option
    (7, "文章"): lambda text: f"　　{text}",  # indented with U+3000
    (8, "正確答案"): lambda answer: chr(ord("０") + answer),  # a full-width digit
    (11, "文章"): lambda text: text.replace("。", "。\u200b", 1),  # a zero-width space
    (13, "選項2"): lambda option: f" {option}　",
    (14, "正確答案"): str,
    (16, "文章"): lambda text: text.replace("。", "。_x000D_\n", 1),  # Excel's escape for a carriage return
    (20, "ID"): lambda number: number - 1,  # the id of the row before
    (21, "ID"): str,
    (24, "正確答案"): lambda answer: f"{answer}.0",
    (33, "問題"): lambda text: f"{text}\u200b",
    (40, "正確答案"): lambda answer: f"選項{answer}",
    (45, "文章"): lambda text: text.replace("、", "&#12289;"),  # HTML entities
    (52, "ID"): lambda number: number - 1,
    (60, "正確答案"): lambda answer: f" {answer} ",
    (70, "問題"): lambda text: f"\t{text}",
}
UNTIDY_TEST: Untidy = {
    (3, "文章"): lambda text: f"{text}　",
    (5, "選項1"): str,  # a number typed as text beside numbers
    (8, "選項4"): lambda option: f"{option[:3]}\n{option[3:]}",
    (9, "問題"): lambda text: f"\u200b{text}",
    (12, "文章"): lambda text: text.replace("；", "；\u2028", 1),  # a line separator
}


def build(passages: list[dict[str, Any]], header: tuple[str, ...], untidy: Untidy) -> bytes:
    """The bytes of a workbook with a row a question.

    Args:
        passages: as in sample_questions.yaml.
        header: the columns, in order.
        untidy: the cells in which something else than the plain value stands.
    """
    book = Workbook()
    book.properties.creator = "lrc"
    book.properties.created = book.properties.modified = LONG_AGO
    sheet = book.worksheets[0]
    sheet.title = "範例"
    sheet.append(header)
    for row, values in enumerate(_rows(passages), start=2):
        for number, column in enumerate(header, start=1):
            typed = untidy.get((row, column), lambda value: value)(values[column])
            cell = sheet.cell(row, number, typed)
            if isinstance(typed, float) and typed < 1:
                cell.number_format = "0%"
    return _saved(book)


def build_all(source: Path = FOLDER / "sample_questions.yaml") -> dict[str, bytes]:
    """The bytes of both workbooks, by file name."""
    content = yaml.safe_load(source.read_text(encoding="utf-8"))
    return {
        "sample.xlsx": build(content["sample"], LABELLED, UNTIDY_SAMPLE),
        "sample_test.xlsx": build(content["test"], UNLABELLED, UNTIDY_TEST),
    }


def _rows(passages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    asked = [(passage, item) for passage in passages for item in passage["questions"]]
    return [
        {
            "ID": number,
            "題號": 1000 + number,
            "文章": passage["passage"],
            "問題": item["question"],
            **dict(zip(OPTIONS, item["options"], strict=True)),
            "正確答案": item["answer"],
            "資料來源": f"lrc 範例：{passage['topic']}",
        }
        for number, (passage, item) in enumerate(asked, start=1)
    ]


def _saved(book: Workbook) -> bytes:
    # `Workbook.save` would put the present time into the properties; the writer below it does not.
    draft = io.BytesIO()
    ExcelWriter(book, zipfile.ZipFile(draft, "w")).save()
    final = io.BytesIO()
    # Stored, not deflated: compressed bytes differ between zlib versions.
    with zipfile.ZipFile(draft) as parts, zipfile.ZipFile(final, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(parts.namelist()):
            archive.writestr(zipfile.ZipInfo(name, LONG_AGO.timetuple()[:6]), parts.read(name))
    return final.getvalue()


if __name__ == "__main__":
    for name, workbook in build_all().items():
        (FOLDER / name).write_bytes(workbook)
