"""Letters and numbers before options: taken off where they are surely no text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import workbooks

from lrc.data.alpaca import to_record
from lrc.data.tables.enumeration import strip_enumeration
from lrc.data.tables.workbook import read_workbook

OPTIONS = ("選項1", "選項2", "選項3", "選項4")


@pytest.mark.parametrize(
    "options",
    [
        "A．學校 B．圖書館 C．公園 D．車站",
        "A.學校 B.圖書館 C.公園 D.車站",
        "A、學校 B：圖書館 C:公園 D)車站",
        "Ａ．學校 Ｂ．圖書館 Ｃ．公園 Ｄ．車站",
        "(A)學校 （B）圖書館 (C)公園 (D)車站",
        "1.學校 2、圖書館 3：公園 4)車站",
        "（１）學校 （２）圖書館 （３）公園 （４）車站",
        "①學校 ②圖書館 ③公園 ④車站",
        "⑴學校 ⑵圖書館 ⑶公園 ⑷車站",
        "甲、學校 乙、圖書館 丙、公園 丁、車站",
        "（甲）學校 （乙）圖書館 （丙）公園 （丁）車站",
        "一、學校 二、圖書館 三、公園 四、車站",
        "a.學校 b.圖書館 c.公園 d.車站",
        "選項A：學校 選項B：圖書館 選項C：公園 選項D：車站",
        "【A】學校 【B】圖書館 【C】公園 【D】車站",
    ],
)
def test_an_enumeration_is_removed(options: str) -> None:
    assert strip_enumeration(options.split()) == ("學校", "圖書館", "公園", "車站")


def test_white_space_and_numbers_after_a_letter_make_no_difference() -> None:
    assert strip_enumeration(["A. 1", "B. 2.5"]) == ("1", "2.5")
    assert strip_enumeration(["A．①②", "B．①", "C．I", "D．CCTV"]) == ("①②", "①", "I", "CCTV")
    assert strip_enumeration(["A．甲", "B．乙", ""]) == ("甲", "乙", "")


@pytest.mark.parametrize(
    "options",
    [
        "學校 圖書館 公園 車站",
        "A．學校 B．圖書館 C．公園 車站",  # not all
        "A．學校 C．圖書館 B．公園 D．車站",  # not in order
        "A．學校 B．圖書館 C． D．車站",  # nothing left
        "A型 B型 C型 D型",  # no mark
        "A、B B、C C、D D、E",  # names others
        "1.5公里 2.5公里 3.5公里 4.5公里",
        "1.５公里 2.５公里",
        "1:3 2:3 3:3 4:3",
        "1、2月 2、3月 3、4月 4、5月",
        "(1)(2) (2)(3) (3)(4) (4)(5)",
        "(1)和(2) (2)和(3) (3)和(4) (4)和(5)",
        "A．學校 B．圖書館 C．公園 D．A和B都對",
        "A．學校 B．圖書館 C．公園 D．AB皆是",
        "(A)學校 (B)圖書館 (C)只有A (D)以上皆非",
        "甲、學校 乙、圖書館 丙、公園 丁、甲乙皆是",
        "①學校 ②圖書館 ③公園 ④①③",
        "1.學校 2.圖書館 3.公園 4.1和3",
        "(1)學校 (2)圖書館 (3)公園 (4)選項1",
        "A．學校 2．圖書館 C．公園 D．車站",  # two series
        "A．型 B．型 C．型 D．型",
    ],
)
def test_marks_that_may_be_text_are_kept(options: str) -> None:
    assert strip_enumeration(options.split()) is None


def test_marks_that_the_question_refers_to_are_kept() -> None:
    options = ["A．學校", "B．圖書館", "C．公園", "D．車站"]
    assert strip_enumeration(options, "小明去了A和B，下一站是哪裡？") is None
    assert strip_enumeration(options, "以上皆是的地方，小明去了哪裡？") == ("學校", "圖書館", "公園", "車站")
    english = ["A. A dog ran.", "B. A cat slept.", "C. Both of them.", "D. None of the above"]
    assert strip_enumeration(english, "What happened?") == tuple(option[3:] for option in english)


def test_marks_in_one_row_of_many_are_kept_and_reported(tmp_path: Path) -> None:
    lettered: dict[str, Any] = dict(zip(OPTIONS, ("A．學校", "B．圖書館", "C．公園", "D．車站"), strict=True))
    rows = [workbooks.row(number) for number in range(1, 200)]
    book = read_workbook(workbooks.write_csv(tmp_path / "a.csv", [*rows, workbooks.row(200, **lettered)]))
    assert book.questions[-1].options[0] == "A．學校"
    assert [(found.level, found.kind, found.row) for found in book.findings] == [("warning", "enumeration", 201)]


def test_a_workbook_reports_removed_enumerations(tmp_path: Path) -> None:
    lettered: dict[str, Any] = dict(zip(OPTIONS, ("A．學校", "B．圖書館", "C．公園", "D．車站"), strict=True))
    path = workbooks.write_xlsx(tmp_path / "a.xlsx", [workbooks.row(1, **lettered, 正確答案="B"), workbooks.row(2)])
    book = read_workbook(path)
    assert [question.options[1] for question in book.questions] == ["圖書館", "釣魚"]
    assert to_record(book.questions[0]).input.endswith("1: 學校\n2: 圖書館\n3: 公園\n4: 車站")
    (found,) = [finding for finding in book.findings if finding.kind == "enumeration"]
    assert found.level == "repair"
    assert str(found) == "a.xlsx, row 2: options began with their own letters or numbers; they were removed"
