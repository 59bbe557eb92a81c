"""Records → scores of their options, many questions at a time in packed trees.

The branches of a tree are the options of a question, the questions of a passage and, with votes, the orders of options.
A question's scores do not depend on what is packed with it, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lrc.answering.scored_model import describe_asking
from lrc.data.alpaca import Record, question_of, to_record, with_question
from lrc.data.questions import Question, option_orders
from lrc.metrics.option_scores import OptionScores, option_lengths, probabilities_at
from lrc.models.loading import positions
from lrc.packing.log_probs import row_budget, sequence_scores
from lrc.packing.tree import TokenSequence
from lrc.runtime.errors import DataError, RecipeError
from lrc.runtime.progress import Advance
from lrc.runtime.translation import _
from lrc.tokenization.max_length import shorten
from lrc.tokenization.prompt import Prompt, reordered

RECORDS_AT_A_TIME = 128
MARKS = 16  # more tokens than BOS, white space before text, and a digit or a verdict have together
SHORT = to_record(Question("1", "文", "問", ("甲", "乙")))


def silent(done: int = 1) -> None:
    """Show no progress."""


@dataclass(frozen=True)
class Scorer:
    """Scores the options of questions with one model; call it with records.

    Args:
        model: a causal language model, in evaluation mode.
        prompt: how the model was trained to be prompted.
        device: where the model's inputs go.
        row_tokens: token budget of a packed row; None takes a default for the device.
        votes: over how many orders of the options scores are averaged.
        adapters: the names of adapters to average over; empty uses the model as it is.
        normalisation: what an option's log-likelihood is divided by in text style: the number of its `character`s or
            `token`s; `sum` does not divide.
        temperature: what log-probabilities are divided by to get probabilities; it changes no prediction.
        with_answers: also score `Prompt.supervised_sequences` of each record, in the same trees.

    Raises:
        RecipeError: `votes` is more than 1, and the prompt does not list the options.
    """

    model: Any
    prompt: Prompt
    device: torch.device
    row_tokens: int | None = None
    votes: int = 1
    adapters: tuple[str, ...] = ()
    normalisation: str = "character"
    temperature: float = 1.0
    with_answers: bool = False

    def __post_init__(self) -> None:
        if self.votes > 1 and not self.prompt.list_options:
            raise RecipeError(
                _(
                    "--votes is {votes}, but this model's prompt lists no options, so their order has no effect; "
                    "leave --votes out"
                ).format(votes=self.votes)
            )

    @property
    def computed(self) -> str:
        """How the model computes: `bfloat16`, or `float16, 4 bits`."""
        bits = next((n for n in (4, 8) if getattr(self.model, f"is_loaded_in_{n}bit", False)), None)
        return str(self.model.dtype).removeprefix("torch.") + (f", {bits} bits" if bits else "")

    def __call__(self, records: Sequence[Record], advance: Advance = silent) -> list[OptionScores]:
        """The scores of each record's options, in the order of `records`."""
        scores: dict[int, OptionScores] = {}
        for part in self.parts(records, advance=advance):
            scores |= part
        return [scores[i] for i in range(len(records))]

    @property
    def asked(self) -> dict[str, Any]:
        """How questions are asked, as files of scores name it."""
        asked = self.prompt
        return describe_asking(asked.template, asked.answer_style, asked.list_options, self.normalisation, self.votes)

    def fitted(self, records: Sequence[Record]) -> tuple[list[Record], list[str]]:
        """Shorten passages so that records fit the model's positions.

        Returns:
            The records, and the ids of those that were shortened.

        Raises:
            DataError: a question does not fit even without its passage.
        """
        limit = positions(self.model.config)
        fitted = [record if limit is None else self._fit(record, limit) for record in records]
        return fitted, [now.id for now, before in zip(fitted, records, strict=True) if now is not before]

    def _fit(self, record: Record, limit: int) -> Record:
        def fits(question: Question) -> bool:
            asked = self.prompt.candidates(with_question(record, question))
            return max(len(sequence.tokens) for sequence in asked) <= limit

        question = question_of(record)
        # A token has at least one byte, so that short texts fit and need not be tokenized here.
        texts = (*self.prompt.texts(record, self._judged), *question.options)
        surely = sum(len(text.encode()) for text in texts)
        if surely + self._frame <= limit or fits(question):
            return record
        shorter = shorten(question, fits)
        if shorter is None:
            raise DataError(
                _(
                    "question {id}: without its passage it still has more tokens than the model has "
                    "positions, {limit}; shorten it, or use another base"
                ).format(id=record.id, limit=limit)
            )
        return with_question(record, shorter)

    @cached_property
    def _lowered(self) -> list[int]:
        """Token budgets that were tried in place of some that took too much memory."""
        return []

    @cached_property
    def _frame(self) -> int:
        """More tokens than the prompt has around instruction and input, with those of an answer that is no text."""
        return len(self.prompt.text(SHORT, self._judged).encode()) + MARKS

    @property
    def _judged(self) -> int | None:
        """The option that a prompt is measured with; see `Prompt.text`."""
        return 1 if self.prompt.answer_style == "judge" else None

    def parts(
        self,
        records: Sequence[Record],
        known: Container[int] = (),
        share: tuple[int, int] = (0, 1),
        advance: Advance = silent,
    ) -> Iterator[dict[int, OptionScores]]:
        """Score chunk by chunk; the chunks depend neither on what is known, nor on the number of processes.

        Args:
            records: questions with options.
            known: indices in `records`; a chunk that has no others is skipped.
            share: the index of this process and the number of processes, among which the chunks are distributed.
            advance: called as questions are finished.

        Yields:
            The scores of each chunk, by index in `records`.
        """
        for chunk in chunks(records)[share[0] :: share[1]]:
            if not all(i in known for i in chunk):
                yield dict(zip(chunk, self._chunk([records[i] for i in chunk], advance), strict=True))

    def _chunk(self, records: Sequence[Record], advance: Advance) -> list[OptionScores]:
        question_orders = [[OptionOrder.of(r, order, self.prompt) for order in self._orders(r)] for r in records]
        answers = [self.prompt.supervised_sequences(r) for r in records] if self.with_answers else []
        right = [sequence for some in answers for sequence in some]
        options = [
            sequence
            for orders_of_one in question_orders
            for option_order in orders_of_one
            for sequence in option_order.sequences
        ]
        question_votes: list[list[NDArray[np.float64]]] = [[] for _ in records]
        see = _count_by_sequences(len(records), len(right + options) * max(len(self.adapters), 1), advance)
        for adapter in self.adapters or (None,):
            if adapter is not None:
                self.model.set_adapter(adapter)
            budget = min([row_budget(self.device, self.row_tokens), *self._lowered])
            scores = sequence_scores(self.model, right + options, self.device, budget, see, self._lowered.append)
            written, scores = np.split(scores, [len(right)])
            for orders_of_one, votes in zip(question_orders, question_votes, strict=True):
                for option_order in orders_of_one:
                    mine, scores = np.split(scores, [len(option_order.sequences)])
                    votes.append(option_order.in_own_order(option_order.likelihoods(mine)))
        see(0)
        parts = np.split(written, np.cumsum([len(some) for some in answers])[:-1]) if answers else []
        counted = [float(part.sum()) for part in parts] if answers else [None] * len(records)
        with np.errstate(invalid="ignore"):  # the caller refuses NaN
            return [self._combine(*one) for one in zip(question_orders, question_votes, counted, strict=True)]

    def _combine(
        self, question_orders: Sequence[OptionOrder], votes: Sequence[NDArray[np.float64]], answer: float | None
    ) -> OptionScores:
        """Average the votes on one question.

        Args:
            question_orders: the orders of its options.
            votes: (options,) log-likelihoods for each adapter and order, orders varying faster.
            answer: the log-likelihood of the right answer, if known.
        """
        tokens, characters = question_orders[0].tokens, question_orders[0].characters
        likelihoods = np.stack(votes)
        scores = likelihoods / option_lengths(self.prompt.normalisation(self.normalisation), tokens, characters)
        log_probs = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
        by_order = log_probs.reshape(-1, len(question_orders), len(tokens)).mean(axis=0)  # over adapters
        mean = log_probs.mean(axis=0)
        return OptionScores(
            log_probs=tuple(mean.tolist()),
            probabilities=probabilities_at(mean, self.temperature),
            prediction=int(mean.argmax()) + 1,  # on a tie, the first
            consistent=len(set(by_order.argmax(axis=1).tolist())) == 1,
            answer_log_prob=answer,
            likelihoods=tuple(likelihoods.mean(axis=0).tolist()),
            tokens=tokens,
            characters=characters,
        )

    def _orders(self, record: Record) -> list[tuple[int, ...]]:
        return option_orders(question_of(record), self.votes)


