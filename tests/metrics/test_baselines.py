"""The baselines find what they look for, tie where scores are equal, and never choose an option without text."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from itertools import permutations
from math import prod
from pathlib import Path
from random import Random

import pytest
from questions import ask

from lrc.data.questions import Question
from lrc.data.tables.workbook import read_workbook
from lrc.metrics.accuracy import mean_credit, passages_of
from lrc.metrics.baselines import BASELINES, credit, longest, majority, overlap, sliding_window

SHARED = Path(os.environ.get("LRC_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))


def test_majority_answers_what_is_most_frequent() -> None:
    assert majority([ask(answer=3), ask(answer=2), ask(answer=3), ask(answer=1)]) == [(3,)] * 4
    assert majority([ask(answer=None)]) == [(1, 2, 3, 4)]
    assert majority([ask(answer=3), ask(answer=3), ask(options=("甲", "乙"), answer=2)]) == [(3,), (3,), (2,)]
    assert majority([ask(answer=4), ask(answer=2), ask(options=("甲", "乙"), answer=1)]) == [(1, 2, 4)] * 2 + [(1, 2)]


def test_longest() -> None:
    assert longest([ask(options=("甲", "甲乙丙", "甲乙", "丙丁戊"))]) == [(2, 4)]


def test_overlap_finds_the_option_that_is_in_the_passage() -> None:
    question = ask(passage="小明昨天在公園裡放風箏", options=("小華釣魚", "在公園裡放風箏", "公園", "小明"))
    assert overlap([question]) == [(2,)]
    whole = ask(passage="小明昨天在公園裡放風箏", options=("放風箏", "公園", "在公園裡放風箏", "公園裡放風箏"))
    assert overlap([whole]) == [(3,)]  # all are in the passage; the longest says most
    told = "".join(map(chr, range(0x4E00, 0x4F00)))
    close = ask(passage="甲甲" + told, options=("甲甲" + told[:200] + "？", "甲" * 150 + told[:199] + "？"))
    assert overlap([close]) == [(1,)]  # 201 of 202 and 200 of 201: however long the second is


def test_sliding_window_looks_near_the_question() -> None:
    passage = "小明去年種了一棵蘋果樹。" + "天" * 60 + "小華今年種了一棵芒果樹。"
    question = ask(passage=passage, question="小華今年種了什麼？", options=("蘋果樹", "芒果樹", "天", "不知道"))
    assert sliding_window([question]) == [(2,)]


def pairs(text: str) -> list[str]:
    return [text[i : i + 2] for i in range(len(text) - 1)]


def in_a_window(passage: str, asked: str, option: str) -> Fraction:
    """The exponential of the score of Richardson et al. 2013, algorithm 1, as it is written there, with bigrams."""
    words, wanted = pairs(passage), {*pairs(asked), *pairs(option)}
    return max(
        prod(
            (1 + Fraction(1, words.count(word)) for word in words[start : start + len(wanted)] if word in wanted),
            start=Fraction(1),
        )
        for start in range(len(words))
    )


def in_the_passage(passage: str, _asked: str, option: str) -> tuple[Fraction, int]:
    grams = set(pairs(option))
    return Fraction(sum(gram in passage for gram in grams), len(grams)), len(option)


def drawn(seed: int, count: int) -> list[Question]:
    """Questions of few different characters, so that many options tie."""
    random = Random(seed)
    draw = lambda low, high: "".join(random.choices("甲乙丙丁", [4, 3, 2, 1], k=random.randint(low, high)))  # noqa: E731
    texts = [(draw(20, 40), draw(2, 5), tuple(draw(2, 5) for _ in range(4))) for _ in range(count)]
    return [
        ask(passage=passage, question=asked, options=options, answer=random.randint(1, 4))
        for passage, asked, options in texts
    ]


@pytest.mark.parametrize(
    ("name", "score"),
    [
        ("sliding window", in_a_window),
        ("bigram overlap", in_the_passage),
        ("longest option", lambda _passage, _asked, option: len(option)),
    ],
)
def test_a_baseline_chooses_all_options_whose_published_scores_are_equal(name: str, score: object) -> None:
    assert callable(score)
    questions, sizes = drawn(0, 60), set()
    for question, found in zip(questions, BASELINES[name](questions), strict=True):
        scores = [score(question.passage, question.question, option) for option in question.options]
        assert found == tuple(number for number, one in enumerate(scores, start=1) if one == max(scores))
        sizes.add(len(found))
    assert {1, 2, 3} <= sizes


def test_windows_with_equal_sums_tie_whatever_stands_before_them() -> None:
    """The logarithm of 2 is the sum of those of 3/2 and 4/3, but not of their rounded values in every order."""
    for seed in range(12):
        sentences = Random(seed).sample(["甲乙", "丙丁戊。丙丁", "丁戊。丁戊", "己庚", *["子丑"] * 4], 8)
        question = ask(passage="。。。".join(sentences), question="子丑？", options=("甲乙", "丙丁戊", "己庚", "辰巳"))
        assert sliding_window([question]) == [(1, 2, 3)]


def credits_of(name: str, questions: Sequence[Question]) -> list[Fraction]:
    return credit(BASELINES[name](questions), [one.answer or 0 for one in questions])


@pytest.mark.parametrize("name", sorted(set(BASELINES) - {"majority"}))
def test_the_credit_is_the_mean_over_all_orders_of_the_options_of_choosing_the_first(name: str) -> None:
    questions, partial = drawn(1, 25), 0
    for question, found in zip(questions, credits_of(name, questions), strict=True):
        orders = [question.reordered(order) for order in permutations(range(4))]
        firsts = [tied[0] == one.answer for one, tied in zip(orders, BASELINES[name](orders), strict=True)]
        assert found == Fraction(sum(firsts), len(firsts))
        assert credits_of(name, orders) == [found] * len(orders)
        partial += 0 < found < 1
    assert partial


@pytest.mark.parametrize("name", BASELINES)
def test_an_option_without_text_is_never_chosen(name: str) -> None:
    questions = [
        ask(options=("", "甲"), answer=2),
        ask(options=("", ""), answer=None),
        ask(passage="", options=("", "", "丙"), answer=3),
    ]
    predictions = BASELINES[name](questions)
    assert predictions == [(2,), (1,), (3,)]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real workbooks are not here")
def test_two_thirds_of_the_real_workbook() -> None:
    questions = read_workbook(SHARED / "AI.xlsx").questions[::5]
    for name in ("bigram overlap", "sliding window"):
        assert mean_credit(credits_of(name, questions), passages_of(questions))["accuracy"] == pytest.approx(
            0.66, abs=0.03
        )
    windows = [
        [
            in_a_window("".join(one.passage.split()), "".join(one.question.split()), "".join(text.split()))
            for text in one.options
        ]
        for one in questions[:40]
    ]
    tied = [tuple(k for k, score in enumerate(scores, start=1) if score == max(scores)) for scores in windows]
    assert sliding_window(questions[:40]) == tied
