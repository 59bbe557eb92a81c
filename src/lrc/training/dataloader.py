"""Which questions make up an optimizer step, and how they are packed into rows.

A batch is one process's share of one optimizer step, counted in questions: `per_device_train_batch_size` times
`gradient_accumulation_steps`, however many rows they fill. All questions of a passage are drawn one after the other, so
that they share its tokens; if a passage straddles two steps, its tokens are computed in both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from datasets import Dataset
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from lrc.data.alpaca import Record
from lrc.data.questions import option_orders
from lrc.data.soft_labels import SoftLabels
from lrc.packing.tree import PackedRow, TokenSequence, pack
from lrc.runtime.errors import RecipeError
from lrc.runtime.translation import _
from lrc.tokenization.prompt import Prompt, reordered
from lrc.tokenization.token_dataset import Corpus, Portion
from lrc.training.contrastive_loss import Option, contrast_count, options_of

SampleKey = tuple[int, int]  # a question's index in the data, and the epoch


@dataclass(frozen=True)
class StepBatch:
    """One process's share of one optimizer step."""

    sequences: list[TokenSequence]
    rows: list[PackedRow]
    idle: bool = False  # there was no question left for this process; its one row has no weight in the loss
    questions: int = 0  # a question has a sequence for each order of its options

    @property
    def target_count(self) -> int:
        """The number of supervised tokens: those of completions that are not compared options."""
        supervised = [one for one in self.sequences if not isinstance(one, Option)]
        return 0 if self.idle else sum(len(one.tokens) - one.prompt_length for one in supervised)

    @property
    def supervised_count(self) -> int:
        """The number of supervised tokens; if there are none, that of the tokens of compared options."""
        return self.target_count or sum(len(one.tokens) - one.prompt_length for one in self.sequences)

    @property
    def contrast_count(self) -> int:
        """The number of questions whose options are compared."""
        return 0 if self.idle else contrast_count(self.sequences)

    def repacked(self, row_tokens: int, *, share: bool = True) -> StepBatch:
        """The same questions under another token budget."""
        return replace(self, rows=pack(self.sequences, row_tokens, share=share))


@dataclass(frozen=True)
class Sampling:
    """How the questions of a step are drawn.

    Args:
        group_passages: whether the questions of a passage are drawn one after the other.
        portions: how many questions an epoch has from each training file; empty is all of them.
    """

    group_passages: bool = True
    portions: tuple[Portion, ...] = ()


class StepSampler(Sampler[list[SampleKey]]):
    """A batch sampler that draws the questions of each optimizer step for one process.

    All processes shuffle alike, and each takes its part of every step.

    Args:
        passages: (questions,) the passage of each question, as a number.
        step_questions: questions for each process in a step.
        rank: this process.
        world_size: the number of processes.
        seed: for the order of passages, and of questions within a passage; None keeps the order of the data.
        drop_last: leave out a last step that is not full.
        portions: how many questions an epoch has from each training file, in the order of the data; empty is all of
            them. If an epoch has only a part of a file, the next one goes on with the rest.
    """

    def __init__(
        self,
        passages: Sequence[int] | np.ndarray,
        step_questions: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        seed: int | None = None,
        drop_last: bool = False,
        portions: Sequence[Portion] = (),
    ) -> None:
        self.passages = np.asarray(passages)
        self.step_questions, self.rank, self.world_size = step_questions, rank, world_size
        self.seed, self.drop_last, self.epoch = seed, drop_last, 0
        self.portions = tuple(portions) or (Portion(len(self.passages), len(self.passages)),)

    @classmethod
    def of(
        cls,
        args: Any,
        passages: Sequence[int],
        step_questions: int,
        rank: int,
        world_size: int,
        sampling: Sampling,
    ) -> StepSampler:
        """Build the sampler with the seed, the order and `dataloader_drop_last` of the training arguments.

        Raises:
            RecipeError: `dataloader_drop_last` leaves no step.
        """
        seed = args.seed if args.data_seed is None else args.data_seed
        made = cls(
            passages if sampling.group_passages else range(len(passages)),
            step_questions,
            rank=rank,
            world_size=world_size,
            seed=None if args.train_sampling_strategy == "sequential" else seed,
            drop_last=args.dataloader_drop_last,
            portions=sampling.portions,
        )
        if not len(made):
            text = _(
                "dataloader_drop_last: leaves no step, with {questions:,} questions in an epoch and {step:,} in a "
                "step; remove it, or lower per_device_train_batch_size or gradient_accumulation_steps"
            )
            drawn = sum(portion.drawn for portion in made.portions)
            raise RecipeError(text.format(questions=drawn, step=step_questions * world_size))
        return made

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the next iteration draws."""
        self.epoch = epoch

    def __len__(self) -> int:
        total, questions = self.step_questions * self.world_size, sum(portion.drawn for portion in self.portions)
        return questions // total if self.drop_last else -(-questions // total)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        order, total = self._order(), self.step_questions * self.world_size
        for step in range(len(self)):
            questions = order[step * total : (step + 1) * total]
            # A last step that is not full is split evenly; a process without a question gets an idle batch.
            share = np.array_split(questions, self.world_size)[self.rank]
            yield [(int(question), self.epoch) for question in share]

    def _order(self) -> np.ndarray:
        places = self._drawn()
        return places if self.seed is None else self._shuffle(places, self.epoch)

    def _drawn(self) -> np.ndarray:
        """The indices of the questions in this epoch."""
        parts, first = [], 0
        for number, (size, drawn) in enumerate(self.portions):
            own = np.arange(first, first + size)
            first += size
            # A file is passed through again and again, in a new order each time; each epoch takes the next `drawn`.
            start = self.epoch * drawn
            turns = range(start // size, -(-(start + drawn) // size)) if drawn < size else ()
            passes = [own if self.seed is None else self._shuffle(own, number, turn) for turn in turns]
            parts.append(np.concatenate(passes)[start % size :][:drawn] if passes else own)
        return np.concatenate(parts)

    def _shuffle(self, places: np.ndarray, *seed: int) -> np.ndarray:
        """Shuffle passages, and the questions within each passage."""
        random = np.random.default_rng([self.seed or 0, *seed])
        _, passage = np.unique(self.passages[places], return_inverse=True)
        drawn = random.permutation(passage.max(initial=-1) + 1)
        return places[np.lexsort((random.random(len(places)), drawn[passage]))]


class StepLoader(DataLoader):
    """A DataLoader of `StepBatch`es.

    Args:
        source: returns the sequences of one question in one epoch; see `SequenceSource`.
        sampler: draws the questions of each step.
        row_tokens: token budget of a row.
        share: whether a row may hold several sequences.
        num_workers: the number of worker processes.
    """

    def __init__(
        self,
        source: Callable[[SampleKey], list[TokenSequence]],
        sampler: StepSampler,
        row_tokens: int,
        *,
        share: bool = True,
        num_workers: int = 0,
    ) -> None:
        self.row_tokens, self.share, self.source, self.steps = row_tokens, share, source, sampler
        super().__init__(
            SampleDataset(source, len(sampler.passages)),
            batch_sampler=sampler,
            collate_fn=self.collate,
            num_workers=num_workers,
        )

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the next iteration draws."""
        self.steps.set_epoch(epoch)

    def collate(self, questions: list[list[TokenSequence]]) -> StepBatch:
        """Pack the questions of a step."""
        sequences = [sequence for orders in questions for sequence in orders]
        if not sequences:
            stand_in = self.source((0, 0))[:1]
            return StepBatch(stand_in, pack(stand_in, self.row_tokens), idle=True)
        rows = pack(sequences, self.row_tokens, share=self.share)
        return StepBatch(sequences, rows, questions=len(questions))


