"""Writes answers into a copy of the workbook: the answer, probabilities, and which ones to check by hand."""

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
    """The texts in the workbook. lrc reads none of the column names as that of an answer or an option."""

    answer: str
    probability: str
    look: str
    reasons: Mapping[str, str]
    summary: str
    answers: str
    row: str
    certainty: str


# lrc must not take the sheet of this name for a sheet of answers to an unlabelled workbook.
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
    "選擇選項{}的題數",
    "列",
    "該選項的機率",
)


# Whoever names these does not expect a CSV in them.
OTHER_FORMATS = (".xlsb", ".xls", ".ods", ".pdf", ".docx", ".json", ".jsonl", ".html", ".parquet")


def is_workbook(output: Path) -> bool:
    """Whether answers go into a workbook, by the suffix of the output."""
    return output.suffix.lower() in COPIED


def check_output(output: Path, data: Path) -> None:
    """Refuse an output whose format does not fit, before anything is loaded.

    Raises:
        LrcError: the output is a workbook that cannot be a copy of the questions' file.
    """
    if is_workbook(output):
        check_copy(data, output, "--output")
    elif output.suffix.lower() in OTHER_FORMATS:
        raise DataError(
            _("{output}: answers are written as .csv, or as .xlsx into a copy of the questions; name it so").format(
                output=output
            )
        )


def refuse_uncopyable(data: Path) -> None:
    """Refuse a workbook that `fill_in` cannot copy, before its questions are answered.

    Raises:
        DataError: it is such a workbook.
    """
    WorkbookCopy(data)


def fill_in(
    data: Path,
    records: Sequence[Record],
    scores: Sequence[OptionScores],
    *,
    sheet: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> tuple[bytes, list[Finding]]:
    """Copy a workbook, with columns for answers and probabilities, and a summary sheet.

    Args:
        data: the workbook from which `records` were read, with `sheet` and `columns`.
        records: its questions.
        scores: of each record.
        sheet: see `read_workbook`.
        columns: see `read_workbook`.

    Returns:
        The bytes of the copy, and a finding for each part of the original that is lost in it.

    Raises:
        DataError: the workbook cannot be copied, or has changed since it was read.
    """
    book = read_workbook(data, sheet, columns)
    if [question.row for question in book.questions] != [_row(record) for record in records]:
        raise DataError(_("{data}: has changed since its questions were read; run again").format(data=data))
    copy = WorkbookCopy(data, book.sheet)
    words = _TAIWANESE if book.columns and _CHINESE.search(book.columns.header(book.columns.question)) else _ENGLISH
    first = _last_column(copy.sheet) + 1
    n_options = max((len(score.probabilities) for score in scores), default=0)
    _write_header(copy, book, words, first, n_options)
    _widen_filter(copy.sheet, book.header_row, first + n_options + 1)
    reasons = doubts(scores)
    for place, (record, score) in enumerate(zip(records, scores, strict=True)):
        row = _row(record)
        _format_cells(copy, row, first, n_options + 2, book)
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
    """The last column with a value, as formatted cells may reach to the end of the sheet."""
    cells = (cell for row in sheet.iter_rows() for cell in row if cell.value is not None)
    return max((cell.column or 1 for cell in cells), default=0)


def _format_cells(copy: WorkbookCopy, row: int, first: int, count: int, book: Workbook) -> None:
    """Give a row's new cells the font, the border and the vertical alignment of its question."""
    from openpyxl.styles import Alignment

    like: Any = copy.sheet.cell(row, book.columns.question + 1 if book.columns else 1)
    for column in range(first, first + count):
        cell: Any = copy.sheet.cell(row, column)
        cell.font, cell.border = copy_of(like.font), copy_of(like.border)
        last = column == first + count - 1
        cell.alignment = Alignment(None if last else "center", like.alignment.vertical, wrap_text=last)


def _widen_filter(sheet: Worksheet, header_row: int, last: int) -> None:
    """Extend the table's filter to the new columns."""
    from openpyxl.utils import range_boundaries

    if not sheet.auto_filter.ref:
        return
    left, top, _right, bottom = range_boundaries(sheet.auto_filter.ref)
    if top == header_row:
        sheet.auto_filter.ref = f"{letters((left or 1) - 1)}{top}:{letters(last - 1)}{bottom}"


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
    """Add a sheet with the number of answers by option, and the answers to check, the least certain first."""
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
