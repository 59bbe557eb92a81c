"""Whether a model's probabilities can be believed, and the temperature that makes them more believable.

Reliability bins and the expected calibration error show how far confidence and accuracy are apart; dividing
log-probabilities by one number, fitted on questions that were not trained on, brings them together (Guo et al. 2017).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lrc.metrics.accuracy import accuracy
from lrc.runtime.translation import Message, _

N_BINS = 10
SHARPNESS = (1e-3, 1e3)  # of 1 / temperature: beyond these, probabilities are equal or all in one option
# The best option's probability over an even share, up to which an answer is practically a guess.
GUESS = 1.1
HALVINGS = 60  # of that range's logarithm, which is more than a float can tell apart


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


def reliability(
    confidences: Sequence[float], right: Sequence[bool], passages: Sequence[Hashable], n_bins: int = N_BINS
) -> list[Bin]:
    """Group questions by the probability of their chosen option; bins without a question are left out.

    Args:
        confidences: that probability, 0 to 1, of each question.
        right: whether the chosen option is the right one.
        passages: see `accuracy.accuracy`.
        n_bins: into how many bins of equal width 0 to 1 is cut.
    """
    members: dict[int, list[tuple[float, bool, Hashable]]] = {}
    for one in zip(confidences, right, passages, strict=True):
        members.setdefault(min(int(one[0] * n_bins), n_bins - 1), []).append(one)
    return [_bin(place / n_bins, (place + 1) / n_bins, members[place]) for place in sorted(members)]


def calibration_error(bins: Sequence[Bin]) -> float:
    """The expected calibration error (Naeini et al. 2015, Guo et al. 2017).

    It is the distance of confidence and accuracy, averaged over the bins by their numbers of questions; 0 for none.
    """
    n = sum(one.n for one in bins)
    return sum(one.n * abs(one.confidence - one.accuracy) for one in bins) / max(n, 1)


def log_loss(log_probs: Sequence[Sequence[float]], answers: Sequence[int], temperature: float = 1.0) -> float:
    """The mean negative log-probability of the right options; questions whose answer has none are left out.

    Args:
        log_probs: of each question's options, natural logarithms; -inf where one cannot be chosen.
        answers: the number of each right option, from 1.
        temperature: what the log-probabilities are divided by.

    Returns:
        nats; 0 where no question is left.
    """
    gaps = _gaps(log_probs, answers)
    losses = [float(np.logaddexp.reduce(gap / temperature)) for gap in gaps]
    return sum(losses) / max(len(losses), 1)


def confidences(log_probs: Sequence[Sequence[float]], temperature: float = 1.0) -> list[float]:
    """The probability of each question's most probable option."""
    tempered = [np.array(line) / temperature for line in log_probs]
    return [float(np.exp(line.max() - np.logaddexp.reduce(line))) for line in tempered]


def fit_temperature(log_probs: Sequence[Sequence[float]], answers: Sequence[int]) -> float:
    """The temperature with the least log loss on questions that were not trained on.

    As if one more question had been answered at random: without it, a few questions that are all right would make the
    probabilities of any question 0 and 1 (the same cure as Platt's, 1999).

    Args:
        log_probs: see `log_loss`.
        answers: see `log_loss`.

    Returns:
        1 where there is nothing to learn from.
    """
    gaps = [gap for gap in _gaps(log_probs, answers) if gap.any()]
    if not gaps:
        return 1.0
    share = 1 / (len(gaps) + 1)  # of each question, for the one more
    table = _table(gaps)
    means = np.array([gap.mean() for gap in gaps])
    low, high = np.log(SHARPNESS)
    for _halving in range(HALVINGS):
        middle = (low + high) / 2
        # The loss is convex in 1 / temperature, so the sign of its slope says on which side the least is.
        slope = _slopes(table, float(np.exp(middle))).sum() - share * means.sum()
        low, high = (middle, high) if slope < 0 else (low, middle)
    return float(np.exp(-(low + high) / 2))


def at_bound(temperature: float) -> Message | None:
    """What a temperature at an end of the fit's range means, in words; None for one that was found between them."""
    coldest, hottest = (1 / sharpness for sharpness in reversed(SHARPNESS))
    if temperature > hottest * 0.99:
        return _("the limit of the search: uniform probabilities, the scores say nothing about which option is right")
    if temperature < coldest * 1.01:
        return _("the limit of the search: all probability on one option, which was right in every question")
    return None


def is_guess(probabilities: Sequence[float], choices: int) -> bool:
    """Whether the most probable of `choices` options has about an even share, so that choosing it is a guess."""
    return choices > 1 and max(probabilities) <= GUESS / choices


def calibration(
    log_probs: Sequence[Sequence[float]], answers: Sequence[int], passages: Sequence[Hashable], temperature: float
) -> dict[str, float]:
    """How far the probabilities of answered questions can be believed.

    Args:
        log_probs: see `log_loss`.
        answers: see `log_loss`.
        passages: see `accuracy.accuracy`.
        temperature: what an earlier run fitted.

    Returns:
        `temperature`, `log_loss` and `calibration_error`, and the last two as they are at temperature 1: `…_at_1`.
    """
    right = [max(range(len(line)), key=line.__getitem__) + 1 == a for line, a in zip(log_probs, answers, strict=True)]
    figures = {"temperature": temperature}
    for ending, value in (("", temperature), ("_at_1", 1.0)):
        figures[f"log_loss{ending}"] = log_loss(log_probs, answers, value)
        figures[f"calibration_error{ending}"] = calibration_error(
            reliability(confidences(log_probs, value), right, passages)
        )
    return figures


def _gaps(log_probs: Sequence[Sequence[float]], answers: Sequence[int]) -> list[NDArray[np.float64]]:
    """How far each question's options that can be chosen lie above the right one."""
    lines = [(np.array(line), answer - 1) for line, answer in zip(log_probs, answers, strict=True)]
    return [line[np.isfinite(line)] - line[place] for line, place in lines if np.isfinite(line[place])]


def _table(gaps: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """(questions, options) the gaps, a line a question; -inf beyond its last option."""
    table = np.full((len(gaps), max(map(len, gaps))), -np.inf)
    for line, gap in zip(table, gaps, strict=True):
        line[: len(gap)] = gap
    return table


def _slopes(table: NDArray[np.float64], sharpness: float) -> NDArray[np.float64]:
    """(questions,) the derivatives of the losses by the sharpness: the gaps' means under the tempered probabilities."""
    scaled = table * sharpness
    weights = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    slopes: NDArray[np.float64] = (weights * np.where(np.isfinite(table), table, 0.0)).sum(axis=1)
    return slopes


def _bin(low: float, high: float, members: Sequence[tuple[float, bool, Hashable]]) -> Bin:
    n, hits = len(members), [int(hit) for _confidence, hit, _passage in members]
    figures = accuracy(hits, [1] * n, [passage for *_others, passage in members])
    mean = sum(confidence for confidence, *_others in members) / n
    return Bin(low, high, n, mean, figures["accuracy"], figures["ci_low"], figures["ci_high"])
