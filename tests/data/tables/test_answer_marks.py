"""The 正確答案 column is understood as people write it, and not guessed at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import workbooks

from lrc.data.sources import read_questions
from lrc.data.tables.answer_marks import parse_answer, read_answer, read_answers
from lrc.data.tables.workbook import Workbook, read_workbook
from lrc.runtime.errors import DataError

THIRD = (
    "3 選項3 选项3 選項\u3000３ ３ 3.0 ３．０ C c Ｃ 選項C 03 (3) （３） (C) （Ｃ） [C] 【C】 C. 3、 ③ ❸ ⑶ Ⅲ 丙 (丙) "
    "III iii (iii) 三 ㈢ 選項三 選項丙 第三個 第3項 第三個選項 C項 選C 答案:3 答案：C 正確答案為3 解答是(C) Answer:C "
    "No.3"
)
OPTIONS = ("學校", "圖書館", "公園", "車站")


@pytest.mark.parametrize("text", [*THIRD.split(" "), " 3\n"])
def test_understood(text: str) -> None:
    assert read_answers([text], [OPTIONS]) == [(3, "", "")]


@pytest.mark.parametrize("text", ["", "3.5", "3%", "-3", "選項", "IX", "TRUE", "1000", "3,", "²", "3、4", "AB", "A/B"])
def test_not_understood(text: str) -> None:
    assert parse_answer(text) is None
    assert read_answer(text, OPTIONS).number is None


@pytest.mark.parametrize(
    ("text", "number"),
    [("公園", 3), (" 公園。", 3), ("C. 公園", 3), ("(3)公園", 3), ("答案：公園", 3), ("公 園", 3), ("ＡＢＣ", 4)],
)
def test_the_text_of_an_option(text: str, number: int) -> None:
    assert read_answer(text, ("學校", "圖書館", "公園", "abc")).number == number


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("0", OPTIONS, "is 0, expected 1 to 4"),
        ("E", OPTIONS, "is E, expected 1 to 4"),
        ("海邊", OPTIONS, "is 海邊, expected 1 to 4, a letter, or the text of one option"),
        ("C. 學校", OPTIONS, "but that text is 選項1"),
        ("學校", ("學校", "公園", "學校"), "the text of 選項1 and 選項3; give the number"),
        ("3", ("學校", "公園", ""), "is 3, expected 1 to 2"),
    ],
)
def test_answers_that_name_no_option_are_explained(text: str, options: tuple[str, ...], said: str) -> None:
    reading = read_answer(text, options)
    assert reading.number is None and said in reading.error


def read(tmp_path: Path, *rows: tuple[Any, str]) -> Workbook:
    """A workbook of answers, each with the four options that its row has."""
    headers = [f"選項{number}" for number in range(1, 5)]
    cells = [
        workbooks.row(number, 正確答案=answer, **dict(zip(headers, options.split(), strict=True)))
        for number, (answer, options) in enumerate(rows, start=1)
    ]
    return read_workbook(workbooks.write_xlsx(tmp_path / "a.xlsx", cells))


def answers(book: Workbook) -> list[int | None]:
    return [question.answer for question in book.questions]


def test_a_number_that_is_an_option_too_is_what_the_other_answers_are(tmp_path: Path) -> None:
    places = read(tmp_path, (3, "2 3 4 5"), (2, "甲 乙 丙 丁"))
    assert answers(places) == [3, 2] and not places.findings
    texts = read(tmp_path, (13, "11 12 13 14"), (8, "2 4 6 8"))
    assert answers(texts) == [3, 4] and [found.kind for found in texts.findings] == ["answer", "answer"]
    alone = read(tmp_path, (3, "2 3 4 5"))
    assert answers(alone) == [3] and [found.kind for found in alone.findings] == ["number-or-text"]
    both = read(tmp_path, (3, "2 3 4 5"), (8, "2 4 6 8"), (2, "甲 乙 丙 丁"))
    assert [found.row for found in both.errors] == [2, 3] and "write 選項3 or 選項2" in str(both.errors[0])
    letter = read(tmp_path, ("B", "B A D C"), (4, "甲 乙 丙 丁"))
    assert [found.row for found in letter.errors] == [2] and answers(letter) == [4]


def test_what_is_understood_is_counted(tmp_path: Path) -> None:
    book = read(tmp_path, *((answer, "學校 圖書館 公園 車站") for answer in ("(B)", "乙", "②", "圖書館", 2, "2")))
    assert answers(book) == [2] * 6
    assert [str(found) for found in book.findings][:1] == ["a.xlsx, row 2: 正確答案 is (B); read as 2"]
    assert [found.row for found in book.findings] == [2, 3, 4, 5]


ZERO = [0, 1, 2, 3, 1, 2]


def write(path: Path, counted: list[Any]) -> Path:
    """A file of questions with these answers, of the kind that its name tells."""
    rows = [workbooks.row(number, 正確答案=answer) for number, answer in enumerate(counted, start=1)]
    if path.suffix == ".xlsx":
        return workbooks.write_xlsx(path, rows)
    if path.suffix == ".csv":
        return workbooks.write_csv(path, rows)
    objects = [dict(zip(workbooks.LABELLED, cells, strict=True)) for cells in rows]
    if path.stem == "c3":
        objects = [
            [["文"], [{"question": f"問{n}", "choice": [*"甲乙丙丁"], "answer": a}], n] for n, a in enumerate(counted)
        ]
    lines = "\n".join(map(json.dumps, objects)) if path.suffix == ".jsonl" else json.dumps(objects)
    path.write_text(lines, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["a.xlsx", "a.csv", "a.jsonl", "a.json", "c3.json"])
def test_answers_that_count_from_zero_are_refused_as_a_whole(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="count[s]? from 0; add 1 to every answer") as caught:
        read_questions(write(tmp_path / name, ZERO))
    (line,) = caught.value.lines()
    assert line.startswith(f"{name}, row ") and ("4 in none" in line or "none has 4" in line)
    book = read_questions(write(tmp_path / name, [*ZERO, 4]))  # a last option shows that it counts from 1
    assert len(book.errors) == 1 and len(book.questions) == 6


def test_a_slip_among_many_zeros_does_not_hide_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is 0 in 20 rows, and 4 in 1: it counts from 0"):
        read_questions(write(tmp_path / "a.csv", [0, 1, 2, 3] * 20 + [4]))
    assert len(read_questions(write(tmp_path / "b.csv", [1, 2, 3, 4] * 20 + [0])).errors) == 1


def test_letters_among_the_answers_do_not_hide_a_zero(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"2 rows, and 4 in none"):
        read_questions(write(tmp_path / "a.xlsx", [1, "0.0", "選項0", "D"]))


def test_options_of_digits_may_be_answered_with_zero(tmp_path: Path) -> None:
    assert answers(read(tmp_path, (0, "0 5 6 7"), (6, "0 5 6 7"))) == [1, 3]


@pytest.mark.parametrize(
    ("options", "answers", "read"),
    [
        ("２/３/４/５", "3 2", [3, 2]),  # no other answer tells: read as positions, with a warning
        ("２/３/４/５", "3 5", [2, 4]),  # 5 is a text only
        ("2.0/3.0/4.0/5.0", "3 5", [2, 4]),
        ("Ｄ/Ｃ/Ｂ/Ａ", "B A", []),
        ("丁/丙/乙/甲", "乙。 甲", []),
        ("２/３/４/５", "選項3 1", [3, 1]),
    ],
)
def test_an_answer_may_be_the_text_of_an_option_in_another_width(options: str, answers: str, read: list[int]) -> None:
    texts = answers.split()
    found = read_answers(texts, [options.split("/")] * len(texts))
    assert [one.number for one in found if one.number] == read
    assert all(one.error for one in found) or read
    assert any(one.doubt for one in found) == (answers == "3 2")
