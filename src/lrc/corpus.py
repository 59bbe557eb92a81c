"""Records → the token sequences that a run trains on, with what was shortened or left out counted and named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from lrc.alpaca import Record, with_question
from lrc.datafile import read_records
from lrc.errors import DataError
from lrc.progress import track
from lrc.prompt import Prompt, reordered
from lrc.questions import option_orders
from lrc.shorten import shorten
from lrc.tree import TokenSequence


@dataclass(frozen=True)
class Corpus:
    """What is trained or evaluated."""

    records: list[Record]  # as they fit, some with a shorter passage
    shortened: list[str]  # ids
    skipped: list[str]

    @property
    def count(self) -> int:
        """How many records the file has."""
        return len(self.records) + len(self.skipped)


def read_corpus(path: Path, prompt: Prompt, max_length: int | None, on_too_long: str, *, stage: str) -> Corpus:
    """Read labelled records that can be trained on; for the arguments see `fit`.

    Raises:
        DataError: the file cannot be read, a record has no answer, or the prompt needs parts that it does not have.
    """
    records = read_records(path)
    unanswered = [record.id for record in records if record.output is None]
    if unanswered:
        raise DataError(
            f"{path}: {len(unanswered)} records have no output, first {unanswered[0]}; give labelled questions"
        )
    foreign = [record.id for record in records if record.question is None]
    if foreign and (prompt.answer_style == "text" or prompt.template == "plain"):
        raise DataError(
            f"{path}: {len(foreign)} records cannot be read as passage, question and options, first {foreign[0]}; "
            "use answer_style: digit with another template than plain"
        )
    return fit(records, prompt, max_length, on_too_long, stage=stage)


def fit(records: Sequence[Record], prompt: Prompt, max_length: int | None, on_too_long: str, *, stage: str) -> Corpus:
    """Make every record fit `max_length` tokens.

    Args:
        max_length: tokens of prompt and completion; None sets no limit.
        on_too_long: `shorten` the passage, `refuse`, or `skip` the question.
        stage: what to call the work in the progress line.

    Raises:
        DataError: a record does not fit, and may not or cannot be shortened; or none is left.
    """
    kept: list[Record] = []
    shortened: list[str] = []
    skipped: list[str] = []
    refused: list[str] = []
    with track(stage, len(records)) as advance:
        for record in records:
            fitted = record if max_length is None or _length(record, prompt) <= max_length else None
            if fitted is None and on_too_long == "shorten":
                fitted = _shortened(record, prompt, max_length or 0)
                (refused if fitted is None else shortened).append(record.id)
            elif fitted is None:
                (skipped if on_too_long == "skip" else refused).append(record.id)
            if fitted is not None:
                kept.append(fitted)
            advance()
    if refused:
        raise DataError(
            *(f"record {i}: longer than max_length {max_length}; raise it, or set on_too_long: skip" for i in refused)
        )
    if not kept:
        raise DataError(f"no record fits max_length {max_length}; raise it")
    return Corpus(kept, shortened, skipped)


def tokenize(records: Sequence[Record], prompt: Prompt, *, stage: str) -> Dataset:
    """Tokenize records for training.

    Returns:
        A row a record: `tokens`, `prompt_length`, `passage` (a number, the same for equal passages) and `id`.
    """
    passages: dict[str, int] = {}
    columns: dict[str, list[Any]] = {"tokens": [], "prompt_length": [], "passage": [], "id": []}
    with track(stage, len(records)) as advance:
        for record in records:
            sequence = prompt.sequence(record)
            columns["tokens"].append(sequence.tokens.astype(np.int32))
            columns["prompt_length"].append(sequence.prompt_length)
            text = record.input if record.question is None else record.question.passage
            columns["passage"].append(passages.setdefault(text, len(passages)))
            columns["id"].append(record.id)
            advance()
    return Dataset.from_dict(columns)


@dataclass(frozen=True)
class Drawing:
    """The sequences of a question in an epoch: as tokenized, or in several orders of its options, drawn anew.

    Args:
        option_orders: how many orders of each question are trained.
    """

    dataset: Dataset
    records: Sequence[Record]
    prompt: Prompt
    option_orders: int
    seed: int

    def __call__(self, draw: tuple[int, int]) -> list[TokenSequence]:
        """The sequences of question `draw[0]` in epoch `draw[1]`."""
        place, epoch = draw
        record = self.records[place]
        if self.option_orders == 1 or record.question is None:
            row = self.dataset[place]
            return [TokenSequence(np.array(row["tokens"], dtype=np.int64), row["prompt_length"])]
        shuffled = _shuffled(record, np.random.default_rng([self.seed, epoch, place]))
        orders = option_orders(record.question, self.option_orders)
        return [self.prompt.sequence(reordered(shuffled, order)) for order in orders]


def _shuffled(record: Record, random: np.random.Generator) -> Record:
    """The record in a random order of its options, where it has more than one; rotations then balance the places."""
    question = record.question
    if question is None or len(option_orders(question, 2)) == 1:
        return record
    return reordered(record, tuple(random.permutation(len(question.options)).tolist()))


def _length(record: Record, prompt: Prompt) -> int:
    return max(len(sequence.tokens) for sequence in _asked(record, prompt))


def _asked(record: Record, prompt: Prompt) -> list[TokenSequence]:
    options = [] if record.question is None else prompt.candidates(record)
    return options if record.output is None else [prompt.sequence(record), *options]


def _shortened(record: Record, prompt: Prompt, max_length: int) -> Record | None:
    if record.question is None:
        return None
    fits = lambda question: _length(with_question(record, question), prompt) <= max_length  # noqa: E731
    question = shorten(record.question, fits)
    return None if question is None else with_question(record, question)
