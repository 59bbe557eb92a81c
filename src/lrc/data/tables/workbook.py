"""Reads questions from a spreadsheet, CSV or JSON objects, and accounts for every row.

A row of a labelled workbook is either good or has an error. In a test workbook no row is left out, since each needs an
answer: an error in a cell is a warning there, and an error of a whole row refuses the file.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from lrc.data.questions import MIN_OPTIONS, Question
from lrc.data.repeated import find_conflicts
from lrc.data.tables.anomalies import find_anomalies, find_id_anomalies
from lrc.data.tables.answer_marks import FROM_ZERO, CountedFromZeroError, Reading, read_answers
from lrc.data.tables.csv_file import open_csv
from lrc.data.tables.headers import Columns
from lrc.data.tables.json_objects import open_objects
from lrc.data.tables.ods import open_document
from lrc.data.tables.rows import Draft, QuestionRow, read_rows
from lrc.data.tables.shifted_rows import examine_width, find_shifted
from lrc.data.tables.table import WHOLE_ROW, CellFinding, Table
from lrc.data.tables.unread_columns import ANSWERS_NAME, find_lost, name_unread
from lrc.data.tables.xlsb import open_binary
from lrc.data.tables.xlsx import open_sheet
from lrc.runtime.errors import DataError, cannot_read, no_file
from lrc.runtime.findings import Finding, abridge, limit_findings
from lrc.runtime.translation import _, first_clause

# `open_sheet` refuses .xls, and says what to do.
_SHEETS = {".xlsx": open_sheet, ".xlsm": open_sheet, ".xls": open_sheet, ".ods": open_document, ".xlsb": open_binary}
_TEXTS, _OBJECTS = (".csv", ".tsv", ".txt"), (".jsonl", ".json")
SUFFIXES = (".xlsx", ".xlsm", ".xlsb", ".ods", *_TEXTS, ".jsonl")
_EMPTY = _("is empty; fill it in")


@dataclass(frozen=True)
class Workbook:
    """The questions of a workbook or of another table, and the findings about it."""

    path: Path
    sheet: str | None
    labelled: bool  # whether a row has an answer; otherwise it is a test workbook
    questions: tuple[Question, ...]  # the good rows in order; of a test workbook all rows
    findings: tuple[Finding, ...]  # ordered by row
    rows_read: int
    columns: Columns | None = None  # None for C3 JSON
    header_row: int = 0  # its row number; 0 if there is none

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that made a row bad."""
        return tuple(finding for finding in self.findings if finding.level == "error")

    @property
    def remarks(self) -> tuple[Finding, ...]:
        """All other findings: warnings, notes and repairs."""
        return tuple(finding for finding in self.findings if finding.level != "error")


def read_workbook(path: Path, sheet: str | None = None, columns: Mapping[str, str] | None = None) -> Workbook:
    """Read a workbook (.xlsx, .xlsm, .xlsb, .ods), a text file (.csv, .tsv, .txt) or JSON objects (.jsonl, .json).

    Args:
        path: the file; its suffix decides on the format.
        sheet: the sheet to read; the first visible one by default.
        columns: the header of a column by its role, for headers that lrc does not know: `{"文章": "短文"}`.

    Raises:
        DataError: the file as a whole cannot be read: it is missing, of another format or encoding, encrypted or
            hostile; it has no such sheet, no rows, or a column not at all or twice; its answers count from 0, or are in
            a column that is not read; or it is a test workbook with missing or repeated ids, or a row that is broken.
    """
    with _pause_garbage_collector():
        return _read(path, sheet, columns or {})


