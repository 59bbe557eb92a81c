"""Reliability bins, calibration error and log loss by hand; the temperature on answers that were drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lrc.metrics.calibration import (
    at_bound,
    calibration_error,
    confidences,
    fit_temperature,
    is_guess,
    log_loss,
    reliability,
)
from lrc.metrics.option_scores import OptionScores


def test_calibration_by_hand() -> None:
    bins = reliability([0.91, 0.99, 1.0, 0.35], [True, False, True, False], "abcd")
    assert [(one.low, one.n) for one in bins] == [(0.3, 1), (0.9, 3)]
    assert bins[1].accuracy == pytest.approx(2 / 3) and bins[1].confidence == pytest.approx(2.9 / 3)
    assert calibration_error(bins) == pytest.approx((0.35 + abs(2.9 - 2)) / 4)
    assert calibration_error([]) == 0


def drawn(count: int, sharpness: float) -> tuple[list[list[float]], list[int]]:
    """Questions whose answers are drawn from the probabilities, and log-probabilities that are `sharpness` as sharp."""
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(count, 4))
    true = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    answers = [int(generator.choice(4, p=np.exp(line))) + 1 for line in true]
    told = logits * sharpness
    return (told - np.logaddexp.reduce(told, axis=1, keepdims=True)).tolist(), answers


@pytest.mark.parametrize("sharpness", [0.05, 1.0, 8.0])
def test_the_temperature_undoes_the_scaling_of_the_scores(sharpness: float) -> None:
    log_probs, answers = drawn(4000, sharpness)
    temperature = fit_temperature(log_probs, answers)
    assert temperature == pytest.approx(sharpness, rel=0.1)
    least = log_loss(log_probs, answers, temperature)
    assert all(least < log_loss(log_probs, answers, temperature * factor) for factor in (0.8, 1.25))
    hits = [int(np.argmax(line)) + 1 == answer for line, answer in zip(log_probs, answers, strict=True)]
    errors = [calibration_error(reliability(confidences(log_probs, t), hits, range(4000))) for t in (1.0, temperature)]
    assert errors[1] < 0.03 and (sharpness == 1 or errors[0] > 3 * errors[1])


def test_log_loss_by_hand() -> None:
    inf = float("inf")
    log_probs = [[math.log(0.5), math.log(0.25), math.log(0.25), -inf], [-inf, 0.0, -inf, -inf]]
    assert log_loss(log_probs, [2, 2]) == pytest.approx(math.log(4) / 2)
    assert log_loss(log_probs, [4, 1]) == 0  # nothing can be said of answers that cannot be chosen
    assert log_loss(log_probs[:1], [1], 0.5) == pytest.approx(-math.log(0.25 / (0.25 + 2 * 0.0625)))
    assert confidences(log_probs, 0.5) == pytest.approx([0.25 / 0.375, 1])


def test_a_few_right_answers_do_not_make_the_model_certain() -> None:
    log_probs = [[math.log(0.4), *[math.log(0.2)] * 3]] * 10
    temperature = fit_temperature(log_probs, [1] * 10)
    assert 0.9 < confidences(log_probs, temperature)[0] < 0.97
    assert fit_temperature([], []) == fit_temperature([[0.0, -math.inf]], [1]) == 1
    wrong = fit_temperature(log_probs, [2] * 10)
    assert confidences(log_probs, wrong)[0] == pytest.approx(0.25, abs=0.001)


def test_a_temperature_at_the_end_of_the_range_is_explained() -> None:
    wrong = fit_temperature([[5.0, 0.0, 0.0, 0.0]] * 50, [2] * 50)
    assert confidences([[5.0, 0.0, 0.0, 0.0]], wrong)[0] == pytest.approx(0.25, abs=0.01)
    assert "uniform probabilities" in (at_bound(wrong) or "")
    right = fit_temperature([[1e-9, 0.0]] * 50_000, [1] * 50_000)
    assert "all probability on one option" in (at_bound(right) or "")
    assert at_bound(fit_temperature([[1.0, 0.0]] * 10, [1] * 7 + [2] * 3)) is None and at_bound(1.0) is None


@pytest.mark.parametrize(
    ("probabilities", "choices", "guess"),
    [
        ((0.252, 0.249, 0.249, 0.25), 4, True),
        ((0.31, 0.23, 0.23, 0.23), 4, False),
        ((0.51, 0.49), 2, True),
        ((0.62, 0.38), 2, False),
        ((0.34, 0.33, 0.33, 0.0), 3, True),  # a blank option is no choice
        ((0.5, 0.5, 0.0, 0.0), 4, False),  # between two of four
        ((1.0, 0.0), 1, False),
        ((1.0, 0.0), 0, True),  # all options are blank
    ],
)
def test_what_is_practically_a_guess(probabilities: tuple[float, ...], choices: int, guess: bool) -> None:
    assert is_guess(probabilities, choices) is guess


def test_a_higher_temperature_makes_probabilities_more_even() -> None:
    scores = OptionScores((math.log(0.8), math.log(0.2)), (0.8, 0.2), 1, True)
    assert scores.calibrated(2.0).probabilities == pytest.approx((2 / 3, 1 / 3))  # the square roots are as 2 to 1


def test_a_normalisation_divides_by_the_length_of_each_option() -> None:
    scores = OptionScores((), (), 0, True, likelihoods=(-6.0, -8.0), tokens=(2, 4), characters=(3, 2))
    found = {name: scores.normalised(name).log_probs for name in ("sum", "token", "character")}
    gaps = {name: one - other for name, (one, other) in found.items()}
    assert gaps == pytest.approx({"sum": 2, "token": -1, "character": 2})
    assert [scores.normalised(name).prediction for name in gaps] == [1, 2, 1]
