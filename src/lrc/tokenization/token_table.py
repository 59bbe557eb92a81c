"""Records as an Arrow table: their tokens, and the records themselves, fetched one by one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
from datasets import Dataset
from datasets.table import InMemoryTable

from lrc.data.alpaca import Record, decode_record, encode_record
from lrc.packing.tree import TokenSequence

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


def hold_table(table: pa.Table) -> Dataset:
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
