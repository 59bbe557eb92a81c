"""Questions ⇄ pandas frames, read by the same rules as a workbook."""

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
    """Read a workbook, a CSV, JSON lines or JSON with questions into a frame; see `to_frame`.

    What was found beside errors is printed on stderr.

    Args:
        sheet: the sheet of a workbook; the first visible one by default.
        columns: headers by what they are, where lrc does not know them: `{"文章": "短文"}`.

    Raises:
        DataError: the file cannot be read, or rows are bad; each is a finding.
    """
    return to_frame(_good(sources.read_questions(Path(path), sheet, columns)))


def to_frame(questions: Iterable[Question]) -> pd.DataFrame:
    """A row a question: `id`, `row`, `passage`, `question`, `option_1` …, and `answer`, NA where there is none.

    An option that a question does not have is an empty text.
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
    """Make questions of a frame whose columns are called as a workbook's: 文章 or passage, 選項1 or option_1 ….

    A missing value is an empty cell; a frame without ids has its index for them. `row` is the place in the frame, from
    1. What was found beside errors is printed on stderr.

    Raises:
        DataError: a column is missing, or rows are bad; each is a finding.
    """
    if not any(role_of(str(name)) == "ID" for name in frame.columns):
        frame = frame.assign(ID=frame.index.map(str))
    own = [name for name in ("row",) if name in frame.columns and pd.api.types.is_integer_dtype(frame[name])]
    return list(_good(read_table(Table("frame", None, (), _rows(frame.drop(columns=own))))))


def _rows(frame: pd.DataFrame) -> Iterator[TableRow]:
    yield TableRow(0, [str(name) for name in frame.columns], NO_FINDINGS)
    for number, cells in enumerate(frame.itertuples(index=False, name=None), start=1):
        yield TableRow(number, [_text(cell) for cell in cells], NO_FINDINGS)


def _text(cell: Any) -> str:
    """A value as a sheet would show it; numpy's are Python's first."""
    if cell is None or (pd.api.types.is_scalar(cell) and pd.isna(cell)):
        return ""
    cell = cell.item() if hasattr(cell, "item") else cell
    return cell if isinstance(cell, str) else show_value(cell) if isinstance(cell, int | float) else str(cell)


def _good(source: Workbook) -> tuple[Question, ...]:
    print_findings(source.remarks)
    if source.errors:
        raise DataError(*add_cure(source.errors, _("drop the row")))
    return source.questions
