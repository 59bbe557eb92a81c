"""What is evaluated while a run trains: the loss on the answers, and which options are chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lrc.alpaca import Record
from lrc.likelihood import sequence_scores
from lrc.metrics import accuracy
from lrc.prompt import Prompt
from lrc.scoring import Scorer


@dataclass(frozen=True)
class Outcome:
    """What a process found on its questions."""

    loss_sum: float  # negative log-likelihood of the answers
    tokens: int  # supervised ones
    pairs: list[tuple[int, int]]  # (prediction, answer) of each question


@dataclass(frozen=True)
class Validation:
    """Questions with answers, and how they are asked."""

    records: Sequence[Record]
    prompt: Prompt

    def evaluate(self, places: Sequence[int], model: Any, device: torch.device, row_tokens: int) -> Outcome:
        """Score the questions at `places`, loss and options in one pass over their unique tokens."""
        records = [self.records[place] for place in places]
        asked = [record for record in records if record.question is not None]
        others = [self.prompt.sequence(record) for record in records if record.question is None]
        scores = Scorer(model, self.prompt, device, row_tokens, with_answers=True)(asked)
        likelihood = float(sequence_scores(model, others, device, row_tokens).sum())
        likelihood += sum(score.answer_log_prob or 0.0 for score in scores)
        sequences = others + [self.prompt.sequence(record) for record in asked]
        answers = [record.question.answer for record in asked if record.question]
        return Outcome(
            -likelihood,
            sum(len(sequence.tokens) - sequence.prompt_length for sequence in sequences),
            [(score.prediction, answer) for score, answer in zip(scores, answers, strict=True) if answer],
        )


def combine(outcomes: Sequence[Outcome], prefix: str) -> dict[str, float]:
    """The metrics of all processes together: the mean loss a supervised token, and accuracy with its interval."""
    tokens = max(sum(outcome.tokens for outcome in outcomes), 1)
    metrics = {f"{prefix}_loss": sum(outcome.loss_sum for outcome in outcomes) / tokens}
    pairs = [pair for outcome in outcomes for pair in outcome.pairs]
    if pairs:
        figures = accuracy([prediction for prediction, _ in pairs], [answer for _, answer in pairs])
        metrics |= {f"{prefix}_{key}": figures[key] for key in ("accuracy", "ci_low", "ci_high")}
    return metrics
