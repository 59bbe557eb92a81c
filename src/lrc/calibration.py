"""Whether a model's probabilities can be believed: reliability bins and the expected calibration error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lrc.metrics import wilson

N_BINS = 10


@dataclass(frozen=True)
class Bin:
    """The questions whose chosen option has a probability from `low` to below `high` (the last bin: to 1)."""

    low: float
    high: float
    n: int
    confidence: float  # mean probability of the chosen options
    accuracy: float
    ci_low: float
    ci_high: float


def reliability(confidences: Sequence[float], right: Sequence[bool], n_bins: int = N_BINS) -> list[Bin]:
    """Group questions by the probability of their chosen option; bins without a question are left out.

    Args:
        confidences: that probability, 0 to 1, of each question.
        right: whether the chosen option is the right one.
        n_bins: into how many bins of equal width 0 to 1 is cut.
    """
    members: dict[int, list[tuple[float, bool]]] = {}
    for confidence, hit in zip(confidences, right, strict=True):
        members.setdefault(min(int(confidence * n_bins), n_bins - 1), []).append((confidence, hit))
    return [_bin(place / n_bins, (place + 1) / n_bins, members[place]) for place in sorted(members)]


def calibration_error(bins: Sequence[Bin]) -> float:
    """The expected calibration error (Naeini et al. 2015, Guo et al. 2017).

    It is the distance of confidence and accuracy, averaged over the bins by their numbers of questions; 0 for none.
    """
    n = sum(one.n for one in bins)
    return sum(one.n * abs(one.confidence - one.accuracy) for one in bins) / max(n, 1)


def _bin(low: float, high: float, members: Sequence[tuple[float, bool]]) -> Bin:
    n, hits = len(members), sum(hit for _, hit in members)
    return Bin(low, high, n, sum(confidence for confidence, _ in members) / n, hits / n, *wilson(hits, n))
