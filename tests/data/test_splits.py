"""Splits: whole clusters, the wanted share, balanced answers, the same on every machine."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrc.data.splits import expected_leak, folds, split


def sample(seed: int, n_clusters: int = 400) -> tuple[list[int], list[int | None]]:
    generator = random.Random(seed)
    clusters = [c for c in range(n_clusters) for _ in range(generator.choice([1, 1, 2, 2, 3, 5, 9]))]
    generator.shuffle(clusters)
    return clusters, [generator.choices([1, 2, 3, 4], [4, 3, 2, 1])[0] for _ in clusters]


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 4)), min_size=2, max_size=60),
    st.floats(0.001, 0.999),
    st.integers(0, 5),
)
def test_a_split_keeps_clusters_whole_and_the_share_within_the_largest(
    rows: list[tuple[int, int]], fraction: float, seed: int
) -> None:
    clusters = [cluster for cluster, _ in rows]
    if len(set(clusters)) < 2:
        return
    validation = split(clusters, [answer for _, answer in rows], fraction, seed)
    assert len({(c, v) for c, v in zip(clusters, validation, strict=True)}) == len(set(clusters))
    assert abs(sum(validation) - fraction * len(rows)) <= max(Counter(clusters).values())
    assert 0 < sum(validation) < len(rows)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=80), st.integers(2, 6), st.integers(0, 5))
def test_folds_keep_clusters_whole_and_are_of_equal_size(clusters: list[int], count: int, seed: int) -> None:
    if len(set(clusters)) < count:
        return
    parts = folds(clusters, [1] * len(clusters), count, seed)
    assert set(parts) == set(range(count))
    assert len(set(zip(clusters, parts, strict=True))) == len(set(clusters))
    sizes = Counter(parts)
    largest = max(Counter(clusters).values())
    assert max(sizes.values()) - len(clusters) / count <= largest


def test_answers_are_balanced() -> None:
    clusters, answers = sample(0)
    validation = split(clusters, answers, 0.2, seed=1)
    for answer, count in Counter(answers).items():
        mine = sum(v and a == answer for v, a in zip(validation, answers, strict=True))
        assert abs(mine - 0.2 * count) < 5
    parts = folds(clusters, answers, 5, seed=1)
    for answer, count in Counter(answers).items():
        for part in range(5):
            mine = sum(p == part and a == answer for p, a in zip(parts, answers, strict=True))
            assert abs(mine - count / 5) < 5


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.2, 0.5])
def test_validation_has_its_share_of_clusters_of_every_size(fraction: float) -> None:
    clusters, answers = sample(2, 2000)
    sizes = Counter(clusters)
    validation = split(clusters, answers, fraction, seed=3)
    mine = Counter(sizes[cluster] for cluster in {c for c, v in zip(clusters, validation, strict=True) if v})
    for size, count in Counter(sizes.values()).items():
        assert abs(mine[size] - fraction * count) <= 2
    places = Counter(
        sizes[cluster]
        for cluster in {c for c, p in zip(clusters, folds(clusters, answers, 5, 3), strict=True) if p == 4}
    )
    for size, count in Counter(sizes.values()).items():
        assert abs(places[size] - count / 5) <= 2


def test_balanced_answers_do_not_cost_the_share() -> None:
    """To have an answer of each kind, validation would take more than a cluster above its share here."""
    answers: list[int | None] = [8, 2, 2, 5, 6, 6, 4, 5, 1, 2, 2, 2, 2, 2, 2, 4, 7, 4, 4, 6, 7]
    assert abs(sum(split(range(21), answers, 0.1, seed=0)) - 2.1) <= 1


def test_another_seed_is_another_split_and_the_same_seed_the_same() -> None:
    clusters, answers = sample(3)
    one, same, other = (split(clusters, answers, 0.2, seed) for seed in (1, 1, 2))
    assert one == same
    assert sum(a != b for a, b in zip(one, other, strict=True)) > len(clusters) / 5


def test_the_split_does_not_depend_on_the_hash_seed() -> None:
    code = (
        "from lrc.data.splits import folds, split\n"
        "clusters = [i * 7 % 50 for i in range(200)]; answers = [i % 4 + 1 for i in range(200)]\n"
        "print(split(clusters, answers, 0.2, 42), folds(clusters, answers, 3, 42))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("0", "1", "77")
    }  # fmt: skip
    assert len(outputs) == 1


def test_too_few_clusters_are_refused() -> None:
    with pytest.raises(ValueError, match="1 clusters of passages, expected 2"):
        split([4, 4], [1, 2], 0.2, 0)
    with pytest.raises(ValueError, match="2 clusters of passages, expected 3"):
        folds([4, 5], [1, 2], 3, 0)


def test_expected_leak_is_the_mean_over_random_splits() -> None:
    passages = [passage for passage in range(60) for _ in range(passage % 5 + 1)]
    generator, rates = random.Random(0), []
    for _ in range(2000):
        rows = list(range(len(passages)))
        generator.shuffle(rows)
        cut = round(0.2 * len(rows))
        trained = {passages[row] for row in rows[cut:]}
        rates.append(sum(passages[row] in trained for row in rows[:cut]) / cut)
    assert expected_leak(passages, 0.2) == pytest.approx(sum(rates) / len(rates), abs=0.005)


def test_expected_leak_of_a_few_questions_is_that_of_all_splits() -> None:
    passages = [0, 0, 0, 1, 1, 2]
    for count in range(1, 6):
        shares = []
        for chosen in combinations(range(6), count):
            trained = {passages[row] for row in range(6) if row not in chosen}
            shares.append(sum(passages[row] in trained for row in chosen) / count)
        assert expected_leak(passages, count / 6) == pytest.approx(sum(shares) / len(shares))


def test_nothing_leaks_where_each_passage_has_one_question() -> None:
    assert expected_leak([1, 2, 3, 4], 0.5) == 0
    assert expected_leak([1, 1, 1, 1], 0.25) == 1
