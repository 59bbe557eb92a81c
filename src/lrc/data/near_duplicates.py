"""Groups near-duplicate passages, which must not be divided between training and validation.

Two passages are near-duplicates if their sets of character 5-grams have a Jaccard index of 0.7 or more; clusters are
transitive. Candidate pairs come from MinHash signatures (Broder 1997) cut into bands (locality-sensitive hashing); the
exact index decides. If very many passages share a band, such as those with the same boilerplate, they are a crowd: all
pairs of the crowd are compared exactly, by bit sets of common 5-grams and posting lists of rare ones. With more than
MAX_CROWD passages that would take too long: then each is compared with its nearest neighbours in each band, but not
with another one if both have had PATIENCE comparisons without a match.
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
from lrc.runtime.translation import _

Pair = tuple[int, int]

THRESHOLD = 0.7  # Jaccard index
# 20 bands of 2 hashes find a pair of index 0.7 with probability 1 - (1 - 0.7²)^20 = 0.999999.
BANDS, BAND_HASHES = 20, 2
# A pair of index 0.7 shares fewer than 15 of the 40 hashes with probability 5 × 10⁻⁶: it is not compared then.
MIN_SHARED = 15
REACH = 32  # how many of the passages after it in a band a passage is compared with
MAX_CROWD = 20_000  # passages of which all pairs are compared
PATIENCE = 8  # comparisons without a match after which two passages of a larger crowd are not compared
COMMON = 64  # passages of a crowd above which a 5-gram that they share is kept as bits, not as a list
# The thresholds, for the manifest: a split made with others is another split.
CLUSTERING = {"jaccard": THRESHOLD, "containment": CONTAINMENT}


def canonical(text: str) -> str:
    """Normalise a passage for comparison: NFKC, case-folded, and without white space."""
    normalised = "".join(unicodedata.normalize("NFKC", text).casefold().split())
    return text if normalised == text else normalised  # a million passages need not be in memory twice


def jaccard(left: str, right: str) -> float:
    """The Jaccard index of the sets of character 5-grams of two canonical texts; a shorter text is one gram."""
    a, b = _grams(left), _grams(right)
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared)


@dataclass(frozen=True)
class Groups:
    """How the questions of a list group by passage; groups are numbered from 0 in the order of their first question."""

    passages: list[int]  # the passage of each question; passages with the same canonical text have one number
    near_duplicates: list[int]  # the cluster of near-duplicates that the passage of each question belongs to
    clusters: list[int]  # the same with clusters joined that are parts of one another; a split keeps these whole

    @property
    def n_passages(self) -> int:
        """The number of different passages."""
        return max(self.passages, default=-1) + 1

    @property
    def n_clusters(self) -> int:
        """The number of clusters."""
        return max(self.clusters, default=-1) + 1

    @property
    def largest(self) -> int:
        """The number of passages in the largest cluster."""
        members = Counter(cluster for _, cluster in set(zip(self.passages, self.clusters, strict=True)))
        return max(members.values(), default=0)


def group_passages(passages: Iterable[str]) -> Groups:
    """Group questions whose passages are the same, near-duplicates or parts of one another.

    Args:
        passages: the passage of each question.
    """
    raw: dict[str, int] = {}
    rows = [raw.setdefault(passage, len(raw)) for passage in passages]
    places: dict[str, int] = {}
    numbers = [places.setdefault(canonical(passage), len(places)) for passage in raw]
    texts = list(places)
    labels = _cluster_near_duplicates(texts)
    near_duplicates = _number(labels)
    _join(labels, find_parts(texts, labels))
    clusters = _number(labels)
    found = [numbers[row] for row in rows]
    return Groups(found, [near_duplicates[place] for place in found], [clusters[place] for place in found])


def _number(labels: Integers) -> list[int]:
    """Number the clusters from 0 in the order in which they first appear."""
    numbers: list[int] = np.unique(labels, return_inverse=True)[1].tolist()
    return numbers


def _cluster_near_duplicates(texts: list[str]) -> Integers:
    """Cluster distinct canonical texts; returns (texts,) the index of the first text of each text's cluster."""
    signatures = _sign(texts)
    labels = np.arange(len(texts))
    crowd = _find_crowd(signatures)
    exact = len(crowd) <= MAX_CROWD
    crowded = np.isin(labels, crowd)
    if exact:
        _join(labels, np.array(_compare_all(texts, crowd), dtype=np.int64).reshape(-1, 2))
    in_vain = np.zeros(len(texts), dtype=np.int64)  # comparisons of each text without a match
    compared: set[int] = set()
    for left, right in _candidates(signatures):
        both = crowded[left] & crowded[right]
        settled = both if exact else both & (np.minimum(in_vain[left], in_vain[right]) >= PATIENCE)
        undecided = (labels[left] != labels[right]) & ~settled
        left, right = left[undecided], right[undecided]
        alike = (signatures[left] == signatures[right]).sum(axis=1) >= MIN_SHARED
        pairs = zip(left[alike].tolist(), right[alike].tolist(), strict=True)
        found, lost = _compare(texts, pairs, compared)
        np.add.at(in_vain, np.array(lost, dtype=np.int64).ravel(), 1)
        _join(labels, np.array(found, dtype=np.int64).reshape(-1, 2))
    return labels


def _compare(texts: list[str], pairs: Iterable[Pair], compared: set[int]) -> tuple[list[Pair], list[Pair]]:
    """Divide pairs into near-duplicates and others, which are added to `compared` and are not compared again."""
    found, lost = [], []
    # In the order of the band, so that the 5-grams of recent texts are still in the cache of `_grams`.
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


