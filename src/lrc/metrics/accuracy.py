"""Accuracy with a confidence interval, confusion matrices, and tests of whether two sets of predictions differ.

The answers to the questions of a passage are correlated, so these are not independent observations: they are one
cluster in every interval and test here (Miller 2024, arXiv 2411.00640), except in McNemar's test.
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
    """The cluster of each question: its passage in canonical form (see `near_duplicates.canonical`)."""
    return [canonical(question.passage) for question in questions]


def wilson(right: float, n: float) -> tuple[float, float]:
    """The 95% confidence interval of a proportion (Wilson 1927, without continuity correction).

    Args:
        right: the number of successes; need not be whole, see `effective_size`.
        n: the number of trials, above 0; likewise.
    """
    z = Z
    share, squared = right / n, z * z
    center = share + squared / (2 * n)
    reach = z * sqrt(share * (1 - share) / n + squared / (4 * n * n))
    scale = 1 + squared / n
    # The bounds are exactly 0 and 1 if none or all are right; rounding must not put the share outside the interval.
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
    """The number of independent questions that would estimate the accuracy as precisely as these.

    It is n over the design effect: the clustered variance of the mean (Miller 2024, equation 4, times G / (G - 1) for
    G passages) over the variance for independent questions. It is corrected for few passages by the squared ratio of
    Student's quantiles (Korn and Graubard 1998). If every passage has one question, it is n.

    Args:
        rights: whether each question is answered correctly; not empty.
        passages: the cluster of each question, see `passages_of`.

    Returns:
        At most n. Before the correction, at least n² / Σ m² for passages of m questions, which is the value if the
        answers within a passage were fully correlated. It is returned if the correlation cannot be estimated, since all
        answers are right, all are wrong, or there is one passage.
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
    """The share of right answers, with Wilson's 95% interval for the effective number of questions.

    Args:
        predictions: the number of the chosen option of each question.
        answers: the number of the right option of each question.
        passages: the cluster of each question, see `passages_of`.

    Returns:
        `accuracy`, `n` (the number of questions), `passages` (their number), `n_effective`, `ci_low` and `ci_high`.

    Raises:
        ValueError: there are no questions, or the arguments differ in length.
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
    """The accuracy within each group of questions, by group. With the answers as groups, it is by answer position.

    Args:
        groups: the group of each question.
        predictions, answers, passages: see `accuracy`.
    """
    members: dict[int, list[tuple[int, int, Hashable]]] = {}
    for group, given, wanted, passage in zip(groups, predictions, answers, passages, strict=True):
        members.setdefault(group, []).append((given, wanted, passage))
    return {group: accuracy(*zip(*members[group], strict=True)) for group in sorted(members)}


def compare_paired(
    first: Sequence[int], second: Sequence[int], answers: Sequence[int], passages: Sequence[Hashable]
) -> dict[str, float]:
    """Test whether two sets of predictions differ in accuracy.

    The test is an exact permutation test that swaps the two sets passage by passage: under the null hypothesis, either
    set could have given the answers of a passage. If every passage has one question, it is McNemar's exact test, which
    takes questions as independent. The interval is the mean difference plus or minus Student's quantile times its
    clustered standard error (Miller 2024, sections 2.2 and 4.2).

    Args:
        first, second: the predictions of the two.
        answers, passages: see `accuracy`; not empty.

    Returns:
        `first_only` and `second_only` (the numbers of questions that only one has right), `difference` (by how much the
        first is more accurate, -1 to 1), its 95% interval `ci_low` and `ci_high`, `p_value`, and `p_value_mcnemar`.
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
    """The sum of the values of the questions of each passage."""
    sums: dict[Hashable, float] = {}
    for value, passage in zip(values, passages, strict=True):
        sums[passage] = sums.get(passage, 0.0) + value
    return list(sums.values())


def _permutation_p_value(sums: Sequence[int]) -> float:
    """The probability of a total at least as far from 0, if each of `sums` has a random sign."""
    most = sum(map(abs, sums))
    probabilities = np.zeros(2 * most + 1)  # of each sum from -most to most
    probabilities[most] = 1.0
    for one in filter(None, map(abs, sums)):
        # No probability is rolled over the ends, which the sum of all reaches exactly.
        probabilities = (np.roll(probabilities, one) + np.roll(probabilities, -one)) / 2
    far = np.abs(np.arange(-most, most + 1)) >= abs(sum(sums))
    return min(1.0, float(probabilities[far].sum()))


def confusion(predictions: Sequence[int], answers: Sequence[int]) -> list[list[int]]:
    """The confusion matrix: element [i][j] is how often option j + 1 was predicted and i + 1 was right."""
    size = max((*predictions, *answers), default=0)
    table = [[0] * size for _ in range(size)]
    for given, wanted in zip(predictions, answers, strict=True):
        table[wanted - 1][given - 1] += 1
    return table


def mcnemar(first: Sequence[int], second: Sequence[int], answers: Sequence[int]) -> Mapping[str, float]:
    """McNemar's test of two sets of predictions of independent questions (McNemar 1947; exact and two-sided).

    It is a binomial test: under the null hypothesis, a question that only one set has right is as likely to be that of
    either.

    Returns:
        `first_only` and `second_only`, the numbers of questions that only one set has right, and `p_value`.
    """
    rights = [(one == wanted, two == wanted) for one, two, wanted in zip(first, second, answers, strict=True)]
    first_only, second_only = rights.count((True, False)), rights.count((False, True))
    n, fewer = first_only + second_only, min(first_only, second_only)
    tail = sum(comb(n, k) for k in range(fewer + 1))
    return {"first_only": first_only, "second_only": second_only, "p_value": min(1.0, 2 * tail / 2**n)}
