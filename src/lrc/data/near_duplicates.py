"""Near-duplicate passages, which are so alike that train and validation must not have one each.

Two passages are near-duplicates where their sets of character 5-grams have a Jaccard index of 0.7 or more;
clusters are transitive. Candidates come from MinHash signatures (Broder 1997) cut into bands; the exact index
of the two sets decides. Passages of a band that very many share, such as those with the same boilerplate, are a
crowd: they are all compared with each other, exactly, by the bits of their common 5-grams and the lists of their rare
ones. Beyond MAX_CROWD passages that would take too long: then each is compared with the nearest of its bands, and one
that looked like many others in vain is left in peace.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lrc.data.containment import CONTAINMENT, find_parts
from lrc.data.shingles import BLOCK, GRAM, Hashes, Integers, distinct_grams, hash_grams
from lrc.runtime.progress import track

Pair = tuple[int, int]

THRESHOLD = 0.7
# 20 bands of 2 hashes find a pair of index 0.7 with probability 1 - (1 - 0.7²)^20 = 0.999999.
BANDS, BAND_HASHES = 20, 2
# Of the 40 hashes, a pair of index 0.7 shares fewer than 15 once in 10⁵ times: no need to look at it.
MIN_SHARED = 15
REACH = 32  # how many later passages of one band a passage is compared with
MAX_CROWD = 20_000  # passages that are all compared with each other
PATIENCE = 8  # comparisons in vain after which a passage of a larger crowd does not seek others any more
COMMON = 64  # passages of a crowd from which on a 5-gram that they share is a bit of each, not a list
# What decides that passages stay together, as a manifest tells it: where it is another, so is the split.
CLUSTERING = {"jaccard": THRESHOLD, "containment": CONTAINMENT}


def canonical(text: str) -> str:
    """The text that decides whether two passages are the same: without white space, case and width."""
    made = "".join(unicodedata.normalize("NFKC", text).casefold().split())
    return text if made == text else made  # a million passages need not be in memory twice


def jaccard(left: str, right: str) -> float:
    """The Jaccard index of the two texts' sets of character 5-grams; a shorter text is one gram.

    Args:
        left: a canonical text.
        right: another one.
    """
    a, b = _grams(left), _grams(right)
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared)


@dataclass(frozen=True)
class Groups:
    """The passages of a list of questions, numbered from 0 in the order in which they first appear."""

    passages: list[int]  # for each question its passage; those that are canonically the same have one number
    near_duplicates: list[int]  # for each question its passage's cluster of near-duplicates
    clusters: list[int]  # for each question its passage's cluster, parts of one another joined

    @property
    def n_passages(self) -> int:
        """How many different passages there are."""
        return max(self.passages, default=-1) + 1

    @property
    def n_clusters(self) -> int:
        """How many clusters they make."""
        return max(self.clusters, default=-1) + 1

    @property
    def largest(self) -> int:
        """How many passages the largest cluster has."""
        members = Counter(cluster for _, cluster in set(zip(self.passages, self.clusters, strict=True)))
        return max(members.values(), default=0)


def group_passages(passages: Iterable[str]) -> Groups:
    """Find the passages that are the same, nearly the same or parts of one another.

    Args:
        passages: one for each question; equal ones are looked at once.
    """
    raw: dict[str, int] = {}
    rows = [raw.setdefault(passage, len(raw)) for passage in passages]
    places: dict[str, int] = {}
    numbers = [places.setdefault(canonical(passage), len(places)) for passage in raw]
    texts = list(places)
    labels = _near_duplicates(texts)
    near_duplicates = _number(labels)
    _join(labels, find_parts(texts, labels))
    clusters = _number(labels)
    found = [numbers[row] for row in rows]
    return Groups(found, [near_duplicates[place] for place in found], [clusters[place] for place in found])


def _number(labels: Integers) -> list[int]:
    """Number the clusters from 0 in the order in which they first appear."""
    numbers: list[int] = np.unique(labels, return_inverse=True)[1].tolist()
    return numbers


def _near_duplicates(texts: list[str]) -> Integers:
    """The clusters of distinct canonical texts that are near-duplicates: for each the first text of its cluster."""
    signatures = _signatures(texts)
    labels = np.arange(len(texts))
    crowd = _crowd(signatures)
    exact = len(crowd) <= MAX_CROWD
    crowded = np.isin(labels, crowd)
    if exact:
        _join(labels, np.array(_all_pairs(texts, crowd), dtype=np.int64).reshape(-1, 2))
    in_vain = np.zeros(len(texts), dtype=np.int64)
    compared: set[int] = set()
    for left, right in _candidates(signatures):
        both = crowded[left] & crowded[right]
        settled = both if exact else both & (np.minimum(in_vain[left], in_vain[right]) >= PATIENCE)
        worth = (labels[left] != labels[right]) & ~settled
        left, right = left[worth], right[worth]
        alike = (signatures[left] == signatures[right]).sum(axis=1) >= MIN_SHARED
        pairs = zip(left[alike].tolist(), right[alike].tolist(), strict=True)
        found, lost = _compare(texts, pairs, compared)
        np.add.at(in_vain, np.array(lost, dtype=np.int64).ravel(), 1)
        _join(labels, np.array(found, dtype=np.int64).reshape(-1, 2))
    return labels


def _compare(texts: list[str], pairs: Iterable[Pair], compared: set[int]) -> tuple[list[Pair], list[Pair]]:
    """Tell the pairs that are near-duplicates from those that are not, which are noted in `compared`."""
    found, lost = [], []
    # One by one in the order of a band, so that the grams of the last pairs are still at hand.
    for left, right in pairs:
        key = left * len(texts) + right
        if key in compared:
            continue
        if jaccard(texts[left], texts[right]) >= THRESHOLD:
            found.append((left, right))
        else:
            compared.add(key)
            lost.append((left, right))
    return found, lost


def _crowd(signatures: Hashes) -> Integers:
    """The texts that share a band with more others than they are compared with there."""
    crowded = np.zeros(len(signatures), dtype=bool)
    for band in range(BANDS):
        columns = signatures[:, band * BAND_HASHES : (band + 1) * BAND_HASHES]
        order = np.lexsort(columns.T)
        starts = np.concatenate(([True], (columns[order[1:]] != columns[order[:-1]]).any(axis=1)))
        sizes = np.diff(np.append(np.flatnonzero(starts), len(order)))
        crowded[order] |= np.repeat(sizes > REACH + 1, sizes)
    return np.flatnonzero(crowded)


def _all_pairs(texts: list[str], crowd: Integers) -> list[Pair]:
    """All pairs of near-duplicates of a crowd, by the exact index.

    The 5-grams that two texts share are counted in two parts: common ones are bits, and rare ones lead from a text to
    the few others that have them.
    """
    if not len(crowd):
        return []
    owners, hashes = distinct_grams([texts[place] for place in crowd])
    grams, sizes = np.unique(hashes, return_inverse=True)[1], np.bincount(owners)
    # By size, so that those large enough for an index of 0.7 stand in one slice behind each.
    order = np.argsort(sizes, kind="stable")
    crowd, sizes = crowd[order], sizes[order]
    owners = np.argsort(order)[owners]
    counts = np.bincount(grams)
    bits = _common_bits(owners, grams, counts > COMMON, len(crowd))
    lists = _RareLists(owners, grams, (counts > 1) & (counts <= COMMON))
    ends = np.searchsorted(sizes, sizes / THRESHOLD + 1)
    pairs: list[Pair] = []
    with track("comparing boilerplate", len(crowd), "passages") as advance:
        for place, end in enumerate(ends.tolist()):
            others = slice(place + 1, end)
            shared = np.bitwise_count(bits[others] & bits[place]).sum(axis=1, dtype=np.int64)
            shared += np.bincount(lists.sharers(place), minlength=len(crowd))[others]
            alike = np.flatnonzero(shared / (sizes[place] + sizes[others] - shared) >= THRESHOLD)
            pairs += [(int(crowd[place]), int(crowd[place + 1 + other])) for other in alike]
            advance()
    return pairs


def _common_bits(owners: Integers, grams: Integers, common: NDArray[np.bool_], count: int) -> Hashes:
    """A row of 64-bit words for each text, with a bit for each common gram."""
    numbers = np.cumsum(common) - 1
    bits = np.zeros((count, max(1, -(-int(common.sum()) // 64))), dtype=np.uint64)
    kept = common[grams]
    bit = numbers[grams[kept]]
    np.bitwise_or.at(bits, (owners[kept], bit // 64), np.uint64(1) << (bit % 64).astype(np.uint64))
    return bits


class _RareLists:
    """For each rare gram the texts that have it, and for each text its rare grams."""

    def __init__(self, owners: Integers, grams: Integers, rare: NDArray[np.bool_]) -> None:
        kept = rare[grams]
        owners, grams = owners[kept], grams[kept]
        order = np.lexsort((owners, grams))
        self.members = owners[order]
        self.starts = np.searchsorted(grams[order], np.arange(len(rare) + 1))
        order = np.argsort(owners, kind="stable")
        self.grams, self.ends = grams[order], np.cumsum(np.bincount(owners))

    def sharers(self, place: int) -> Integers:
        """The texts that share a rare gram with the one at `place`, once for each gram; itself among them."""
        if place >= len(self.ends):
            return self.members[:0]
        grams = self.grams[self.ends[place - 1] if place else 0 : self.ends[place]]
        starts, sizes = self.starts[grams], self.starts[grams + 1] - self.starts[grams]
        within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return self.members[np.repeat(starts, sizes) + within]


def _candidates(signatures: Hashes) -> Iterator[tuple[Integers, Integers]]:
    """Pairs of texts that agree in a band, its nearest neighbours first; the smaller number on the left."""
    with track("matching", BANDS, "bands") as advance:
        for band in range(BANDS):
            yield from _band_candidates(signatures, band)
            advance()


def _band_candidates(signatures: Hashes, band: int) -> Iterator[tuple[Integers, Integers]]:
    """Pairs of texts that agree in one band."""
    columns = signatures[:, band * BAND_HASHES : (band + 1) * BAND_HASHES]
    # Within a band the first hash of the next one orders the texts, so that the most alike stand side by side.
    following = signatures[:, (band + 1) % BANDS * BAND_HASHES]
    order = np.lexsort((following, *columns.T))
    columns = columns[order]
    for step in range(1, REACH + 1):
        same = np.flatnonzero((columns[step:] == columns[:-step]).all(axis=1))
        if not len(same):
            break
        one, other = order[same], order[same + step]
        yield np.minimum(one, other), np.maximum(one, other)


def _join(labels: Integers, pairs: Integers) -> None:
    """Give both sides of every pair, a row of two, the smaller label of their two clusters, in place."""
    left, right = pairs.T
    while (labels[left] != labels[right]).any():
        low, high = np.minimum(labels[left], labels[right]), np.maximum(labels[left], labels[right])
        np.minimum.at(labels, high, low)
        while (labels[labels] != labels).any():
            labels[:] = labels[labels]


def _signatures(texts: list[str]) -> Hashes:
    """The MinHash signature of each text: the smallest value of each of 40 hashes over its 5-grams."""
    generator = np.random.Generator(np.random.PCG64(0))
    factors = generator.integers(2**63, size=BANDS * BAND_HASHES, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    signatures = np.empty((len(texts), len(factors)), dtype=np.uint64)
    with track("comparing", len(texts), "passages") as advance:
        for start in range(0, len(texts), BLOCK):
            block = texts[start : start + BLOCK]
            hashes, firsts = hash_grams(block)
            for column, factor in enumerate(factors):
                signatures[start : start + len(block), column] = np.minimum.reduceat(hashes * factor, firsts)
            advance(len(block))
    return signatures


@lru_cache(maxsize=1024)
def _grams(text: str) -> frozenset[str]:
    return frozenset(text[start : start + GRAM] for start in range(max(1, len(text) - GRAM + 1)))
