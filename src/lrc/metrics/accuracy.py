"""Accuracy with a confidence interval, confusion matrices, and tests of whether two sets of predictions differ.

The answers to the questions of a passage are correlated, so these are not independent observations: they are one
cluster in every interval and test here (Miller 2024, arXiv 2411.00640), except in McNemar's test.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from fractions import Fraction
from math import comb, lcm, pi, sqrt, tan
from statistics import NormalDist
from typing import TypeVar

import numpy as np

from lrc.data.near_duplicates import canonical
from lrc.data.questions import Question

Figures = dict[str, float]  # accuracy, n, passages, n_effective, ci_low, ci_high
Credit = int | Fraction  # 1 for a right answer, 0 for a wrong one; between them where options are tied
Number = TypeVar("Number", int, float, Fraction, Credit)

CONFIDENCE = 0.95
Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


def passages_of(questions: Iterable[Question]) -> list[str]:
    """The cluster of each question: its passage in canonical form (see `near_duplicates.canonical`)."""
    return [canonical(question.source_passage) for question in questions]


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


def effective_size(credits: Sequence[Credit], passages: Sequence[Hashable]) -> float:
    """The number of independent questions that would estimate the accuracy as precisely as these.

    It is n over the design effect: the clustered variance of the mean (Miller 2024, equation 4, times G / (G - 1) for
    G passages) over the variance for independent questions. It is corrected for few passages by the squared ratio of
    Student's quantiles (Korn and Graubard 1998). If every passage has one question, it is n.

    Args:
        credits: of each question; not empty. Those between 0 and 1 vary less than right and wrong answers with the
            same mean, so that their number is rather too low.
        passages: the cluster of each question, see `passages_of`.

    Returns:
        At most n. Before the correction, at least n² / Σ m² for passages of m questions, which is the value if the
        answers within a passage were fully correlated. It is returned if the correlation cannot be estimated, since all
        answers are right, all are wrong, or there is one passage.
    """
    n, sizes = len(credits), Counter(passages)
    least = n * n / sum(size * size for size in sizes.values())
    share = float(sum(credits) / n)
    if len(sizes) == n:
        return n
    if len(sizes) == 1 or share in (0, 1):
        return least
    surplus = _sums([float(one) - share for one in credits], passages)
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
    return mean_credit(_rights(predictions, answers), passages)


def mean_credit(credits: Sequence[Credit], passages: Sequence[Hashable]) -> Figures:
    """The accuracy where an answer may be credited in part, as `baselines.credit` does.

    Args:
        credits: of each question.
        passages: the cluster of each question, see `passages_of`.

    Returns:
        See `accuracy`. The interval is at least as wide as one from the variance of the credits.

    Raises:
        ValueError: there are no questions, or the arguments differ in length.
    """
    if not credits:
        raise ValueError("no questions to score")
    if len(passages) != len(credits):
        raise ValueError(f"{len(passages)} passages for {len(credits)} questions")
    n, share = len(credits), float(sum(credits) / len(credits))
    effective = effective_size(credits, passages)
    low, high = wilson(share * effective, effective)  # exactly all of them where all are right
    return {
        "accuracy": share,
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
    takes questions as independent. The interval is that of `compare_credits`.

    Args:
        first, second: the predictions of the two.
        answers, passages: see `accuracy`; not empty.

    Returns:
        `first_only` and `second_only` (the numbers of questions that only one has right), `difference` (by how much the
        first is more accurate, -1 to 1), its 95% interval `ci_low` and `ci_high`, `p_value`, and `p_value_mcnemar`.
    """
    alone = mcnemar(first, second, answers)
    return {
        "first_only": alone["first_only"],
        "second_only": alone["second_only"],
        **compare_credits(_rights(first, answers), _rights(second, answers), passages),
        "p_value_mcnemar": alone["p_value"],
    }


def compare_credits(
    first: Sequence[Credit], second: Sequence[Credit], passages: Sequence[Hashable]
) -> dict[str, float]:
    """Test whether two sets of answers that may be credited in part differ.

    The test is that of `compare_paired`: it gives the difference of each passage a random sign. It is exact if these
    differences are symmetric about 0 under the null hypothesis. Against credit that is always 1/k they are not; then
    only their sum is, nearly, for many passages. The interval is the mean difference plus or minus Student's quantile
    times its clustered standard error (Miller 2024, sections 2.2 and 4.2).

    Args:
        first, second: the credits of the two, see `mean_credit`; not empty.
        passages: the cluster of each question, see `passages_of`.

    Returns:
        `difference` (by how much the first is more accurate, -1 to 1), its 95% interval `ci_low` and `ci_high`, and
        `p_value`.
    """
    ahead = [one - two for one, two in zip(first, second, strict=True)]
    n, difference = len(ahead), float(sum(ahead) / len(ahead))
    surplus = _sums([float(one) - difference for one in ahead], passages)
    groups, reach = len(surplus), 1.0
    if groups > 1:
        error = sqrt(groups / (groups - 1) * sum(one * one for one in surplus)) / n
        reach = student(groups - 1) * error
    return {
        "difference": difference,
        "ci_low": max(difference - reach, -1.0),
        "ci_high": min(difference + reach, 1.0),
        "p_value": _permutation_p_value(_sums(ahead, passages)),
    }


def _rights(predictions: Sequence[int], answers: Sequence[int]) -> list[bool]:
    return [given == wanted for given, wanted in zip(predictions, answers, strict=True)]


def _sums(values: Sequence[Number], passages: Sequence[Hashable]) -> list[Number]:
    """The sum of the values of the questions of each passage."""
    sums: dict[Hashable, Number] = {}
    for value, passage in zip(values, passages, strict=True):
        sums[passage] = sums[passage] + value if passage in sums else value
    return list(sums.values())


def _permutation_p_value(sums: Sequence[Credit]) -> float:
    """The probability of a total at least as far from 0, if each of `sums` has a random sign."""
    unit = lcm(*(one.denominator for one in sums))
    whole = [int(one * unit) for one in sums]
    sizes = sorted(filter(None, map(abs, whole)))
    most, reached = sum(sizes), 0
    probabilities = np.zeros(most + 1)  # of each total of the sizes that get a plus
    probabilities[0] = 1.0
    for size in sizes:
        reached += size
        part = probabilities[: reached + 1]
        part[size:] = part[size:] + part[:-size]
        part /= 2
    far = np.abs(2 * np.arange(most + 1) - most) >= abs(sum(whole))
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
