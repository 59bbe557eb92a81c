"""The submission is written and read verbatim."""

from __future__ import annotations

from pathlib import Path

import pytest

from lrc.answering.submission import match_answers, read_submission, write_submission
from lrc.runtime.errors import DataError, OutputError


def test_written_and_read(tmp_path: Path) -> None:
    path = tmp_path / "answer.csv"
    ids = ["007", "=1+1", 'a,"b"', "題 1", "007"]
    write_submission(path, ids, [1, 2, 3, 4, 8])
    assert path.read_bytes().startswith(b"ID,Answer\n007,1\n=1+1,2\n")
    assert read_submission(path) == list(zip(ids, [1, 2, 3, 4, 8], strict=True))


def test_an_existing_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "answer.csv"
    path.write_text("mine")
    with pytest.raises(OutputError):
        write_submission(path, ["1"], [1])
    assert path.read_text() == "mine"
    write_submission(path, ["1"], [1], force=True)
    assert read_submission(path) == [("1", 1)]


def test_ids_and_answers_must_pair(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        write_submission(tmp_path / "answer.csv", ["1", "2"], [1])
    assert not list(tmp_path.iterdir())


def test_what_spreadsheets_write_is_read(tmp_path: Path) -> None:
    path = tmp_path / "answer.csv"
    path.write_bytes("\ufeffID, Answer\r\n1, 2\r\n\r\n2,3\r\n".encode())
    assert read_submission(path) == [("1", 2), ("2", 3)]


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        ("id;answer\n1;2\n", ["answer.csv: the header is id;answer, expected ID,Answer"]),
        ("", ["answer.csv: the header is , expected ID,Answer"]),
        ("ID,Answer\n1,0\n2,2\n3,A\n4\n", ["answer.csv, line 2: ", "answer.csv, line 4: ", "answer.csv, line 5: "]),
        ('ID,Answer\n"1,2\n', ["answer.csv: not a CSV file"]),
        ("ID,Answer\n題,1\n".encode("big5"), ["answer.csv: not a CSV file"]),
    ],
)
def test_what_is_no_submission_is_refused(tmp_path: Path, content: str | bytes, lines: list[str]) -> None:
    path = tmp_path / "answer.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        read_submission(path)
    assert len(caught.value.lines()) == len(lines)
    assert all(said.startswith(line) for said, line in zip(caught.value.lines(), lines, strict=True))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^no\.csv: No such file"):
        read_submission(tmp_path / "no.csv")


IDS = ["1", "2", "3", "b"]
ANSWERS = [4, 3, 2, 1]


@pytest.mark.parametrize(
    "content",
    [
        "ID,Answer\n1,4\n2,3\n3,2\nb,1\n",
        "id,answer\nb,1\n3,2\n1,4\n2,3\n",
        "\ufeffId,ANSWER\r\nb,1.0\r\n3.0,2.0\r\n2.0,3.00\r\n1.0,4.0\r\n\r\n",
        '"ID","Answer"\n"3","2"\n"b","1"\n"1","4"\n"2","3"\n\n\n',
        "ID, Answer\n 3, 2\nb , 1\n1,4\n2,3\n",
    ],
)
def test_answers_are_paired_by_id(tmp_path: Path, content: str) -> None:
    path = tmp_path / "answer.csv"
    path.write_bytes(content.encode())
    assert match_answers(read_submission(path), IDS, "answer.csv", "q.xlsx") == ANSWERS


@pytest.mark.parametrize(
    ("given", "ids", "findings"),
    [
        (["1", "2"], ["1", "2", "3"], ["a.csv: lacks id 3 of q.xlsx"]),
        (["3", "2", "1", "9", "8"], ["1", "2", "3"], ["a.csv: has 2 ids (first 9), which q.xlsx has not"]),
        (["1", "1", "2"], ["1", "2", "3"], ["a.csv: id 1 more than once", "a.csv: lacks id 3"]),
        (["1", "2", "1"], ["1", "1", "2"], ["a.csv: id 1 more than once", "q.xlsx: id 1 more than once"]),
        (["1", "1.0", "3"], ["3", "1", "2"], ["a.csv: id 1 more than once", "a.csv: lacks id 2"]),
    ],
)
def test_ids_that_do_not_tell_are_refused(given: list[str], ids: list[str], findings: list[str]) -> None:
    with pytest.raises(DataError) as refused:
        match_answers([(name, 1) for name in given], ids, "a.csv", "q.xlsx")
    assert len(refused.value.lines()) == len(findings)
    assert all(line.startswith(begins) for line, begins in zip(refused.value.lines(), findings, strict=True))


def test_equal_columns_are_paired_by_position_whatever_repeats() -> None:
    assert match_answers([("1", 1), ("1", 2), ("1.0", 3)], ["1", "1", "1.0"], "a.csv", "q.xlsx") == [1, 2, 3]
    assert match_answers([("1.0", 1), ("1", 2)], ["1", "1.0"], "a.csv", "q.xlsx") == [
        2,
        1,
    ]  # two ids, which say who is who
    assert match_answers([("7.0", 1), ("7.0", 2)], ["7", "7"], "a.csv", "q.xlsx") == [1, 2]
