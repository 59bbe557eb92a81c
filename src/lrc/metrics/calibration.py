"""Calibration: how far a model's probabilities are from its accuracy, and temperature scaling.

Reliability bins and the expected calibration error compare confidence with accuracy. Temperature scaling divides the
log-probabilities by one number, fitted on questions that were not trained on (Guo et al. 2017).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lrc.metrics.accuracy import accuracy
from lrc.runtime.translation import Message, _

N_BINS = 10
SHARPNESS = (1e-3, 1e3)  # the range of 1 / temperature: beyond it, probabilities are uniform or all on one option
GUESS = 1.1  # an answer whose probability is at most this times the uniform one is practically a guess
HALVINGS = 60  # of the logarithmic range of the bisection: beyond the precision of a float


@dataclass(frozen=True)
class Bin:
    """The questions whose chosen option has a probability in [low, high); the last bin includes 1."""

    low: float
    high: float
    n: int  # questions
    confidence: float  # the mean probability of the chosen options
    accuracy: float
    ci_low: float  # of the 95% interval of the accuracy
    ci_high: float


def reliability(confidences: Sequence[float], right: Sequence[bool], passages: Sequence[Hashable]) -> list[Bin]:
    """Group questions by the probability of their chosen option, in `N_BINS` bins of equal width.

    Args:
        confidences: the probability of the chosen option of each question, 0 to 1.
        right: whether the chosen option is the right one.
        passages: see `accuracy.accuracy`.

    Returns:
        The bins that are not empty, in order.
    """
    members: dict[int, list[tuple[float, bool, Hashable]]] = {}
    for one in zip(confidences, right, passages, strict=True):
        members.setdefault(min(int(one[0] * N_BINS), N_BINS - 1), []).append(one)
    return [_make_bin(place / N_BINS, (place + 1) / N_BINS, members[place]) for place in sorted(members)]


def calibration_error(bins: Sequence[Bin]) -> float:
    """The expected calibration error (Naeini et al. 2015, Guo et al. 2017), 0 to 1.

    It is the mean of |confidence - accuracy| over the bins, weighted by their numbers of questions; 0 without any.
    """
    n = sum(one.n for one in bins)
    return sum(one.n * abs(one.confidence - one.accuracy) for one in bins) / max(n, 1)


def log_loss(log_probs: Sequence[Sequence[float]], answers: Sequence[int], temperature: float = 1.0) -> float:
    """The mean negative log-probability of the right options.

    Args:
        log_probs: of the options of each question, natural logarithms; -inf for an option that cannot be chosen.
        answers: the number of the right option of each question, from 1. Questions whose right option has -inf are left
            out.
        temperature: divides the log-probabilities, which are then normalised.

    Returns:
        In nats; 0 if no question is left.
    """
    gaps = _gaps(log_probs, answers)
    losses = [float(np.logaddexp.reduce(gap / temperature)) for gap in gaps]
    return sum(losses) / max(len(losses), 1)


def confidences(log_probs: Sequence[Sequence[float]], temperature: float = 1.0) -> list[float]:
    """The probability of the most probable option of each question.

    Args:
        log_probs, temperature: see `log_loss`.
    """
    tempered = [np.array(line) / temperature for line in log_probs]
    return [float(np.exp(line.max() - np.logaddexp.reduce(line))) for line in tempered]


def fit_temperature(log_probs: Sequence[Sequence[float]], answers: Sequence[int]) -> float:
    """Fit the temperature with the least log loss, on questions that were not trained on.

    The targets are smoothed with the weight of one question whose answer is uniform over its options. Without that, a
    few questions that are all right would make all probabilities 0 or 1 (a similar prior to Platt's, 1999).

    Args:
        log_probs: see `log_loss`.
        answers: see `log_loss`.

    Returns:
        The temperature, within 1 / SHARPNESS; 1 if no question has options with different scores.
    """
    gaps = [gap for gap in _gaps(log_probs, answers) if gap.any()]
    if not gaps:
        return 1.0
    share = 1 / (len(gaps) + 1)  # the weight of the uniform distribution in each target
    table = _pad(gaps)
    means = np.array([gap.mean() for gap in gaps])
    low, high = np.log(SHARPNESS)
    for _halving in range(HALVINGS):
        middle = (low + high) / 2
        # The loss is convex in 1 / temperature, so the sign of its slope tells on which side the minimum is.
        slope = _slopes(table, float(np.exp(middle))).sum() - share * means.sum()
        low, high = (middle, high) if slope < 0 else (low, middle)
    return float(np.exp(-(low + high) / 2))


def at_bound(temperature: float) -> Message | None:
    """Explain a temperature at an end of the range of `fit_temperature`; None for one within it."""
    coldest, hottest = (1 / sharpness for sharpness in reversed(SHARPNESS))
    if temperature > hottest * 0.99:
        return _("the limit of the search: uniform probabilities, the scores say nothing about which option is right")
    if temperature < coldest * 1.01:
        return _("the limit of the search: all probability on one option, which was right in every question")
    return None


def is_guess(probabilities: Sequence[float], choices: int) -> bool:
    """Whether the most probable of `choices` options is hardly more probable than 1 / `choices`; or there is none."""
    return not choices or (choices > 1 and max(probabilities) <= GUESS / choices)


def calibration(
    log_probs: Sequence[Sequence[float]], answers: Sequence[int], passages: Sequence[Hashable], temperature: float
) -> dict[str, float]:
    """Measure how well the probabilities of labelled questions are calibrated.

    Args:
        log_probs: see `log_loss`.
        answers: see `log_loss`.
        passages: see `accuracy.accuracy`.
        temperature: fitted earlier, on other questions.

    Returns:
        `temperature`; `log_loss` and `calibration_error` at this temperature; and both at temperature 1, with names
        that end in `_at_1`.
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
    """The log-probabilities of the options that can be chosen minus that of the right option, for each question."""
    lines = [(np.array(line), answer - 1) for line, answer in zip(log_probs, answers, strict=True)]
    return [line[np.isfinite(line)] - line[place] for line, place in lines if np.isfinite(line[place])]


def _pad(gaps: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """(questions, options) the gaps of all questions, padded with -inf."""
    table = np.full((len(gaps), max(map(len, gaps))), -np.inf)
    for line, gap in zip(table, gaps, strict=True):
        line[: len(gap)] = gap
    return table


def _slopes(table: NDArray[np.float64], sharpness: float) -> NDArray[np.float64]:
    """(questions,) the derivatives of the losses with respect to 1 / temperature: the expected gaps."""
    scaled = table * sharpness
    weights = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    slopes: NDArray[np.float64] = (weights * np.where(np.isfinite(table), table, 0.0)).sum(axis=1)
    return slopes


def _make_bin(low: float, high: float, members: Sequence[tuple[float, bool, Hashable]]) -> Bin:
    n, hits = len(members), [int(hit) for _confidence, hit, _passage in members]
    figures = accuracy(hits, [1] * n, [passage for *_others, passage in members])
    mean = sum(confidence for confidence, *_others in members) / n
    return Bin(low, high, n, mean, figures["accuracy"], figures["ci_low"], figures["ci_high"])
