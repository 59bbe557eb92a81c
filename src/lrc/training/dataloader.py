"""Which questions make an optimizer step, and their rows.

A batch is one process's share of one optimizer step, counted in questions: `per_device_train_batch_size` times
`gradient_accumulation_steps` of them, whatever rows they fill. Passages are drawn whole, so that the questions of one
passage meet in one step; where a passage straddles two steps its tokens are computed in both.
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
from lrc.tokenization.prompt import Prompt, reordered
from lrc.tokenization.token_dataset import Corpus, Portion
from lrc.training.contrastive_loss import Option, contrast_count, options_of

SampleKey = tuple[int, int]  # a question's place in the data, and the epoch that draws it


@dataclass(frozen=True)
class StepBatch:
    """One process's share of one optimizer step."""

    sequences: list[TokenSequence]
    rows: list[PackedRow]
    idle: bool = False  # the process has no question of this step; its one row counts for nothing
    questions: int = 0  # how many there are; a question has a sequence for each order of its options

    @property
    def target_count(self) -> int:
        """How many tokens there are to imitate."""
        supervised = [one for one in self.sequences if not isinstance(one, Option)]
        return 0 if self.idle else sum(len(one.tokens) - one.prompt_length for one in supervised)

    @property
    def supervised_count(self) -> int:
        """How many tokens are learnt from: those to imitate, or where there are none those that are compared."""
        return self.target_count or sum(len(one.tokens) - one.prompt_length for one in self.sequences)

    @property
    def contrast_count(self) -> int:
        """How many questions there are whose options are compared."""
        return 0 if self.idle else contrast_count(self.sequences)

    def repacked(self, row_tokens: int, *, share: bool = True) -> StepBatch:
        """The same questions under another token budget."""
        return replace(self, rows=pack(self.sequences, row_tokens, share=share))


@dataclass(frozen=True)
class Sampling:
    """From what the questions of a step are drawn.

    Args:
        group_passages: false draws question by question, so that those of a passage rarely meet in a step.
        portions: of the files that the questions are of; without them an epoch has every question.
    """

    group_passages: bool = True
    portions: tuple[Portion, ...] = ()


class StepSampler(Sampler[list[SampleKey]]):
    """Draw the questions of every optimizer step for one process; all processes draw the same epoch.

    Args:
        passages: (questions,) a number a passage, the same for the questions of one passage.
        step_questions: questions a process and step.
        rank: this process.
        world_size: the number of processes.
        seed: of the order of passages and of questions within a passage; None keeps the order of the data.
        drop_last: leave out a last step that is not full.
        portions: of the files that the questions are of; without them an epoch has every question. Where one has only a
            part of its file, the next epoch goes on with the rest.
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
        """The sampler that training arguments ask for: their seed, order and last step."""
        seed = args.seed if args.data_seed is None else args.data_seed
        return cls(
            passages if sampling.group_passages else range(len(passages)),
            step_questions,
            rank=rank,
            world_size=world_size,
            seed=None if args.train_sampling_strategy == "sequential" else seed,
            drop_last=args.dataloader_drop_last,
            portions=sampling.portions,
        )

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration that of `epoch`."""
        self.epoch = epoch

    def __len__(self) -> int:
        total, questions = self.step_questions * self.world_size, sum(portion.drawn for portion in self.portions)
        return questions // total if self.drop_last else -(-questions // total)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        order, total = self._order(), self.step_questions * self.world_size
        for step in range(len(self)):
            questions = order[step * total : (step + 1) * total]
            # A last step that is not full is dealt out evenly; a process left without a question takes part idly.
            share = np.array_split(questions, self.world_size)[self.rank]
            yield [(int(question), self.epoch) for question in share]

    def _order(self) -> np.ndarray:
        places = self._drawn()
        return places if self.seed is None else self._shuffle(places, self.epoch)

    def _drawn(self) -> np.ndarray:
        """The places of the questions that the epoch has."""
        parts, first = [], 0
        for number, (size, drawn) in enumerate(self.portions):
            own = np.arange(first, first + size)
            first += size
            # A file is gone through again and again, each time in another order; an epoch takes the next of it.
            start = self.epoch * drawn
            turns = range(start // size, -(-(start + drawn) // size)) if drawn < size else ()
            passes = [own if self.seed is None else self._shuffle(own, number, turn) for turn in turns]
            parts.append(np.concatenate(passes)[start % size :][:drawn] if passes else own)
        return np.concatenate(parts)

    def _shuffle(self, places: np.ndarray, *seed: int) -> np.ndarray:
        """The places with passages in a random order, and the questions of each in one."""
        random = np.random.default_rng([self.seed or 0, *seed])
        _, passage = np.unique(self.passages[places], return_inverse=True)
        drawn = random.permutation(passage.max(initial=-1) + 1)
        return places[np.lexsort((random.random(len(places)), drawn[passage]))]


class StepLoader(DataLoader):
    """Loads `StepBatch`es.

    Args:
        source: gives the sequences of one question in one epoch: for each option order that is trained what is
            supervised, and then the options that are compared.
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
        """Make the next iteration that of `epoch`."""
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
    """The sequences of a question in an epoch: as tokenized, or in several orders of its options, drawn anew.

    Args:
        option_orders: how many orders of each question are trained.
        contrasted: by what the scores of options are normalised that are compared (see `contrastive_loss`); None
            compares none.
        supervised: whether the right answer is learnt to be written, too; a question without options to compare is
            drawn as if it were.
        soft_labels: soft targets of the comparison; None is the right option alone.
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
        """The drawing that a recipe's `DataArguments` ask for."""
        how = data.contrasted, data.option_contrast < 1, soft_labels
        return cls(corpus.dataset, corpus.records, prompt, data.option_orders, seed, *how)

    def __call__(self, key: SampleKey) -> list[TokenSequence]:
        """The sequences of question `key[0]` in epoch `key[1]`; what is supervised comes before what is compared."""
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
        """The orders of a question's options that are trained; None is its own."""
        question = record.question
        if question is None or self.option_orders == 1:
            return [None]
        first = tuple(range(len(question.options)))
        if len(option_orders(question, 2)) > 1:  # rotations of a random order balance the places
            first = tuple(random.permutation(len(question.options)).tolist())
        return [tuple(first[k] for k in order) for order in option_orders(question, self.option_orders)]

    def _targets(self, record: Record, order: tuple[int, ...] | None) -> tuple[float, ...] | None:
        """What the comparison learns of each option, in the order that is trained."""
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
