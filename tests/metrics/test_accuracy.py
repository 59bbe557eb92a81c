"""Figures against published and hand-made values."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from math import sqrt
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrc.data.questions import Question
from lrc.metrics.accuracy import (
    accuracy,
    accuracy_by,
    compare_credits,
    compare_paired,
    confusion,
    effective_size,
    mcnemar,
    mean_credit,
    passages_of,
    student,
    wilson,
)


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
    figures = accuracy([1, 2, 3, 4], [1, 2, 3, 3], "abcd")
    assert figures["accuracy"] == 0.75 and figures["n"] == figures["n_effective"] == figures["passages"] == 4
    assert (figures["ci_low"], figures["ci_high"]) == wilson(3, 4)
    with pytest.raises(ValueError, match="no questions"):
        accuracy([], [], [])
    with pytest.raises(ValueError):
        accuracy([1], [1, 2], "aa")
    with pytest.raises(ValueError, match="1 passages for 2 questions"):
        accuracy([1, 2], [1, 2], "a")


def drawn(seed: int, together: float, sizes: tuple[int, ...] = (1, 2, 3, 6)) -> tuple[list[int], list[int]]:
    """Whether questions are right, and their passages; with a probability a question does as its passage's first."""
    random, rights, passages = Random(seed), [], []
    for passage in range(40):
        first = random.random() < 0.7
        for _ in range(sizes[passage % len(sizes)]):
            rights.append(int(first if random.random() < together else random.random() < 0.7))
            passages.append(passage)
    return rights, passages


def miller(values: list[float], passages: list[int]) -> float:
    """The clustered standard error as arXiv 2411.00640 writes it, equation 4: pair by pair within each cluster."""
    n, mean = len(values), sum(values) / len(values)
    across = sum(
        (values[i] - mean) * (values[j] - mean)
        for i, j in product(range(n), repeat=2)
        if i != j and passages[i] == passages[j]
    )
    return sqrt(sum((value - mean) ** 2 for value in values) / n**2 + across / n**2)


