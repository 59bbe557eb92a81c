"""Are near-duplicate passages found where all passages share boilerplate? Recall and time against brute force.

    python benchmarks/near_duplicates.py [--passages 5500] [--pairs 200] [--strangers 0.3 --strangers 0.6] [--notices 1]

Every passage has a notice, as long as makes two strangers with the same one of the Jaccard index asked for, and text of
its own; each planted pair is a passage and a copy with some of its own text changed, at an index of about 0.7 to 0.9.
Which pairs are near-duplicates is told by the sets of 5-grams of every two passages, one pair after the other.
"""

from __future__ import annotations

import random
import resource
import time
from collections import Counter
from itertools import combinations

import click
from bench import machine

from lrc.data.near_duplicates import group_passages

CHARACTERS = [chr(0x4E00 + number) for number in range(3000)]
LENGTH = 300
Pair = tuple[int, int]


@click.command()
@click.option("--passages", default=5500, show_default=True)
@click.option("--pairs", default=200, show_default=True, help="Passages that get a copy.")
@click.option("--strangers", multiple=True, type=float, default=[0.3, 0.42, 0.52, 0.6], show_default=True)
@click.option("--notices", default=1, show_default=True, help="Different notices, of which each passage has one.")
@click.option("--seed", default=0, show_default=True)
def main(passages: int, pairs: int, strangers: tuple[float, ...], notices: int, seed: int) -> None:
    """Print recall, time and memory for each index of strangers."""
    print(machine(), flush=True)
    for index in strangers:
        texts = write_passages(random.Random(seed), passages, pairs, index, notices)
        start = time.perf_counter()
        clusters = group_passages(texts).near_duplicates
        seconds = time.perf_counter() - start
        true = brute_force(texts)
        found = sum(clusters[left] == clusters[right] for left, right in true)
        together = sum(count * (count - 1) // 2 for count in map(clusters.count, set(clusters)))
        print(
            f"strangers {index:.2f}: {found} of {len(true)} true pairs found, {found / len(true):.4f}; "
            f"{together} pairs in one cluster; {seconds:.1f} s for {len(texts):,} passages, "
            f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB with brute force",
            flush=True,
        )


def write_passages(generator: random.Random, count: int, pairs: int, index: float, notices: int = 1) -> list[str]:
    """Passages with a notice in common, among them `pairs` with a near copy, shuffled."""
    shared = round(LENGTH * 2 * index / (1 + index))  # a share s of both is an index of s / (2 - s)
    beginnings = [_write(generator, shared) for _ in range(notices)]
    texts = [beginnings[i % notices] + _write(generator, LENGTH - shared) for i in range(count - pairs)]
    texts += [_copy(generator, text, shared) for text in texts[:pairs]]
    generator.shuffle(texts)
    return texts


def brute_force(texts: list[str]) -> list[Pair]:
    """All pairs whose sets of character 5-grams have an index of 0.7 or more."""
    sets = [frozenset(text[place : place + 5] for place in range(len(text) - 4)) for text in texts]
    counts = Counter(gram for grams in sets for gram in grams)
    # What two passages share is among the 5-grams that stand in two or more: a bit for each.
    bits = {gram: 1 << place for place, gram in enumerate(gram for gram, count in counts.items() if count > 1)}
    masks = [sum(bits.get(gram, 0) for gram in grams) for grams in sets]
    sizes = list(map(len, sets))
    return [
        (left, right)
        for left, right in combinations(range(len(sets)), 2)
        if (both := (masks[left] & masks[right]).bit_count()) >= 0.7 * (sizes[left] + sizes[right] - both)
    ]


def _copy(generator: random.Random, text: str, shared: int) -> str:
    """The text with a run of its own part written anew: index 0.7 to 0.9 where it is as long as that takes."""
    aim = generator.uniform(0.71, 0.9)
    length = min(round(LENGTH * (1 - aim) / (1 + aim)), LENGTH - shared)
    start = generator.randint(shared, LENGTH - length)
    return text[:start] + _write(generator, length) + text[start + length :]


def _write(generator: random.Random, length: int) -> str:
    return "".join(generator.choices(CHARACTERS, k=length))


if __name__ == "__main__":
    main()
