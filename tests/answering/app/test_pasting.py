"""A question that is pasted in one piece, as people write it."""

from __future__ import annotations

import pytest

from lrc.answering.app.pasting import split_question
from lrc.data.alpaca import to_record
from lrc.data.questions import Question
from lrc.runtime.errors import DataError

PASSAGE, ASKED = "小明在公園裡放風箏。\n小華在看書。", "小明在做什麼？"
HEADS = {
    "named": f"文章：{PASSAGE}\n問題：{ASKED}\n",
    "the last line": f"{PASSAGE}\n\n{ASKED}\n",
    "in English": f"Passage: {PASSAGE}\nQuestion: {ASKED}\n",
    "with numbers": f"{PASSAGE}\n{ASKED}\n",
}
OPTIONS = ("放風箏", "3.5 公里", "以上皆是", "讀書 2 小時")
LISTS = {
    "1:": "{0}",
    "(A)": "(A) {}\n(B) {}\n(C) {}\n(D) {}",
    "（Ａ）": "（Ａ）{}\n（Ｂ）{}\n（Ｃ）{}\n（Ｄ）{}",
    "A. in a line": "A. {} B. {} C. {} D. {}",
    "①": "①{}②{}③{}④{}",
    "甲、": "甲、{}\n乙、{}\n丙、{}\n丁、{}",
    "選項1": "選項1 {}\n選項2 {}\n選項3 {}\n選項4 {}",
    "over two lines": "(1)\n{}\n(2)\n{}\n(3)\n{}\n(4)\n{}",
    "with the answer": "1. {}\n2. {}\n3. {}\n4. {}\n正確答案：2",
    "with the answer in its line": "(A) {}\n(B) {}\n(C) {}\n(D) {} 正解：B",
    "with brackets around the word": "(A) {} (B) {} (C) {} (D) {}【答案】(B)",
    "with an explanation": "A. {}\nB. {}\nC. {}\nD. {}\nAns: B\n解析：因為他\n在讀書。",
}
LISTS["1:"] = "1: {}\n2: {}\n3: {}\n4: {}"


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("marks", LISTS)
def test_every_way_of_writing(head: str, marks: str) -> None:
    parts = split_question(HEADS[head] + LISTS[marks].format(*OPTIONS))
    assert (parts.passage, parts.question, parts.options) == (PASSAGE, ASKED, OPTIONS)


@pytest.mark.parametrize("count", [2, 8])
def test_what_lrc_itself_asks(count: int) -> None:
    question = Question("1", PASSAGE, ASKED, tuple(f"第{n}個" for n in range(1, count + 1)), 1)
    record = to_record(question)
    parts = split_question(f"{record.instruction}\n{record.input}")
    assert (parts.passage, parts.question, parts.options) == (PASSAGE, ASKED, question.options)


def test_a_list_in_the_passage_is_no_question() -> None:
    parts = split_question("步驟：\n1. 洗米\n2. 煮\n答：好。\n第一步？\n(A) 洗米\n(B) 煮")
    assert parts == ("步驟：\n1. 洗米\n2. 煮\n答：好。", "第一步？", ("洗米", "煮"))


@pytest.mark.parametrize("first", ["小明在做什麼？", "問題：小明在做什麼", "What does he do?"])
def test_two_questions_at_once_are_a_line(first: str) -> None:
    with pytest.raises(DataError, match="^pasted text: more than one question with options; paste one at a time$"):
        split_question(f"{PASSAGE}\n{first}\n(A) 甲\n(B) 乙\n\n小明在哪裡？\n(A) 公園\n(B) 家")


@pytest.mark.parametrize("text", ["", "文章\n問題", "1: 甲\n2: 乙", "問題？\n(A) 甲\n(B) 乙", "文\n問\n(B) 甲\n(C) 乙"])
def test_what_is_no_question_is_a_line(text: str) -> None:
    with pytest.raises(DataError, match="^pasted text: ") as refused:
        split_question(text)
    assert len(refused.value.lines()) == 1