def _count_by_sequences(questions: int, sequences: int, advance: Advance) -> Callable[[int], None]:
    """A callback that turns numbers of finished sequences into numbers of questions; 0 means that all are finished."""
    done = shown = 0

    def count_sequences(count: int) -> None:
        nonlocal done, shown
        done = min(done + count, sequences) if count else sequences
        now = questions * done // max(sequences, 1) if done < sequences else questions
        if now > shown:
            advance(now - shown)
        shown = max(now, shown)

    return count_sequences


def chunks(records: Sequence[Record]) -> list[list[int]]:
    """Divide the indices of `records` into chunks that are scored together, sorted so that passages stay together."""
    first = {record.question.passage: place for place, record in reversed(list(enumerate(records))) if record.question}
    order = sorted(range(len(records)), key=lambda i: (first[question_of(records[i]).passage], i))
    return [order[start : start + RECORDS_AT_A_TIME] for start in range(0, len(order), RECORDS_AT_A_TIME)]


@dataclass(frozen=True)
class OptionOrder:
    """One order of one question's options, and the sequences that are scored for it.

    Args:
        order: the options' indices in the record, in the order in which they are listed.
        question: with its options in this order.
        candidates: a sequence for each option that can be chosen.
        negations: in judge style, for each of these a sequence that calls it wrong; otherwise empty.
    """

    order: tuple[int, ...]
    question: Question
    candidates: list[TokenSequence]
    negations: list[TokenSequence]

    @classmethod
    def of(cls, record: Record, order: tuple[int, ...], prompt: Prompt) -> OptionOrder:
        """Build the sequences of `record` with its options in `order`."""
        moved = record if order == tuple(range(len(order))) else reordered(record, order)
        candidates = prompt.candidates(moved)
        negations = [prompt.negate(one) for one in candidates] if prompt.answer_style == "judge" else []
        return cls(order, question_of(moved), candidates, negations)

    @property
    def sequences(self) -> list[TokenSequence]:
        """All sequences to score."""
        return self.candidates + self.negations

    def likelihoods(self, log_probs: NDArray[np.float64]) -> NDArray[np.float64]:
        """The log-likelihood of each option that can be chosen.

        Args:
            log_probs: (sequences,) the log-likelihoods of `sequences`.

        Returns:
            (candidates,) log-likelihoods; in judge style, the log-odds of the option's being right.
        """
        if not self.negations:
            return log_probs
        right, wrong = np.split(log_probs, 2)
        return right - wrong

    @property
    def tokens(self) -> tuple[int, ...]:
        """The number of tokens of each option's completion, in the record's order; 1 if it cannot be chosen."""
        counts = self.in_own_order([len(one.tokens) - one.prompt_length for one in self.candidates], 1)
        return tuple(int(count) for count in counts)

    @property
    def characters(self) -> tuple[int, ...]:
        """The number of characters of each option, in the record's order; 1 for a blank one."""
        texts = [self.question.options[number - 1] for number in self.question.choosable]
        return tuple(int(count) for count in self.in_own_order([max(len(text), 1) for text in texts], 1))

    def in_own_order(
        self, values: Sequence[float] | NDArray[np.float64], other: float = -np.inf
    ) -> NDArray[np.float64]:
        """(options,) values of candidates, moved to the record's order; options that cannot be chosen get `other`."""
        result = np.full(len(self.order), other)
        result[[self.order[number - 1] for number in self.question.choosable]] = values
        return result
