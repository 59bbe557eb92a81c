"""Finds passages that are parts of one another: an excerpt and the longer text, or two that share a paragraph.

A passage is part of a cluster of near-duplicates if the cluster contains at least 30% of its distinct character
5-grams, and at least 16 of them. For two passages A and B this is Broder's containment of the smaller,
|A ∩ B| / min(|A|, |B|) (Broder 1997, "On the resemblance and containment of documents"). The minimum of 16, a run of 20
characters, keeps a title or a turn of phrase from joining passages. A 5-gram in more than 16 clusters (fewer in a small
file, see `MIN_SHARERS`) is boilerplate and is left out of both numerator and denominator, as the commonest shingles are
in Broder, Glassman, Manasse and Zweig 1997, "Syntactic clustering of the Web".

The search is exact: the 5-grams of a passage are looked up in an inverted index, and the hits are counted by cluster
(Probe-Count; Sarawagi and Kirpal 2004, "Efficient set joins on similarity predicates"). Only passages with enough
shared 5-grams are looked up, and no posting list is longer than 16, so the time grows with the text, not with the
number of pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lrc.data.shingles import Hashes, Integers, distinct_grams
from lrc.runtime.progress import track
from lrc.runtime.translation import _

CONTAINMENT = 0.3  # the share of a passage's 5-grams
MIN_SHARED = 16  # 5-grams
# A 5-gram is boilerplate if more clusters share it than a quarter of all, within these limits.
MIN_SHARERS, MAX_SHARERS = 3, 16
PART = 2**22  # 5-grams that are put into the index at a time
PROBES = 2**22  # entries of the index that are counted at a time
Entries = tuple[Integers, Integers, Integers, Integers]  # see `_Index._add`


def find_parts(texts: list[str], clusters: Integers) -> Integers:
    """Find the texts that are part of another cluster than their own.

    Args:
        texts: distinct canonical texts (`near_duplicates.canonical`).
        clusters: (texts,) the cluster of near-duplicates of each text, numbers below `len(texts)`.

    Returns:
        (found, 2) the index of a text, and the cluster that it is part of.
    """
    pairs = [np.empty((0, 2), dtype=np.int64)]
    if len(texts) > 1:
        index = _Index(texts, clusters)
        pairs += map(index.find, index.batches())
    return np.concatenate(pairs)


class _Index:
    """An inverted index of the 5-grams that occur in at least two clusters and are not boilerplate."""

    def __init__(self, texts: list[str], clusters: Integers) -> None:
        self._clusters = clusters
        self._most = max(MIN_SHARERS, min(MAX_SHARERS, len(np.unique(clusters)) // 4))
        self._sizes = np.zeros(len(texts), dtype=np.int64)  # of each text in distinct 5-grams, without boilerplate
        self._count = 0  # of the 5-grams in the index
        count = 1 + sum(map(len, texts)) // PART
        with track(_("indexing the passages"), count, "parts") as advance:
            parts = []
            for part in range(count):
                parts.append(self._add(*distinct_grams(texts, part, count)))
                advance()
        # The numbers of each text's 5-grams, and the posting lists: the clusters of 5-gram 0, then of 5-gram 1, …
        owners, grams, self._members, sharers = map(np.concatenate, zip(*parts, strict=True))
        self._starts = np.cumsum(np.append(0, sharers))
        order = np.argsort(owners, kind="stable")
        self._owners, self._grams = owners[order], grams[order]

    def _add(self, owners: Integers, grams: Hashes) -> Entries:
        """Index some of the 5-grams, those of all texts.

        Args:
            owners: the text of each occurrence.
            grams: its hash.

        Returns:
            Of each occurrence that is kept the text and the number of the 5-gram; the posting lists of these 5-grams,
            concatenated; and the length of each list.
        """
        self._sizes += np.bincount(owners, minlength=len(self._sizes))
        shared = _may_repeat(grams)
        owners, grams = owners[shared], grams[shared]
        members = self._clusters[owners]
        order = np.lexsort((members, grams))
        owners, grams, members = owners[order], grams[order], members[order]
        new = _differ_from_previous(grams)
        numbers = np.cumsum(new) - 1
        first = new | _differ_from_previous(members)
        sharers = np.bincount(numbers[first])
        common, few = sharers > self._most, (sharers > 1) & (sharers <= self._most)
        self._sizes -= np.bincount(owners[common[numbers]], minlength=len(self._sizes))
        kept = few[numbers]
        numbers = (self._count + np.cumsum(few) - 1)[numbers[kept]]
        self._count += int(few.sum())
        return owners[kept], numbers, members[kept & first], sharers[few]

    def batches(self) -> Iterator[slice]:
        """Keep the occurrences of the texts that may be parts, and cut them into batches of whole texts."""
        shared = np.bincount(self._owners, minlength=len(self._sizes))
        promising = _is_part(shared, self._sizes)[self._owners]
        self._owners, self._grams = self._owners[promising], self._grams[promising]
        probes = np.cumsum(np.diff(self._starts)[self._grams])
        begins = np.flatnonzero(_differ_from_previous(self._owners))
        starts = begins[_differ_from_previous(probes[begins] // PROBES)].tolist()
        with track(_("looking for parts of passages"), len(starts), "batches") as advance:
            for start, end in pairwise([*starts, len(probes)]):
                yield slice(start, end)
                advance()

    def find(self, batch: slice) -> Integers:
        """Find the parts among the texts of a batch; returns what `find_parts` does."""
        owners, grams, count = self._owners[batch], self._grams[batch], len(self._sizes)
        lengths = np.diff(self._starts)[grams]
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        members = self._members[np.repeat(self._starts[grams], lengths) + within]
        pairs, shared = np.unique(np.repeat(owners, lengths) * count + members, return_counts=True)
        owners, members = np.divmod(pairs, count)
        found = (members != self._clusters[owners]) & _is_part(shared, self._sizes[owners])
        return np.column_stack((owners[found], members[found]))


def _is_part(shared: Integers, sizes: Integers) -> NDArray[np.bool_]:
    return (shared >= MIN_SHARED) & (shared / np.maximum(sizes, 1) >= CONTAINMENT)


def _may_repeat(grams: Hashes) -> NDArray[np.bool_]:
    """Whether each 5-gram may occur more than once, by its bucket: never wrongly false, and spares sorting most."""
    mask = (1 << (4 * len(grams)).bit_length()) - 1  # at least four buckets for each 5-gram
    buckets = (grams & np.uint64(mask)).astype(np.int64)
    return (np.bincount(buckets) > 1)[buckets]


def _differ_from_previous(values: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Whether each value differs from the one before it; true for the first."""
    return np.append(True, values[1:] != values[:-1])[: len(values)]
