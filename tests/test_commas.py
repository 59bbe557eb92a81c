"""CSV files: UTF-8 as a stream, and what else people save is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from workbooks import LABELLED, row, write_csv

from lrc.errors import DataError
from lrc.workbook import read_workbook

HEADER = ",".join(LABELLED)


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as refused:
        read_workbook(path)
    return str(refused.value)


def written(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_with_and_without_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    book = read_workbook(write_csv(tmp_path / "a.csv", [row(1, ID="001")], encoding=encoding))
    assert book.questions[0].id == "001" and book.sheet is None


def test_quoted_cells_keep_commas_quotes_and_line_breaks(tmp_path: Path) -> None:
    book = read_workbook(write_csv(tmp_path / "a.csv", [row(1, 選項1='a,"b"\nc'), row(2)]))
    assert book.questions[0].options[0] == 'a,"b"\nc'
    assert [question.row for question in book.questions] == [2, 3]  # a row is a record, as in a spreadsheet


@pytest.mark.parametrize(
    ("encoding", "name"), [("cp950", "Big5 (cp950)"), ("gb18030", "GB18030"), ("utf-16", "UTF-16")]
)
def test_other_encodings_are_named(tmp_path: Path, encoding: str, name: str) -> None:
    message = refusal(write_csv(tmp_path / "a.csv", [row(1)], encoding=encoding))
    assert message == f"a.csv: encoded as {name}, expected UTF-8; save it as 'CSV UTF-8' in a spreadsheet"


def test_a_broken_byte(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [row(n) for n in range(3)])
    path.write_bytes(path.read_bytes() + b"\xff\n")
    assert "byte 0xff is not UTF-8" in refusal(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{HEADER}\n1,\x00", "line 2: has a NUL character"),
        (f'{HEADER}\n1,"文', "a.csv, row 2: unexpected end of data"),
        (f'{HEADER}\n1,"文"章",', "a.csv, row 2: "),
        ("x" * (2 << 20), "line 1: longer than"),
        (b"PK\x03\x04", "a workbook, not CSV"),
        ("", "not even a header"),
    ],
)
def test_files_that_are_no_csv(tmp_path: Path, text: str | bytes, message: str) -> None:
    assert message in refusal(written(tmp_path / "a.csv", text))


def test_too_many_cells_make_a_bad_row(tmp_path: Path) -> None:
    book = read_workbook(write_csv(tmp_path / "a.csv", [row(1), [*row(2), "x"], [*row(3), ""], row(4)]))
    assert [str(error) for error in book.errors] == [
        "a.csv, row 3: 9 cells under 8 headers; put quotes around a cell that has a comma in it"
    ]
    assert [question.row for question in book.questions] == [2, 4, 5]


def test_too_many_cells_refuse_a_test_file(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [[*row(1, 正確答案=""), "x"]])
    assert "row 2: 9 cells under 8 headers" in refusal(path)


def test_a_sheet_of_a_csv(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no sheet"):
        read_workbook(write_csv(tmp_path / "a.csv", [row(1)]), "甲")
