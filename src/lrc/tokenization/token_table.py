"""Records as an Arrow table: their tokens, and the records themselves, fetched one by one.

The table of a file is an entry of the token cache, written in bounded memory and by several processes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TextIO, overload

import numpy as np
import pyarrow as pa
from datasets import Dataset
from datasets.table import InMemoryTable

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
        ("tokens", pa.list_(pa.int32())),  # of prompt and completion
        ("prompt_length", pa.int32()),
        ("passage", pa.int64()),  # a number, the same for equal passages
        ("id", pa.string()),
        ("record", pa.string()),  # see `alpaca.encode_record`
    ]
)


def make_table(rows: Iterable[tuple[Record, TokenSequence]]) -> pa.Table:
    """A table of `SCHEMA`, a row a record; `passage` is a hash, which `Numbering` makes a number of."""
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for record, sequence in rows:
        columns["tokens"].append(sequence.tokens.astype(np.int32))
        columns["prompt_length"].append(sequence.prompt_length)
        columns["passage"].append(_hash(record.input if record.question is None else record.question.passage))
        columns["id"].append(record.id)
        columns["record"].append(encode_record(record))
    return pa.table(columns, schema=SCHEMA)


@dataclass(frozen=True)
class Numbering:
    """Numbers passages in the order in which they come, over many tables."""

    numbers: dict[int, int] = field(default_factory=dict)

    def __call__(self, table: pa.Table) -> pa.Table:
        """The table with numbers in the place of hashes."""
        hashes = table["passage"].to_pylist()
        numbers = [self.numbers.setdefault(value, len(self.numbers)) for value in hashes]
        passages = pa.array(numbers, SCHEMA.field("passage").type)  # which has a type also where it is empty
        return table.set_column(SCHEMA.get_field_index("passage"), SCHEMA.field("passage"), passages)


def open_table(path: Path) -> Dataset:
    """Memory-map a table that was written as an Arrow stream."""
    return Dataset.from_file(str(path))


def wrap_table(table: pa.Table) -> Dataset:
    """The same in memory, for tables of a few records."""
    return Dataset(InMemoryTable(table))


@dataclass(frozen=True)
class StoredRecords(Sequence[Record]):
    """The records of a table, each read when it is asked for."""

    dataset: Dataset

    def __len__(self) -> int:
        return len(self.dataset)

    @overload
    def __getitem__(self, place: int) -> Record: ...
    @overload
    def __getitem__(self, place: slice) -> list[Record]: ...
    def __getitem__(self, place: int | slice) -> Record | list[Record]:
        found = self.dataset.select_columns("record")[place]["record"]
        return decode_record(found) if isinstance(found, str) else [decode_record(text) for text in found]


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), signed=True)


TOKENS_FILE, REPORT_FILE = "tokens.arrow", "length_report.json"
RECORDS_FILE = "records.jsonl"  # while the tokens are made
BATCH = 256  # records that a worker gets at a time
# Below so many records, starting workers takes longer than they save.
ALONE = 4000
MAX_PROCESSES = 8  # one process reads the file, and can feed no more


def write_tokens(folder: Path, file: DataFile, fitting: RecordFitter, stage: str, processes: int | None) -> None:
    """Tokenize a file of labelled records, which is read once.

    Args:
        folder: where the table and the report of what was shortened and skipped go.
        stage: what to call the work in the progress line.
        processes: that tokenize; None takes those of the machine, and one for few records.

    Raises:
        DataError: see `token_dataset.read_corpus`.
    """
    spool = folder / RECORDS_FILE
    with track(f"reading {file.path.name}", 1, "file") as advance, spool.open("w", encoding="utf-8") as kept_records:
        records = file.records()
        total = _survey(records, fitting.prompt, file.path, kept_records)
        advance()
    report, number, kept = LengthReport(), Numbering(), 0
    with (
        track(stage, total) as advance,
        spool.open(encoding="utf-8") as lines,
        pa.OSFile(str(folder / TOKENS_FILE), "wb") as output,
        pa.ipc.new_stream(output, SCHEMA) as stream,
    ):
        for batch in in_order(partial(_fit, fitting), _batches(lines), processes or _processes(total)):
            report.extend(batch.report)
            kept += len(batch.table)
            if not report.refused:
                stream.write_table(number(batch.table))
            advance(batch.asked)
    spool.unlink()
    report.check(kept, fitting.lengths.max_length)
    report.findings.extend(records.findings)
    held = asdict(report)
    del held["refused"]
    (folder / REPORT_FILE).write_text(json.dumps(held, ensure_ascii=False), encoding="utf-8")


def read_tokens(folder: Path) -> tuple[Dataset, LengthReport]:
    """The table, memory-mapped, and the report that `write_tokens` wrote."""
    held = json.loads((folder / REPORT_FILE).read_text(encoding="utf-8"))
    report = LengthReport(**held | {"findings": [Finding(**one) for one in held.get("findings", ())]})
    return open_table(folder / TOKENS_FILE), report


class _Done(NamedTuple):
    """What became of a batch of records."""

    table: pa.Table
    report: LengthReport
    asked: int  # how many records were in it


def _fit(fitting: RecordFitter, lines: list[str]) -> _Done:
    """A worker's part."""
    fitted, report = [fitting(decode_record(line)) for line in lines], LengthReport()
    report.add(fitted)
    return _Done(make_table((one.record, one.sequence) for one in fitted if one.kept), report, len(lines))


def _survey(records: Iterable[Record], prompt: Prompt, path: Path, spool: TextIO) -> int:
    """Look at all records before one is tokenized: nothing is, of a file with mistakes.

    Args:
        spool: takes each record, a line each, so that the file is not parsed again.

    Returns:
        How many records there are.

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
    """How many records were counted, and the id of the first."""

    count, first = 0, ""

    def note(self, record: Record) -> None:
        self.first = self.first if self.count else record.id
        self.count += 1


def _batches(lines: Iterable[str]) -> Iterator[list[str]]:
    remaining = iter(lines)
    while batch := list(islice(remaining, BATCH)):
        yield batch


def _processes(total: int) -> int:
    if total < ALONE:
        return 1
    return min(usable_cores(), MAX_PROCESSES)
