"""One reader for every kind of file with questions."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import workbooks
from questions import ask

from lrc.data.alpaca import dump_records, to_record
from lrc.data.sources import read_questions, read_records
from lrc.runtime.errors import DataError

C3: list[Any] = [[["文"], [{"question": "問", "choice": ["甲", "乙"], "answer": "乙"}], 7]]


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_every_format_gives_records(tmp_path: Path) -> None:
    rows = [workbooks.row(1), workbooks.row(2, 正確答案=3)]
    sheet = read_records(workbooks.write_xlsx(tmp_path / "a.xlsx", rows))
    table = read_records(workbooks.write_csv(tmp_path / "a.csv", rows))
    (tmp_path / "a.json").write_text("".join(dump_records(sheet)), encoding="utf-8")
    assert sheet == table == read_records(tmp_path / "a.json")
    assert [record.output for record in sheet] == ["1", "3"]
    (record,) = read_records(write(tmp_path / "c3.json", C3))
    assert record.id == "7-1" and record.input == "文\n問題：問\n1: 甲\n2: 乙" and record.output == "2"


def test_bad_rows_are_refused_with_their_places(tmp_path: Path) -> None:
    rows = [workbooks.row(1, 選項2=None), workbooks.row(2), workbooks.row(3, 正確答案=9)]
    path = workbooks.write_xlsx(tmp_path / "a.xlsx", rows)
    with pytest.raises(DataError) as caught:
        read_records(path)
    assert [line.split(":")[0] for line in caught.value.lines()] == ["a.xlsx, row 2", "a.xlsx, row 4"]
    C3[0][1][0]["answer"] = "丙"
    with pytest.raises(DataError, match=r"c3\.json, row 1: id 7-1"):
        read_records(write(tmp_path / "c3.json", C3))
    C3[0][1][0]["answer"] = "乙"


def test_ids_to_answer_must_differ_in_json_too(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("".join(dump_records(to_record(ask(id="1", answer=None)) for _ in range(2))), encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.json, record 2: id is 1, as in record 1"):
        read_records(path)
    path.write_text("".join(dump_records(to_record(ask(id="1")) for _ in range(2))), encoding="utf-8")
    assert len(read_records(path)) == 2


def test_c3_has_no_columns_to_name(tmp_path: Path) -> None:
    for read in (read_questions, read_records):
        with pytest.raises(DataError, match=r"^c3\.json: C3 JSON has no columns to name; leave out --columns$"):
            read(write(tmp_path / "c3.json", C3), columns={"文章": "passage"})


def test_c3_without_answers_must_have_ids_apart(tmp_path: Path) -> None:
    bare = [[["文"], [{"question": "問", "choice": ["甲", "乙"]}], 7]] * 2
    with pytest.raises(DataError, match="record 2: id is 7-1"):
        read_records(write(tmp_path / "c3.json", bare))


@pytest.mark.parametrize("content", [{}, [], "text", 3, [3]])
def test_other_json_is_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(DataError, match=r"^a\.json"):
        read_records(write(tmp_path / "a.json", content))


def test_json_has_no_sheet(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no sheet 工作表1"):
        read_records(write(tmp_path / "a.json", C3), "工作表1")


def test_alpaca_is_not_converted_again(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="already Alpaca JSON"):
        read_questions(write(tmp_path / "a.json", [{"instruction": "", "input": "", "output": ""}]))
    (tmp_path / "b.json").write_text("".join(dump_records([to_record(ask())])), encoding="utf-8")
    with pytest.raises(DataError, match="already Alpaca JSON"):  # with a table's keys as well
        read_questions(tmp_path / "b.json")


def test_a_file_of_a_set_that_is_not_as_listed_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", [{"instruction": "x", "input": "", "output": ""}])
    write(tmp_path / "a_manifest.json", {"files": {"a.json": {"sha256": "0"}}})
    with pytest.raises(DataError, match=r"a\.json: not the file that a_manifest\.json lists"):
        read_records(path)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take no such names")
@pytest.mark.parametrize("place", [b"\xa4\xe5.csv", b"\xa4\xe5/a.csv"])
def test_a_name_that_is_not_utf_8_is_refused(tmp_path: Path, place: bytes) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + place))
    path.parent.mkdir(exist_ok=True)
    workbooks.write_csv(path, [workbooks.row(1)])
    with pytest.raises(DataError) as refused:
        read_questions(path)
    assert str(refused.value).endswith(": its name is not UTF-8; rename the file, or its folder")
    assert str(refused.value).isprintable()


def test_what_the_system_does_not_let_lrc_see_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\.csv: File name too long; check its name and permissions$"):
        read_questions(tmp_path / ("a" * 300 + ".csv"))
    (tmp_path / "a.csv").symlink_to("a.csv")
    with pytest.raises(DataError, match=r"^a\.csv: Too many levels of symbolic links; "):
        read_questions(tmp_path / "a.csv")
