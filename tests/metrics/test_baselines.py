"""The baselines find what they look for, and never choose an option without text."""

from __future__ import annotations

import os
from math import log
from pathlib import Path
from random import Random

import pytest
from questions import ask

from lrc.data.tables.workbook import read_workbook
from lrc.metrics.accuracy import accuracy, passages_of
from lrc.metrics.baselines import BASELINES, longest, majority, overlap, sliding_window

SHARED = Path(os.environ.get("LRC_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))


def test_majority_answers_what_is_most_frequent() -> None:
    assert majority([ask(answer=3), ask(answer=2), ask(answer=3), ask(answer=1)]) == [3] * 4
    assert majority([ask(answer=None)]) == [1]
    assert majority([ask(answer=3), ask(answer=3), ask(options=("甲", "乙"), answer=2)]) == [3, 3, 1]


def test_longest() -> None:
    assert longest([ask(options=("甲", "甲乙丙", "甲乙", "丙丁戊"))]) == [2]


def test_overlap_finds_the_option_that_is_in_the_passage() -> None:
    question = ask(passage="小明昨天在公園裡放風箏", options=("小華釣魚", "在公園裡放風箏", "公園", "小明"))
    assert overlap([question]) == [2]
    whole = ask(passage="小明昨天在公園裡放風箏", options=("放風箏", "公園", "在公園裡放風箏", "公園裡放風箏"))
    assert overlap([whole]) == [3]  # all are in the passage; the longest says most


def test_sliding_window_looks_near_the_question() -> None:
    passage = "小明去年種了一棵蘋果樹。" + "天" * 60 + "小華今年種了一棵芒果樹。"
    question = ask(passage=passage, question="小華今年種了什麼？", options=("蘋果樹", "芒果樹", "天", "不知道"))
    assert sliding_window([question]) == [2]


def in_a_window(passage: str, asked: str, option: str) -> float:
    """The score of Richardson et al. 2013, algorithm 1, as it is written there, with bigrams for words."""
    words = [passage[i : i + 2] for i in range(len(passage) - 1)]
    wanted = {text[i : i + 2] for text in (asked, option) for i in range(len(text) - 1)}
    return max(
        sum(log(1 + 1 / words.count(word)) for word in words[start : start + len(wanted)] if word in wanted)
        for start in range(len(words))
    )


def test_sliding_window_is_the_published_one() -> None:
    random = Random(0)
    draw = lambda low, high: "".join(random.choices("甲乙丙丁", [4, 3, 2, 1], k=random.randint(low, high)))  # noqa: E731
    chosen = []
    for _ in range(60):
        passage, asked, options = draw(20, 40), draw(2, 5), tuple(draw(2, 5) for _ in range(4))
        scores = [in_a_window(passage, asked, option) for option in options]
        (chosen_here,) = sliding_window([ask(passage=passage, question=asked, options=options)])
        assert scores[chosen_here - 1] == pytest.approx(max(scores))
        chosen.append(chosen_here)
    assert len(set(chosen)) == 4


@pytest.mark.parametrize("name", BASELINES)
def test_an_option_without_text_is_never_chosen(name: str) -> None:
    questions = [
        ask(options=("", "甲"), answer=2),
        ask(options=("", ""), answer=None),
        ask(passage="", options=("", "", "丙"), answer=3),
    ]
    predictions = BASELINES[name](questions)
    assert predictions == [2, 1, 3]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real workbooks are not here")
def test_two_thirds_of_the_real_workbook() -> None:
    questions = read_workbook(SHARED / "AI.xlsx").questions[::5]
    answers = [question.answer or 0 for question in questions]
    assert accuracy(overlap(questions), answers, passages_of(questions))["accuracy"] == pytest.approx(0.66, abs=0.03)
    assert accuracy(sliding_window(questions), answers, passages_of(questions))["accuracy"] == pytest.approx(
        0.66, abs=0.03
    )
