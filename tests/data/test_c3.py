"""The C3 format, on entries made for the test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lrc.data.c3 import read_c3
from lrc.data.questions import Question
from lrc.runtime.errors import DataError

ENTRY: list[Any] = [
    ["女：今天天氣真好。 ", "男：我們去放風箏吧！"],
    [
        {"question": "他們要做什麼？", "choice": ["釣魚", "放風箏", "睡覺"], "answer": "放風箏"},
        {"question": "天氣如何？", "choice": ["好", "不好"], "answer": "好"},
    ],
    "5-12",
]
PATH = Path("d-dev.json")


def entry(**changes: Any) -> list[Any]:
    return [["文"], [{"question": "問", "choice": ["甲", "乙"], "answer": "乙"} | changes], 1]


def test_each_question_of_a_passage_is_read() -> None:
    book = read_c3([ENTRY, entry()], PATH)
    passage = "女：今天天氣真好。\n男：我們去放風箏吧！"
    assert book.labelled and book.rows_read == 3 and not book.findings
    assert book.questions == (
        Question("5-12-1", passage, "他們要做什麼？", ("釣魚", "放風箏", "睡覺"), 2, 1),
        Question("5-12-2", passage, "天氣如何？", ("好", "不好"), 1, 2),
        Question("1-1", "文", "問", ("甲", "乙"), 2, 3),
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"answer": "丙"}, "has the answer 「丙」"),
        ({"answer": "YES", "choice": ["Yes.", "yes"]}, "has the answer 「YES」"),  # which of the two?
        ({"answer": None}, "has no text as its answer"),
        ({"choice": ["甲"]}, "2 to 8 choices"),
        ({"choice": ["甲", ""]}, "empty passage, question or choice"),
        ({"choice": ["甲", 2]}, "has no text as its choice"),
        ({"question": " "}, "empty passage, question or choice"),
        ({"question": "\ud800"}, "an unpaired surrogate in its question"),
    ],
)
def test_a_bad_question_is_an_error_at_its_place(changes: dict[str, Any], said: str) -> None:
    book = read_c3([ENTRY, entry(**changes)], PATH)
    assert len(book.questions) == 2
    (error,) = book.errors
    assert error.row == 3 and "id 1-1" in str(error) and said in str(error)


def test_the_id_of_a_passage_is_cleaned_and_half_a_character_in_it_is_an_error() -> None:
    cleaned, broken = entry(), entry()
    cleaned[2], broken[2] = " 7\r", "a\ud800"
    book = read_c3([cleaned, broken], PATH)
    assert [question.id for question in book.questions] == ["7-1"]
    assert list(map(str, book.errors)) == [
        "d-dev.json, row 2: id a\\ud800-1 has an unpaired surrogate in its id; correct it"
    ]


def test_letters_before_the_choices_are_removed() -> None:
    book = read_c3([entry(choice=["A．甲", "B．乙"], answer="B．乙"), ENTRY], PATH)
    assert book.questions[0].options == ("甲", "乙") and book.questions[0].answer == 2
    (found,) = book.findings
    assert (found.level, found.kind, found.row) == ("repair", "enumeration", 1)


def test_a_file_without_answers_refuses_bad_questions() -> None:
    bare = entry()
    del bare[1][0]["answer"]
    book = read_c3([bare], PATH)
    assert not book.labelled and book.questions[0].answer is None
    bare[1][0]["choice"] = []
    with pytest.raises(DataError, match=r"d-dev\.json, row 1: id 1-1 does not have 2 to 8"):
        read_c3([bare], PATH)


def test_a_duplicate_right_choice_warns() -> None:
    (warning,) = read_c3([entry(choice=["甲", "乙", "乙"])], PATH).findings
    assert (warning.level, warning.row) == ("warning", 1)


@pytest.mark.parametrize("content", [[{"a": 1}], [[["文"], [], 1, 2]], [["文", [], 1]], [[["文"], {}, 1]]])
def test_another_form_is_refused(content: list[Any]) -> None:
    with pytest.raises(DataError, match="entry 1: is not"):
        read_c3(content, PATH)


def test_no_questions_are_refused() -> None:
    with pytest.raises(DataError, match="no questions"):
        read_c3([[["文"], [], 1]], PATH)
