"""Are passages that are parts of one another found? Recall against brute force, processor time and peak memory.

    python benchmarks/containment.py [--passages 5500] [--excerpts 200] [--notices 1] [--notice-share 0.5] [--no-check]

Every passage has a notice in front and text of its own behind it. Each planted excerpt is a run of another passage's
own text in a passage of its own, of which it is 0.2 to 0.6: some are parts by the definition and some are not. Which
are is told pair by pair, by the 5-grams of both that no more than sixteen passages have.
"""

from __future__ import annotations

import random
import resource
import time
from collections import Counter
from itertools import combinations

import click
import numpy as np
from bench import machine

from lrc.data.containment import find_parts
from lrc.data.near_duplicates import group_passages

CHARACTERS = [chr(0x4E00 + number) for number in range(3000)]
LENGTH = 300


@click.command()
@click.option("--passages", default=5500, show_default=True)
@click.option("--excerpts", default=200, show_default=True, help="Passages that have a run of another.")
@click.option("--notices", default=1, show_default=True, help="Different notices, of which each passage has one.")
@click.option("--notice-share", default=0.5, show_default=True, help="The notice's part of a passage.")
@click.option("--seed", default=0, show_default=True)
@click.option("--check/--no-check", default=True, help="Compare with every pair, which takes minutes.")
def main(passages: int, excerpts: int, notices: int, notice_share: float, seed: int, check: bool) -> None:
    """Print recall, time and memory."""
    print(machine(), flush=True)
    texts = write_passages(random.Random(seed), passages, excerpts, notices, notice_share)
    start = time.process_time()
    groups = group_passages(texts)
    middle = time.process_time()
    find_parts(texts, np.array(groups.near_duplicates))
    end = time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{len(texts):,} passages, {groups.n_clusters:,} clusters, at most {groups.largest:,} in one: "
        f"{middle - start:.1f} s of a core, {end - middle:.1f} s of it for parts; peak {peak:.2f} GB",
        flush=True,
    )
    if not check:
        return
    true = brute_force(texts)
    found = sum(groups.clusters[left] == groups.clusters[right] for left, right in true)
    together = sum(count * (count - 1) // 2 for count in Counter(groups.clusters).values())
    print(f"{found} of {len(true)} true pairs found, {found / len(true):.4f}; {together} pairs in one cluster")


def write_passages(generator: random.Random, count: int, excerpts: int, notices: int, share: float) -> list[str]:
    """Passages with notices in front, the last of which have a run of one of the first each; shuffled."""
    own = LENGTH - round(LENGTH * share)
    beginnings = [_write(generator, LENGTH - own) for _ in range(notices)]
    bodies = [_write(generator, own) for _ in range(count - excerpts)]
    bodies += [_excerpt(generator, body) for body in bodies[:excerpts]]
    texts = [beginnings[place % notices] + body for place, body in enumerate(bodies)]
    generator.shuffle(texts)
    return texts


def brute_force(texts: list[str]) -> list[tuple[int, int]]:
    """All pairs of which one has three tenths or more, and 16, of its 5-grams in the other, boilerplate apart."""
    sets = [frozenset(text[place : place + 5] for place in range(len(text) - 4)) for text in texts]
    counts = Counter(gram for grams in sets for gram in grams)
    sizes = [sum(counts[gram] <= 16 for gram in grams) for grams in sets]
    bits = {gram: 1 << place for place, gram in enumerate(g for g, count in counts.items() if 1 < count <= 16)}
    masks = [sum(bits.get(gram, 0) for gram in grams) for grams in sets]
    return [
        (left, right)
        for left, right in combinations(range(len(sets)), 2)
        if (both := (masks[left] & masks[right]).bit_count()) >= 16 and 10 * both >= 3 * min(sizes[left], sizes[right])
    ]


def _excerpt(generator: random.Random, body: str) -> str:
    """A text as long, of which a run of the other is 0.2 to 0.6."""
    length = round(len(body) * generator.uniform(0.2, 0.6))
    start, place = generator.randint(0, len(body) - length), generator.randint(0, len(body) - length)
    return _write(generator, place) + body[start : start + length] + _write(generator, len(body) - length - place)


def _write(generator: random.Random, length: int) -> str:
    return "".join(generator.choices(CHARACTERS, k=length))


if __name__ == "__main__":
    main()
