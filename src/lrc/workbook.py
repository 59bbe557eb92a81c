"""Excel, CSV or JSON objects → questions, with every row accounted for.

A row is good, or it is bad and says why. In a test workbook no row is ever left out: what would make a
labelled row bad is a warning there, and only its ids can refuse it.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from lrc.answers import FROM_ZERO, CountedFromZeroError, Reading, read_answers
from lrc.commas import open_csv
from lrc.conflicts import find_conflicts
from lrc.errors import DataError
from lrc.findings import Finding
from lrc.jsonlines import open_objects
from lrc.questions import MIN_OPTIONS, Question
from lrc.rows import Draft, Row, read_rows
from lrc.sheet import open_sheet
from lrc.suspicions import suspect, suspect_ids
from lrc.tables import WHOLE_ROW, Table

Fault = tuple[int, str, str]  # column, kind, and the text that follows the column's name
SUFFIXES = (".xlsx", ".xlsm", ".csv", ".jsonl")
_EMPTY = "is empty; fill it in, or leave the row out with --on-error skip"


@dataclass(frozen=True)
class Workbook:
    """What a workbook, or another table of questions, holds.

    `questions` are the good rows in order, or every row of a test workbook; `findings` are ordered by row.
    """

    path: Path
    sheet: str | None
    labelled: bool
    questions: tuple[Question, ...]
    findings: tuple[Finding, ...]
    rows_read: int

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that make a row bad."""
        return tuple(finding for finding in self.findings if finding.level == "error")


def read_workbook(path: Path, sheet: str | None = None) -> Workbook:
    """Read an .xlsx workbook, a .csv file, a .jsonl file, or a .json file with an array of such objects.

    Args:
        path: the file; the ending of its name tells what it is.
        sheet: the sheet to read; the first one by default.

    Raises:
        DataError: the file is no table of questions at all: missing, of another format or encoding, encrypted
            or hostile, without the sheet, a column or any rows, with a column twice, or a test workbook with
            ids that are missing or stand twice.
    """
    with _without_collector():
        return _read(path, sheet)


