"""Seeded splits and folds that keep clusters of related passages whole.

The result does not depend on Python's hash seed or the machine: clusters are numbered in the order of their first
question, and shuffled by `random.Random`, whose sequence for a seed is stable across Python versions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random

Sizes = Counter[int | None]  # the number of questions with each answer


def split(clusters: Sequence[int], answers: Sequence[int | None], fraction: float, seed: int) -> list[bool]:
    """Choose the validation questions.

    Their number differs from `fraction` of all by at most the size of the largest cluster, and their answers are
    balanced as far as whole clusters allow.

    Args:
        clusters: the cluster of each question, from `near_duplicates.group_passages`.
        answers: the answer of each question.
        fraction: the share of validation questions, between 0 and 1.
        seed: another seed gives another split.

    Returns:
        For each question whether it is a validation question.

    Raises:
        ValueError: there are fewer than two clusters.
    """
    return [part == 0 for part in _divide(clusters, answers, [fraction, 1 - fraction], seed)]


def folds(clusters: Sequence[int], answers: Sequence[int | None], count: int, seed: int) -> list[int]:
    """Choose the fold in which each question is a validation question; see `split`.

    Args:
        count: the number of folds.

    Returns:
        The fold of each question, from 0.

    Raises:
        ValueError: there are fewer clusters than folds.
    """
    return _divide(clusters, answers, [1 / count] * count, seed)


def expected_leak(passages: Sequence[int], fraction: float) -> float:
    """The expected share of validation questions whose passage is also in training, if rows were split at random.

    A question whose passage has m of the n questions does not leak if the other m - 1 are all drawn for validation,
    too; the probability is hypergeometric.

    Args:
        passages: the passage of each question, from `near_duplicates.group_passages`; not empty.
        fraction: the share of validation questions, above 0.
    """
    n = len(passages)
    validation = round(fraction * n)
    apart = 0.0
    for size in Counter(passages).values():
        alone = 1.0
        for drawn in range(1, size):
            alone *= max(validation - drawn, 0) / (n - drawn)
        apart += size * alone
    return 1 - apart / n


def _divide(clusters: Sequence[int], answers: Sequence[int | None], shares: Sequence[float], seed: int) -> list[int]:
    """Assign each cluster, from large to small, to the part that it brings nearest to its share.

    Clusters of the same size follow one another in random order, so that each part gets its share of each size.
    Without the sorting, small clusters would fill a small part before it was far enough behind for a large one.
    """
    sizes: dict[int, Sizes] = {}
    for cluster, answer in zip(clusters, answers, strict=True):
        sizes.setdefault(cluster, Counter())[answer] += 1
    if len(sizes) < len(shares):
        raise ValueError(f"{len(sizes)} clusters of passages, expected {len(shares)} or more")
    order = sorted(sizes)
    Random(seed).shuffle(order)
    order.sort(key=lambda cluster: -sizes[cluster].total())
    parts = _Parts(shares, max(size.total() for size in sizes.values()))
    chosen = {cluster: parts.place(sizes[cluster]) for cluster in order}
    _fill_empty(chosen, sizes, len(shares))
    return [chosen[cluster] for cluster in clusters]


class _Parts:
    """The surplus of each part over its share, in all and by answer, while clusters are assigned."""

    def __init__(self, shares: Sequence[float], largest: int) -> None:
        self._shares = shares
        self._largest = largest
        self._surplus = [0.0] * len(shares)
        self._by_answer: list[dict[int | None, float]] = [{} for _ in shares]

    def place(self, size: Sizes) -> int:
        """Assign a cluster to a part.

        Returns:
            The part, from 0.
        """
        total = size.total()
        for share, part in zip(self._shares, self._by_answer, strict=True):
            for answer, count in size.items():
                part[answer] = part.get(answer, 0.0) - share * count
        self._surplus = [have - share * total for have, share in zip(self._surplus, self._shares, strict=True)]
        # No part may get ahead of its share by more than the largest cluster, which bounds the sizes of the split. The
        # part that is farthest behind always remains open.
        open_parts = [i for i, have in enumerate(self._surplus) if have + total <= self._largest + 1e-6]
        chosen = min(open_parts, key=lambda part: (self._cost(part, size), part))
        self._surplus[chosen] += total
        for answer, count in size.items():
            self._by_answer[chosen][answer] += count
        return chosen

    def _cost(self, part: int, size: Sizes) -> float:
        """By how much the squared surpluses of a part grow if it gets the cluster, divided by its share."""
        total = size.total()
        growth = total * (2 * self._surplus[part] + total)
        have = self._by_answer[part]
        growth += sum(count * (2 * have[answer] + count) for answer, count in size.items())
        return growth / self._shares[part]


def _fill_empty(chosen: dict[int, int], sizes: dict[int, Sizes], n_parts: int) -> None:
    """Give a part that got nothing, because its share is so small, the smallest cluster of the fullest part."""
    for part in sorted(set(range(n_parts)) - set(chosen.values())):
        counts = Counter(chosen.values())
        rich = max(part for part, count in counts.items() if count == max(counts.values()))
        chosen[min((c for c in chosen if chosen[c] == rich), key=lambda c: (sizes[c].total(), c))] = part
