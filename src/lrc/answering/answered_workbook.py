"""Answers in a copy of the workbook that asked: answer, probabilities, and what a person should look at."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from copy import copy as copy_of
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lrc.answering.certainty import certainty, doubts
from lrc.data.alpaca import Record
from lrc.data.tables.table import letters
from lrc.data.tables.workbook import Workbook, read_workbook
from lrc.data.tables.xlsx_copy import COPIED, WorkbookCopy, check_copy, embolden, set_value
from lrc.metrics.option_scores import OptionScores
from lrc.runtime.errors import DataError
from lrc.runtime.findings import Finding
from lrc.runtime.translation import _

if TYPE_CHECKING:
    from openpyxl.worksheet.worksheet import Worksheet

_CHINESE = re.compile("[\u4e00-\u9fff]")


class _Words(NamedTuple):
    """What the columns are called. None of the names is one that lrc reads as an answer or an option."""

    answer: str
    probability: str
    look: str
    reasons: Mapping[str, str]
    summary: str
    answers: str
    row: str
    certainty: str


# The name of the summary is none that could be a sheet of answers to an unlabelled workbook.
_ENGLISH = _Words(
    "predicted answer",
    "probability of option {}",
    "look at by hand",
    {"uncertain": "{:.0%}, nearly a guess", "order": "{:.0%}, depends on order", "least certain": "{:.0%}, check"},
    "lrc summary",
    "chosen: option {}",
    "row",
    "its probability",
)
_TAIWANESE = _Words(
    "預測答案",
    "選項{}的機率",
    "請人工檢查",
    {"uncertain": "{:.0%}，幾乎是猜的", "order": "{:.0%}，選項順序會影響答案", "least certain": "{:.0%}，請確認"},
    "lrc 摘要",
    "選了選項{}",
    "列",
    "該選項的機率",
)


def is_workbook(output: Path) -> bool:
    """Whether answers go into a workbook, by the name of their file."""
    return output.suffix.lower() in COPIED


def check_output(output: Path, data: Path) -> None:
    """Refuse, before anything is loaded, a workbook of answers that is no copy of one of questions.

    Raises:
        LrcError: the questions are in another format.
    """
    if is_workbook(output):
        check_copy(data, output, "--output")
    elif output.suffix.lower() in (".xlsb", ".xls", ".ods"):
        raise DataError(
            _("{output}: answers are written as .csv, or as .xlsx into a copy of the questions; name it so").format(
                output=output
            )
        )


def fill_in(
    data: Path,
    records: Sequence[Record],
    scores: Sequence[OptionScores],
    *,
    sheet: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> tuple[bytes, list[Finding]]:
    """Copy a workbook and add columns beside its questions.

    Args:
        data: the workbook that `records` are from, read with `sheet` and `columns`.
        scores: a record each.

    Returns:
        The copy, and what of the original is not in it.

    Raises:
        DataError: the workbook cannot be copied, or has changed since.
    """
    book = read_workbook(data, sheet, columns)
    if [question.row for question in book.questions] != [_row(record) for record in records]:
        raise DataError(_("{data}: has changed since its questions were read; run again").format(data=data))
    copy = WorkbookCopy(data, book.sheet)
    words = _TAIWANESE if book.columns and _CHINESE.search(book.columns.header(book.columns.question)) else _ENGLISH
    first = _last_column(copy.sheet) + 1
    n_options = max((len(score.probabilities) for score in scores), default=0)
    _write_header(copy, book, words, first, n_options)
    reasons = doubts(scores)
    for place, (record, score) in enumerate(zip(records, scores, strict=True)):
        row = _row(record)
        copy.write(row, first, score.prediction)
        for number, probability in enumerate(score.probabilities, start=1):
            copy.write(row, first + number, probability)
            copy.sheet.cell(row, first + number).number_format = "0.0%"
        if place in reasons:
            why = words.reasons[reasons[place]].format(certainty(score))
            copy.write(row, first + n_options + 1, why)
            for column in (first, first + n_options + 1):
                copy.mark(row, column, "warning")
    _summarize(copy, words, records, scores, reasons, first)
    content = copy.to_bytes()
    return content, copy.left_out(content)


def _row(record: Record) -> int:
    if record.question is None or record.question.row is None:
        raise DataError(_("question {id}: has no row of a workbook; name the output .csv").format(id=record.id))
    return record.question.row


def _last_column(sheet: Worksheet) -> int:
    """The last column with a value: formats alone may reach to the end of the sheet."""
    cells = (cell for row in sheet.iter_rows() for cell in row if cell.value is not None)
    return max((cell.column or 1 for cell in cells), default=0)


def _write_header(copy: WorkbookCopy, book: Workbook, words: _Words, first: int, n_options: int) -> None:
    like: Any = copy.sheet.cell(book.header_row, book.columns.question + 1 if book.columns else 1)
    names = [words.answer, *(words.probability.format(number) for number in range(1, n_options + 1)), words.look]
    for column, name in enumerate(names, start=first):
        copy.write(book.header_row, column, name)
        cell: Any = copy.sheet.cell(book.header_row, column)
        cell.font, cell.fill, cell.border, cell.alignment = (
            copy_of(one) for one in (like.font, like.fill, like.border, like.alignment)
        )
        copy.sheet.column_dimensions[letters(column - 1)].width = 30 if name == words.look else 15


def _summarize(
    copy: WorkbookCopy,
    words: _Words,
    records: Sequence[Record],
    scores: Sequence[OptionScores],
    reasons: Mapping[int, str],
    column: int,
) -> None:
    """A sheet with how often each option was chosen, and the answers to look at, the least certain first."""
    from openpyxl.styles import Alignment

    sheet = copy.add_sheet(words.summary, (24, 8, 18, 18, 40))
    for number, line in enumerate(_lines(words, records, scores, reasons), start=1):
        for place, value in enumerate(line, start=1):
            set_value(sheet.cell(number, place), value)
        if len(line) == 5 and isinstance(line[1], int):
            copy.link(sheet.cell(number, 2), f"{letters(column - 1)}{line[1]}")
            sheet.cell(number, 3).alignment = Alignment(horizontal="center")
            sheet.cell(number, 4).number_format = "0.0%"
            sheet.cell(number, 4).alignment = Alignment(horizontal="center")
        elif len(line) == 5:
            for place in range(1, 6):
                embolden(sheet.cell(number, place))
                sheet.cell(number, place).alignment = Alignment(horizontal="center" if 1 < place < 5 else None)


def _lines(
    words: _Words, records: Sequence[Record], scores: Sequence[OptionScores], reasons: Mapping[int, str]
) -> Iterator[tuple[str | int | float, ...]]:
    for number in range(1, max((len(score.probabilities) for score in scores), default=0) + 1):
        yield words.answers.format(number), sum(score.prediction == number for score in scores)
    yield words.look, len(reasons)
    yield ()
    yield "ID", words.row, words.answer, words.certainty, words.look
    for place in sorted(reasons, key=lambda place: (certainty(scores[place]), place)):
        score = scores[place]
        why = words.reasons[reasons[place]].format(certainty(score))
        yield records[place].id, _row(records[place]), score.prediction, certainty(score), why
