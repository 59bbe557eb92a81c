"""Finds the rows of a CSV file that a comma too many or too few has shifted, so that no text is in its own column."""

from __future__ import annotations

from lrc.data.tables.rows import Draft, QuestionRow
from lrc.data.tables.table import TOO_FEW, WHOLE_ROW, CellFinding
from lrc.runtime.translation import _

# Up to this many rows, or this share, it is a slip; Excel leaves out empty cells at the end in blocks of 16 rows.
_SLIPS, _SLIP_SHARE = 2, 0.1
_HABIT = 0.5  # the share of questions with a question mark from which one without is unusual
_MARKS = ("?", "？")


def examine_width(draft: Draft) -> None:
    """Accept rows with fewer cells than the header if they are usual in a file, and then end in empty options."""
    short = [number for number, errors in draft.cell_errors.items() if _is_short(errors)]
    if len(short) > max(_SLIPS, _SLIP_SHARE * len(draft.rows)):
        for number in short:
            del draft.cell_errors[number][WHOLE_ROW]


def find_shifted(draft: Draft, *, labelled: bool) -> None:
    """Warn of rows whose question seems to be where the first option should be.

    Such a row has as many cells as the header, because an empty cell was at its end, under an option or a remark. It is
    not refused: a first option may well be a question.

    Args:
        draft: a CSV file.
        labelled: whether it has answers; that of a shifted row is not understood, so a remark is no sign of one.
    """
    if not labelled:
        _warn_of_rare_cells(draft)
    asking = sum(_asks(row.question) for row in draft.rows)
    if asking <= _HABIT * len(draft.rows):
        return
    for row in draft.rows:
        if _is_shifted(row):
            text = _(
                "has no question mark and the first option has one; if a comma has divided a cell before it, put "
                "quotes around that"
            )
            draft.find("warning", "shifted-row", text, row.number, draft.columns.question)


def _warn_of_rare_cells(draft: Draft) -> None:
    """Warn of text in the last columns, not read, of a few rows only: there a shifted row has its last text."""
    last = max(draft.columns.used)
    for column, unread in draft.unread.items():
        if column > last and 0 < unread.filled <= max(_SLIPS, _SLIP_SHARE * len(draft.rows)):
            text = _(
                "has text, as in hardly any other row; if a comma has divided a cell before it, put quotes around that"
            )
            draft.find("warning", "shifted-row", text, unread.first, column)


def _is_short(errors: dict[int, CellFinding]) -> bool:
    return WHOLE_ROW in errors and errors[WHOLE_ROW].kind == TOO_FEW


def _is_shifted(row: QuestionRow) -> bool:
    first, *others = row.options
    return bool(row.question) and not _asks(row.question) and _asks(first) and not any(map(_asks, others))


def _asks(text: str) -> bool:
    return any(mark in text for mark in _MARKS)
