"""Table → rows of cleaned text: what every later judgement of a workbook starts from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from lrc.cleaning import clean, is_clean
from lrc.enumeration import LEFT, TAKEN_OFF, take_off
from lrc.errors import DataError
from lrc.findings import Finding, Level
from lrc.headers import Columns, find_columns
from lrc.tables import WHOLE_ROW, Note, Table, TableRow

_REPAIRED = {
    "escape": "had _x…_ escapes; they were decoded",
    "entity": "had HTML entities; they were decoded",
    "line-break": "had unusual line breaks; they became line feeds",
    "control": "had control characters; they were taken out",
    "zero-width": "had zero-width characters; they were taken out",
    "white-space": "had white space at its ends; it was taken off",
}


class Row(NamedTuple):
    """One row's text, cleaned; empty where a cell is empty or in trouble."""

    number: int
    id: str
    passage: str
    question: str
    options: tuple[str, ...]
    answer: str  # as written


@dataclass
class Draft:
    """A table as it was read, before it is known whether it is labelled and which rows are good."""

    file: str
    columns: Columns
    rows: list[Row] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)  # repairs and warnings
    troubles: dict[int, dict[int, Note]] = field(default_factory=dict)  # by row, by column

    def header(self, column: int | None) -> str:
        """The header of a column, as written; empty for a row as a whole."""
        return "" if column is None or column == WHOLE_ROW else self.columns.headers[column]

    def find(self, level: Level, kind: str, text: str, row: int | None = None, column: int | None = None) -> None:
        """Add a finding; `text` follows the name of its column."""
        header = self.header(column)
        self.findings.append(Finding(level, kind, self.file, f"{header} {text}".strip(), row, header or None))


def read_rows(table: Table) -> Draft:
    """Read a table to its end, and clean its text.

    Raises:
        DataError: no header with the columns it takes, or no rows below it.
    """
    rows = iter(table.rows)
    header = next((row for row in rows if any(cell.strip() for cell in row.cells)), None)
    others = f", or choose another sheet with --sheet: {', '.join(table.other_sheets)}" if table.other_sheets else ""
    if header is None:
        raise DataError(f"{table.file}: no rows, not even a header; add the questions{others}")
    draft = Draft(table.file, find_columns(table, header))
    clean_row = _RowReader(draft)
    draft.rows = [clean_row(row) for row in _filled(rows, draft)]
    if not draft.rows:
        raise DataError(f"{table.file}: no rows below the header in row {header.number}; add the questions{others}")
    _take_off_enumeration(draft)
    return draft


def _take_off_enumeration(draft: Draft) -> None:
    rows = draft.rows
    found, left = take_off([row.options for row in rows], [row.question for row in rows])
    for place, bare in found.items():
        draft.find("repair", "enumeration", TAKEN_OFF, rows[place].number)
        rows[place] = rows[place]._replace(options=bare)
    for place in left:
        draft.find("warning", "enumeration", LEFT, rows[place].number)


def _filled(rows: Iterable[TableRow], draft: Draft) -> Iterator[TableRow]:
    """The rows with anything in them; empty ones between them are told, those after the last are nothing."""
    empty: list[int] = []
    for row in rows:
        if not row.notes and not any(map(str.strip, row.cells)):
            empty.append(row.number)
            continue
        for number in empty:
            draft.find("repair", "empty-row", "empty row; passed over", number)
        empty.clear()
        yield row


class _RowReader:
    """Makes a `Row` of a table's row, and tells the draft what it found."""

    def __init__(self, draft: Draft) -> None:
        columns = draft.columns
        self.draft, self.columns, self.width = draft, columns, len(columns.headers)
        used = (columns.passage, columns.question, *columns.options, columns.answer, columns.id)
        self.used = [column for column in used if column is not None]
        self.passages: dict[str, str] = {}
        self.texts = {
            (column, kind): f"{columns.headers[column]} {text}"
            for column in self.used
            for kind, text in _REPAIRED.items()
        }

    def __call__(self, row: TableRow) -> Row:
        cells = row.cells
        if len(cells) < self.width:
            cells = cells + [""] * (self.width - len(cells))
        if row.notes:
            cells = self._note(row, cells)
        texts = [cells[column] for column in self.used]
        if not is_clean(texts):
            texts = [self._text(row.number, column, cells[column]) for column in self.used]
        passage, question, *rest = texts
        name = rest.pop() if self.columns.id is not None else ""
        answer = rest.pop() if self.columns.answer is not None else ""
        options = tuple(rest)
        # The questions about one passage share its text in memory.
        passage = self.passages.setdefault(passage, passage)
        return Row(row.number, name, passage, question, options, answer)

    def _note(self, row: TableRow, cells: list[str]) -> list[str]:
        cells = list(cells)
        for column, note in row.notes.items():
            if column not in self.used and column != WHOLE_ROW:
                continue
            if note.level == "trouble":
                self.draft.troubles.setdefault(row.number, {})[column] = note
                if column != WHOLE_ROW:
                    cells[column] = ""
            else:
                self.draft.find(note.level, note.kind, note.text, row.number, column)
        return cells

    def _text(self, number: int, column: int, cell: str) -> str:
        text, repairs = clean(cell)
        for kind in repairs:
            line, header = self.texts[column, kind], self.columns.headers[column]
            self.draft.findings.append(Finding("repair", kind, self.draft.file, line, number, header))
        return text
