"""Any file with questions → questions or records: workbook, CSV, JSON lines or JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from lrc.data.alpaca import Record, RecordNotes, check_test_ids, load_records, to_record
from lrc.data.c3 import read_c3
from lrc.data.manifest import refuse_incomplete
from lrc.data.tables.json_array import read_array
from lrc.data.tables.workbook import Workbook, read_workbook
from lrc.runtime.errors import DataError, no_file
from lrc.runtime.exit_status import is_first
from lrc.runtime.findings import Finding, tell, with_cure
from lrc.runtime.translation import _


class Records(Protocol):
    """The records of a file, to be read any number of times.

    Attributes:
        findings: what was found in the file apart from errors; all of it once the records were read to their end.
    """

    findings: list[Finding]

    def __iter__(self) -> Iterator[Record]: ...


def read_questions(path: Path, sheet: str | None = None, columns: Mapping[str, str] | None = None) -> Workbook:
    """Read what `lrc convert` converts: a workbook, a CSV, JSON lines, a JSON array of such objects, or C3 JSON.

    Args:
        sheet: the sheet of a workbook; the first visible one by default.
        columns: headers by what they are, where lrc does not know them: `{"文章": "短文"}`.

    Raises:
        DataError: the file is none of these; bad rows are findings.
    """
    match json_kind(path, sheet):
        case "alpaca":
            raise DataError(
                _("{file}: already Alpaca JSON; train on it, or convert the workbook that it came from").format(
                    file=path.name
                )
            )
        case "c3":
            return read_c3(list(read_array(path)), path)
    return read_workbook(path, sheet, columns)


def read_records(path: Path, sheet: str | None = None, columns: Mapping[str, str] | None = None) -> list[Record]:
    """Read what is trained on or answered, all at once, and tell on stderr what was found; see `stream_records`."""
    records = stream_records(path, sheet, columns)
    held = list(records)
    if is_first():
        tell(records.findings)
    return held


def stream_records(path: Path, sheet: str | None = None, columns: Mapping[str, str] | None = None) -> Records:
    """Read what is trained on or answered: all that `read_questions` reads, and Alpaca JSON.

    Args:
        sheet: the sheet of a workbook; the first visible one by default.
        columns: see `read_questions`.

    Returns:
        The records. Alpaca JSON is read anew each time, and never held in memory.

    Raises:
        DataError: the file cannot be read, has bad rows, was left incomplete by a convert, or holds questions
            to answer of which two share an id. What is wrong with Alpaca JSON shows as it is read to its end.
    """
    if json_kind(path, sheet) == "alpaca":
        if columns:
            raise DataError(_("{file}: Alpaca JSON has no columns to name; leave out --columns").format(file=path.name))
        refuse_incomplete(path)
        return _AlpacaFile(path)
    source = read_questions(path, sheet, columns)
    if source.errors:
        if is_first():
            tell(source.remarks)
        raise DataError(*with_cure(source.errors, _("leave the row out by converting the file first (lrc convert)")))
    records = _TableRecords(to_record(question) for question in source.questions)
    records.findings.extend(source.remarks)
    if not source.labelled:
        check_test_ids((record.id for record in records), path.name)
    return records


def refuse_pipe(path: Path) -> None:
    """Refuse what is not there, and what can be read only once and may never begin or end.

    Raises:
        DataError: the path is nothing, a folder, a pipe, a socket or a device.
    """
    if not path.exists():
        raise DataError(no_file(path))
    if path.is_dir():
        raise DataError(_("{file}: is a folder; give a file in it").format(file=path.name))
    if not path.is_file():
        raise DataError(
            _("{file}: is a pipe or a device, and a file is read more than once; save it as a file").format(
                file=path.name
            )
        )


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
        raise DataError(
            _("{file}: a JSON file has no sheet {sheet}; leave out --sheet").format(file=path.name, sheet=sheet)
        )
    for first in read_array(path):
        if not isinstance(first, dict):
            return "c3"
        # lrc's own records have the keys of a table as well.
        return "alpaca" if first.keys() & {"instruction", "input", "output"} else "table"
    raise DataError(_("{file}: an empty JSON array; expected records or questions").format(file=path.name))


class _TableRecords(list[Record]):
    """The records of a table, which is held in memory."""

    def __init__(self, records: Iterable[Record]) -> None:
        super().__init__(records)
        self.findings: list[Finding] = []


@dataclass
class _AlpacaFile:
    """The records of an Alpaca JSON file, read whenever they are asked for."""

    path: Path
    findings: list[Finding] = field(default_factory=list)

    def __iter__(self) -> Iterator[Record]:
        self.findings.clear()
        unlabelled: list[str] | None = []  # ids, while no record has an output
        notes = RecordNotes()
        for record in load_records(read_array(self.path), self.path.name, notes):
            if record.output is not None:
                unlabelled = None
            elif unlabelled is not None:
                unlabelled.append(record.id)
            yield record
        self.findings.extend(notes.findings(self.path.name))
        check_test_ids(unlabelled or (), self.path.name)
