"""Figures about predictions: accuracy with its interval, where mistakes are, and whether two sets differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import comb, sqrt
from statistics import NormalDist

Figures = dict[str, float]  # accuracy, n, ci_low, ci_high

CONFIDENCE = 0.95


def wilson(right: int, n: int) -> tuple[float, float]:
    """The 95% interval of a share (Wilson 1927, without continuity correction).

    Args:
        right: how many of `n` are right; `n` is at least 1.
    """
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    share, squared = right / n, z * z
    centre = share + squared / (2 * n)
    reach = z * sqrt(share * (1 - share) / n + squared / (4 * n * n))
    scale = 1 + squared / n
    # The bounds of none and of all right are 0 and 1 exactly; rounding must not put the share outside.
    return min(max(0.0, (centre - reach) / scale), share), max(min(1.0, (centre + reach) / scale), share)


def accuracy(predictions: Sequence[int], answers: Sequence[int]) -> Figures:
    """The share of right answers, with its interval.

    Returns:
        `accuracy`, `n` (the number of questions), `ci_low` and `ci_high`.

    Raises:
        ValueError: there are no questions, or not as many predictions as answers.
    """
    if not answers:
        raise ValueError("no questions to score")
    right = sum(given == wanted for given, wanted in zip(predictions, answers, strict=True))
    low, high = wilson(right, len(answers))
    return {"accuracy": right / len(answers), "n": len(answers), "ci_low": low, "ci_high": high}


def accuracy_by(groups: Sequence[int], predictions: Sequence[int], answers: Sequence[int]) -> dict[int, Figures]:
    """The accuracy within each group of questions, by group; with the answers as groups, by answer position.

    Args:
        groups: the group of each question.
    """
    pairs: dict[int, list[tuple[int, int]]] = {}
    for group, *pair in zip(groups, predictions, answers, strict=True):
        pairs.setdefault(group, []).append((pair[0], pair[1]))
    return {group: accuracy(*zip(*pairs[group], strict=True)) for group in sorted(pairs)}


def confusion(predictions: Sequence[int], answers: Sequence[int]) -> list[list[int]]:
    """How often each answer (row, from 1) was predicted as each option (column, from 1)."""
    size = max((*predictions, *answers), default=0)
    table = [[0] * size for _ in range(size)]
    for given, wanted in zip(predictions, answers, strict=True):
        table[wanted - 1][given - 1] += 1
    return table


def consistency(votes: Sequence[Sequence[int]]) -> float:
    """The share of questions that get the same answer under every order of their options.

    Args:
        votes: for each question its prediction under each order, as a number of the order it has in the file.

    Raises:
        ValueError: there are no questions.
    """
    if not votes:
        raise ValueError("no questions to compare")
    return sum(len(set(predictions)) == 1 for predictions in votes) / len(votes)


def mcnemar(first: Sequence[int], second: Sequence[int], answers: Sequence[int]) -> Mapping[str, float]:
    """Whether two sets of predictions differ in accuracy (McNemar 1947, exact, two-sided).

    Of the questions that one set alone has right, each set has half if neither is better: a binomial test.

    Returns:
        `first_only` and `second_only`, the numbers of questions that this one alone has right, and `p_value`.
    """
    rights = [(one == wanted, two == wanted) for one, two, wanted in zip(first, second, answers, strict=True)]
    first_only, second_only = rights.count((True, False)), rights.count((False, True))
    n, fewer = first_only + second_only, min(first_only, second_only)
    tail = sum(comb(n, k) for k in range(fewer + 1))
    return {"first_only": first_only, "second_only": second_only, "p_value": min(1.0, 2 * tail / 2**n)}