@pytest.mark.parametrize("together", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_the_effective_size_is_that_of_the_published_standard_error(seed: int, together: float) -> None:
    rights, passages = drawn(seed, together)
    n, share, groups = len(rights), sum(rights) / len(rights), len(set(passages))
    variance = miller([float(one) for one in rights], passages) ** 2 * groups / (groups - 1)
    # 1.9845 and 2.0227 are the quantiles of t with 119 and 39 degrees of freedom in printed tables: 1.980 and 2.023.
    wanted = share * (1 - share) / (n - 1) / variance * n * (1.980 / 2.023) ** 2
    least = n**2 / sum(passages.count(passage) ** 2 for passage in set(passages))
    found = effective_size([bool(one) for one in rights], passages)
    assert found == pytest.approx(min(max(wanted, least * (1.980 / 2.023) ** 2), n), rel=2e-3)
    assert found <= n and (found < 0.9 * n or not together)


@pytest.mark.parametrize(
    ("freedom", "printed"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (5, 2.571), (11, 2.201), (30, 2.042), (120, 1.980)],
)
def test_students_quantiles_are_the_printed_ones(freedom: int, printed: float) -> None:
    assert student(freedom) == pytest.approx(printed, rel=2e-3)


@pytest.mark.parametrize(("n", "together"), [(49, 4), (93, 4), (163, 3)])
def test_the_interval_of_all_right_ends_at_all_right(n: int, together: int) -> None:
    found = accuracy([1] * n, [1] * n, [number // together for number in range(n)])
    assert found["accuracy"] == found["ci_high"] == 1.0


def test_questions_of_a_passage_count_as_one_where_their_correlation_is_unknown() -> None:
    assert effective_size([True] * 12, [i // 3 for i in range(12)]) == 4
    assert effective_size([True, False, True], "aaa") == 1
    assert effective_size([True, False, True], "abc") == 3


def test_copies_of_every_question_add_no_information() -> None:
    rights, passages = drawn(3, 0.0, sizes=(1,))
    alone = accuracy(rights, [1] * 40, passages)
    doubled = accuracy(rights * 3, [1] * 120, passages * 3)
    assert doubled["accuracy"] == alone["accuracy"] and doubled["passages"] == alone["passages"] == alone["n"]
    assert doubled["n_effective"] == pytest.approx(40, rel=0.06)
    assert doubled["ci_low"] == pytest.approx(alone["ci_low"], abs=0.01)


def test_a_passage_is_one_whatever_its_white_space_and_width() -> None:
    texts = ("小明 ABC", "小明ＡＢＣ\n", "小明abc", "小華")
    assert len(set(passages_of(Question("1", text, "問", ("甲", "乙")) for text in texts))) == 2


def test_by_answer_position() -> None:
    table = accuracy_by([4, 1, 1], [4, 1, 2], [4, 1, 1], "abc")
    assert {answer: figures["accuracy"] for answer, figures in table.items()} == {1: 0.5, 4: 1.0}
    assert list(table) == [1, 4]
    assert accuracy_by([4, 1, 1], [4, 1, 2], [4, 1, 1], "aba")[1]["n_effective"] == 2


def enumerated(ahead: list[int] | list[Fraction], passages: list[int]) -> float:
    """The share of all ways to swap passages in which the sets are as far apart as they are, one way at a time."""
    sums = [sum(one for one, own in zip(ahead, passages, strict=True) if own == passage) for passage in set(passages)]
    ways = [
        abs(sum(sign * one for sign, one in zip(signs, sums, strict=True)))
        for signs in product((1, -1), repeat=len(sums))
    ]
    return sum(way >= abs(sum(sums)) for way in ways) / len(ways)


@pytest.mark.parametrize("seed", range(6))
def test_the_paired_test_swaps_whole_passages(seed: int) -> None:
    random = Random(seed)
    answers, passages = [1] * 30, [i // 3 for i in range(30)]
    first, second = ([random.choice((1, 1, 1, 2)) for _ in range(30)] for _ in range(2))
    ahead = [(a == 1) - (b == 1) for a, b in zip(first, second, strict=True)]
    found = compare_paired(first, second, answers, passages)
    assert found["p_value"] == pytest.approx(enumerated(ahead, passages), abs=1e-12)
    assert found["difference"] == pytest.approx(sum(ahead) / 30)
    reach = 2.262 * sqrt(10 / 9) * miller([float(one) for one in ahead], passages)  # t with 9 degrees of freedom
    assert found["ci_high"] - found["difference"] == pytest.approx(reach, rel=1e-3)
    assert found["difference"] - found["ci_low"] == pytest.approx(reach, rel=1e-3)
    swapped = compare_paired(second, first, answers, passages)
    assert swapped["p_value"] == pytest.approx(found["p_value"]) and swapped["ci_low"] == pytest.approx(
        -found["ci_high"]
    )


@pytest.mark.parametrize("seed", range(6))
def test_the_paired_test_of_partial_credit_swaps_whole_passages(seed: int) -> None:
    random = Random(seed)
    passages = [i // 3 for i in range(30)]
    rights = [random.choice((1, 1, 0)) for _ in range(30)]
    credits = [Fraction(random.choice((0, 1)), random.choice((1, 1, 2, 3, 4))) for _ in range(30)]
    ahead = [one - two for one, two in zip(rights, credits, strict=True)]
    found = compare_credits(rights, credits, passages)
    assert found["p_value"] == pytest.approx(enumerated(ahead, passages), abs=1e-12)
    assert found["difference"] == pytest.approx(float(sum(ahead)) / 30)
    reach = 2.262 * sqrt(10 / 9) * miller([float(one) for one in ahead], passages)  # t with 9 degrees of freedom
    assert found["ci_high"] - found["difference"] == pytest.approx(reach, rel=1e-3)


def test_partial_credit_is_the_mean_over_all_ways_to_break_the_ties() -> None:
    answers, tied = [1, 2, 1, 4, 2], [(1, 2), (1, 2, 3), (2, 3), (4,), (1, 2)]
    credits = [Fraction(int(answer in one), len(one)) for answer, one in zip(answers, tied, strict=True)]
    broken = [accuracy(way, answers, range(5))["accuracy"] for way in product(*tied)]
    found = mean_credit(credits, range(5))
    assert found["accuracy"] == pytest.approx(sum(broken) / len(broken)) and found["n_effective"] == 5
    assert (found["ci_low"], found["ci_high"]) == pytest.approx(wilson(5 * sum(broken) / len(broken), 5))
    assert mean_credit([Fraction(1, 3)] * 3, "abc")["accuracy"] == 1 / 3
    assert mean_credit([True, False], "ab") == accuracy([1, 1], [1, 2], "ab")
    with pytest.raises(ValueError, match="no questions"):
        mean_credit([], [])


@given(st.lists(st.tuples(st.sampled_from((1, 2)), st.sampled_from((1, 2))), min_size=2, max_size=60))
def test_of_questions_with_a_passage_each_it_is_mcnemars(pairs: list[tuple[int, int]]) -> None:
    first, second = zip(*pairs, strict=True)
    found = compare_paired(first, second, [1] * len(pairs), range(len(pairs)))
    assert found["p_value"] == pytest.approx(mcnemar(first, second, [1] * len(pairs))["p_value"], abs=1e-12)
    assert found["p_value"] == pytest.approx(found["p_value_mcnemar"], abs=1e-12)


def test_one_passage_is_no_evidence_of_a_difference() -> None:
    found = compare_paired([1] * 20, [2] * 20, [1] * 20, "a" * 20)
    assert found["p_value"] == 1 and found["p_value_mcnemar"] < 1e-5
    assert (found["ci_low"], found["ci_high"]) == (0, 1)


def test_confusion_counts_predictions_by_answer() -> None:
    assert confusion([1, 3, 3], [1, 2, 3]) == [[1, 0, 0], [0, 0, 1], [0, 0, 1]]


def test_mcnemar_is_the_exact_binomial_test() -> None:
    answers = [1] * 20
    first = [1] * 9 + [2] + [1] * 10
    second = [2] * 9 + [1] + [1] * 10
    # 9 against 1 of 10: 2 (C(10,0) + C(10,1)) / 2^10
    figures = mcnemar(first, second, answers)
    assert figures == {"first_only": 9, "second_only": 1, "p_value": pytest.approx(22 / 1024)}


def test_mcnemar_of_equal_sets_has_p_value_one() -> None:
    assert mcnemar([1, 2], [1, 2], [1, 1])["p_value"] == 1
    assert mcnemar([1, 2], [2, 1], [1, 1])["p_value"] == 1
