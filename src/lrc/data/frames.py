"""Questions ⇄ pandas data frames. A frame is read by the same rules as a workbook."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd

from lrc.data import sources
from lrc.data.questions import Question
from lrc.data.tables.cell_text import show_value
from lrc.data.tables.headers import role_of
from lrc.data.tables.table import NO_FINDINGS, Table, TableRow
from lrc.data.tables.workbook import Workbook, read_table
from lrc.runtime.errors import DataError
from lrc.runtime.findings import add_cure, print_findings
from lrc.runtime.translation import _


def read_questions(
    path: str | Path, *, sheet: str | None = None, columns: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Read the questions of a workbook, a CSV file, JSON lines or JSON into a data frame; see `to_frame`.

    Warnings, notes and repairs are printed on stderr.

    Args:
        path: any file that `lrc convert` takes.
        sheet: the sheet of a workbook; the first visible one by default.
        columns: the header of a column by its role, for headers that lrc does not know: `{"文章": "短文"}`.

    Raises:
        DataError: the file cannot be read, or has bad rows; one finding for each.
    """
    hints = {"--columns": _("what --columns is on the command line is `columns` of lrc.read_questions")}
    with _adding_hints(hints):
        return to_frame(_require_valid(sources.read_questions(Path(path), sheet, columns)))


def to_frame(questions: Iterable[Question]) -> pd.DataFrame:
    """Make a data frame with one row per question.

    Returns:
        The columns `id`, `row` (Int64), `passage`, `question`, `option_1` to the largest number of options, and
        `answer` (Int64, from 1). `row` and `answer` may be NA; an option that a question does not have is "".
    """
    held = list(questions)
    n_options = max((len(question.options) for question in held), default=2)
    frame = pd.DataFrame(
        {
            "id": [question.id for question in held],
            "row": pd.array([question.row for question in held], dtype="Int64"),
            "passage": [question.passage for question in held],
            "question": [question.question for question in held],
        }
    )
    for place in range(n_options):
        texts = [question.options[place] if place < len(question.options) else "" for question in held]
        frame[f"option_{place + 1}"] = texts
    frame["answer"] = pd.array([question.answer for question in held], dtype="Int64")
    return frame


def to_questions(frame: pd.DataFrame) -> list[Question]:
    """Make questions from a data frame whose columns have a workbook's headers: 文章 or passage, 選項1 or option_1 ….

    A missing value counts as an empty cell. Without a column of ids, the index is used. The `row` of a question is its
    position in the frame, from 1. Warnings, notes and repairs are printed on stderr.

    Raises:
        DataError: it is no data frame, a column is missing, a cell is no text, number or date, or there are bad rows;
            one finding for each.
    """
    if not isinstance(frame, pd.DataFrame):
        text = _("expected a pandas data frame, not {kind}; pandas.DataFrame makes one of dictionaries or lists")
        raise DataError(text.format(kind=type(frame).__name__))
    if not len(frame):
        raise DataError(_("frame: has no rows; add the questions"))
    hints = {"--columns": _("in place of --columns, rename the columns of the frame: frame.rename(columns=…)")}
    if not any(role_of(str(name)) == "ID" for name in frame.columns):
        frame = frame.assign(ID=frame.index.map(str))
        hints["ID is"] = _("these ids are the index; add a column id, or use frame.reset_index(drop=True)")
    own = [name for name in ("row",) if name in frame.columns and pd.api.types.is_integer_dtype(frame[name])]
    rows = list(_iter_rows(frame.drop(columns=own)))
    with _adding_hints(hints):
        return list(_require_valid(read_table(Table("frame", None, (), iter(rows)))))


def _iter_rows(frame: pd.DataFrame) -> Iterator[TableRow]:
    names = [str(name) for name in frame.columns]
    yield TableRow(0, names, NO_FINDINGS)
    strange: list[str] = []
    text = _("frame, row {row}: {column} is {value}, which is neither text nor a number; give text")
    for number, cells in enumerate(frame.itertuples(index=False, name=None), start=1):
        shown = [_show_cell(cell) for cell in cells]
        strange += [
            text.format(row=number, column=name, value=type(cell).__name__)
            for name, cell, one in zip(names, cells, shown, strict=True)
            if one is None and role_of(name)
        ]
        yield TableRow(number, [one or "" for one in shown], NO_FINDINGS)
    if strange:
        raise DataError(*strange)


def _show_cell(cell: Any) -> str | None:
    """The text that a spreadsheet would show for a value; None for what no spreadsheet holds, such as a list.

    Numpy scalars are converted first.
    """
    if cell is None or (pd.api.types.is_scalar(cell) and pd.isna(cell)):
        return ""
    cell = cell.item() if hasattr(cell, "item") and pd.api.types.is_scalar(cell) else cell
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int | float):
        return show_value(cell)
    return str(cell) if isinstance(cell, date | time | timedelta | Decimal) else None


@contextmanager
def _adding_hints(hints: Mapping[str, str]) -> Iterator[None]:
    """Add to errors what to do in Python, by a part of their lines in English."""
    try:
        yield
    except DataError as error:
        told = "\n".join(error.lines("en"))
        raise DataError(*error.findings, *(hint for part, hint in hints.items() if part in told)) from None


def _require_valid(source: Workbook) -> tuple[Question, ...]:
    print_findings(source.remarks)
    if source.errors:
        raise DataError(*add_cure(source.errors, _("drop the row")))
    return source.questions
