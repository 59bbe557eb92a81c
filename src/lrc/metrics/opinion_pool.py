"""Combines the scores of several models in a logarithmic opinion pool (Genest and Zidek 1986), fitted to right answers.

The scores of each model are divided by a temperature of its own and normalised to log-probabilities. The pool's are a
weighted sum of these:

    log p(option) = sharpness × Σ weight × log softmax(scores / temperature) + constant

The sum is over models. The weights are at least 0 and sum to 1. The temperatures are fitted to each model by itself;
weights and sharpness then minimise the log loss on the labelled questions, which is convex in weight × sharpness.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lrc.metrics.calibration import fit_temperature

Scores = NDArray[np.float64]  # (questions, options); -inf for an option that cannot be chosen
SWEEPS, PRECISION = 500, 1e-10  # of coordinate descent: at most so many sweeps, and the least relative gain of one


@dataclass(frozen=True)
class Pool:
    """A fitted pool."""

    temperatures: tuple[float, ...]  # of each model
    weights: tuple[float, ...]  # of the log-probabilities of each model, 0 to 1; their sum is 1
    sharpness: float  # multiplies the weighted sum

    def log_probs(self, scores: Sequence[Scores]) -> Scores:
        """The log-probabilities of the options by the pool.

        Args:
            scores: of each model, in the order in which they were fitted.
        """
        parts = _calibrate(scores, self.temperatures)
        total = np.where(np.isfinite(parts[0]), 0.0, -np.inf)
        for weight, part in zip(self.weights, parts, strict=True):
            total = total + self.sharpness * weight * np.where(np.isfinite(part), part, 0.0)
        return _normalise(total)


def fit_pool(scores: Sequence[Scores], answers: Sequence[int]) -> Pool:
    """Fit temperatures, weights and sharpness; targets are smoothed as in `calibration.fit_temperature`.

    Args:
        scores: of each model, on the same questions.
        answers: the number of the right option of each question, from 1.
    """
    temperatures = tuple(fit_temperature(one.tolist(), answers) for one in scores)
    parts = _calibrate(scores, temperatures)
    choosable = np.isfinite(parts[0])
    values = np.stack([np.where(choosable, part, 0.0) for part in parts])  # (models, questions, options)
    right = np.zeros(choosable.shape)
    right[np.arange(len(answers)), np.array(answers) - 1] = 1.0
    share = 1 / (len(answers) + 1)
    wanted = (1 - share) * right + share * choosable / choosable.sum(axis=1, keepdims=True)
    strengths = _minimize(values, choosable, wanted)
    total = strengths.sum()
    if not total:
        return Pool(temperatures, (1 / len(scores),) * len(scores), 0.0)
    return Pool(temperatures, tuple((strengths / total).tolist()), float(total))


def equal_pool(scores: Sequence[Scores], answers: Sequence[int]) -> Pool:
    """A pool with equal weights and sharpness 1, of which only the temperatures are fitted; see `fit_pool`."""
    temperatures = tuple(fit_temperature(one.tolist(), answers) for one in scores)
    return Pool(temperatures, (1 / len(scores),) * len(scores), 1.0)


def out_of_fold(
    scores: Sequence[Scores],
    answers: Sequence[int],
    folds: Sequence[int],
    fit: Callable[[Sequence[Scores], Sequence[int]], Pool] = fit_pool,
) -> tuple[Scores, list[Pool]]:
    """Cross-fit: compute the log-probabilities of each fold with a pool that is fitted on the other folds.

    Args:
        scores, answers: see `fit_pool`.
        folds: the fold of each question.
        fit: makes the pool; `equal_pool` is another one.

    Returns:
        (questions, options) log-probabilities, and the pool of each fold in ascending order.
    """
    found, pools = np.full_like(scores[0], -np.inf), []
    places = np.array(folds)
    for fold in sorted(set(folds)):
        inside, others = places == fold, places != fold
        pool = fit(
            [one[others] for one in scores], [answer for answer, own in zip(answers, others, strict=True) if own]
        )
        found[inside] = pool.log_probs([one[inside] for one in scores])
        pools.append(pool)
    return found, pools


def predict(log_probs: Scores) -> list[int]:
    """The number of the most probable option of each question, the first of several."""
    return [int(number) + 1 for number in log_probs.argmax(axis=1)]


def _minimize(values: NDArray[np.float64], choosable: NDArray[np.bool_], wanted: Scores) -> NDArray[np.float64]:
    """Minimise the cross entropy by coordinate descent, with Newton steps that are halved until they improve it.

    Args:
        values: (models, questions, options) log-probabilities; 0 where an option cannot be chosen.
        choosable: (questions, options) whether an option can be chosen.
        wanted: (questions, options) the target distributions.

    Returns:
        (models,) the strengths, weight × sharpness, at least 0.
    """
    strengths = np.full(len(values), 1 / len(values))
    loss = _loss(strengths, values, choosable, wanted)
    for _ in range(SWEEPS):
        before = loss
        for k, own in enumerate(values):
            probabilities = np.exp(_combine(strengths, values, choosable))
            mean = (probabilities * own).sum(axis=1)
            slope = float((mean - (wanted * own).sum(axis=1)).sum())
            bend = float(((probabilities * own**2).sum(axis=1) - mean**2).sum())
            step = slope / bend if bend > 0 else 0.0
            while abs(step) > PRECISION:
                moved = strengths.copy()
                moved[k] = max(strengths[k] - step, 0.0)
                if (less := _loss(moved, values, choosable, wanted)) < loss:
                    strengths, loss = moved, less
                    break
                step /= 2
        if before - loss < PRECISION * max(before, 1.0):
            break
    return strengths


def _combine(strengths: NDArray[np.float64], values: NDArray[np.float64], choosable: NDArray[np.bool_]) -> Scores:
    return _normalise(np.where(choosable, np.tensordot(strengths, values, 1), -np.inf))


def _loss(
    strengths: NDArray[np.float64], values: NDArray[np.float64], choosable: NDArray[np.bool_], wanted: Scores
) -> float:
    log_probs = _combine(strengths, values, choosable)
    return float(-(wanted * np.where(choosable, log_probs, 0.0)).sum())


def _calibrate(scores: Sequence[Scores], temperatures: Sequence[float]) -> list[Scores]:
    return [_normalise(one / temperature) for one, temperature in zip(scores, temperatures, strict=True)]


def _normalise(scores: Scores) -> Scores:
    """Log-softmax over the options."""
    return scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
