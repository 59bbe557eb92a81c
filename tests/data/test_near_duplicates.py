"""Clusters of near-duplicate passages against the definition, applied to every pair."""

from __future__ import annotations

import random
import time
from itertools import combinations

import pytest

from lrc.data.near_duplicates import THRESHOLD, canonical, group_passages, jaccard
from lrc.data.shingles import GRAM

CHARACTERS = [chr(0x4E00 + i) for i in range(800)]


def write(generator: random.Random, length: int) -> str:
    return "".join(generator.choices(CHARACTERS, k=length))


def changed(generator: random.Random, text: str, share: float) -> str:
    return "".join(generator.choice(CHARACTERS) if generator.random() < share else c for c in text)


def by_definition(texts: list[str]) -> set[frozenset[int]]:
    """The clusters, found by comparing all pairs of sets of grams."""
    grams = [{text[i : i + GRAM] for i in range(max(1, len(text) - GRAM + 1))} for text in map(canonical, texts)]
    clusters = [{place} for place in range(len(texts))]
    for a, b in combinations(range(len(texts)), 2):
        shared = len(grams[a] & grams[b])
        if shared >= THRESHOLD * (len(grams[a]) + len(grams[b]) - shared) and clusters[a] is not clusters[b]:
            merged = clusters[a] | clusters[b]
            for place in merged:
                clusters[place] = merged
    return {frozenset(cluster) for cluster in clusters}


def found(texts: list[str]) -> set[frozenset[int]]:
    clusters: dict[int, set[int]] = {}
    for place, cluster in enumerate(group_passages(texts).near_duplicates):
        clusters.setdefault(cluster, set()).add(place)
    return {frozenset(cluster) for cluster in clusters.values()}


@pytest.mark.parametrize("seed", range(3))
def test_clusters_are_those_of_the_definition(seed: int) -> None:
    generator = random.Random(seed)
    texts = [write(generator, generator.randint(1, 300)) for _ in range(60)]
    # Around the threshold, where a mistake would show: each changed character takes up to five grams.
    for share in (0.01, 0.03, 0.04, 0.05, 0.1):
        texts += [changed(generator, text, share) for text in generator.sample(texts[:60], 30)]
    generator.shuffle(texts)
    expected = by_definition(texts)
    assert any(len(cluster) > 2 for cluster in expected)
    assert found(texts) == expected


def test_clusters_are_transitive() -> None:
    generator = random.Random(5)
    chain = [write(generator, 400)]
    for start in range(0, 400, 40):
        chain.append(chain[-1][:start] + write(generator, 40) + chain[-1][start + 40 :])
    assert jaccard(chain[0], chain[-1]) < 0.1
    assert group_passages(chain).n_clusters == 1


def test_the_same_but_for_space_width_and_case_is_one_passage() -> None:
    groups = group_passages(["ＡＢ　文章", "ab文 章\n", "別的", "ab文章"])
    assert groups.passages == [0, 0, 1, 0]
    assert groups.near_duplicates == groups.clusters == [0, 0, 1, 0]


def test_short_and_empty_texts_are_passages_too() -> None:
    assert group_passages(["", "同上", "同上", "如上", ""]).passages == [0, 1, 1, 2, 0]
    assert group_passages([]).n_clusters == 0
    assert jaccard("同上", "同上") == 1 and jaccard("同上", "如上") == 0


@pytest.mark.parametrize(("stranger", "share"), [(0.42, 0.1), (0.6, 0.15)])
def test_pairs_are_found_among_passages_that_share_boilerplate(stranger: float, share: float) -> None:
    generator = random.Random(7)
    shared = round(300 * 2 * stranger / (1 + stranger))
    notice = write(generator, shared)
    texts = [notice + write(generator, 300 - shared) for _ in range(200)]
    texts += [notice + changed(generator, text[shared:], share) for text in texts[:40]]
    generator.shuffle(texts)
    expected = by_definition(texts)
    assert 10 <= sum(len(cluster) == 2 for cluster in expected) < 40  # some copies are no near-duplicates any more
    assert found(texts) == expected


def test_a_crowd_too_large_is_compared_with_its_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = random.Random(8)
    notice = write(generator, 150)
    texts = [notice + write(generator, 150) for _ in range(60)]
    monkeypatch.setattr("lrc.data.near_duplicates.MAX_CROWD", 50)
    texts += [text + "。" for text in texts]
    clusters, expected = found(texts), by_definition(texts)
    assert len(clusters) < 120
    assert all(group <= whole for group in clusters for whole in expected if group & whole)


def test_boilerplate_alone_makes_no_near_duplicates() -> None:
    # Half of each passage is the same: all share many bands, and none is a near-duplicate of another.
    generator = random.Random(1)
    notice = write(generator, 150)
    texts = [notice + write(generator, 150) for _ in range(3000)]
    assert group_passages(texts).n_clusters == 3000


def test_many_copies_are_clustered_fast() -> None:
    generator = random.Random(2)
    texts = [text + f"（{copy}）" for text in (write(generator, 250) for _ in range(20)) for copy in range(100)]
    start = time.process_time()
    assert group_passages(texts).n_clusters == 20
    assert time.process_time() - start < 10