@contextmanager
def _without_collector() -> Iterator[None]:
    """Rows are many small objects and no cycles: to look for some among them takes a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _read(path: Path, sheet: str | None) -> Workbook:
    try:
        with _open(path, sheet) as table:
            draft = read_rows(table)
    except OSError as error:
        raise DataError(f"{path.name}: {error.strerror or error}; check its name and permissions") from error
    if table.other_sheets and sheet is None:
        others = ", ".join(table.other_sheets)
        draft.find("warning", "other-sheets", f"sheet {table.sheet} was read, not {others}; choose with --sheet")
    columns = draft.columns
    labelled = columns.answer is not None and any(
        row.answer or columns.answer in draft.troubles.get(row.number, ()) for row in draft.rows
    )
    rows_read = len(draft.rows)
    draft.findings += suspect_ids(((row.number, row.id) for row in draft.rows), draft.file, draft.header(columns.id))
    _drop_empty_options(draft)
    questions = _labelled(draft) if labelled else _unlabelled(draft)
    draft.findings += suspect(questions, draft.file)
    draft.findings.sort(key=lambda finding: finding.row or 0)
    return Workbook(path, table.sheet, labelled, tuple(questions), tuple(draft.findings), rows_read)


def _open(path: Path, sheet: str | None) -> AbstractContextManager[Table]:
    suffix = path.suffix.lower()
    if suffix not in (*SUFFIXES, ".json", ".xls"):
        raise DataError(
            f"{path.name}: not a workbook; expected a file named .xlsx, .csv or .jsonl, or JSON named .json"
        )
    if suffix not in (".csv", ".jsonl", ".json"):
        return open_sheet(path, sheet)
    if sheet is not None:
        raise DataError(f"{path.name}: a {suffix} file has no sheet {sheet}; leave out --sheet")
    return open_csv(path) if suffix == ".csv" else open_objects(path)


def _drop_empty_options(draft: Draft) -> None:
    """Options at the end that are empty in every row are no options."""
    columns = draft.columns.options
    troubled = {column for notes in draft.troubles.values() for column in notes}
    kept = len(columns)
    while kept > MIN_OPTIONS and columns[kept - 1] not in troubled:
        if any(row.options[kept - 1] for row in draft.rows):
            break
        kept -= 1
    if kept == len(columns):
        return
    for column in columns[kept:]:
        draft.find("repair", "empty-column", "is empty in every row; read as no option", None, column)
    draft.rows = [row._replace(options=row.options[:kept]) for row in draft.rows]


def _consumed(rows: list[Row]) -> Iterator[Row]:
    """Each row in order, and gone afterwards: its memory is free for its question."""
    rows.reverse()
    while rows:
        yield rows.pop()


def _labelled(draft: Draft) -> list[Question]:
    """The good rows; the bad ones become findings."""
    questions = []
    readings = _read_answers(draft)
    readings.reverse()
    for row in _consumed(draft.rows):
        reading = readings.pop()
        faults = [*_faults(draft, row), *_answer_faults(draft, row, reading)]
        for column, kind, text in faults:
            draft.find("error", kind, text, row.number, column)
        answer = reading.number
        if faults or answer is None:
            continue
        if reading.doubt:
            draft.find("warning", "number-or-text", reading.doubt, row.number, draft.columns.answer)
        if str(answer) != row.answer:
            shown = row.answer if len(row.answer) <= 40 else f"{row.answer[:40]}…"
            draft.find("repair", "answer", f"is {shown}; read as {answer}", row.number, draft.columns.answer)
        name = row.id or str(row.number)
        questions.append(Question(name, row.passage, row.question, row.options, answer, row.number))
    conflicts = find_conflicts(questions, draft.file, draft.header(draft.columns.answer))
    draft.findings += conflicts
    bad = {finding.row for finding in conflicts}
    return [question for question in questions if question.row not in bad]


def _read_answers(draft: Draft) -> list[Reading]:
    """What each row's answer means.

    Raises:
        DataError: they count from 0: then all are wrong, and not only those that are 0.
    """
    try:
        return read_answers([row.answer for row in draft.rows], [row.options for row in draft.rows])
    except CountedFromZeroError as error:
        rows = [draft.rows[place].number for place in error.places]
        header = draft.header(draft.columns.answer)
        raise DataError(
            f"{draft.file}, row {rows[0]}: {header} is 0 in {len(rows):,} row(s), and {error.last} in "
            f"{error.count or 'none'}: it counts from 0; {FROM_ZERO}"
        ) from error


def _unlabelled(draft: Draft) -> list[Question]:
    _refuse_ids(draft)
    questions = []
    for row in _consumed(draft.rows):
        for column, kind, text in _faults(draft, row):
            if column == WHOLE_ROW:
                raise DataError(f"{draft.file}, row {row.number}: {text}")
            option = column in draft.columns.options
            cure = "it is never chosen" if option else "it is answered without"
            draft.find("warning", kind, f"{text.partition(';')[0]}; {cure}", row.number, column)
        if not any(row.options):
            draft.find("warning", "no-options", "all options are empty; its answer will be 1", row.number)
        questions.append(Question(row.id, row.passage, row.question, row.options, None, row.number))
    return questions


def _refuse_ids(draft: Draft) -> None:
    """A test workbook's ids are how the submission tells its lines apart."""
    column = draft.columns.id
    if column is None:
        raise DataError(
            f"{draft.file}: no column ID or 題號; a test workbook needs one, or 正確答案 has to be filled in"
        )
    header, first, findings = draft.header(column), dict[str, int](), []
    for row in draft.rows:
        trouble = draft.troubles.get(row.number, {}).get(column)
        place = f"{draft.file}, row {row.number}: {header}"
        if trouble:
            findings.append(f"{place} {trouble.text}")
        elif not row.id:
            findings.append(f"{place} is empty; a test workbook needs an ID in every row")
        elif first.setdefault(row.id, row.number) != row.number:
            findings.append(f"{place} is {row.id}, which row {first[row.id]} has too; give each row its own")
    if findings:
        raise DataError(*findings)


def _faults(draft: Draft, row: Row) -> Iterator[Fault]:
    """What is wrong with the text of a row."""
    troubles = draft.troubles.get(row.number, {})
    if not troubles and row.passage and row.question and all(row.options):
        return
    if WHOLE_ROW in troubles:
        yield WHOLE_ROW, troubles[WHOLE_ROW].kind, troubles[WHOLE_ROW].text
    columns = draft.columns
    cells = (
        (columns.passage, "empty-passage", row.passage),
        (columns.question, "empty-question", row.question),
        *((column, "empty-option", text) for column, text in zip(columns.options, row.options, strict=False)),
    )
    for column, kind, text in cells:
        if column in troubles:
            yield column, troubles[column].kind, troubles[column].text
        elif not text:
            yield column, kind, _EMPTY


def _answer_faults(draft: Draft, row: Row, reading: Reading) -> Iterator[Fault]:
    """What is wrong with the answer of a labelled row."""
    column = draft.columns.answer
    if column is None or reading.number is not None:
        return
    if trouble := draft.troubles.get(row.number, {}).get(column):
        yield column, trouble.kind, trouble.text
    elif not row.answer:
        yield column, "empty-answer", _EMPTY
    else:
        yield column, "impossible-answer", reading.fault
