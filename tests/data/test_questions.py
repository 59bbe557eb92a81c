"""Which questions may have their options reordered."""

from __future__ import annotations

from itertools import permutations

import pytest

from lrc.data.questions import Question, option_orders

REFERRING = """
以上皆是 All_of_the_above Both_A_and_B neither_A_nor_B C,_D_are_correct 甲乙皆是 甲和丙 前兩項皆對 AB ①② (A)(B) Ａ與Ｂ
A、B、C 選項A 第2個選項 第一項和第二項 1,_2 只有A 僅① 除了B B以外 options_1_and_2 ＡＢＣ皆可 二與三
"""
PLAIN = """
DNA BAD AB型和B型 對環境友善 都是女人 10 A 甲 第一名 1.2公里 甲、乙、丙三人 僅一人 前者較好 除以二 a_dog_and_a_cat
"""


@pytest.mark.parametrize(("texts", "orders"), [(REFERRING, 1), (PLAIN, 4)])
def test_an_option_that_refers_to_others_keeps_its_place(texts: str, orders: int) -> None:
    options = [text.replace("_", " ") for text in texts.split()]
    asked = [Question("1", "文", "何者正確？", ("風箏", "釣魚", "讀書", option), 1) for option in options]
    assert [question.options[3] for question in asked if len(option_orders(question, 4)) != orders] == []


@pytest.mark.parametrize("answer", [None, 1, 2, 3, 4])
def test_an_answer_follows_its_option(answer: int | None) -> None:
    asked = Question("1", "文", "誰？", ("甲", "乙", "丙", "丁"), answer)
    for order in permutations(range(4)):
        moved = asked.reordered(order)
        assert moved.options == tuple("甲乙丙丁"[place] for place in order)
        assert (moved.answer and moved.options[moved.answer - 1]) == (answer and asked.options[answer - 1])
