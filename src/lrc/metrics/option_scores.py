"""A model's scores of the options of a question, and the probabilities and the prediction that follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class OptionScores:
    """The scores of one question; options are in the question's own order."""

    log_probs: tuple[float, ...]  # natural logarithms; -inf for an option that cannot be chosen
    probabilities: tuple[float, ...]  # at the temperature of the scorer
    prediction: int  # the number of an option, from 1
    consistent: bool  # whether all adapters together gave the same answer in every order of the options
    answer_log_prob: float | None = None  # of the right completion with its end token, if it was scored
    # The mean over all orders and adapters: the log-likelihood of each option's completion, or in style judge the
    # log-odds of its being right; -inf for an option that cannot be chosen.
    likelihoods: tuple[float, ...] = ()
    tokens: tuple[int, ...] = ()  # in the completion of each option
    characters: tuple[int, ...] = ()  # likewise

    def normalised(self, normalisation: str) -> OptionScores:
        """Recompute the scores with another normalisation, at temperature 1. Only for scores of a single order.

        Args:
            normalisation: `character`, `token` or `sum`; see `option_lengths`.
        """
        scores = np.array(self.likelihoods) / option_lengths(normalisation, self.tokens, self.characters)
        log_probs = scores - np.logaddexp.reduce(scores)
        return replace(
            self,
            log_probs=tuple(log_probs.tolist()),
            probabilities=probabilities_at(log_probs, 1.0),
            prediction=int(log_probs.argmax()) + 1,
            consistent=True,
        )

    def calibrated(self, temperature: float) -> OptionScores:
        """Recompute the probabilities at a temperature."""
        return replace(self, probabilities=probabilities_at(np.array(self.log_probs), temperature))


def option_lengths(normalisation: str, tokens: Sequence[int], characters: Sequence[int]) -> NDArray[np.float64]:
    """The divisors of the options' log-likelihoods, so that long options are not at a disadvantage.

    Args:
        normalisation: `character` or `token` divides by the length in these; `sum` does not divide.
        tokens, characters: the length of each option.
    """
    counted = {"character": characters, "token": tokens, "sum": [1] * len(tokens)}
    return np.array(counted[normalisation], dtype=float)


def probabilities_at(log_probs: NDArray[np.float64], temperature: float) -> tuple[float, ...]:
    """The softmax of log-probabilities divided by a temperature."""
    tempered = log_probs / temperature
    return tuple(np.exp(tempered - np.logaddexp.reduce(tempered)).tolist())
