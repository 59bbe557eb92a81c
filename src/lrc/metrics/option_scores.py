"""What a model makes of one question: the scores of its options, and the answer and the probabilities that follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class OptionScores:
    """What a model makes of one question."""

    log_probs: tuple[float, ...]  # of each option, in the question's own order; -inf where it cannot be chosen
    probabilities: tuple[float, ...]
    prediction: int  # 1 to the number of options
    consistent: bool  # whether every order of the options gave the same answer, of all adapters together
    answer_log_prob: float | None = None  # of the right completion and its end, where it was asked for
    # Log-likelihood of each option's tokens, or log-odds of its being right, the mean of all votes; -inf as above.
    likelihoods: tuple[float, ...] = ()
    tokens: tuple[int, ...] = ()  # how many each option's completion has
    characters: tuple[int, ...] = ()  # likewise

    def normalised(self, normalisation: str) -> OptionScores:
        """The same of one order of the options, had its scores been divided otherwise; see `scoring.Scorer`."""
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
        """The same with the probabilities of a temperature; see `scoring.Scorer`."""
        return replace(self, probabilities=probabilities_at(np.array(self.log_probs), temperature))


def option_lengths(normalisation: str, tokens: Sequence[int], characters: Sequence[int]) -> NDArray[np.float64]:
    """What the options' log-likelihoods are divided by, so that a long option is not punished for its length."""
    counted = {"character": characters, "token": tokens, "sum": [1] * len(tokens)}
    return np.array(counted[normalisation], dtype=float)


def probabilities_at(log_probs: NDArray[np.float64], temperature: float) -> tuple[float, ...]:
    """The probability of each option, from log-probabilities divided by a temperature."""
    tempered = log_probs / temperature
    return tuple(np.exp(tempered - np.logaddexp.reduce(tempered)).tolist())
