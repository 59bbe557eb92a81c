"""Hashes of a text's shingles, its character 5-grams: what the searches for near-duplicates and for parts compare."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Hashes = NDArray[np.uint64]

GRAM = 5  # characters
BLOCK = 2048  # texts whose 5-grams are in memory at a time; 2¹¹, since `_hash_block` keeps 53 bits of a hash


def hash_grams(texts: list[str]) -> tuple[Hashes, Integers]:
    """Hash every 5-gram of the texts to 64 bits.

    Args:
        texts: not empty; a text of fewer than 5 characters is one gram.

    Returns:
        (grams,) the hashes of all texts, one after the other; and (texts,) the offset of each text's first hash.
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
    """Find the distinct 5-grams of each text.

    Args:
        texts: not empty.
        part: which part of the 5-grams to return, from 0; the hash of a 5-gram decides to which part it belongs.
        parts: the number of parts.

    Returns:
        (grams,) the index of the text, ascending; and (grams,) a 53-bit hash of the 5-gram, ascending within a text.
    """
    found = [_hash_block(texts[start : start + BLOCK], part, parts) for start in range(0, len(texts), BLOCK)]
    owners = [start * BLOCK + owner for start, (owner, _) in enumerate(found)]
    return np.concatenate(owners), np.concatenate([grams for _, grams in found])


def _hash_block(texts: list[str], part: int, parts: int) -> tuple[Integers, Hashes]:
    hashes, firsts = hash_grams(texts)
    owners = np.repeat(np.arange(len(texts), dtype=np.uint64), np.diff(np.append(firsts, len(hashes))))
    if parts > 1:
        chosen = hashes % np.uint64(parts) == part
        hashes, owners = hashes[chosen], owners[chosen]
    # Text and hash in one number: that sorts many times as fast as two arrays.
    both = owners << np.uint64(53) | hashes >> np.uint64(11)
    both.sort()
    both = both[np.append(True, both[1:] != both[:-1])[: len(both)]]
    return (both >> np.uint64(53)).astype(np.int64), both & np.uint64(2**53 - 1)
