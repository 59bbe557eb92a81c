"""How often the 95% interval of an accuracy holds the true accuracy, where the questions of a passage go together.

    python benchmarks/coverage.py [--draws 4000] [--data AI_validation.json]

Each draw makes the answers of a model that knows its accuracy: a passage has an accuracy of its own, drawn from a beta
distribution, so that two questions of a passage are right together with the given intraclass correlation. Both
intervals are compared: Wilson's, which takes questions as independent, and lrc's. The passages have the sizes of a file
of questions where one is given, else those of five layouts.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np

from lrc.data.sources import read_records
from lrc.metrics.accuracy import accuracy, passages_of, wilson
from lrc.tokenization.prompt import question_of

LAYOUTS = {
    "400 passages, 1 question each": [1] * 400,
    "480 passages, 1 to 5 questions": [1, 1, 1, 2, 2, 2, 3, 5] * 60,
    "100 passages, 5 questions each": [5] * 100,
    "30 passages, 2 to 8 questions": [2, 4, 8] * 10,
    "12 passages, 3 or 4 questions": [3, 4] * 6,
}


def coverage(sizes: list[int], share: float, correlation: float, draws: int) -> tuple[float, float, float]:
    """How often each interval holds `share`, and how wide lrc's is beside Wilson's, on average."""
    random = np.random.default_rng(0)
    passages = np.repeat(np.arange(len(sizes)), sizes).tolist()
    naive = clustered = ratio = 0.0
    for _ in range(draws):
        if correlation:
            scale = 1 / correlation - 1
            own = random.beta(share * scale, (1 - share) * scale, len(sizes))
        else:
            own = np.full(len(sizes), share)
        rights = (random.random(len(passages)) < np.repeat(own, sizes)).astype(int).tolist()
        low, high = wilson(sum(rights), len(rights))
        figures = accuracy(rights, [1] * len(rights), passages)
        naive += low <= share <= high
        clustered += figures["ci_low"] <= share <= figures["ci_high"]
        ratio += (figures["ci_high"] - figures["ci_low"]) / (high - low)
    return naive / draws, clustered / draws, ratio / draws


def main() -> None:
    """Read the command line and print a line for each layout, accuracy and correlation."""
    parser = argparse.ArgumentParser(description="Coverage of the intervals of an accuracy.")
    parser.add_argument("--draws", type=int, default=4000)
    parser.add_argument("--data", type=Path, help="A file of questions whose passages' sizes are taken.")
    flags = parser.parse_args()
    layouts = LAYOUTS
    if flags.data:
        counts = Counter(passages_of(map(question_of, read_records(flags.data))))
        layouts = {f"{flags.data.name}: {len(counts)} passages, {counts.total()} questions": list(counts.values())}
    print(f"{'passages':<34} accuracy  correlation  Wilson's   lrc's  width of lrc's to Wilson's")
    for name, sizes in layouts.items():
        for share in (0.65, 0.8, 0.95):
            for correlation in (0.0, 0.1, 0.3, 0.6):
                naive, clustered, ratio = coverage(sizes, share, correlation, flags.draws)
                print(f"{name:<34} {share:>8} {correlation:>12} {naive:>9.3f} {clustered:>7.3f} {ratio:>6.2f}")


if __name__ == "__main__":
    main()
