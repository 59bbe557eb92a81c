"""A file of questions → the files of an entry in the token cache, in bounded memory and by several processes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from datasets import Dataset

from lrc.data.alpaca import Record
from lrc.data.sources import stream_records
from lrc.runtime.errors import DataError
from lrc.runtime.findings import Finding
from lrc.runtime.process_pool import in_order
from lrc.runtime.progress import track
from lrc.tokenization.max_length import Fitting, LengthReport
from lrc.tokenization.prompt import Prompt
from lrc.tokenization.token_table import SCHEMA, Numbering, make_table, open_table

TOKENS_FILE, ACCOUNT_FILE = "tokens.arrow", "account.json"
BATCH = 256  # records that a worker gets at a time
# Below so many records, starting workers takes longer than they save.
ALONE = 4000
MAX_PROCESSES = 8  # one process reads the file, and can feed no more


def write_tokens(folder: Path, path: Path, fitting: Fitting, stage: str, processes: int | None) -> None:
    """Tokenize a file of labelled records.

    Args:
        folder: where the table and the account of what was shortened and skipped go.
        stage: what to call the work in the progress line.
        processes: that tokenize; None takes those of the machine, and one for few records.

    Raises:
        DataError: see `corpus.read_corpus`.
    """
    with track(f"reading {path.name}", 1, "file") as advance:
        records = stream_records(path)
        total = _survey(records, fitting.prompt, path)
        advance()
    account, number, kept = LengthReport(), Numbering(), 0
    done = in_order(partial(_fit, fitting), _batches(records), processes or _processes(total))
    with (
        track(stage, total) as advance,
        pa.OSFile(str(folder / TOKENS_FILE), "wb") as file,
        pa.ipc.new_stream(file, SCHEMA) as stream,
    ):
        for batch in done:
            account.extend(batch.account)
            kept += len(batch.table)
            if not account.refused:
                stream.write_table(number(batch.table))
            advance(batch.asked)
    account.check(kept, fitting.max_length)
    account.findings.extend(records.findings)
    held = asdict(account)
    del held["refused"]
    (folder / ACCOUNT_FILE).write_text(json.dumps(held, ensure_ascii=False), encoding="utf-8")


def read_tokens(folder: Path) -> tuple[Dataset, LengthReport]:
    """The table, memory-mapped, and the account that `write_tokens` wrote."""
    held = json.loads((folder / ACCOUNT_FILE).read_text(encoding="utf-8"))
    account = LengthReport(**held | {"findings": [Finding(**one) for one in held.get("findings", ())]})
    return open_table(folder / TOKENS_FILE), account


class _Done(NamedTuple):
    """What became of a batch of records."""

    table: pa.Table
    account: LengthReport
    asked: int  # how many records were in it


def _fit(fitting: Fitting, records: list[Record]) -> _Done:
    """A worker's part."""
    fitted, account = [fitting(record) for record in records], LengthReport()
    account.add(fitted)
    return _Done(make_table((one.record, one.sequence) for one in fitted if one.kept), account, len(records))


def _survey(records: Iterable[Record], prompt: Prompt, path: Path) -> int:
    """How many records there are, once all of them were looked at: nothing is tokenized of a file with mistakes.

    Raises:
        DataError: one is not a record, or cannot be trained on.
    """
    total, unanswered, foreign = 0, _Faulty(), _Faulty()
    for record in records:
        total += 1
        if record.output is None:
            unanswered.note(record)
        if record.question is None:
            foreign.note(record)
    if unanswered.count:
        raise DataError(
            f"{path}: {unanswered.count} records have no output, first {unanswered.first}; give labelled questions"
        )
    if foreign.count and (prompt.answer_style != "digit" or prompt.template == "plain"):
        raise DataError(
            f"{path}: {foreign.count} records cannot be read as passage, question and options, "
            f"first {foreign.first}; use answer_style: digit with another template than plain"
        )
    return total


class _Faulty:
    """How many records have a fault, and the id of the first."""

    count, first = 0, ""

    def note(self, record: Record) -> None:
        self.first = self.first if self.count else record.id
        self.count += 1


def _batches(records: Iterable[Record]) -> Iterator[list[Record]]:
    remaining = iter(records)
    while batch := list(islice(remaining, BATCH)):
        yield batch


def _processes(total: int) -> int:
    if total < ALONE:
        return 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, MAX_PROCESSES)
