"""Two models on the same questions, beside an independent computation."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lrc.data.questions import Question
from lrc.metrics.comparison import compare_answers
from lrc.metrics.predictions import Outcome
from lrc.runtime.errors import DataError
from lrc.runtime.translation import CHINESE, localized

SOURCES = (Path("a/scores.jsonl"), Path("b/scores.jsonl"))
NAMES = ("a", "b")


def make(count: int, passages: int, seed: int, right: float) -> list[Outcome]:
    """Answers of a model that has about `right` of the questions right; every question is about one of the passages."""
    draw = random.Random(seed)
    outcomes = []
    for k in range(count):
        question = Question(str(k), f"第{k % passages}篇文章", f"問題{k}", ("甲", "乙", "丙"), k % 3 + 1, k + 2)
        prediction = question.answer if draw.random() < right else k % 3 % 2 + 1 + (k % 3 == 1)
        outcomes.append(Outcome(question, (0.2, 0.3, 0.5), prediction or 1))
    return outcomes


@pytest.mark.parametrize("seed", range(4))
def test_test_and_interval_are_those_of_all_swaps_of_whole_passages(seed: int) -> None:
    first, second = make(30, 9, seed, 0.8), make(30, 9, seed + 100, 0.5)
    found = compare_answers(NAMES, SOURCES, first, second)
    ahead = np.array([one.right * 1.0 - two.right for one, two in zip(first, second, strict=True)])
    sums = np.array([ahead[np.arange(30) % 9 == passage].sum() for passage in range(9)])
    # Every passage's answers could have been either model's: 2 to the power of 9 equally likely worlds.
    worlds = [abs(np.dot(signs, sums)) for signs in itertools.product((-1, 1), repeat=9)]
    assert found.test["p_value"] == pytest.approx(np.mean([world >= abs(ahead.sum()) for world in worlds]))
    # The standard error by clusters, from each passage's own residuals, times Student's quantile for 8 degrees.
    sizes = np.array([(np.arange(30) % 9 == passage).sum() for passage in range(9)])
    residuals = sums - sizes * ahead.mean()
    reach = 2.306004 * np.sqrt(9 / 8 * (residuals**2).sum()) / 30
    assert found.test["difference"] == pytest.approx(ahead.mean())
    assert found.test["ci_high"] - found.test["difference"] == pytest.approx(reach, rel=2e-3)


def test_questions_are_grouped_by_who_has_them_right() -> None:
    first, second = make(60, 20, 1, 0.7), make(60, 20, 2, 0.6)
    found = compare_answers(NAMES, SOURCES, first, second)
    by_hand = {(one.right, two.right): 0 for one, two in itertools.product(first, second)}
    for one, two in zip(first, second, strict=True):
        by_hand[one.right, two.right] += 1
    assert len(found.first_only) == by_hand[True, False]
    assert len(found.second_only) == by_hand[False, True]
    assert len(found.both_wrong) == by_hand[False, False]
    assert found.both_right == by_hand[True, True]
    assert sum(by_hand.values()) == 60


def test_what_to_read_comes_sorted() -> None:
    """Mistakes that a model was sure of come first."""
    first, second = make(60, 20, 1, 0.6), make(60, 20, 2, 0.5)
    draw = random.Random(3)

    def doubtful(outcome: Outcome) -> Outcome:
        shares = [draw.random() for _ in range(3)]
        return Outcome(outcome.question, tuple(share / sum(shares) for share in shares), outcome.prediction)

    found = compare_answers(NAMES, SOURCES, [*map(doubtful, first)], [*map(doubtful, second)])
    for sure in (
        [other.probabilities[other.prediction - 1] for _one, other in found.first_only],
        [one.probabilities[one.prediction - 1] for one, _other in found.second_only],
        [-sum(side.probabilities[side.answer - 1] for side in pair) for pair in found.both_wrong],
    ):
        assert len(sure) > 2 and sure == sorted(sure, reverse=True)


def test_copies_of_a_question_are_paired_in_their_order() -> None:
    question = Question("1", "文章", "問題", ("甲", "乙", "丙"), 1)
    outcomes = [Outcome(question, (0.2, 0.3, 0.5), prediction) for prediction in (1, 2, 3)]
    found = compare_answers(NAMES, SOURCES, outcomes, outcomes)
    assert found.same_choice == 3 and not found.first_only and not found.second_only


def test_order_of_the_questions_does_not_matter() -> None:
    first, second = make(40, 8, 3, 0.8), make(40, 8, 4, 0.5)
    mixed = random.Random(0).sample(second, len(second))
    assert compare_answers(NAMES, SOURCES, first, mixed).test == compare_answers(NAMES, SOURCES, first, second).test


def test_swapping_the_two_gives_the_same_result() -> None:
    first, second = make(40, 8, 3, 0.9), make(40, 8, 4, 0.4)
    one, other = (
        compare_answers(NAMES, SOURCES, first, second),
        compare_answers(NAMES[::-1], SOURCES[::-1], second, first),
    )
    assert one.text == other.text and localized(one.text, CHINESE) == localized(other.text, CHINESE)
    assert one.text.startswith("a is ") and "more than chance" in one.text


@pytest.mark.parametrize("right", [1.0, 0.0])
def test_equal_models_are_reported_as_equal(right: float) -> None:
    outcomes = make(12, 4, 5, right)
    found = compare_answers(NAMES, SOURCES, outcomes, outcomes)
    assert found.text == "a and b answer equally many questions right." and found.test["p_value"] == 1


def test_other_questions_are_refused_with_their_place_and_a_cure() -> None:
    first, second = make(12, 4, 5, 0.5), make(14, 4, 5, 0.5)[1:]
    with pytest.raises(DataError) as refused:
        compare_answers(NAMES, SOURCES, first, second)
    assert refused.value.lines() == (
        "a/scores.jsonl: 1 of its 12 questions are not in b/scores.jsonl, first question 0 (row 2); "
        "evaluate both models on one file with lrc evaluate --scores, and compare these with --data",
        "b/scores.jsonl: 2 of its 13 questions are not in a/scores.jsonl, first question 12 (row 14); "
        "evaluate both models on one file with lrc evaluate --scores, and compare these with --data",
    )


@pytest.mark.parametrize(
    "other", [{"passage": "別的文章"}, {"question": "別的問題"}, {"options": ("乙", "甲", "丙")}], ids=str
)
def test_questions_of_the_same_ids_are_not_the_same(other: dict[str, Any]) -> None:
    """Every workbook counts its questions from 1."""
    first, second = make(3, 3, 1, 1.0), make(3, 3, 2, 1.0)
    second[1] = replace(second[1], question=replace(second[1].question, **other))
    with pytest.raises(DataError, match=r"1 of its 3 questions are not in .*, first question 1 \(row 3\)"):
        compare_answers(NAMES, SOURCES, first, second)


def test_other_right_answers_are_refused() -> None:
    first = make(5, 5, 6, 0.5)
    question = first[3].question
    changed = Question(question.id, question.passage, question.question, question.options, 2, question.row)
    assert question.answer != 2
    second = [*first[:3], Outcome(changed, (0.2, 0.3, 0.5), 1), first[4]]
    with pytest.raises(DataError, match=r"b/scores.jsonl: has another right answer than a/.* to question 3 \(row 5\)"):
        compare_answers(NAMES, SOURCES, first, second)


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(DataError, match=r"b/scores.jsonl: holds no answers"):
        compare_answers(NAMES, SOURCES, make(3, 3, 1, 0.5), [])
