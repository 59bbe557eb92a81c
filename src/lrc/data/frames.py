"""Questions ⇄ pandas data frames. A frame is read by the same rules as a workbook."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
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
        DataError: a column is missing, or there are bad rows; one finding for each.
    """
    if not any(role_of(str(name)) == "ID" for name in frame.columns):
        frame = frame.assign(ID=frame.index.map(str))
    own = [name for name in ("row",) if name in frame.columns and pd.api.types.is_integer_dtype(frame[name])]
    return list(_require_valid(read_table(Table("frame", None, (), _iter_rows(frame.drop(columns=own))))))


def _iter_rows(frame: pd.DataFrame) -> Iterator[TableRow]:
    yield TableRow(0, [str(name) for name in frame.columns], NO_FINDINGS)
    for number, cells in enumerate(frame.itertuples(index=False, name=None), start=1):
        yield TableRow(number, [_show_cell(cell) for cell in cells], NO_FINDINGS)


def _show_cell(cell: Any) -> str:
    """The text that a spreadsheet would show for a value; numpy scalars are converted first."""
    if cell is None or (pd.api.types.is_scalar(cell) and pd.isna(cell)):
        return ""
    cell = cell.item() if hasattr(cell, "item") else cell
    return cell if isinstance(cell, str) else show_value(cell) if isinstance(cell, int | float) else str(cell)


def _require_valid(source: Workbook) -> tuple[Question, ...]:
    print_findings(source.remarks)
    if source.errors:
        raise DataError(*add_cure(source.errors, _("drop the row")))
    return source.questions
