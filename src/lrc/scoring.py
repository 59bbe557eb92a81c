"""Records → scores of their options, many questions at a time in packed trees.

The branches of a tree are the options of a question, the questions of a passage and, with votes, the orders of the
options; a question's scores do not depend on what is packed beside it.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lrc.alpaca import Record
from lrc.errors import RecipeError
from lrc.likelihood import row_budget, sequence_scores
from lrc.progress import Advance
from lrc.prompt import Prompt, question_of, reordered
from lrc.questions import Question, option_orders
from lrc.tree import TokenSequence

RECORDS_AT_A_TIME = 128


def _silent(done: int = 1) -> None:
    """Show no progress."""


@dataclass(frozen=True)
class OptionScores:
    """What a model makes of one question."""

    log_probs: tuple[float, ...]  # of each option, in the question's own order; -inf where it cannot be chosen
    probabilities: tuple[float, ...]
    prediction: int  # 1 to the number of options
    consistent: bool  # whether every order of the options gave the same answer
    answer_log_prob: float | None = None  # of the right completion and its end, where it was asked for


@dataclass(frozen=True)
class Scorer:
    """Scores the options of questions with one model; call it with records.

    Args:
        model: in evaluation mode.
        prompt: how the model was trained to be asked.
        row_tokens: the token budget of a packed row; None takes what suits the device.
        votes: over how many option orders the scores are averaged.
        adapters: names of adapters to average over; none leaves the model as it is.
        with_answers: also score the right completion of each record as training does, in the same trees.

    Raises:
        RecipeError: several votes where the prompt does not list the options.
    """

    model: Any
    prompt: Prompt
    device: torch.device
    row_tokens: int | None = None
    votes: int = 1
    adapters: tuple[str, ...] = ()
    with_answers: bool = False

    def __post_init__(self) -> None:
        if self.votes > 1 and not self.prompt.list_options:
            raise RecipeError(
                f"--votes is {self.votes}, but this model's prompt lists no options, so their order is nothing to it"
            )

    def __call__(self, records: Sequence[Record], advance: Advance = _silent) -> list[OptionScores]:
        """The scores of each record's options, in the order of `records`."""
        scores: dict[int, OptionScores] = {}
        for part in self.parts(records):
            scores.update(part)
            advance(len(part))
        return [scores[i] for i in range(len(records))]

    def parts(self, records: Sequence[Record], known: Container[int] = ()) -> Iterator[dict[int, OptionScores]]:
        """Score chunk by chunk; the chunks are the same whatever is known already.

        Args:
            known: places in `records`; a chunk is passed over where it has no other.

        Returns:
            The scores of each chunk by place in `records`.
        """
        # Questions of one passage go into one call, wherever they stand in the file.
        first = {
            record.question.passage: place for place, record in reversed(list(enumerate(records))) if record.question
        }
        order = sorted(range(len(records)), key=lambda i: (first[question_of(records[i]).passage], i))
        for start in range(0, len(order), RECORDS_AT_A_TIME):
            chunk = order[start : start + RECORDS_AT_A_TIME]
            if not all(i in known for i in chunk):
                yield dict(zip(chunk, self._chunk([records[i] for i in chunk]), strict=True))

    def _chunk(self, records: Sequence[Record]) -> list[OptionScores]:
        ballots = [[Ballot.of(r, order, self.prompt) for order in self._orders(r)] for r in records]
        answers = [self.prompt.sequence(r) for r in records] if self.with_answers else []
        options = [sequence for papers in ballots for ballot in papers for sequence in ballot.sequences]
        votes: list[list[NDArray[np.float64]]] = [[] for _ in records]
        for adapter in self.adapters or (None,):
            if adapter is not None:
                self.model.set_adapter(adapter)
            budget = row_budget(self.device, self.row_tokens)
            scores = sequence_scores(self.model, answers + options, self.device, budget)
            right, scores = np.split(scores, [len(answers)])
            for papers, heard in zip(ballots, votes, strict=True):
                for ballot in papers:
                    mine, scores = np.split(scores, [len(ballot.sequences)])
                    heard.append(ballot.log_probs(mine))
        counted = right.tolist() if self.with_answers else [None] * len(records)
        return [_average(np.stack(heard), answer) for heard, answer in zip(votes, counted, strict=True)]

    def _orders(self, record: Record) -> list[tuple[int, ...]]:
        return option_orders(question_of(record), self.votes)


@dataclass(frozen=True)
class Ballot:
    """One order of one question's options, and a sequence for each option that can be chosen."""

    order: tuple[int, ...]
    question: Question
    sequences: list[TokenSequence]
    lengths: NDArray[np.float64]  # what each sequence's score is divided by

    @classmethod
    def of(cls, record: Record, order: tuple[int, ...], prompt: Prompt) -> Ballot:
        """Ask `record` with its options in `order`."""
        moved = record if order == tuple(range(len(order))) else reordered(record, order)
        question = question_of(moved)
        # An option's text scores by the character, so that a long option is not punished for its length.
        texts = [question.options[number - 1] for number in question.choosable]
        lengths = [1 if prompt.answer_style == "digit" else max(len(text), 1) for text in texts]
        return cls(order, question, prompt.candidates(moved), np.array(lengths, dtype=float))

    def log_probs(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """The log-probability of each option, in the question's own order; -inf where it cannot be chosen."""
        scores = scores / self.lengths
        result = np.full(len(self.order), -np.inf)
        result[[self.order[number - 1] for number in self.question.choosable]] = scores - np.logaddexp.reduce(scores)
        return result


def _average(votes: NDArray[np.float64], answer_log_prob: float | None) -> OptionScores:
    """Average (votes, options) log-probabilities; of equal options the first is chosen."""
    mean = votes.mean(axis=0)
    probabilities = np.exp(mean - np.logaddexp.reduce(mean))
    return OptionScores(
        log_probs=tuple(mean.tolist()),
        probabilities=tuple(probabilities.tolist()),
        prediction=int(mean.argmax()) + 1,
        consistent=len(set(votes.argmax(axis=1).tolist())) == 1,
        answer_log_prob=answer_log_prob,
    )
