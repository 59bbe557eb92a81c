"""Figures about predictions: accuracy with its interval, where mistakes are, and whether two sets differ.

The questions of a passage are right or wrong together more often than chance would have it, so they are not independent
questions: a passage's are one cluster in every interval and every test here (Miller 2024, arXiv 2411.00640).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from math import comb, pi, sqrt, tan
from statistics import NormalDist

import numpy as np

from lrc.data.near_duplicates import canonical
from lrc.data.questions import Question

Figures = dict[str, float]  # accuracy, n, passages, n_effective, ci_low, ci_high

CONFIDENCE = 0.95
Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


def passages_of(questions: Iterable[Question]) -> list[str]:
    """What tells the clusters of questions apart: their passages, but for white space, case and width."""
    return [canonical(question.passage) for question in questions]


def wilson(right: float, n: float) -> tuple[float, float]:
    """The 95% interval of a share (Wilson 1927, without continuity correction).

    Args:
        right: how many of `n` are right; `n` is above 0. Neither has to be whole: see `effective_size`.
    """
    z = Z
    share, squared = right / n, z * z
    center = share + squared / (2 * n)
    reach = z * sqrt(share * (1 - share) / n + squared / (4 * n * n))
    scale = 1 + squared / n
    # The bounds of none and of all right are 0 and 1 exactly; rounding must not put the share outside.
    return min(max(0.0, (center - reach) / scale), share), max(min(1.0, (center + reach) / scale), share)


def student(freedom: int) -> float:
    """The quantile of Student's t for the 95% interval (Abramowitz and Stegun 1964, expansion 26.7.5).

    Args:
        freedom: degrees of freedom, 1 or more. For 1 and 2 the quantile is exact, for more its error is below 0.2%.
    """
    if freedom == 1:
        return tan(pi * CONFIDENCE / 2)
    if freedom == 2:
        return CONFIDENCE * sqrt(2 / (1 - CONFIDENCE**2))
    z = Z
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, start=1))


def effective_size(rights: Sequence[bool], passages: Sequence[Hashable]) -> float:
    """How many independent questions tell as much about the accuracy as these do.

    It is n over the design effect, the clustered variance of the mean (Miller 2024, equation 4, times G / (G - 1) for
    G passages) over that of independent questions, corrected for few passages by the quotient of Student's quantiles
    (Korn and Graubard 1998). Where every passage has one question it is n.

    Args:
        rights: whether each question is right.
        passages: what tells each question's passage from the others.

    Returns:
        From what it is if a passage's questions were all right or all wrong together, n² / Σ m² for passages of m
        questions, to n; the former where nothing can be told: all are right, all are wrong, or one passage has all.
    """
    n, sizes = len(rights), Counter(passages)
    least = n * n / sum(size * size for size in sizes.values())
    share = sum(rights) / n
    if len(sizes) == n:
        return n
    if len(sizes) == 1 or share in (0, 1):
        return least
    surplus = _sums([right - share for right in rights], passages)
    groups = len(surplus)
    clustered = groups / (groups - 1) * sum(one * one for one in surplus) / n**2
    few = (student(n - 1) / student(groups - 1)) ** 2
    found = share * (1 - share) * n / (n - 1) / clustered if clustered else n
    return min(few * max(found, least), n)


def accuracy(predictions: Sequence[int], answers: Sequence[int], passages: Sequence[Hashable]) -> Figures:
    """The share of right answers, with its interval: Wilson's for the effective number of questions.

    Args:
        passages: see `effective_size`; `passages_of` gives them.

    Returns:
        `accuracy`, `n` (the number of questions), `passages` (of passages), `n_effective`, `ci_low` and `ci_high`.

    Raises:
        ValueError: there are no questions, or not as many predictions, answers and passages.
    """
    if not answers:
        raise ValueError("no questions to score")
    if len(passages) != len(answers):
        raise ValueError(f"{len(passages)} passages for {len(answers)} questions")
    rights = [given == wanted for given, wanted in zip(predictions, answers, strict=True)]
    n, right = len(rights), sum(rights)
    effective = effective_size(rights, passages)
    low, high = wilson(right / n * effective, effective)  # exactly all of them where all are right
    return {
        "accuracy": right / n,
        "n": n,
        "passages": len(set(passages)),
        "n_effective": effective,
        "ci_low": low,
        "ci_high": high,
    }


def accuracy_by(
    groups: Sequence[int], predictions: Sequence[int], answers: Sequence[int], passages: Sequence[Hashable]
) -> dict[int, Figures]:
    """The accuracy within each group of questions, by group; with the answers as groups, by answer position.

    Args:
        groups: the group of each question.
        passages: see `accuracy`.
    """
    members: dict[int, list[tuple[int, int, Hashable]]] = {}
    for group, given, wanted, passage in zip(groups, predictions, answers, passages, strict=True):
        members.setdefault(group, []).append((given, wanted, passage))
    return {group: accuracy(*zip(*members[group], strict=True)) for group in sorted(members)}


def compare_paired(
    first: Sequence[int], second: Sequence[int], answers: Sequence[int], passages: Sequence[Hashable]
) -> dict[str, float]:
    """Whether two sets of predictions differ in accuracy.

    The test is the permutation test that swaps the two sets passage by passage: if neither is better, either could have
    given a passage's answers. Its distribution is computed in full. Where every passage has one question it is
    McNemar's exact test, which takes questions as independent. The interval is the mean difference and Student's
    quantile times its clustered standard error (Miller 2024, sections 2.2 and 4.2).

    Args:
        passages: see `accuracy`.

    Returns:
        `first_only` and `second_only`, the numbers of questions that this one alone has right, `difference`, by how
        much the first is more accurate, its bounds `ci_low` and `ci_high`, `p_value`, and `p_value_mcnemar`.
    """
    alone = mcnemar(first, second, answers)
    ahead = [(one == wanted) - (two == wanted) for one, two, wanted in zip(first, second, answers, strict=True)]
    n, difference = len(ahead), sum(ahead) / len(ahead)
    surplus = _sums([one - difference for one in ahead], passages)
    groups, reach = len(surplus), 1.0
    if groups > 1:
        error = sqrt(groups / (groups - 1) * sum(one * one for one in surplus)) / n
        reach = student(groups - 1) * error
    return {
        "first_only": alone["first_only"],
        "second_only": alone["second_only"],
        "difference": difference,
        "ci_low": max(difference - reach, -1.0),
        "ci_high": min(difference + reach, 1.0),
        "p_value": _permutation_p_value([round(one) for one in _sums(ahead, passages)]),
        "p_value_mcnemar": alone["p_value"],
    }


def _sums(values: Sequence[float], passages: Sequence[Hashable]) -> list[float]:
    """The sum of the values of each passage's questions."""
    sums: dict[Hashable, float] = {}
    for value, passage in zip(values, passages, strict=True):
        sums[passage] = sums.get(passage, 0.0) + value
    return list(sums.values())


