"""An Arrow table of records and their tokens, from which single rows can be read.

The table of a file is an entry of the token cache. It is written in bounded memory and by several processes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TextIO, overload

import numpy as np
import pyarrow as pa
from datasets import Dataset

from lrc.data.alpaca import Record, decode_record, encode_record
from lrc.data.sources import DataFile
from lrc.packing.tree import TokenSequence
from lrc.runtime.errors import DataError
from lrc.runtime.findings import Finding
from lrc.runtime.process_pool import in_order
from lrc.runtime.progress import track
from lrc.runtime.system import usable_cores
from lrc.runtime.translation import _
from lrc.tokenization.max_length import LengthReport, RecordFitter
from lrc.tokenization.prompt import Prompt

SCHEMA = pa.schema(
    [
        ("tokens", pa.list_(pa.int32())),  # the ids of prompt and completion
        ("prompt_length", pa.int32()),  # tokens
        ("passage", pa.int64()),  # the same number for equal passages
        ("id", pa.string()),
        ("record", pa.string()),  # see `alpaca.encode_record`
    ]
)


def make_table(rows: Iterable[tuple[Record, TokenSequence]]) -> pa.Table:
    """Make a table of `SCHEMA` with one row per record; its `passage` is a hash, for `Numbering` to replace."""
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for record, sequence in rows:
        columns["tokens"].append(sequence.tokens.astype(np.int32))
        columns["prompt_length"].append(sequence.prompt_length)
        columns["passage"].append(_hash(record.input if record.question is None else record.question.source_passage))
        columns["id"].append(record.id)
        columns["record"].append(encode_record(record))
    return pa.table(columns, schema=SCHEMA)


@dataclass(frozen=True)
class Numbering:
    """Numbers passages in the order of their first record, across several tables."""

    numbers: dict[int, int] = field(default_factory=dict)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Replace the hashes of a table by numbers."""
        hashes = table["passage"].to_pylist()
        numbers = [self.numbers.setdefault(value, len(self.numbers)) for value in hashes]
        passages = pa.array(numbers, SCHEMA.field("passage").type)  # an empty list has no type by itself
        return table.set_column(SCHEMA.get_field_index("passage"), SCHEMA.field("passage"), passages)


@dataclass(frozen=True)
class StoredRecords(Sequence[Record]):
    """The records of a table; each is decoded on access."""

    dataset: Dataset

    def __len__(self) -> int:
        return len(self.dataset)

    @overload
    def __getitem__(self, place: int) -> Record: ...
    @overload
    def __getitem__(self, place: slice) -> list[Record]: ...
    def __getitem__(self, place: int | slice) -> Record | list[Record]:
        found = self._texts[place]["record"]
        return decode_record(found) if isinstance(found, str) else [decode_record(text) for text in found]

    @cached_property
    def _texts(self) -> Dataset:
        return self.dataset.select_columns("record")  # takes milliseconds


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), signed=True)


TOKENS_FILE, REPORT_FILE = "tokens.arrow", "length_report.json"
RECORDS_FILE = "records.jsonl"  # a temporary file, deleted after tokenizing
BATCH = 256  # records that a worker gets at a time
ALONE = 4000  # records below which starting workers takes longer than they save
MAX_PROCESSES = 8  # one process reads the file, and cannot keep more workers busy


def write_tokens(folder: Path, file: DataFile, fitting: RecordFitter, stage: str, processes: int | None) -> None:
    """Tokenize a file of labelled records into a table, and write a report of what was shortened and skipped.

    Args:
        folder: where to write both.
        file: the records; it is read once.
        fitting: makes the records fit.
        stage: the name of the work in the progress line.
        processes: how many processes tokenize; by default one per usable core, up to MAX_PROCESSES, and one for fewer
            than ALONE records.

    Raises:
        DataError: see `token_dataset.read_corpus`.
    """
    spool = folder / RECORDS_FILE
    with (
        track(_("reading {file}").format(file=file.path.name), 1, "file") as advance,
        spool.open("w", encoding="utf-8") as kept_records,
    ):
        records = file.records()
        total = _check_records(records, fitting.prompt, file.path, kept_records)
        advance()
    report, number, kept = LengthReport(), Numbering(), 0
    with (
        track(stage, total) as advance,
        spool.open(encoding="utf-8") as lines,
        pa.OSFile(str(folder / TOKENS_FILE), "wb") as output,
        pa.ipc.new_stream(output, SCHEMA) as stream,
    ):
        for batch in in_order(partial(_fit_batch, fitting), _iter_batches(lines), processes or _count_processes(total)):
            report.extend(batch.report)
            kept += len(batch.table)
            if not report.refused:
                stream.write_table(number(batch.table))
            advance(batch.size)
    spool.unlink()
    report.check(kept, fitting.lengths.max_length)
    report.findings.extend(records.findings)
    held = asdict(report)
    del held["refused"]
    (folder / REPORT_FILE).write_text(json.dumps(held, ensure_ascii=False), encoding="utf-8")


def read_tokens(folder: Path) -> tuple[Dataset, LengthReport]:
    """Read what `write_tokens` wrote; the table is memory-mapped."""
    held = json.loads((folder / REPORT_FILE).read_text(encoding="utf-8"))
    report = LengthReport(**held | {"findings": [Finding(**one) for one in held.get("findings", ())]})
    return Dataset.from_file(str(folder / TOKENS_FILE)), report


class _FittedBatch(NamedTuple):
    """A tokenized batch."""

    table: pa.Table  # of the records that are kept
    report: LengthReport
    size: int  # the number of records before the length policy


def _fit_batch(fitting: RecordFitter, lines: list[str]) -> _FittedBatch:
    """Fit and tokenize a batch, in a worker process."""
    fitted, report = [fitting(decode_record(line)) for line in lines], LengthReport()
    report.add(fitted)
    return _FittedBatch(make_table((one.record, one.sequence) for one in fitted if one.kept), report, len(lines))


def _check_records(records: Iterable[Record], prompt: Prompt, path: Path, spool: TextIO) -> int:
    """Check all records before any is tokenized.

    Args:
        records: of the file.
        prompt: decides whether records without a question can be used.
        path: of the file, for errors.
        spool: each record is written here on one line, so that the file is not parsed again.

    Returns:
        The number of records.

    Raises:
        DataError: one is not a record, or cannot be trained on.
    """
    total, unanswered, foreign = 0, _RecordCounter(), _RecordCounter()
    for record in records:
        total += 1
        spool.write(f"{encode_record(record)}\n")
        if record.output is None:
            unanswered.note(record)
        if record.question is None:
            foreign.note(record)
    if unanswered.count:
        raise DataError(
            _("{path}: {count} records have no output, first {first}; give labelled questions").format(
                path=path, count=unanswered.count, first=unanswered.first
            )
        )
    if foreign.count and (prompt.answer_style != "digit" or prompt.template == "plain"):
        raise DataError(
            _(
                "{path}: {count} records cannot be read as passage, question and options, first {first}; "
                "use answer_style: digit with another template than plain"
            ).format(path=path, count=foreign.count, first=foreign.first)
        )
    return total


class _RecordCounter:
    """Counts records, and keeps the id of the first."""

    count, first = 0, ""

    def note(self, record: Record) -> None:
        self.first = self.first if self.count else record.id
        self.count += 1


def _iter_batches(lines: Iterable[str]) -> Iterator[list[str]]:
    remaining = iter(lines)
    while batch := list(islice(remaining, BATCH)):
        yield batch


def _count_processes(total: int) -> int:
    if total < ALONE:
        return 1
    return min(usable_cores(), MAX_PROCESSES)
