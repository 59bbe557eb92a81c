"""What is evaluated while a run trains: the loss on the answers, and which options are chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lrc.alpaca import Record
from lrc.likelihood import sequence_scores
from lrc.metrics import accuracy
from lrc.prompt import Prompt, question_of
from lrc.questions import Question
from lrc.scoring import OptionScores, Scorer


@dataclass(frozen=True)
class Tally:
    """What a process found on its questions."""

    loss_sum: float  # negative log-likelihood of the answers
    tokens: int  # supervised ones
    scores: list[tuple[Question, OptionScores]]  # of each record that is a question

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """(prediction, answer) of each question."""
        return [(score.prediction, question.answer) for question, score in self.scores if question.answer]


@dataclass(frozen=True)
class Validation:
    """Questions with answers, and how they are asked."""

    records: Sequence[Record]
    prompt: Prompt

    def evaluate(self, places: Sequence[int], model: Any, device: torch.device, row_tokens: int) -> Tally:
        """Score the questions at `places`, loss and options in one pass over their unique tokens."""
        records = [self.records[place] for place in places]
        asked = [record for record in records if record.question is not None]
        others = [self.prompt.sequence(record) for record in records if record.question is None]
        scores = Scorer(model, self.prompt, device, row_tokens, with_answers=True)(asked)
        likelihood = float(sequence_scores(model, others, device, row_tokens).sum())
        likelihood += sum(score.answer_log_prob or 0.0 for score in scores)
        sequences = others + [self.prompt.sequence(record) for record in asked]
        return Tally(
            -likelihood,
            sum(len(sequence.tokens) - sequence.prompt_length for sequence in sequences),
            list(zip(map(question_of, asked), scores, strict=True)),
        )


def combine(tallies: Sequence[Tally], prefix: str) -> dict[str, float]:
    """The metrics of all processes together: the mean loss a supervised token, and accuracy with its interval."""
    tokens = max(sum(tally.tokens for tally in tallies), 1)
    metrics = {f"{prefix}_loss": sum(tally.loss_sum for tally in tallies) / tokens}
    pairs = [pair for tally in tallies for pair in tally.pairs]
    if pairs:
        figures = accuracy([prediction for prediction, _ in pairs], [answer for _, answer in pairs])
        metrics |= {f"{prefix}_{key}": figures[key] for key in ("accuracy", "ci_low", "ci_high")}
    return metrics
