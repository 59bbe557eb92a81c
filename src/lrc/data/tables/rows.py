"""Table → rows of cleaned text, with repairs and cell errors, before it is decided which rows are good."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import NamedTuple

from lrc.data.tables.cleaning import clean, is_clean
from lrc.data.tables.enumeration import LEFT, REMOVED, remove_enumerations
from lrc.data.tables.headers import LOOKED_AT, Columns, find_header, is_repeated_header
from lrc.data.tables.table import ERROR_VALUE, TOO_FEW, WHOLE_ROW, CellFinding, Table, TableRow
from lrc.runtime.errors import DataError
from lrc.runtime.findings import Finding, Level
from lrc.runtime.translation import _, first_clause

_REPAIRED = {
    "escape": _("had _x…_ escapes; they were decoded"),
    "entity": _("had HTML entities; they were decoded"),
    "line-break": _("had unusual line breaks; they became line feeds"),
    "control": _("had control characters; they were removed"),
    "zero-width": _("had zero-width characters; they were removed"),
    "white-space": _("had white space at its ends; it was removed"),
}
# 同上, 同前一篇, 承上題, 見上文, 題組同上, 〃: the passage or the question of the row above.
_DITTO = re.compile(
    r"[\s(（「\[【※]*(?:(?:文章|短文|題組|题组|本文|內容|内容)?[:：]?(?:[同如承仝接續续]|[請请]?[參参]?[見见]|參照|参照)"
    r"(?:上|前)(?:面|一)?(?:[題题文篇段列行格組组則则]|題組|题组|[的之]?文章|[的之]?短文)?|〃|″|〞|[\"＂”]{1,2}"
    r"|ditto|same as above|as above|see above|same (?:passage|text|article)(?: as above)?|↑)[\s)）」\]】。.]*",
    re.I,
)
# 同第一篇, 見第3題, 文章A: a reference to a passage elsewhere, which is not resolved.
_NAMED = re.compile(
    r"[\s(（「\[【※]*(?:(?:文章|短文|題組|题组)?[:：]?(?:[請请]?[同如承接續续見见詳详]|[請请]?[參参][見见考照閱阅]?)"
    r"(?:文章|短文|題組|题组|第|[0-9一二三四五六七八九十])[^。，,；;！？!?]*"
    r"|(?:文章|短文|題組|题组|passage|text|article)\s*[-#]?(?:[0-9]{1,3}|[a-z]|[一二三四五六七八九十甲乙丙丁])"
    r"|[同如見见]\s*[a-z]{0,4}[-_#]?[0-9]{1,6}"
    r"|(?:see|same as) (?:passage|text|article|question|q|no|row|#)?[\s.]*[0-9a-z]{1,3})[\s)）」\]】。.]*",
    re.I,
)
_LONGEST_DITTO = 16
# 接續上一題文章, 本題文章與前一題相同: the same among other words, as short as a remark.
_REMARK = re.compile(
    r"[^。，,；;！？!?]*(?:[同如承接續续見见參参看]|一[樣样致])[^。，,；;！？!?]*[上前][面一述]?[那這]?[題题篇文則则頁页列行欄栏格組组][^。，,；;！？!?]*"
    r"|[^。，,；;！？!?]*[上前][面一述]?[那這]?[題题篇則则頁页列行欄栏格組组][^。，,；;！？!?]*(?:同|一[樣样致])[^。，,；;！？!?]*"
)
_LONGEST_REMARK = 24
_DITTO_OPTION = re.compile(r"[\s(（]*(?:同[上前]|〃|″|〞|ditto|same as above)[\s)）.。]*", re.I)
# The error values of spreadsheets, which are plain text in CSV and where values were pasted.
_ERROR_VALUE = re.compile(
    r"#(?:N/A|NAME\?|REF!|VALUE!|DIV/0!|NUM!|NULL!|SPILL!|CALC!|FIELD!|BLOCKED!|CONNECT!|UNKNOWN!|GETTING_DATA|BUSY!)"
    r"|#{3,}|#ERROR!|Err:\d{3}"
)
# What may follow a table: a sum, its author, its source.
_FOOTER = re.compile(
    r"\W*(?:合計|合计|總計|总计|小計|小计|共計|共计|總數|总数|平均|共\s*\d+|備註|备注|附註|註|说明|說明|製表|制表|命題|命题|出題"
    r"|出處|出处|資料來源|资料来源|以上|本頁|本页|完$|total|sum|average|count|notes?\b|source|end\b)",
    re.I,
)
# 審題：林老師, 更新日期：113/5/20; a question would have a question mark.
_SIGNED = re.compile(r"[^：:?？]{2,6}[：:][^?？]{1,20}")
_LONGEST_FOOTER = 60  # characters; a passage is longer
# What counts up from ID to ID: 第1題 and 第十二題, T-17 and T-18, 甲 and 乙.
_LETTERS, _COUNTER = (
    re.compile("[A-Za-zＡ-Ｚａ-ｚ]+"),
    re.compile(r"[\d零〇一二三四五六七八九十百甲乙丙丁戊己庚辛壬癸]+"),
)

# An answer as it is written: 3, (B), 選項2, ②, 丙.
_ANSWER = re.compile(r"[\s(（\[【]*(?:[選选][項项])?\s*[1-8１-８A-Ha-hＡ-Ｈ甲乙丙丁①-⑧](?:\.0)?[\s)）\]】.]*")


class QuestionRow(NamedTuple):
    """The cleaned text of a row by role; a text is empty if its cell is empty or has an error."""

    number: int  # of the row, as in `TableRow`
    id: str
    passage: str
    question: str
    options: tuple[str, ...]
    answer: str  # as written

    @property
    def asks(self) -> bool:
        """Whether the row has a question, an option or an answer."""
        return bool(self.question or self.answer or any(self.options))


@dataclass
class Unread:
    """Statistics of a column that is not read."""

    filled: int = 0  # rows in which it is not empty
    first: int = 0  # the number of the first of these
    options: int = 0  # rows without an answer in which it is the text of an option
    answers: int = 0  # rows without an answer in which it could be the answer
    different: set[str] = field(default_factory=set)  # the texts that could be answers

    def count_unanswered(self, text: str, options: Sequence[str]) -> None:
        """Count the column's cell in a row that has no answer.

        Args:
            text: of the cell.
            options: of the row.
        """
        if text in options:
            self.options += 1
        if _ANSWER.fullmatch(text):
            self.answers += 1
            self.different.add(text)


@dataclass
class Draft:
    """A table as it was read, before it is known whether it is labelled and which rows are good."""

    file: str
    columns: Columns
    header_row: int
    rows: list[QuestionRow] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)  # repairs and warnings
    cell_errors: dict[int, dict[int, CellFinding]] = field(default_factory=dict)  # by row number and column
    unread: dict[int, Unread] = field(default_factory=dict)  # by column
    dated: set[int] = field(default_factory=set)  # the numbers of rows whose answer is shown as a date

    def header(self, column: int | None) -> str:
        """The header of a column; empty for a whole row."""
        return "" if column is None or column == WHOLE_ROW else self.columns.headers[column]

    def find(self, level: Level, kind: str, text: str, row: int | None = None, column: int | None = None) -> None:
        """Add a finding.

        Args:
            text: follows the header of the column, if there is one.
            row: the number of the row; None for the whole file.
            column: from 0.
        """
        header = self.header(column)
        text = _("{column} {text}").format(column=header, text=text) if header else text
        self.findings.append(Finding(level, kind, self.file, text, row, header or None))


def read_rows(table: Table, named: Mapping[str, str] | None = None) -> Draft:
    """Read a table to its end, and clean its text.

    Args:
        table: is consumed.
        named: the headers that the user gives, by role.

    Raises:
        DataError: there is no header with all columns, or no row below it.
    """
    rows = iter(table.rows)
    first = list(islice(rows, LOOKED_AT))
    header = find_header(table, first, named)
    columns = header.columns
    draft = Draft(table.file, columns, header.row, findings=[*table.findings, *header.findings])
    draft.unread = {column: Unread() for column in range(len(columns.headers)) if column not in columns.used}
    for column in sorted(table.hidden & set(columns.used)):
        draft.find("warning", "hidden-column", _("is a hidden column; it was read"), None, column)
    clean_row = _RowReader(draft)
    draft.rows = [clean_row(row) for row in _skip_empty(chain(first[header.used :], rows), draft)]
    if header.row:  # JSON has no header, and nothing below its objects
        _drop_footer(draft)
    if not draft.rows:
        text = _("{file}: no rows below the header in row {row}; add the questions{table}")
        raise DataError(text.format(file=table.file, row=header.row, table=table.elsewhere))
    _remove_enumerations(draft)
    return draft


def _remove_enumerations(draft: Draft) -> None:
    rows = draft.rows
    found, left = remove_enumerations([row.options for row in rows], [row.question for row in rows])
    for place, bare in found.items():
        draft.find("repair", "enumeration", REMOVED, rows[place].number)
        rows[place] = rows[place]._replace(options=bare)
    for place in left:
        draft.find("warning", "enumeration", LEFT, rows[place].number)


def _skip_empty(rows: Iterator[TableRow], draft: Draft) -> Iterator[TableRow]:
    """The rows that are not empty. Each gap between them becomes a finding, empty rows after the last do not."""
    first = count = 0  # of the gap: its first row, and how many there are
    width = len(draft.columns.headers)
    for row in rows:
        if not any(map(str.strip, row.cells)) and all(one.kind == "merged-cell" for one in row.findings.values()):
            first, count = first if count else row.number, count + 1
            continue
        if count:
            text = _("empty row; skipped") if count == 1 else _("the first of {count:,} empty rows; skipped")
            draft.find("repair", "empty-row", text.format(count=count), first)
            count = 0
        if len(row.cells) >= width and is_repeated_header(draft.columns, row.cells):
            draft.find("note", "repeated-header", _("is a header again; skipped"), row.number)
            continue
        yield row


def _drop_footer(draft: Draft) -> None:
    """Remove the rows at the end that are not questions, not even incomplete ones.

    A row with an ID like those of the questions stays, whatever else is in it: 第6題 and note-7 are no footers there.
    """
    rows = draft.rows
    end = next((place for place in range(len(rows), 0, -1) if not _is_footer(rows[place - 1])), 0)
    forms = {_form(row.id) for row in rows[:end]} if end < len(rows) else set()
    while len(rows) > end and not (_form(rows[-1].id) in forms and _COUNTER.search(rows[-1].id)):
        row = rows.pop()
        draft.cell_errors.pop(row.number, None)
        text = _first_text(row)[:20] or _("a row outside the columns")
        draft.find("note", "footer-row", _("「{text}」 is below the questions; skipped").format(text=text), row.number)


def _form(name: str) -> str:
    """What an ID has in common with others that were given in the same way."""
    return _COUNTER.sub("0", _LETTERS.sub("a", name))


def _first_text(row: QuestionRow) -> str:
    return row.id or row.passage or row.question or next(filter(None, row.options), "")


def _is_footer(row: QuestionRow) -> bool:
    n_options = sum(map(bool, row.options))
    begun = bool(row.passage and row.question and (n_options or row.id)) or (
        n_options > 1 and not (row.id or row.passage)
    )
    if len(row.passage) > _LONGEST_FOOTER or begun or (row.question and n_options > 1):
        return False
    first = _first_text(row)
    alone = sum(map(bool, (row.id, row.passage, row.question, *row.options, row.answer))) == 1
    if first and (_FOOTER.match(first) or alone and _SIGNED.fullmatch(first)):
        return True
    # An ID alone is a row whose question is missing: 1004, T-17.
    return not row.asks and not (row.id.isascii() and row.id)


class _RowReader:
    """Makes a `QuestionRow` from a `TableRow`, and adds findings to the draft."""

    def __init__(self, draft: Draft) -> None:
        columns = draft.columns
        self.draft, self.columns, self.width = draft, columns, len(columns.headers)
        self.used = columns.used
        self.filling = {columns.passage, *columns.options, columns.id}  # where merged cells count as copies
        self.above: QuestionRow | None = None
        self.passages: dict[str, str] = {}
        self.texts = {
            (column, kind): _("{column} {text}").format(column=columns.headers[column], text=text)
            for column in self.used
            for kind, text in _REPAIRED.items()
        }

    def __call__(self, row: TableRow) -> QuestionRow:
        cells = row.cells
        if len(cells) < self.width:
            cells = cells + [""] * (self.width - len(cells))
        if row.findings:
            cells = self._apply_findings(row, cells)
        texts = [cells[column] for column in self.used]
        if not is_clean(texts):
            texts = [self._clean_cell(row.number, column, cells[column]) for column in self.used]
        self._examine_error_values(row.number, texts)
        passage, question, *rest = texts
        name = rest.pop() if self.columns.id is not None else ""
        answer = rest.pop() if self.columns.answer is not None else ""
        options = tuple(rest)
        passage, question = self._resolve(row.number, passage, question)
        self._warn_of_ditto_options(row.number, options)
        self._count_unread(row.number, cells, options, answer)
        # Questions about the same passage share one string in memory.
        passage = self.passages.setdefault(passage, passage)
        self.above = QuestionRow(row.number, name, passage, question, options, answer)
        return self.above

    def _examine_error_values(self, number: int, texts: list[str]) -> None:
        """Empty the texts that are error values, in place, apart from options, which may be about them."""
        for place, (column, text) in enumerate(zip(self.used, texts, strict=True)):
            if text[:1] not in ("#", "E") or not _ERROR_VALUE.fullmatch(text):
                continue
            if column in self.columns.options:
                warning = _("is {text}, which looks like an error value and was read as text").format(text=text)
                self.draft.find("warning", "error-text", warning, number, column)
            else:
                self._refuse(number, column, CellFinding("error", "error-cell", ERROR_VALUE))
                texts[place] = ""

    def _resolve(self, number: int, passage: str, question: str) -> tuple[str, str]:
        """The passage and the question of a row, from the row above where they say 同上."""
        above, columns = self.above, self.columns
        if len(passage) <= _LONGEST_DITTO and _DITTO.fullmatch(passage):
            passage = self._take_from_above(number, columns.passage, passage, above.passage if above else "")
        elif len(passage) <= _LONGEST_DITTO and _NAMED.fullmatch(passage):
            text = _("is {passage}, which names a passage and is none; put the passage itself there").format(
                passage=passage
            )
            self._refuse(number, columns.passage, CellFinding("error", "named-passage", text))
            passage = ""
        elif len(passage) <= _LONGEST_REMARK and _REMARK.fullmatch(passage):
            text = _("is {passage}; if that means another passage, put it there").format(passage=passage)
            self.draft.find("warning", "passage-remark", text, number, columns.passage)
        if len(question) <= _LONGEST_DITTO and _DITTO.fullmatch(question):
            question = self._take_from_above(number, columns.question, question, above.question if above else "")
        return passage, question

    def _warn_of_ditto_options(self, number: int, options: tuple[str, ...]) -> None:
        for column, option in zip(self.columns.options, options, strict=True):
            if len(option) <= _LONGEST_DITTO and _DITTO_OPTION.fullmatch(option):
                text = _("is {ditto}, which is not replaced by the text above; write it out").format(ditto=option)
                self.draft.find("warning", "ditto-option", text, number, column)

    def _take_from_above(self, number: int, column: int, ditto: str, text: str) -> str:
        """Replace 同上 and the like by the passage or the question of the row above.

        Args:
            number: of the row.
            column: of the passage or of the question.
            ditto: the text of the cell.
            text: that of the row above; empty if it has none.
        """
        name = "passage" if column == self.columns.passage else "question"
        heading = self.above is not None and not self.above.asks  # 二、說明文 is a title, not a passage
        if self.above is None or heading or not text:
            error = _("is {ditto}, but there is no passage above it; put the passage itself there")
            if name == "question":
                error = _("is {ditto}, but there is no question above it; put the question itself there")
            self._refuse(number, column, CellFinding("error", f"ditto-{name}", error.format(ditto=ditto)))
            return ""
        warning = _("is {ditto}; the passage of row {row} was taken")
        if name == "question":
            warning = _("is {ditto}; the question of row {row} was taken")
        self.draft.find("warning", f"ditto-{name}", warning.format(ditto=ditto, row=self.above.number), number, column)
        return text

    def _count_unread(self, number: int, cells: list[str], options: tuple[str, ...], answer: str) -> None:
        for column, unread in self.draft.unread.items():
            if text := cells[column].strip():
                unread.filled += 1
                unread.first = unread.first or number
                if not answer:
                    unread.count_unanswered(text, options)

    def _apply_findings(self, row: TableRow, cells: list[str]) -> list[str]:
        """The cells, filled where merged cells count as copies and empty where a cell has an error."""
        cells = list(cells)
        for column, found in row.findings.items():
            if column not in self.used and column != WHOLE_ROW:
                continue
            if found.kind == TOO_FEW and len(row.cells) > max(self.used):
                continue
            if found.shown and column in self.filling:
                cells[column] = found.shown
                text = _("{clause}; its text was taken").format(clause=first_clause(found.text))
                self.draft.find("repair", "merged-cell", text, row.number, column)
            elif found.level == "error":
                self._refuse(row.number, column, found)
                if column != WHOLE_ROW:
                    cells[column] = ""
            else:
                self.draft.find(found.level, found.kind, found.text, row.number, column)
                if found.kind == "date-cell" and column == self.columns.answer:
                    self.draft.dated.add(row.number)
        return cells

    def _refuse(self, number: int, column: int, error: CellFinding) -> None:
        self.draft.cell_errors.setdefault(number, {})[column] = error

    def _clean_cell(self, number: int, column: int, cell: str) -> str:
        text, repairs = clean(cell)
        for kind in repairs:
            line, header = self.texts[column, kind], self.columns.headers[column]
            self.draft.findings.append(Finding("repair", kind, self.draft.file, line, number, header))
        return text
