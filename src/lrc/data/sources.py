"""Opens any file with questions (a workbook, CSV, JSON lines or JSON) as questions or as records."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NoReturn, Protocol

from lrc.data.alpaca import Record, RecordNotes, check_test_ids, load_records, question_of, to_record
from lrc.data.c3 import read_c3
from lrc.data.manifest import refuse_incomplete
from lrc.data.questions import Question
from lrc.data.tables.cleaning import unpaired_surrogate
from lrc.data.tables.headers import name_roles
from lrc.data.tables.json_array import read_array
from lrc.data.tables.workbook import Workbook, read_workbook
from lrc.runtime.errors import DataError, cannot_read, no_file
from lrc.runtime.exit_status import is_first
from lrc.runtime.findings import Finding, add_cure, print_findings
from lrc.runtime.outputs import checksum
from lrc.runtime.translation import _

_ALPACA = {"instruction", "input", "output"}
_CHATS = ("messages", "conversations", "prompt", "chosen")  # keys of the conversational datasets of other trainers


class Records(Protocol):
    """The records of a file, in its order.

    Attributes:
        findings: the warnings, notes and repairs; complete once all records have been iterated over.
    """

    findings: list[Finding]

    def __iter__(self) -> Iterator[Record]: ...


class DataFile:
    """A file with questions: its kind is told by its name and first JSON element, and it is hashed at most once.

    Args:
        path: a workbook, a CSV file, JSON lines, Alpaca JSON, a JSON array with an object for each row, or C3 JSON.
        sheet: the sheet of a workbook; the first visible one by default.
        columns: the header of a column by its role, for headers that lrc does not know: `{"文章": "短文"}`.

    Raises:
        DataError: there is no such file, or it is a folder, a pipe or a device; or `columns` names something that is
            no role. All methods raise it if the file cannot be read.
    """

    def __init__(self, path: Path, sheet: str | None = None, columns: Mapping[str, str] | None = None) -> None:
        require_file(path)
        self.path, self.sheet, self.columns = path, sheet, name_roles(columns or {})
        self._initial_state = self._read_state()
        self._elements: Iterator[Any] | None = None  # of a JSON array that was opened for its first element only

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of the content, in hexadecimal digits."""
        try:
            return checksum(self.path)
        except OSError as error:
            raise DataError(cannot_read(self.path.name, error)) from error

    @cached_property
    def kind(self) -> Literal["alpaca", "c3", "table"]:
        """`alpaca` (JSON), `c3` (JSON), or `table`: anything else, with a row for each question.

        Raises:
            DataError: a JSON file is empty, holds the conversations of another trainer, or was opened with a sheet.
        """
        if self.path.suffix.lower() != ".json":
            return "table"
        if self.sheet is not None:
            raise DataError(
                _("{file}: a JSON file has no sheet {sheet}; leave out --sheet").format(
                    file=self.path.name, sheet=self.sheet
                )
            )
        self._elements = read_array(self.path)
        for first in self._elements:
            self._elements = chain((first,), self._elements)
            if not isinstance(first, dict):
                return "c3"
            if chat := next((key for key in first if key in _CHATS and not first.keys() & _ALPACA), None):
                raise DataError(
                    _("{file}: records of {chat}; write them as instruction, input and output").format(
                        file=self.path.name, chat=chat
                    )
                )
            # lrc's own records have the keys of a table as well.
            return "alpaca" if first.keys() & _ALPACA else "table"
        raise DataError(_("{file}: an empty JSON array; expected records or questions").format(file=self.path.name))

    def questions(self) -> Workbook:
        """Read the questions, for `lrc convert`; bad rows are among the findings of the result.

        Raises:
            DataError: the file is Alpaca JSON, which is converted already; it is no table of questions; or it is C3
                JSON, and columns are named.
        """
        if self.kind == "alpaca":
            raise DataError(
                _("{file}: already Alpaca JSON; train on it, or convert the workbook that it came from").format(
                    file=self.path.name
                )
            )
        if self.kind == "c3":
            self._refuse_columns("C3")
            return read_c3(list(self._read_elements()), self.path)
        return read_workbook(self.path, self.sheet, self.columns)

    def records(self) -> Records:
        """Read the records to train on or to answer. Those of Alpaca JSON are streamed, and can be iterated over once.

        Raises:
            DataError: the file cannot be read, has bad rows, was left incomplete by a killed convert, or holds
                unanswered questions of which two share an id. Errors in Alpaca JSON are raised during the iteration.
        """
        if self.kind == "alpaca":
            self._refuse_columns("Alpaca")
            self.refuse_incomplete()
            return _AlpacaRecords(self._read_elements(), self.path.name)
        return _TableRecords(self.questions())

    def refuse_incomplete(self) -> None:
        """Refuse a JSON file that a killed convert left behind, or that was changed after it was converted.

        Raises:
            DataError: it is such a file.
        """
        if self.path.suffix.lower() == ".json":
            refuse_incomplete(self.path, lambda: self.sha256)

    def refuse_changed(self) -> None:
        """Refuse a file that was changed after this object was created.

        Raises:
            DataError: its size or modification time differs.
        """
        if self._read_state() != self._initial_state:
            raise DataError(_("{path}: was changed while it was read; run again").format(path=self.path))

    def _refuse_columns(self, kind: str) -> None:
        if self.columns:
            text = _("{file}: {kind} JSON has no columns to name; leave out --columns")
            raise DataError(text.format(file=self.path.name, kind=kind))

    def _read_elements(self) -> Iterator[Any]:
        """The elements of the JSON array, going on with the stream that `kind` opened."""
        elements, self._elements = self._elements, None
        return read_array(self.path) if elements is None else elements

    def _read_state(self) -> tuple[int, int]:
        """The size in bytes and the modification time in nanoseconds."""
        try:
            found = self.path.stat()
        except OSError as error:
            raise DataError(cannot_read(self.path.name, error)) from error
        return found.st_size, found.st_mtime_ns


