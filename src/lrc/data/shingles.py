"""The shingles of texts, by which near-duplicates and parts of one another are found: their character 5-grams."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Hashes = NDArray[np.uint64]

GRAM = 5
BLOCK = 2048  # passages whose 5-grams are held in memory at a time; a number below it takes 11 bits


def hash_grams(texts: list[str]) -> tuple[Hashes, Integers]:
    """A 64-bit hash of every 5-gram of the texts, one after the other, and where each text's hashes begin.

    A shorter text is one gram.
    """
    padded = [text.ljust(GRAM, "\0") for text in texts]
    counts = np.array([len(text) - GRAM + 1 for text in padded])
    ends = np.cumsum(counts + GRAM - 1)
    codes = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    hashes = np.zeros(len(codes) - GRAM + 1, dtype=np.uint64)
    for place in range(GRAM):
        hashes = (hashes ^ codes[place : place + len(hashes)]) * np.uint64(0x9E3779B97F4A7C15)
        hashes ^= hashes >> np.uint64(29)
    crossing = np.subtract.outer(ends[:-1], np.arange(1, GRAM)).ravel()
    return np.delete(hashes, crossing), np.concatenate(([0], np.cumsum(counts)[:-1]))


def distinct_grams(texts: list[str], part: int = 0, parts: int = 1) -> tuple[Integers, Hashes]:
    """Each text's different 5-grams: the number of the text, in order, and a 53-bit hash of the gram.

    Args:
        part: which of `parts` shares of all grams to give, from 0; a gram's hash decides on its share.
    """
    found = [_distinct_of_block(texts[start : start + BLOCK], part, parts) for start in range(0, len(texts), BLOCK)]
    owners = [start * BLOCK + owner for start, (owner, _) in enumerate(found)]
    return np.concatenate(owners), np.concatenate([grams for _, grams in found])


def _distinct_of_block(texts: list[str], part: int, parts: int) -> tuple[Integers, Hashes]:
    hashes, firsts = hash_grams(texts)
    owners = np.repeat(np.arange(len(texts), dtype=np.uint64), np.diff(np.append(firsts, len(hashes))))
    if parts > 1:
        chosen = hashes % np.uint64(parts) == part
        hashes, owners = hashes[chosen], owners[chosen]
    # One number for both is sorted many times as fast as two.
    both = owners << np.uint64(53) | hashes >> np.uint64(11)
    both.sort()
    both = both[np.append(True, both[1:] != both[:-1])[: len(both)]]
    return (both >> np.uint64(53)).astype(np.int64), both & np.uint64(2**53 - 1)
