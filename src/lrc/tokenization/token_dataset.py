"""Records → the token sequences that a run trains on, with what was shortened or left out counted and named.

A file's tokens are made once, by several processes, and kept in the cache (`lrc.tokenization.token_cache`) as an Arrow
table that is memory-mapped: neither the records of a JSON file nor their tokens are ever in memory as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeVar, overload

import numpy as np
from datasets import Dataset, concatenate_datasets

from lrc.data.alpaca import Record
from lrc.data.sources import DataFile
from lrc.runtime.exit_status import is_first
from lrc.runtime.findings import print_findings
from lrc.runtime.progress import Advance, track
from lrc.tokenization.max_length import LengthPolicy, LengthReport, RecordFitter
from lrc.tokenization.prompt import Prompt
from lrc.tokenization.token_cache import cached, entry_name, tokenizer_digest
from lrc.tokenization.token_table import Numbering, StoredRecords, make_table, read_tokens, wrap_table, write_tokens

Item = TypeVar("Item")


class Portion(NamedTuple):
    """A file's part of the data: its questions are consecutive, in the order of the files."""

    size: int  # questions
    drawn: int  # of them in an epoch, at most all


@dataclass(frozen=True)
class JoinedRecords(Sequence[Record]):
    """The records of several corpora, one after the other; each is read when it is asked for."""

    parts: tuple[Sequence[Record], ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @overload
    def __getitem__(self, place: int) -> Record: ...
    @overload
    def __getitem__(self, place: slice) -> list[Record]: ...
    def __getitem__(self, place: int | slice) -> Record | list[Record]:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        for part in self.parts:
            if place < len(part):
                return part[place]
            place -= len(part)
        raise IndexError(place)


@dataclass(frozen=True)
class Corpus:
    """What is trained or evaluated."""

    records: Sequence[Record]  # as they fit, some with a shorter passage
    shortened: list[str]  # ids
    skipped: list[str]
    dataset: Dataset | None = None  # their tokens, see `token_table.SCHEMA`; None where there is no file
    sha256: str = ""  # of the file
    reused: bool = False  # whether an earlier run had tokenized it
    portions: tuple[Portion, ...] = ()  # of the files that it was joined of; none where it is of one

    @property
    def count(self) -> int:
        """How many records the file has."""
        return len(self.records) + len(self.skipped)


def read_corpus(
    path: Path,
    prompt: Prompt,
    lengths: LengthPolicy,
    *,
    stage: str,
    processes: int | None = None,
    first: bool = True,
) -> Corpus:
    """Read labelled records that can be trained on, tokenized now or, where nothing has changed, by an earlier run.

    Args:
        lengths: what is done with a record that is too long.
        stage: what to call the work in the progress line.
        processes: that tokenize; by default those that the machine has, and one for few records.
        first: whether this is the first process of its machine, which does the work while the others wait.

    Raises:
        DataError: the file cannot be read, a record has no answer, or the prompt needs parts that it does not have;
            a record does not fit, and may not or cannot be shortened; or none is left.
        OutputError: the cache cannot be written.
    """
    file = DataFile(path)
    file.refuse_incomplete()
    name = entry_name(
        {
            "data": [path.suffix.lower(), file.sha256],
            "prompt": [prompt.template, prompt.answer_style, prompt.list_options, prompt.today],
            "tokenizer": tokenizer_digest(prompt.tokenizer),
            "lengths": [lengths.max_length, lengths.on_too_long],
        }
    )
    made: list[Path] = []

    def make(folder: Path) -> None:
        made.append(folder)
        write_tokens(folder, file, RecordFitter(prompt, lengths), stage, processes)
        file.refuse_changed()

    entry = cached(name, make, first=first)
    dataset, report = read_tokens(entry)
    if is_first():
        print_findings(
            replace(one, file=path.name) for one in report.findings
        )  # another name may have the same content
    return Corpus(StoredRecords(dataset), report.shortened, report.skipped, dataset, file.sha256, reused=not made)


def join(corpora: Sequence[Corpus], shares: Sequence[float] | None) -> Corpus:
    """Put the corpora of several files together, each with its part of an epoch.

    Args:
        shares: the part of each, whose sum is 1; None has an epoch draw all of all.
    """
    if len(corpora) == 1:
        return corpora[0]
    sizes = [len(corpus.records) for corpus in corpora]
    # As many as can be drawn of each without drawing a question twice.
    longest = min(size / share for size, share in zip(sizes, shares, strict=True)) if shares else 0
    drawn = [
        min(max(round(longest * share), 1), size) for size, share in zip(sizes, shares or [0] * len(sizes), strict=True)
    ]
    datasets, first = [], 0
    for corpus in corpora:
        assert corpus.dataset is not None  # read from a file
        passages = np.array(corpus.dataset["passage"][:], dtype=np.int64) + first
        first = int(passages.max(initial=first - 1)) + 1
        datasets.append(corpus.dataset.remove_columns("passage").add_column("passage", passages))
    return Corpus(
        JoinedRecords(tuple(corpus.records for corpus in corpora)),
        [name for corpus in corpora for name in corpus.shortened],
        [name for corpus in corpora for name in corpus.skipped],
        concatenate_datasets(datasets),
        portions=tuple(map(Portion, sizes, drawn if shares else sizes)),
    )


def fit_records(records: Sequence[Record], prompt: Prompt, lengths: LengthPolicy, *, stage: str) -> Corpus:
    """The same for a few records that are in memory already; see `read_corpus`."""
    with track(stage, len(records)) as advance:
        fitted = list(_count(map(RecordFitter(prompt, lengths), records), advance))
    account = LengthReport()
    account.add(fitted)
    kept = [one.record for one in fitted if one.kept]
    account.check(len(kept), lengths.max_length)
    return Corpus(kept, account.shortened, account.skipped)


def tokenize(records: Sequence[Record], prompt: Prompt, *, stage: str) -> Dataset:
    """Tokenize a few records that are in memory already: a row a record, see `token_table.SCHEMA`."""
    with track(stage, len(records)) as advance:
        rows = [(record, prompt.sequence(record)) for record in _count(records, advance)]
    return wrap_table(Numbering()(make_table(rows)))


def _count(items: Iterable[Item], advance: Advance) -> Iterator[Item]:
    for item in items:
        yield item
        advance()
