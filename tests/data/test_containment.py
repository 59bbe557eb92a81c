"""Passages that are parts of one another, against the definition written with sets."""

from __future__ import annotations

import random
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrc.data import containment
from lrc.data.near_duplicates import group_passages

CHARACTERS = [chr(0x4E00 + i) for i in range(2000)]


def write(generator: random.Random, length: int) -> str:
    return "".join(generator.choices(CHARACTERS, k=length))


def grams(text: str) -> set[str]:
    plain = "".join(unicodedata.normalize("NFKC", text).casefold().split())
    return {plain[i : i + 5] for i in range(max(1, len(plain) - 4))}


def by_definition(texts: Sequence[str], most: int) -> set[frozenset[int]]:
    """The clusters: of near-duplicates first, then of those that stand in one another by three tenths."""
    sets = list(map(grams, texts))
    near = joined(len(texts), lambda a, b: 10 * len(sets[a] & sets[b]) >= 7 * len(sets[a] | sets[b]))
    home = {place: number for number, cluster in enumerate(near) for place in cluster}
    content = [set[str]().union(*(sets[place] for place in cluster)) for cluster in near]
    spread: dict[str, int] = defaultdict(int)
    for one in content:
        for gram in one:
            spread[gram] += 1

    def part(a: int, b: int) -> bool:
        own = {gram for gram in sets[a] if spread[gram] <= most}
        shared = len(own & content[home[b]])
        return shared >= 16 and Fraction(shared, len(own)) >= Fraction(3, 10)

    def alike(a: int, b: int) -> bool:
        return home[a] == home[b] or part(a, b) or part(b, a)

    return {frozenset(cluster) for cluster in joined(len(texts), alike)}


def joined(count: int, alike: Callable[[int, int], bool]) -> list[set[int]]:
    """The connected components, each found by walking from one of its members."""
    left, found = set(range(count)), []
    while left:
        cluster, front = set[int](), {min(left)}
        while front:
            cluster |= front
            left -= front
            front = {b for b in left if any(alike(a, b) for a in front)}
        found.append(cluster)
    return found


def clusters_of(texts: Sequence[str]) -> set[frozenset[int]]:
    found: dict[int, set[int]] = defaultdict(set)
    for place, cluster in enumerate(group_passages(texts).clusters):
        found[cluster].add(place)
    return {frozenset(cluster) for cluster in found.values()}


def test_clusters_are_those_of_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containment, "PART", 2000)  # several parts and batches, as in a large file
    monkeypatch.setattr(containment, "PROBES", 500)
    seen = 0
    for seed in range(4):
        generator = random.Random(seed)
        texts = [write(generator, generator.randint(0, 250)) for _ in range(50)]
        # Around the threshold, where a mistake would show; an excerpt begins anywhere, with other text around it.
        for text in generator.sample(texts, 30):
            length = generator.randint(0, len(text))
            start = generator.randint(0, len(text) - length)
            excerpt, share = text[start : start + length], generator.uniform(0.2, 0.5)
            around = round(length / share) - length
            before = generator.randint(0, around)
            texts.append(write(generator, before) + excerpt + write(generator, around - before))
        generator.shuffle(texts)
        expected = by_definition(texts, 16)
        seen += sum(len(cluster) > 1 for cluster in expected)
        assert clusters_of(texts) == expected
    assert 20 < seen < 110  # some are below the threshold


# Few pieces that are put together anew: near-duplicates, excerpts and text that many have, all at once.
PIECES = ["".join(CHARACTERS[place : place + 4 + 3 * place % 40]) for place in range(0, 280, 20)]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=6).map("".join), max_size=14, unique=True))
def test_any_texts_are_joined_as_defined(texts: list[str]) -> None:
    most = max(3, min(16, len(set(group_passages(texts).near_duplicates)) // 4))
    assert clusters_of(texts) == by_definition(texts, most)


def test_an_excerpt_is_found_however_it_is_written() -> None:
    generator = random.Random(1)
    long = write(generator, 120) + "，ＡＢＣ１２３：" + write(generator, 120)
    excerpt = " abc123:\n" + "　".join(long[130:180]) + " "
    groups = group_passages([long, write(generator, 100), excerpt])
    assert groups.clusters == [0, 1, 0]
    assert groups.near_duplicates == [0, 1, 2]


def test_other_punctuation_leaves_an_excerpt_one() -> None:
    generator = random.Random(2)
    sentences = [write(generator, 20) for _ in range(12)]
    long, excerpt = "，".join(sentences), "；".join(sentences[3:8])
    assert group_passages([long, excerpt]).n_clusters == 1


def test_an_excerpt_of_two_passages_joins_both() -> None:
    generator = random.Random(3)
    excerpt = write(generator, 60)
    hosts = [write(generator, 100) + excerpt + write(generator, 100) for _ in range(2)]
    assert group_passages([*hosts, excerpt, write(generator, 60)]).clusters == [0, 0, 0, 1]


def test_an_excerpt_of_a_passage_with_many_copies_is_found() -> None:
    # What stands in a hundred copies of one passage is no boilerplate.
    generator = random.Random(4)
    long = write(generator, 300)
    copies = [f"{long}（{number}）" for number in range(100)]
    others = [write(generator, 100) for _ in range(100)]
    clusters = group_passages([*copies, *others, long[200:250]]).clusters
    assert clusters[-1] == clusters[0]
    assert len(set(clusters)) == 101


@pytest.mark.parametrize(("hosts", "clusters"), [(15, 86), (16, 101)])
def test_text_in_more_than_sixteen_passages_is_boilerplate(hosts: int, clusters: int) -> None:
    generator = random.Random(9)
    excerpt, *texts = (write(generator, 60) for _ in range(101))
    texts = [text + excerpt if place < hosts else text for place, text in enumerate(texts)] + [excerpt]
    assert group_passages(texts).n_clusters == clusters


@pytest.mark.parametrize(("length", "clusters"), [(19, 2), (20, 1)])
def test_a_shared_run_must_have_twenty_characters(length: int, clusters: int) -> None:
    generator = random.Random(5)
    phrase = write(generator, length)
    assert group_passages([phrase, write(generator, 100) + phrase + write(generator, 100)]).n_clusters == clusters


@pytest.mark.parametrize("count", [12, 500])
def test_a_notice_that_all_share_joins_none(count: int) -> None:
    generator = random.Random(6)
    notice = write(generator, 100)
    texts = [notice + write(generator, 100) for _ in range(count)]
    assert group_passages([notice, *texts]).n_clusters == count + 1
    # And hides none: what stands behind it is compared alone.
    excerpt = notice + texts[3][120:160] + write(generator, 30)
    clusters = group_passages([*texts, excerpt]).clusters
    assert clusters[-1] == clusters[3]
    assert len(set(clusters)) == count


def test_tiny_and_empty_passages_join_none() -> None:
    generator = random.Random(7)
    long = write(generator, 200)
    assert group_passages([long, "", long[:4], long[4], long[9:25]]).n_clusters == 5
    assert group_passages([""]).n_clusters == 1
    assert group_passages([]).n_clusters == 0


def test_the_order_of_the_passages_does_not_matter() -> None:
    generator = random.Random(8)
    texts = [write(generator, 200) for _ in range(30)]
    texts += [text[:70] for text in texts[:15]]
    shuffled = generator.sample(texts, len(texts))
    named = [{frozenset(one[place] for place in cluster) for cluster in clusters_of(one)} for one in (texts, shuffled)]
    assert named[0] == named[1]
