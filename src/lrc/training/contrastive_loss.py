"""A loss over the options of a question: the model learns to choose the right one, in addition to writing it.

Answering takes the option with the highest score, so this is what is trained: the loss of a question is the cross
entropy of its right option among all of its options, whose logits are their scores (log-likelihoods divided by length)
over a temperature. With temperature 1 it is the length-normalized loss of T-Few (Liu et al. 2022, section 3.3). In
judge style a score is the log-odds of the option's being right, log p(是) - log p(否), and the loss is ListNet's
with its top-one probability (Cao et al. 2007). In a packed tree the options are branches of their common prefix, which
is computed once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lrc.answering.scoring import OptionOrder
from lrc.data.alpaca import Record
from lrc.data.questions import Question
from lrc.metrics.option_scores import option_lengths
from lrc.packing.lm_head import to_device
from lrc.packing.tree import Ints, PackedRow, TokenSequence
from lrc.tokenization.prompt import Prompt


@dataclass(frozen=True)
class Objective:
    """What is trained: to write the right answer, to choose it among the options, or both.

    Args:
        option_contrast: the weight of the loss over the options, 0 to 1; the rest is the cross entropy of the answer.
        contrast_temperature: what the scores of the options are divided by.
    """

    option_contrast: float = 0.0
    contrast_temperature: float = 1.0


@dataclass(frozen=True)
class Option(TokenSequence):
    """An option of a question, which is compared with the others and whose tokens are not supervised.

    Args:
        question_key: the same for the options of one question, and for no others of a step.
        length: what its log-likelihood is divided by.
        right: whether it is the right one.
        target: its target probability, which over the options of a question sums to 1; None is 1 for the right option
            and 0 for the others.
        negated: whether the sequence says that the option is wrong; see `Prompt.negate`.
    """

    question_key: tuple[int, int]
    length: float
    right: bool
    target: float | None = None
    negated: bool = False


PlacedOption = tuple[int, Option]  # the index of the option's sequence within its row, and the option


def has_contrast(question: Question) -> bool:
    """Whether the question has a loss over its options: at least two can be chosen, and the right one is among them."""
    return question.answer in question.choosable and len(question.choosable) > 1


def options_of(
    record: Record,
    prompt: Prompt,
    normalisation: str,
    question_key: tuple[int, int],
    targets: Sequence[float] | None = None,
) -> list[Option]:
    """The options of a labelled record as answering scores them; empty if the record has fewer than two.

    Args:
        normalisation: of scores, as `Scorer` takes it.
        question_key: see `Option`.
        targets: the target probability of each option of the record; None is 1 for the right one.
    """
    if record.question is None:
        return []
    order = OptionOrder.of(record, tuple(range(len(record.question.options))), prompt)
    numbers = order.question.choosable
    if not has_contrast(order.question):
        return []
    divisors = option_lengths(prompt.normalisation(normalisation), order.tokens, order.characters)
    options = [
        Option(
            one.tokens,
            one.prompt_length,
            question_key,
            float(divisors[number - 1]),
            number == record.question.answer,
            target=None if targets is None else targets[number - 1],
            stem_length=one.stem_length,
        )
        for number, one in zip(numbers, order.candidates, strict=True)
    ]
    negations = zip(options, order.negations, strict=False)  # there are none unless in judge style
    return options + [replace(one, tokens=negation.tokens, negated=True) for one, negation in negations]


def contrast_count(sequences: Sequence[TokenSequence]) -> int:
    """The number of questions whose options are among the sequences."""
    return len({one.question_key for one in sequences if isinstance(one, Option)})


@dataclass(frozen=True)
class OptionContrast:
    """The options of a row's questions as index arrays; T targets, Q questions with at most K options each.

    Args:
        owners: (T,) the sequence of each target, counted from 0 within the row.
        supervised: (S,) the targets that belong to no option.
        options: (Q, K) the sequence of each option, counted likewise; padded with the question's first option.
        negations: (Q, K) the sequences that call these options wrong; None unless in judge style.
        lengths: (Q, K) what the options' log-likelihoods are divided by.
        wanted: (Q, K) target probabilities; each row sums to 1.
        absent: (Q, K) true where there is padding.
    """

    owners: Ints
    supervised: Ints
    options: Ints
    negations: Ints | None
    lengths: NDArray[np.float32]
    wanted: NDArray[np.float32]
    absent: NDArray[np.bool_]

    @classmethod
    def of(cls, row: PackedRow, sequences: Sequence[TokenSequence]) -> OptionContrast | None:
        """The options in a row that was packed from `sequences`; None if it has none.

        All options of a question are in the same row: `tree.pack` keeps sequences with a common stem together.
        """
        places, owners = np.unique(row.owners, return_inverse=True)
        packed = [(place, sequences[number]) for place, number in enumerate(places.tolist())]
        options = [(place, one) for place, one in packed if isinstance(one, Option)]
        if not options:
            return None
        affirmed = _group_by_question((place, one) for place, one in options if not one.negated)
        negated = _group_by_question((place, one) for place, one in options if one.negated)
        most = max(map(len, affirmed))
        absent = np.array([[k >= len(question) for k in range(most)] for question in affirmed])
        return cls(
            owners,
            np.flatnonzero([not isinstance(sequences[number], Option) for number in row.owners.tolist()]),
            _pad(affirmed, most, lambda place, _: place),
            _pad(negated, most, lambda place, _: place) if negated else None,
            _pad(affirmed, most, lambda _, one: one.length).astype(np.float32),
            np.where(absent, 0.0, _pad(affirmed, most, lambda _, one: _target(one))).astype(np.float32),
            absent,
        )

    def loss(self, log_probs: torch.Tensor, temperature: float) -> torch.Tensor:
        """The cross entropy of the target probabilities, in nats, summed over the row's questions.

        Args:
            log_probs: (T,) the log-probabilities of the row's targets.
            temperature: what scores are divided by.

        Returns:
            A scalar.
        """
        put = partial(to_device, device=log_probs.device)
        sums = log_probs.new_zeros(len(self.owners)).index_add(0, put(self.owners), log_probs)
        scores = sums[put(self.options)]
        if self.negations is not None:
            scores = scores - sums[put(self.negations)]
        scores = scores / (put(self.lengths) * temperature)
        all_of_them = scores.masked_fill(put(self.absent), -torch.inf).logsumexp(1)
        return (all_of_them - (put(self.wanted) * scores).sum(1)).sum()

    def supervised_log_probs(self, log_probs: torch.Tensor) -> torch.Tensor:
        """(S,) the log-probabilities of the targets that belong to no option."""
        return log_probs[to_device(self.supervised, log_probs.device)]


def _target(one: Option) -> float:
    return float(one.right) if one.target is None else one.target


def _group_by_question(options: Iterable[PlacedOption]) -> list[list[PlacedOption]]:
    """The options of each question, in the order of the sequences: that of its options, also for negations."""
    found: dict[tuple[int, int], list[PlacedOption]] = {}
    for place, one in options:
        found.setdefault(one.question_key, []).append((place, one))
    return list(found.values())


def _pad(questions: list[list[PlacedOption]], most: int, value: Callable[[int, Option], float]) -> NDArray[Any]:
    """(questions, most) a value for each option, padded with that of the question's first option."""
    return np.array([[value(*one) for one in some + some[:1] * (most - len(some))] for some in questions])
