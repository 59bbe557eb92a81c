"""Any file with questions → questions or records: workbook, CSV, JSON lines or JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lrc.alpaca import Record, RecordNotes, check_test_ids, load_records, to_record
from lrc.c3 import read_c3
from lrc.errors import DataError
from lrc.findings import Finding
from lrc.jsonarray import read_array
from lrc.manifest import refuse_incomplete
from lrc.workbook import Workbook, read_workbook


def read_questions(path: Path, sheet: str | None = None) -> Workbook:
    """Read what `lrc convert` converts: a workbook, a CSV, JSON lines, a JSON array of such objects, or C3 JSON.

    Raises:
        DataError: the file is no such thing at all; bad rows are findings.
    """
    match json_kind(path, sheet):
        case "alpaca":
            raise DataError(f"{path.name}: Alpaca JSON already; train on it, or convert the workbook that it came from")
        case "c3":
            return read_c3(list(read_array(path)), path)
    return read_workbook(path, sheet)


def read_noted(path: Path, sheet: str | None = None) -> tuple[list[Record], list[Finding]]:
    """The records of a file, all at once, and what was found in it; see `stream_records`."""
    if json_kind(path, sheet) == "alpaca":
        refuse_incomplete(path)
        file = _AlpacaFile(path)
        return list(file), findings_of(file)
    return _read_questions(path, sheet)


def read_records(path: Path, sheet: str | None = None) -> list[Record]:
    """Read what is trained on or answered, all at once; see `stream_records`."""
    return list(stream_records(path, sheet))


def stream_records(path: Path, sheet: str | None = None) -> Iterable[Record]:
    """Read what is trained on or answered: all that `read_questions` reads, and Alpaca JSON.

    Args:
        sheet: the sheet of a workbook; the first one by default.

    Returns:
        The records, any number of times. Alpaca JSON is read anew each time, and never held in memory.

    Raises:
        DataError: the file cannot be read, has bad rows, was left incomplete by a convert, or holds questions
            to answer of which two share an id. What is wrong with Alpaca JSON shows as it is read to its end.
    """
    if json_kind(path, sheet) == "alpaca":
        refuse_incomplete(path)
        return _AlpacaFile(path)
    return _read_questions(path, sheet)[0]


def _read_questions(path: Path, sheet: str | None) -> tuple[list[Record], list[Finding]]:
    source = read_questions(path, sheet)
    if source.errors:
        raise DataError(*map(str, source.errors))
    records = [to_record(question) for question in source.questions]
    if not source.labelled:
        check_test_ids((record.id for record in records), path.name)
    return records, list(source.findings)


def findings_of(records: Iterable[Record]) -> list[Finding]:
    """What was found in Alpaca JSON that `stream_records` gave, once it was read to its end."""
    return list(records.notes.findings(records.path.name)) if isinstance(records, _AlpacaFile) else []


def refuse_pipe(path: Path) -> None:
    """Refuse what can be read only once, and may never begin or end.

    Raises:
        DataError: the path is a pipe, a socket or a device.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise DataError(f"{path.name}: is a pipe or a device, and a file is read more than once; save it as a file")


def json_kind(path: Path, sheet: str | None = None) -> Literal["alpaca", "table", "c3"] | None:
    """What a JSON file holds, told by its first element: Alpaca records, a table's objects, or C3.

    Returns:
        None for a file that is not named .json.

    Raises:
        DataError: the file cannot be read, or only once, has nothing in it, or a sheet is asked of it.
    """
    refuse_pipe(path)
    if path.suffix.lower() != ".json":
        return None
    if sheet is not None:
        raise DataError(f"{path.name}: a JSON file has no sheet {sheet}; leave out --sheet")
    for first in read_array(path):
        if not isinstance(first, dict):
            return "c3"
        # lrc's own records have the keys of a table as well.
        return "alpaca" if first.keys() & {"instruction", "input", "output"} else "table"
    raise DataError(f"{path.name}: a JSON array without anything in it; expected records or questions")


@dataclass
class _AlpacaFile:
    """The records of an Alpaca JSON file, read whenever they are asked for."""

    path: Path
    notes: RecordNotes = field(default_factory=RecordNotes)  # of the last time that it was read to its end

    def __iter__(self) -> Iterator[Record]:
        unlabelled: list[str] | None = []  # ids, while no record has an output
        self.notes = notes = RecordNotes()
        for record in load_records(read_array(self.path), self.path.name, notes):
            if record.output is not None:
                unlabelled = None
            elif unlabelled is not None:
                unlabelled.append(record.id)
            yield record
        check_test_ids(unlabelled or (), self.path.name)
