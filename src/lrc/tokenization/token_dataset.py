"""Files of records → the token sequences that a run trains on, and a report of what was shortened or skipped.

A file is tokenized once, by several processes, into an Arrow table in the cache (`token_cache`). The table is
memory-mapped: neither the records of a JSON file nor their tokens are ever in memory as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from datasets import Dataset, concatenate_datasets
from datasets.table import InMemoryTable

from lrc.data.alpaca import Record
from lrc.data.sources import DataFile
from lrc.runtime.exit_status import is_first
from lrc.runtime.findings import print_findings
from lrc.runtime.progress import Advance, track
from lrc.tokenization.max_length import LengthPolicy, LengthReport, RecordFitter
from lrc.tokenization.prompt import Prompt
from lrc.tokenization.token_cache import entry_name, fetch, tokenizer_digest
from lrc.tokenization.token_table import Numbering, StoredRecords, make_table, read_tokens, write_tokens

Item = TypeVar("Item")


class Portion(NamedTuple):
    """The questions of one of several files; they are consecutive, in the order of the files."""

    size: int  # the number of questions
    drawn: int  # how many of them an epoch has, at most `size`


@dataclass(frozen=True)
class Corpus:
    """The data to train or to evaluate on."""

    records: Sequence[Record]  # that fit, some with a shortened passage
    shortened: list[str]  # the ids of these
    skipped: list[str]  # the ids of the records that were too long
    dataset: Dataset | None = None  # the tokens, see `token_table.SCHEMA`; None for records that are in memory
    sha256: str = ""  # of the file; empty for several files and for records in memory
    reused: bool = False  # whether an earlier run had tokenized the file
    portions: tuple[Portion, ...] = ()  # for several files, the part of each; otherwise empty

    @property
    def count(self) -> int:
        """The number of records before the length policy."""
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
    """Read and tokenize a file of labelled records, or take the tokens of an earlier run from the cache.

    Args:
        path: a file of any kind that `sources.DataFile` reads.
        prompt: how records are tokenized.
        lengths: what to do with a record that is too long.
        stage: the name of the work in the progress line.
        processes: how many processes tokenize; see `token_table.write_tokens`.
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

    entry = fetch(name, make, first=first)
    dataset, report = read_tokens(entry)
    if is_first():
        # The entry may have been made from a file of another name with the same content.
        print_findings(replace(one, file=path.name) for one in report.findings)
    return Corpus(StoredRecords(dataset), report.shortened, report.skipped, dataset, file.sha256, reused=not made)


def join(corpora: Sequence[Corpus], shares: Sequence[float] | None) -> Corpus:
    """Concatenate the corpora of several files.

    Args:
        corpora: each read from a file.
        shares: the share of each file in an epoch; their sum is 1. An epoch is as long as it can be without repeating a
            question. None takes all questions of all files.
    """
    if len(corpora) == 1:
        return corpora[0]
    sizes = [len(corpus.records) for corpus in corpora]
    # The longest epoch in which no question is drawn twice.
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
    joined = concatenate_datasets(datasets)
    return Corpus(
        StoredRecords(joined),
        [name for corpus in corpora for name in corpus.shortened],
        [name for corpus in corpora for name in corpus.skipped],
        joined,
        portions=tuple(map(Portion, sizes, drawn if shares else sizes)),
    )


def fit_records(records: Sequence[Record], prompt: Prompt, lengths: LengthPolicy, *, stage: str) -> Corpus:
    """Apply a length policy to a few records that are in memory; the corpus has no tokens. See `read_corpus`."""
    with track(stage, len(records)) as advance:
        fitted = list(_advance_over(map(RecordFitter(prompt, lengths), records), advance))
    report = LengthReport()
    report.add(fitted)
    kept = [one.record for one in fitted if one.kept]
    report.check(len(kept), lengths.max_length)
    return Corpus(kept, report.shortened, report.skipped)


def tokenize(records: Sequence[Record], prompt: Prompt, *, stage: str) -> Dataset:
    """Tokenize a few records that are in memory: one row per record, see `token_table.SCHEMA`."""
    with track(stage, len(records)) as advance:
        rows = [(record, prompt.sequence(record)) for record in _advance_over(records, advance)]
    return Dataset(InMemoryTable(Numbering()(make_table(rows))))


def _advance_over(items: Iterable[Item], advance: Advance) -> Iterator[Item]:
    for item in items:
        yield item
        advance()
