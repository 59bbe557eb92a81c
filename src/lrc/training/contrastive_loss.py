"""The contrast between the options of a question: the model learns to choose the right one, in addition to writing it.

Answering takes the option with the highest score. So that is what is trained: a question's loss is the cross entropy of
its right option among all of its options, whose logits are their scores, log-likelihoods divided by length, over a
temperature. With temperature 1 it is the length-normalised loss of T-Few (Liu et al. 2022, section 3.3). Where options
are judged, a score is the log-odds of the option's being right, log p(是) - log p(否), and the loss is ListNet's with
its top-one probability (Cao et al. 2007). In a packed tree the options are branches behind what they have in common,
which is computed once for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lrc.answering.scoring import OptionOrder
from lrc.data.alpaca import Record, question_of
from lrc.metrics.option_scores import option_lengths
from lrc.packing.tree import Ints, PackedRow, TokenSequence
from lrc.tokenization.prompt import Prompt


@dataclass(frozen=True)
class Objective:
    """What is trained: to write the right answer, to choose it among the options, or both.

    Args:
        option_contrast: the part of the loss that is the contrast between the options, 0 to 1.
        contrast_temperature: what their scores are divided by.
    """

    option_contrast: float = 0.0
    contrast_temperature: float = 1.0


@dataclass(frozen=True)
class Option(TokenSequence):
    """An option of a question, to be compared with the others and not to be supervised.

    Args:
        question_key: the same for the options of one question, and for no others of a step.
        length: what its log-likelihood is divided by.
        right: whether it is the right one.
        number: of the option in its question.
        target: its part in what is learnt; the parts of a question's options sum to 1.
        negated: whether the sequence says that the option is not right; see `Prompt.negate`.
    """

    question_key: tuple[int, int]
    length: float
    right: bool
    number: int = 0
    target: float | None = None  # 1 for the right one where nothing is affirmed
    negated: bool = False


PlacedOption = tuple[int, Option]  # a sequence, counted from 0 within its row


def options_of(
    record: Record,
    prompt: Prompt,
    normalisation: str,
    question_key: tuple[int, int],
    targets: Sequence[float] | None = None,
) -> list[Option]:
    """The options of a labelled record as answering scores them; none where there is nothing to choose.

    Args:
        normalisation: of scores, as `Scorer` takes it.
        question_key: what tells them from the options of other prompts.
        targets: of each option of the record, see `Option`.
    """
    if record.question is None:
        return []
    order = OptionOrder.of(record, tuple(range(len(record.question.options))), prompt)
    numbers = order.question.choosable
    if question_of(record).answer not in numbers or len(numbers) < 2:
        return []
    divisors = option_lengths(prompt.normalisation(normalisation), order.tokens, order.characters)
    options = [
        Option(
            *(
                one.tokens,
                one.prompt_length,
                question_key,
                float(divisors[number - 1]),
                number == record.question.answer,
            ),
            number=number,
            target=None if targets is None else targets[number - 1],
            stem_length=one.stem_length,
        )
        for number, one in zip(numbers, order.candidates, strict=True)
    ]
    negations = zip(options, order.negations, strict=False)  # there are none where options are not judged
    return options + [replace(one, tokens=negation.tokens, negated=True) for one, negation in negations]


def contrast_count(sequences: Sequence[TokenSequence]) -> int:
    """How many questions have their options among the sequences."""
    return len({one.question_key for one in sequences if isinstance(one, Option)})


@dataclass(frozen=True)
class OptionContrast:
    """The options of a row's questions; T targets, Q questions of at most K options.

    Args:
        owners: (T,) the sequence that each target belongs to, counted from 0 within the row.
        supervised: (I,) the targets that belong to no option.
        options: (Q, K) sequences, counted likewise; a question that has fewer than K options repeats its first.
        negations: (Q, K) those that say of them that they are not right; None where options are not judged.
        lengths: (Q, K) what their log-likelihoods are divided by.
        wanted: (Q, K) what is learnt of each, a question's sum is 1.
        absent: (Q, K) whether the place is such a repetition.
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
        """The contrast of a row that was packed from `sequences`; None where it has none.

        The options of one question are in one row: `tree.pack` keeps what follows one stem together.
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
        """The cross entropy of what is wanted of the options, in nats, summed over the questions.

        Args:
            log_probs: (T,) of the row's targets.
        """

        def put(array: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(array).to(log_probs.device, non_blocking=True)

        sums = log_probs.new_zeros(len(self.owners)).index_add(0, put(self.owners), log_probs)
        scores = sums[put(self.options)]
        if self.negations is not None:
            scores = scores - sums[put(self.negations)]
        scores = scores / (put(self.lengths) * temperature)
        all_of_them = scores.masked_fill(put(self.absent), -torch.inf).logsumexp(1)
        return (all_of_them - (put(self.wanted) * scores).sum(1)).sum()

    def supervised_log_probs(self, log_probs: torch.Tensor) -> torch.Tensor:
        """The log-probabilities of the targets that belong to no option."""
        return log_probs[torch.from_numpy(self.supervised).to(log_probs.device, non_blocking=True)]


def _target(one: Option) -> float:
    return float(one.right) if one.target is None else one.target


def _group_by_question(options: Iterable[PlacedOption]) -> list[list[PlacedOption]]:
    """The options of each question, by number."""
    found: dict[tuple[int, int], list[PlacedOption]] = {}
    for place, one in options:
        found.setdefault(one.question_key, []).append((place, one))
    return [sorted(placed, key=lambda option: option[1].number) for placed in found.values()]


def _pad(questions: list[list[PlacedOption]], most: int, value: Callable[[int, Option], float]) -> NDArray[Any]:
    """(questions, most) a value an option; where a question has fewer options, that of its first."""
    return np.array([[value(*one) for one in some + some[:1] * (most - len(some))] for some in questions])
