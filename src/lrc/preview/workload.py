"""The workload of a run: its tokens, rows and steps, counted by drawing and packing questions as training does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import numpy as np

from lrc.config.recipe import Recipe
from lrc.packing.tree import PackedRow, TokenSequence, pack
from lrc.runtime.progress import track
from lrc.runtime.translation import _
from lrc.tokenization.token_dataset import Corpus
from lrc.training.dataloader import Sampling, SequenceSource, StepBatch, StepLoader, StepSampler

PERCENTILES = (0, 25, 50, 75, 90, 95, 99, 100)
PACKED = 50_000  # questions that are packed; the rest of a larger epoch is extrapolated


@dataclass(frozen=True)
class Workload:
    """The work of one process in one epoch, and the steps of the run."""

    questions: int  # in the training data
    step_questions: int  # questions in a step, of all processes together
    steps_per_epoch: int
    steps: int  # of the whole run
    rows_per_epoch: int  # of one process, as are all that follow
    separate_tokens: int  # without packing
    unique_tokens: int  # with packing
    supervised_tokens: int
    lengths: dict[int, int]  # percentile → tokens of a sequence
    longest_row: int  # tokens
    exact: bool  # whether the whole epoch was packed, and nothing extrapolated
    row_of: Callable[[int], PackedRow]  # returns the largest row for a token budget

    @property
    def sharing(self) -> float:
        """How many times as many tokens would be computed without packing."""
        return self.separate_tokens / max(self.unique_tokens, 1)


def measure_workload(
    corpus: Corpus, draw: SequenceSource, recipe: Recipe, *, world_size: int, row_tokens: int, share: bool
) -> Workload:
    """Draw and pack an epoch, or the first `PACKED` questions of it.

    Args:
        corpus: the training data.
        draw: returns the sequences of a question.
        recipe: the recipe.
        world_size: the number of processes.
        row_tokens: token budget of a row.
        share: whether a row may hold several sequences.

    Raises:
        RecipeError: see `StepSampler.of`.
    """
    args = recipe.training
    step_questions = args.per_device_train_batch_size * args.gradient_accumulation_steps
    passages = range(len(corpus.records)) if corpus.dataset is None else corpus.dataset["passage"][:]
    sampling = Sampling(recipe.data.group_passages, corpus.portions)
    sampler = StepSampler.of(args, passages, step_questions, 0, world_size, sampling)
    loader = StepLoader(draw, sampler, row_tokens, share=share)
    count = min(len(sampler), max(PACKED // step_questions, 1))
    rows = separate = unique = supervised = 0
    lengths: list[int] = []
    largest: StepBatch | None = None
    with track(_("packing"), count, "steps") as advance:
        for batch in islice(loader, count):
            sizes = [len(row) for row in batch.rows]
            rows, unique, supervised = rows + len(sizes), unique + sum(sizes), supervised + batch.supervised_count
            separate += sum(len(sequence.inputs) for sequence in batch.sequences)
            lengths += [len(sequence.tokens) for sequence in batch.sequences]
            if largest is None or max(sizes) > max(map(len, largest.rows)):
                largest = batch
            advance()
    assert largest is not None  # `StepSampler.of` refuses an epoch without a step
    heaviest, scale = largest, len(sampler) / count
    steps = args.max_steps if args.max_steps > 0 else int(np.ceil(args.num_train_epochs * len(sampler)))
    return Workload(
        questions=len(corpus.records),
        step_questions=step_questions * world_size,
        steps_per_epoch=len(sampler),
        steps=steps,
        rows_per_epoch=round(rows * scale),
        separate_tokens=round(separate * scale),
        unique_tokens=round(unique * scale),
        supervised_tokens=round(supervised * scale),
        lengths={p: int(np.percentile(lengths, p, method="nearest")) for p in PERCENTILES},
        longest_row=max(map(len, heaviest.rows)),
        exact=count == len(sampler),
        row_of=lambda budget: max(heaviest.repacked(budget, share=share).rows, key=len),
    )


def supposed_row(tokens: int) -> PackedRow:
    """A made-up row of about `tokens` tokens, used without data: eight branches after a common prefix."""
    prefix = np.arange(min(48, max(tokens // 8, 1)))
    size = max((tokens - len(prefix)) // 8, 3)
    branches = [1000 * (k + 1) + np.arange(size) for k in range(8)]
    sequences = [TokenSequence(np.concatenate([prefix, branch]), len(prefix) + size - 2) for branch in branches]
    return max(pack(sequences, len(prefix) + 8 * size), key=len)
