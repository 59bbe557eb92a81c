"""Passages that are parts of one another: an excerpt and the longer text, or two that share a paragraph.

A passage is part of a cluster of near-duplicates where three tenths or more of its character 5-grams stand there, and
at least 16. For two passages A and B alone this is Broder's containment taken from the smaller, |A ∩ B| / min(|A|, |B|)
(Broder 1997, "On the resemblance and containment of documents"). The minimum, a run of 20 characters, keeps a title or
a turn of phrase from joining passages. 5-grams that many clusters share do not count, neither above nor below the line
(as Broder, Glassman, Manasse and Zweig 1997, "Syntactic clustering of the Web", leave out the commonest): text in more
than 16 clusters is boilerplate.

None is missed: all 5-grams of a passage are looked up in an inverted index, and what comes back is counted
(Probe-Count; Sarawagi and Kirpal 2004, "Efficient set joins on similarity predicates"). Only those passages are looked
up that have enough 5-grams in common with any others at all, and no list of the index is longer than 16, so that the
time grows with the text and not with the number of pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lrc.data.shingles import Hashes, Integers, distinct_grams
from lrc.runtime.progress import track

CONTAINMENT = 0.3  # of a passage's 5-grams
MIN_SHARED = 16  # 5-grams
MAX_SHARERS = 16  # clusters that share a 5-gram which is no boilerplate
MIN_SHARERS = 3  # likewise in a file of few clusters, of which a quarter may share it
PART = 2**22  # 5-grams that are put into the index at a time
PROBES = 2**22  # entries of the index that are counted at a time
Entries = tuple[Integers, Integers, Integers, Integers]


def find_parts(texts: list[str], clusters: Integers) -> Integers:
    """Find the texts that are part of another cluster than their own.

    Args:
        texts: distinct canonical texts.
        clusters: the cluster of near-duplicates of each, numbers below `len(texts)`.

    Returns:
        Rows of two: the number of a text, and the cluster that it is part of.
    """
    pairs = [np.empty((0, 2), dtype=np.int64)]
    if len(texts) > 1:
        index = _Index(texts, clusters)
        pairs += map(index.find, index.batches())
    return np.concatenate(pairs)


class _Index:
    """The 5-grams that stand in two clusters or more, but not in many: where they stand."""

    def __init__(self, texts: list[str], clusters: Integers) -> None:
        self._clusters = clusters
        self._most = max(MIN_SHARERS, min(MAX_SHARERS, len(np.unique(clusters)) // 4))
        self._sizes = np.zeros(len(texts), dtype=np.int64)  # for each text, how many 5-grams it has, common ones apart
        self._count = 0
        count = 1 + sum(map(len, texts)) // PART
        with track("indexing", count, "parts of the text") as advance:
            parts = []
            for part in range(count):
                parts.append(self._add(*distinct_grams(texts, part, count)))
                advance()
        # Each text's 5-grams by number, and the clusters of the first 5-gram, of the second, …
        owners, grams, self._members, sharers = map(np.concatenate, zip(*parts, strict=True))
        self._starts = np.cumsum(np.append(0, sharers))
        order = np.argsort(owners, kind="stable")
        self._owners, self._grams = owners[order], grams[order]

    def _add(self, owners: Integers, grams: Hashes) -> Entries:
        """Take the entries of some 5-grams, of all texts."""
        self._sizes += np.bincount(owners, minlength=len(self._sizes))
        shared = _repeated(grams)
        owners, grams = owners[shared], grams[shared]
        members = self._clusters[owners]
        order = np.lexsort((members, grams))
        owners, grams, members = owners[order], grams[order], members[order]
        new = _changes(grams)
        numbers = np.cumsum(new) - 1
        first = new | _changes(members)
        sharers = np.bincount(numbers[first])
        common, few = sharers > self._most, (sharers > 1) & (sharers <= self._most)
        self._sizes -= np.bincount(owners[common[numbers]], minlength=len(self._sizes))
        kept = few[numbers]
        numbers = (self._count + np.cumsum(few) - 1)[numbers[kept]]
        self._count += int(few.sum())
        return owners[kept], numbers, members[kept & first], sharers[few]

    def batches(self) -> Iterator[slice]:
        """The entries of all texts that may be parts, those of some texts at a time."""
        shared = np.bincount(self._owners, minlength=len(self._sizes))
        promising = _is_part(shared, self._sizes)[self._owners]
        self._owners, self._grams = self._owners[promising], self._grams[promising]
        probes = np.cumsum(np.diff(self._starts)[self._grams])
        begins = np.flatnonzero(_changes(self._owners))
        starts = begins[_changes(probes[begins] // PROBES)].tolist()
        with track("looking for parts of passages", len(starts), "batches") as advance:
            for start, end in pairwise([*starts, len(probes)]):
                yield slice(start, end)
                advance()

    def find(self, batch: slice) -> Integers:
        """The texts of these entries that are part of another cluster, with that."""
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


def _repeated(grams: Hashes) -> NDArray[np.bool_]:
    """All of those that occur again, and a few others: which spares sorting most."""
    mask = (1 << (4 * len(grams)).bit_length()) - 1  # four buckets or more a 5-gram
    buckets = (grams & np.uint64(mask)).astype(np.int64)
    return (np.bincount(buckets) > 1)[buckets]


def _changes(values: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Whether each is another than the one before."""
    return np.append(True, values[1:] != values[:-1])[: len(values)]