def read_questions(path: Path, sheet: str | None = None, columns: Mapping[str, str] | None = None) -> Workbook:
    """Read the questions of a file that is not converted yet; see `DataFile.questions`."""
    return DataFile(path, sheet, columns).questions()


def read_records(path: Path, sheet: str | None = None, columns: Mapping[str, str] | None = None) -> list[Record]:
    """Read all records of a file into memory, and print its findings on stderr; see `DataFile.records`."""
    records = DataFile(path, sheet, columns).records()
    held = list(records)
    if is_first():
        print_findings(records.findings)
    return held


def read_questions_to_answer(
    path: Path,
    sheet: str | None = None,
    columns: Mapping[str, str] | None = None,
    *,
    report: Callable[[Iterable[Finding]], None] = print_findings,
) -> list[Record]:
    """Read records that can be answered, and report the findings about their file.

    Args:
        path: a workbook or a JSON file.
        sheet: the sheet of a workbook; the first visible one by default.
        columns: see `sources.DataFile`.
        report: is called with the findings; by default they are printed on stderr.

    Raises:
        DataError: the file cannot be read, or a record is not a question with options.
    """
    records = list(found := DataFile(path, sheet, columns).records())
    if is_first():
        report(found.findings)
    for record in records:
        try:
            question_of(record)
        except DataError as error:
            raise DataError(_("{file}, {reason}").format(file=path.name, reason=error)) from error
    return records


def read_labelled(path: Path) -> list[Question]:
    """Read the questions of a labelled file, of any kind that `read_records` reads.

    Raises:
        DataError: the file cannot be read, holds no questions, or a record has no options or no answer.
    """
    questions = []
    for record in read_records(path):
        if record.question is None or record.question.answer is None:
            raise DataError(
                _("{path}: question {id} has no options or no answer; give a labelled file").format(
                    path=path, id=record.id
                )
            )
        questions.append(record.question)
    if not questions:
        raise DataError(_("{path}: has no questions; give a labelled file").format(path=path))
    return questions


def require_file(path: Path) -> None:
    """Refuse a path that is not a regular file: a pipe or a device can be read only once, and may never end.

    Raises:
        DataError: the path does not exist, cannot be looked at, or is a folder, a pipe, a socket or a device; or its
            name cannot be decoded.
    """
    if unpaired_surrogate(str(path)) is not None:
        _refuse_name(path)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(no_file(path)) from error
    except OSError as error:
        raise DataError(cannot_read(path.name, error)) from error
    if stat.S_ISDIR(mode):
        raise DataError(_("{file}: is a folder; give a file in it").format(file=path.name or path))
    if not stat.S_ISREG(mode):
        raise DataError(
            _("{file}: is a pipe or a device, and a file is read more than once; save it as a file").format(
                file=path.name
            )
        )


def _refuse_name(path: Path) -> NoReturn:
    """Refuse a path that Python could not decode, which neither a manifest nor a reader of workbooks takes.

    Raises:
        DataError: always.
    """
    try:
        name, text = os.fsencode(path).decode(), _("{file}: its name is not ASCII, as this locale is; set PYTHONUTF8=1")
    except UnicodeDecodeError:
        name = os.fsencode(path).decode(errors="backslashreplace")
        text = _("{file}: its name is not UTF-8; rename the file, or its folder")
    raise DataError(text.format(file=name))


class _TableRecords:
    """The records of a table, all in memory."""

    def __init__(self, source: Workbook) -> None:
        if source.errors:
            if is_first():
                print_findings(source.remarks)
            cure = _("leave the row out by converting the file first (lrc convert)")
            raise DataError(*add_cure(source.errors, cure))
        self.findings = list(source.remarks)
        self._records = [to_record(question) for question in source.questions]
        if not source.labelled:
            check_test_ids((record.id for record in self._records), source.path.name)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)


class _AlpacaRecords:
    """The records of Alpaca JSON, streamed; can be iterated over once."""

    def __init__(self, elements: Iterable[Any], name: str) -> None:
        self.findings: list[Finding] = []
        self._elements, self._name = elements, name

    def __iter__(self) -> Iterator[Record]:
        unlabelled: list[str] | None = []  # their ids; None once a record has had an output
        notes = RecordNotes()
        for record in load_records(self._elements, self._name, notes):
            if record.output is not None:
                unlabelled = None
            elif unlabelled is not None:
                unlabelled.append(record.id)
            yield record
        self.findings.extend(notes.findings(self._name))
        check_test_ids(unlabelled or (), self._name)