class SampleDataset(TorchDataset):
    """The questions as a map-style dataset, by `SampleKey`."""

    def __init__(self, source: Callable[[SampleKey], list[TokenSequence]], length: int) -> None:
        self.source, self.length = source, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: SampleKey) -> list[TokenSequence]:
        return self.source(key)


@dataclass(frozen=True)
class SequenceSource:
    """Returns the sequences of a question in an epoch: as tokenized, or in several random orders of its options.

    Args:
        dataset: columns `tokens` and `prompt_length`, one row for each question.
        records: the same questions as records.
        prompt: renders those that are not used as tokenized.
        option_orders: in how many orders of its options each question is trained in an epoch.
        seed: for these orders.
        contrasted: how the scores of compared options are normalised (see `contrastive_loss`); None compares none.
        supervised: whether to train on the answer, too; questions without options to compare always are.
        soft_labels: target probabilities of the options; None is 1 for the right one.
    """

    dataset: Dataset
    records: Sequence[Record]
    prompt: Prompt
    option_orders: int
    seed: int
    contrasted: str | None = None
    supervised: bool = True
    soft_labels: SoftLabels | None = None

    @classmethod
    def of(
        cls, corpus: Corpus, prompt: Prompt, data: Any, seed: int, soft_labels: SoftLabels | None = None
    ) -> SequenceSource:
        """Build the source that a recipe's `DataArguments` ask for."""
        how = data.contrasted, data.option_contrast < 1, soft_labels
        return cls(corpus.dataset, corpus.records, prompt, data.option_orders, seed, *how)

    def __call__(self, key: SampleKey) -> list[TokenSequence]:
        """The sequences of question `key[0]` in epoch `key[1]`: the supervised ones, then the compared options."""
        place, epoch = key
        judged = self.prompt.answer_style == "judge"
        if not (judged or self.contrasted or self.option_orders > 1):
            return [self._load(place)]
        record = self.records[place]
        orders = self._orders(record, np.random.default_rng([self.seed, epoch, place]))
        asked = [record if order is None else reordered(record, order) for order in orders]
        options: list[TokenSequence] = []
        for number, (one, order) in enumerate(zip(asked, orders, strict=True)):
            if self.contrasted:
                options += options_of(one, self.prompt, self.contrasted, (place, number), self._targets(record, order))
        if options and not self.supervised:
            return options
        if judged or orders != [None]:
            return [sequence for one in asked for sequence in self.prompt.supervised_sequences(one)] + options
        return [self._load(place), *options]

    def _orders(self, record: Record, random: np.random.Generator) -> list[tuple[int, ...] | None]:
        """The orders in which a question's options are trained; None is that of the record."""
        question = record.question
        if question is None or self.option_orders == 1:
            return [None]
        first = tuple(range(len(question.options)))
        if len(option_orders(question, 2)) > 1:  # rotations of a random order balance the places of options
            first = tuple(random.permutation(len(question.options)).tolist())
        return [tuple(first[k] for k in order) for order in option_orders(question, self.option_orders)]

    def _targets(self, record: Record, order: tuple[int, ...] | None) -> tuple[float, ...] | None:
        """The target probability of each option, in the given order."""
        if self.soft_labels is None or record.question is None:
            return None
        own = self.soft_labels.target(record)
        return own if order is None else tuple(own[k] for k in order)

    def _load(self, place: int) -> TokenSequence:
        row = self._tokens[place]
        return TokenSequence(row["tokens"].astype(np.int64), int(row["prompt_length"]))

    @cached_property
    def _tokens(self) -> Dataset:
        return self.dataset.select_columns(["tokens", "prompt_length"]).with_format("numpy")
