"""The two layouts of an input, to the byte, and the way back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from questions import ask

from lrc.data.input_layouts import Layout, parse_input, write_input
from lrc.data.questions import Question

PIECES = ["甲", "乙", " ", "\n", "1: ", "2: ", "3: ", "4: ", "5: ", "問題：", "問題:", "6", "\n1: ", "\u2028"]
TEXT = st.lists(st.sampled_from(PIECES), max_size=5).map("".join)


def test_lines_to_the_byte() -> None:
    question = ask(passage="文\n章", question="問\n？", options=("26", "2\r\n7", "28", "29"))
    assert write_input(question, "lines") == "文\n章\n問題：問 ？\n1: 26\n2: 2 7\n3: 28\n4: 29"


def test_reference_to_the_byte() -> None:
    question = ask(passage="文\n章", question="問\n？", options=("26", "27", "28", "29"))
    assert write_input(question, "reference") == "文\n章問題:問\n？1: 262: 273: 284: 29\n"


@pytest.mark.parametrize("layout", ["lines", "reference"])
def test_options_that_are_numbers_are_parsed(layout: Layout) -> None:
    question = ask(options=("26", "27", "28", "29"))
    parts = question.passage, question.question, question.options
    assert parse_input(write_input(question, layout)) == parts


@pytest.mark.parametrize("count", [2, 3, 8])
def test_lines_has_any_number_of_options(count: int) -> None:
    options = tuple("甲乙丙丁戊己庚辛"[:count])
    parts = parse_input(write_input(ask(options=options), "lines"))
    assert parts is not None and parts[2] == options


@pytest.mark.parametrize(
    "text",
    [
        "",
        "請翻譯這一句。",
        "文章\n問題：問？\n1: 甲",  # one option
        "文章\n問題：問？\n1: 甲\n3: 乙",  # a number is missing
        "文章問題:問？1: 甲2: 乙3: 丙4: 丁",  # no line feed at the end
        "文章問題:問？1: 甲2: 乙3: 丙4: 丁5: 戊\n",  # of five, where four are expected
        "文章問題:問題:問？1: 甲2: 乙3: 丙4: 丁\n",  # which of the two begins the question?
        "文章問題:比1: 2如何？1: 甲2: 乙3: 丙4: 丁\n",  # which of the two begins the options?
    ],
)
def test_text_without_a_layout_or_with_two_readings_is_not_parsed(text: str) -> None:
    assert parse_input(text) is None


@given(TEXT, TEXT, st.lists(TEXT, min_size=2, max_size=8))
def test_lines_reads_back_as_written(passage: str, question: str, options: list[str]) -> None:
    written = Question("", passage, question, tuple(options))
    text = write_input(written, "lines")
    parts = parse_input(text)
    assert parts is not None
    assert parts[0] == passage and len(parts[2]) == len(options)
    assert write_input(Question("", *parts), "lines") == text


@given(TEXT, TEXT, st.lists(TEXT, min_size=4, max_size=4))
def test_reference_reads_back_as_written_or_not_at_all(passage: str, question: str, options: list[str]) -> None:
    text = write_input(Question("", passage, question, tuple(options)), "reference")
    assert parse_input(text) in (None, (passage, question, tuple(options)))
