"""Figures against published and hand-made values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrc.metrics import accuracy, accuracy_by, confusion, consistency, mcnemar, wilson


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    # Newcombe 1998, table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_intervals(right: int, n: int, low: float, high: float) -> None:
    assert wilson(right, n) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_share(counts: tuple[int, int]) -> None:
    low, high = wilson(*counts)
    assert 0 <= low <= counts[0] / counts[1] <= high <= 1


def test_accuracy() -> None:
    figures = accuracy([1, 2, 3, 4], [1, 2, 3, 3])
    assert figures["accuracy"] == 0.75 and figures["n"] == 4
    assert figures["ci_low"] < 0.75 < figures["ci_high"]
    with pytest.raises(ValueError, match="no questions"):
        accuracy([], [])
    with pytest.raises(ValueError):
        accuracy([1], [1, 2])


def test_by_answer_position() -> None:
    table = accuracy_by([4, 1, 1], [4, 1, 2], [4, 1, 1])
    assert {answer: figures["accuracy"] for answer, figures in table.items()} == {1: 0.5, 4: 1.0}
    assert list(table) == [1, 4]


def test_confusion_counts_predictions_by_answer() -> None:
    assert confusion([1, 3, 3], [1, 2, 3]) == [[1, 0, 0], [0, 0, 1], [0, 0, 1]]


def test_consistency_is_one_answer_under_every_order() -> None:
    assert consistency([[1, 1, 1], [1, 2, 1], [4], [3, 3, 3]]) == 0.75
    with pytest.raises(ValueError):
        consistency([])


def test_mcnemar_is_the_exact_binomial_test() -> None:
    answers = [1] * 20
    first = [1] * 9 + [2] + [1] * 10
    second = [2] * 9 + [1] + [1] * 10
    # 9 against 1 of 10: 2 (C(10,0) + C(10,1)) / 2^10
    figures = mcnemar(first, second, answers)
    assert figures == {"first_only": 9, "second_only": 1, "p_value": pytest.approx(22 / 1024)}


def test_mcnemar_of_equal_sets_says_nothing() -> None:
    assert mcnemar([1, 2], [1, 2], [1, 1])["p_value"] == 1
    assert mcnemar([1, 2], [2, 1], [1, 1])["p_value"] == 1