@contextmanager
def _pause_garbage_collector() -> Iterator[None]:
    """Rows are many small objects without reference cycles; searching them for cycles took a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _read(path: Path, sheet: str | None, columns: Mapping[str, str]) -> Workbook:
    try:
        with _open(path, sheet) as table:
            draft = read_rows(table, columns)
    except FileNotFoundError as error:
        raise DataError(no_file(path)) from error
    except OSError as error:
        raise DataError(cannot_read(path.name, error)) from error
    return _judge(table, draft, path, choose=sheet is None)


def read_table(table: Table) -> Workbook:
    """Read a table that is in memory; see `read_workbook`."""
    return _judge(table, read_rows(table), Path(table.file), choose=False)


def _judge(table: Table, draft: Draft, path: Path, *, choose: bool) -> Workbook:
    """Make questions of the rows that were read.

    Args:
        table: where they are from.
        draft: the rows; is changed.
        path: of the file.
        choose: whether the sheet was chosen by default, so that others are named.
    """
    answer = draft.columns.answer
    labelled = answer is not None and any(
        row.answer or answer in draft.cell_errors.get(row.number, ()) for row in draft.rows
    )
    _report_unread_columns(draft, labelled=labelled)
    if table.other_sheets and choose:
        _report_unread_sheets(table, draft, labelled=labelled)
    rows_read = len(draft.rows)
    draft.findings += find_id_anomalies(
        ((row.number, row.id) for row in draft.rows), draft.file, draft.header(draft.columns.id)
    )
    examine_width(draft)
    if path.suffix.lower() in _TEXTS:
        find_shifted(draft, labelled=labelled)
    _drop_empty_options(draft)
    _drop_trailing_blanks(draft)
    questions = _read_labelled(draft) if labelled else _read_unlabelled(draft)
    draft.findings += find_anomalies(questions, draft.file)
    draft.findings.sort(key=lambda finding: finding.row or 0)
    found = tuple(draft.findings)
    return Workbook(path, table.sheet, labelled, tuple(questions), found, rows_read, draft.columns, draft.header_row)


def _open(path: Path, sheet: str | None) -> AbstractContextManager[Table]:
    suffix = path.suffix.lower()
    if suffix in _SHEETS:
        return _SHEETS[suffix](path, sheet)
    if suffix not in (*_TEXTS, *_OBJECTS):
        raise DataError(
            _("{file}: not a workbook; expected a file named {names}, or JSON named .json").format(
                file=path.name, names=tuple(SUFFIXES)
            )
        )
    if sheet is not None:
        raise DataError(
            _("{file}: a {suffix} file has no sheet {sheet}; leave out --sheet").format(
                file=path.name, suffix=suffix, sheet=sheet
            )
        )
    return open_csv(path) if suffix in _TEXTS else open_objects(path)


def _report_unread_columns(draft: Draft, *, labelled: bool) -> None:
    """Name the columns that were not read.

    Raises:
        DataError: one of them must not be skipped.
    """
    lost = list(find_lost(draft, labelled=labelled))
    if errors := [finding for finding in lost if finding.level == "error"]:
        raise DataError(*errors)
    draft.findings += [*name_unread(draft), *lost]


def _report_unread_sheets(table: Table, draft: Draft, *, labelled: bool) -> None:
    """Name the sheets that were not read.

    Raises:
        DataError: the sheet has no answers, and the name of another one says that it has.
    """
    other = next((name for name in table.other_sheets if ANSWERS_NAME.search(name)), None)
    if other and not labelled:
        raise DataError(
            _(
                "{file}: sheet {sheet} has no answers, and sheet {other} may hold them; put them into a "
                "column 正確答案, or give --sheet {sheet} to have it read without"
            ).format(file=table.file, sheet=table.sheet, other=other)
        )
    others = tuple(table.other_sheets)
    draft.find(
        "warning",
        "other-sheets",
        _("sheet {sheet} was read, not {others}; choose with --sheet").format(sheet=table.sheet, others=others),
    )


def _drop_empty_options(draft: Draft) -> None:
    """Remove the last columns of options that are empty in every row."""
    columns = draft.columns.options
    with_errors = {column for errors in draft.cell_errors.values() for column in errors}
    kept = len(columns)
    while kept > MIN_OPTIONS and columns[kept - 1] not in with_errors:
        if any(row.options[kept - 1] for row in draft.rows):
            break
        kept -= 1
    if kept == len(columns):
        return
    for column in columns[kept:]:
        draft.find("repair", "empty-column", _("is empty in every row; read as no option"), None, column)
    draft.rows = [row._replace(options=row.options[:kept]) for row in draft.rows]


def _drop_trailing_blanks(draft: Draft) -> None:
    """Remove blank options at the end of a row, such as after 對 and 錯 in a file whose other questions have four."""
    columns = draft.columns.options
    for place, row in enumerate(draft.rows):
        if row.options[-1]:
            continue
        with_errors = draft.cell_errors.get(row.number, {})
        kept = len(row.options)
        while kept > MIN_OPTIONS and not row.options[kept - 1] and columns[kept - 1] not in with_errors:
            kept -= 1
        if kept < len(row.options) and row.options[kept - 1]:
            draft.find(
                "warning",
                "fewer-options",
                _("has {kept} options; those after 選項{kept} are empty").format(kept=kept),
                row.number,
            )
        if kept < len(row.options) and any(row.options):
            draft.rows[place] = row._replace(options=row.options[:kept])


def _consume(rows: list[QuestionRow]) -> Iterator[QuestionRow]:
    """Iterate over the rows and remove them from the list, so that their memory is free for the questions."""
    rows.reverse()
    while rows:
        yield rows.pop()


def _read_labelled(draft: Draft) -> list[Question]:
    """Make questions of the good rows of a labelled workbook, and findings of the bad ones."""
    questions = []
    readings = _read_answers(draft)
    readings.reverse()
    for row in _consume(draft.rows):
        reading = readings.pop()
        errors = [*_find_errors(draft, row), *_find_answer_errors(draft, row, reading)]
        if text := _only_text(draft, row):
            text = _("has only 「{text}」; fill in the rest, or delete the row").format(text=text[:20])
            errors = [(WHOLE_ROW, CellFinding("error", "no-question", text))]
        for column, error in errors:
            draft.find("error", error.kind, error.text, row.number, column)
        answer = reading.number
        if errors or answer is None:
            continue
        if reading.doubt:
            draft.find("warning", "number-or-text", reading.doubt, row.number, draft.columns.answer)
        if str(answer) != row.answer:
            shown = abridge(row.answer)
            draft.find(
                "repair",
                "answer",
                _("is {shown}; read as {answer}").format(shown=shown, answer=answer),
                row.number,
                draft.columns.answer,
            )
        _warn_of_lost_id(draft, row)
        name = row.id or str(row.number)
        questions.append(Question(name, row.passage, row.question, row.options, answer, row.number))
    conflicts = find_conflicts(questions, draft.file, draft.header(draft.columns.answer))
    draft.findings += conflicts
    bad = {finding.row for finding in conflicts}
    return [question for question in questions if question.row not in bad]


def _warn_of_lost_id(draft: Draft, row: QuestionRow) -> None:
    """Warn of an ID that cannot be read, which does not make a labelled row bad."""
    column = draft.columns.id
    if column is not None and (error := draft.cell_errors.get(row.number, {}).get(column)):
        text = _("{clause}; the number of the row was taken").format(clause=first_clause(error.text))
        draft.find("warning", error.kind, text, row.number, column)


def _only_text(draft: Draft, row: QuestionRow) -> str:
    """The text of a row that is not a question but a line between them, such as a heading; empty for other rows."""
    errors = draft.cell_errors.get(row.number, {}).values()
    texts = [text for text in (row.id, row.passage, row.question, *row.options, row.answer) if text]
    alone = len(texts) == 1 or not row.asks
    merged = all(error.kind == "merged-cell" for error in errors)
    return (row.passage or texts[0]) if texts and alone and merged and draft.header_row else ""


def _read_answers(draft: Draft) -> list[Reading]:
    """Read the answer of each row.

    Raises:
        DataError: the answers count from 0, so all of them are wrong and not only those that are 0.
    """
    try:
        return read_answers([row.answer for row in draft.rows], [row.options for row in draft.rows])
    except CountedFromZeroError as error:
        rows = [draft.rows[place].number for place in error.places]
        header = draft.header(draft.columns.answer)
        raise DataError(
            _(
                "{file}, row {rows}: {header} is 0 in {count:,} rows, and {last} in {value}: it counts "
                "from 0; {from_zero}"
            ).format(
                file=draft.file,
                rows=rows[0],
                header=header,
                count=len(rows),
                last=error.last,
                value=error.count or _("none"),
                from_zero=FROM_ZERO,
            )
        ) from error


def _read_unlabelled(draft: Draft) -> list[Question]:
    """Make questions of all rows of a test workbook.

    Raises:
        DataError: an id is missing or repeated, or a row as a whole is broken.
    """
    _check_ids(draft)
    questions = []
    for row in _consume(draft.rows):
        for column, error in _find_errors(draft, row):
            if column == WHOLE_ROW:
                raise DataError(Finding("error", error.kind, draft.file, error.text, row.number))
            option = column in draft.columns.options
            cure = _("it is never chosen") if option else _("it is answered without")
            draft.find(
                "warning",
                error.kind,
                _("{text}; {cure}").format(text=first_clause(error.text), cure=cure),
                row.number,
                column,
            )
        if not any(row.options):
            draft.find("warning", "no-options", _("all options are empty; its answer will be 1"), row.number)
        questions.append(Question(row.id, row.passage, row.question, row.options, None, row.number))
    return questions


def _check_ids(draft: Draft) -> None:
    """Require an id of its own for each row of a test workbook, since the submission refers to questions by id."""
    column = draft.columns.id
    if column is None:
        raise DataError(
            _("{file}: no column ID or 題號; a test workbook needs one, or 正確答案 has to be filled in").format(
                file=draft.file
            )
        )
    header, first, findings = draft.header(column), dict[str, int](), list[Finding]()
    for row in draft.rows:
        if error := draft.cell_errors.get(row.number, {}).get(column):
            text = error.text
        elif not row.id:
            text = _("is empty; a test workbook needs an ID in every row")
        elif first.setdefault(row.id, row.number) != row.number:
            text = _("is {id}, which row {first} has too; give each row its own").format(id=row.id, first=first[row.id])
        else:
            continue
        findings.append(
            Finding(
                "error",
                "test-id",
                draft.file,
                _("{column} {text}").format(column=header, text=text),
                row.number,
                header,
            )
        )
    if findings:
        raise DataError(*limit_findings(findings))


def _find_errors(draft: Draft, row: QuestionRow) -> Iterator[tuple[int, CellFinding]]:
    """The errors in the text of a row, each with its column."""
    errors = draft.cell_errors.get(row.number, {})
    if not errors and row.passage and row.question and all(row.options):
        return
    if WHOLE_ROW in errors:
        yield WHOLE_ROW, errors[WHOLE_ROW]
    columns = draft.columns
    cells = (
        (columns.passage, "empty-passage", row.passage),
        (columns.question, "empty-question", row.question),
        *((column, "empty-option", text) for column, text in zip(columns.options, row.options, strict=False)),
    )
    for column, kind, text in cells:
        if column in errors:
            yield column, errors[column]
        elif not text:
            yield column, CellFinding("error", kind, _EMPTY)


def _find_answer_errors(draft: Draft, row: QuestionRow, reading: Reading) -> Iterator[tuple[int, CellFinding]]:
    """The error in the answer of a labelled row, with its column, if there is one."""
    column = draft.columns.answer
    if column is None or reading.number is not None:
        return
    if error := draft.cell_errors.get(row.number, {}).get(column):
        yield column, error
    elif not row.answer:
        yield column, CellFinding("error", "empty-answer", _EMPTY)
    elif row.number in draft.dated:
        text = _(
            "is a date, {answer}; give its cell the format General, or type the number of the right option as text"
        )
        yield column, CellFinding("error", "impossible-answer", text.format(answer=row.answer))
    else:
        yield column, CellFinding("error", "impossible-answer", reading.error)