def _permutation_p_value(sums: Sequence[int]) -> float:
    """How probable a sum as far from 0 is, or farther, where each of `sums` has either sign with probability 1/2."""
    most = sum(map(abs, sums))
    probabilities = np.zeros(2 * most + 1)  # of each sum from -most to most
    probabilities[most] = 1.0
    for one in filter(None, map(abs, sums)):
        probabilities = (
            np.roll(probabilities, one) + np.roll(probabilities, -one)
        ) / 2  # which never gets to the ends before the last
    far = np.abs(np.arange(-most, most + 1)) >= abs(sum(sums))
    return min(1.0, float(probabilities[far].sum()))


def confusion(predictions: Sequence[int], answers: Sequence[int]) -> list[list[int]]:
    """How often each answer (row, from 1) was predicted as each option (column, from 1)."""
    size = max((*predictions, *answers), default=0)
    table = [[0] * size for _ in range(size)]
    for given, wanted in zip(predictions, answers, strict=True):
        table[wanted - 1][given - 1] += 1
    return table


def mcnemar(first: Sequence[int], second: Sequence[int], answers: Sequence[int]) -> Mapping[str, float]:
    """Whether two sets of predictions of independent questions differ (McNemar 1947, exact, two-sided).

    Of the questions that one set alone has right, each set has half if neither is better: a binomial test.

    Returns:
        `first_only` and `second_only`, the numbers of questions that this one alone has right, and `p_value`.
    """
    rights = [(one == wanted, two == wanted) for one, two, wanted in zip(first, second, answers, strict=True)]
    first_only, second_only = rights.count((True, False)), rights.count((False, True))
    n, fewer = first_only + second_only, min(first_only, second_only)
    tail = sum(comb(n, k) for k in range(fewer + 1))
    return {"first_only": first_only, "second_only": second_only, "p_value": min(1.0, 2 * tail / 2**n)}