def _find_crowd(signatures: Hashes) -> Integers:
    """The texts that share a band with more than REACH others."""
    crowded = np.zeros(len(signatures), dtype=bool)
    for band in range(BANDS):
        columns = signatures[:, band * BAND_HASHES : (band + 1) * BAND_HASHES]
        order = np.lexsort(columns.T)
        starts = np.concatenate(([True], (columns[order[1:]] != columns[order[:-1]]).any(axis=1)))
        sizes = np.diff(np.append(np.flatnonzero(starts), len(order)))
        crowded[order] |= np.repeat(sizes > REACH + 1, sizes)
    return np.flatnonzero(crowded)


def _compare_all(texts: list[str], crowd: Integers) -> list[Pair]:
    """Find all near-duplicates in a crowd, by the exact index of all pairs.

    The 5-grams that two texts share are counted in two parts: the common ones by bit sets, the rare ones by posting
    lists.
    """
    if not len(crowd):
        return []
    owners, hashes = distinct_grams([texts[place] for place in crowd])
    grams, sizes = np.unique(hashes, return_inverse=True)[1], np.bincount(owners)
    # Sorted by size, so that the texts that are not too large for an index of 0.7 are one slice behind each text.
    order = np.argsort(sizes, kind="stable")
    crowd, sizes = crowd[order], sizes[order]
    owners = np.argsort(order)[owners]
    counts = np.bincount(grams)
    bits = _pack_bits(owners, grams, counts > COMMON, len(crowd))
    lists = _RareLists(owners, grams, (counts > 1) & (counts <= COMMON))
    ends = np.searchsorted(sizes, sizes / THRESHOLD + 1)
    pairs: list[Pair] = []
    with track(_("comparing boilerplate"), len(crowd), "passages") as advance:
        for place, end in enumerate(ends.tolist()):
            others = slice(place + 1, end)
            shared = np.bitwise_count(bits[others] & bits[place]).sum(axis=1, dtype=np.int64)
            shared += np.bincount(lists.sharers(place), minlength=len(crowd))[others]
            alike = np.flatnonzero(shared / (sizes[place] + sizes[others] - shared) >= THRESHOLD)
            pairs += [(int(crowd[place]), int(crowd[place + 1 + other])) for other in alike]
            advance()
    return pairs


def _pack_bits(owners: Integers, grams: Integers, common: NDArray[np.bool_], count: int) -> Hashes:
    """(count, words) the bit set of the common 5-grams of each text."""
    numbers = np.cumsum(common) - 1
    bits = np.zeros((count, max(1, -(-int(common.sum()) // 64))), dtype=np.uint64)
    kept = common[grams]
    bit = numbers[grams[kept]]
    np.bitwise_or.at(bits, (owners[kept], bit // 64), np.uint64(1) << (bit % 64).astype(np.uint64))
    return bits


class _RareLists:
    """The posting list of each rare 5-gram, and the rare 5-grams of each text."""

    def __init__(self, owners: Integers, grams: Integers, rare: NDArray[np.bool_]) -> None:
        kept = rare[grams]
        owners, grams = owners[kept], grams[kept]
        order = np.lexsort((owners, grams))
        self.members = owners[order]
        self.starts = np.searchsorted(grams[order], np.arange(len(rare) + 1))
        order = np.argsort(owners, kind="stable")
        self.grams, self.ends = grams[order], np.cumsum(np.bincount(owners))

    def sharers(self, place: int) -> Integers:
        """The texts that share a rare 5-gram with the text `place`, itself included; once for each shared 5-gram."""
        if place >= len(self.ends):
            return self.members[:0]
        grams = self.grams[self.ends[place - 1] if place else 0 : self.ends[place]]
        starts, sizes = self.starts[grams], self.starts[grams + 1] - self.starts[grams]
        within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return self.members[np.repeat(starts, sizes) + within]


def _candidates(signatures: Hashes) -> Iterator[tuple[Integers, Integers]]:
    """Pairs of texts that agree in a band, nearest neighbours first: arrays of the smaller and of the larger index."""
    with track(_("matching"), BANDS, "bands") as advance:
        for band in range(BANDS):
            yield from _band_candidates(signatures, band)
            advance()


def _band_candidates(signatures: Hashes, band: int) -> Iterator[tuple[Integers, Integers]]:
    """Pairs of texts that agree in one band."""
    columns = signatures[:, band * BAND_HASHES : (band + 1) * BAND_HASHES]
    # Equal bands are ordered by the first hash of the next band, so that the most similar texts are neighbours.
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
    """Merge the clusters of each pair in place: both get the smaller label.

    Args:
        labels: (texts,) the cluster of each text, named by its first text.
        pairs: (pairs, 2) labels or indices of texts.
    """
    left, right = pairs.T
    while (labels[left] != labels[right]).any():
        low, high = np.minimum(labels[left], labels[right]), np.maximum(labels[left], labels[right])
        np.minimum.at(labels, high, low)
        while (labels[labels] != labels).any():
            labels[:] = labels[labels]


def _sign(texts: list[str]) -> Hashes:
    """(texts, 40) the MinHash signatures: the minimum of each of 40 hashes over the 5-grams of a text."""
    generator = np.random.Generator(np.random.PCG64(0))
    factors = generator.integers(2**63, size=BANDS * BAND_HASHES, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    signatures = np.empty((len(texts), len(factors)), dtype=np.uint64)
    with track(_("comparing"), len(texts), "passages") as advance:
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
