"""Writes findings and repairs into a copy of the workbook that they are about (`lrc check --annotate` and `--fix`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

from lrc.data.questions import Question
from lrc.data.tables.headers import LOOKED_AT, Columns, normalise_header, role_of
from lrc.data.tables.table import WHOLE_ROW, letters
from lrc.data.tables.workbook import Workbook
from lrc.data.tables.xlsx import open_sheet
from lrc.data.tables.xlsx_copy import FILLS, WorkbookCopy, embolden, set_value
from lrc.runtime.findings import WORDS, Finding, Level, spell_kind
from lrc.runtime.translation import _, first_clause, localized

SUMMARY = "lrc check"
SHOWN = 100  # characters of a cell's text in the summary
_CHANGED = _("changed")
_WIDTHS = (10, 8, 14, 32, 90)


class Change(NamedTuple):
    """A cell whose content is replaced by what lrc reads."""

    row: int  # from 1
    column: int  # from 0
    before: str  # as the sheet shows it
    after: str | int
    reason: Finding | None = None  # the repair; None for a cell that is read differently without one, such as 同上


class _Line(NamedTuple):
    """A line of the summary."""

    fill: Level | Literal["changed"]
    row: int | str
    column: str
    kind: str
    text: str
    cell: str  # that the line links to, such as `B7`; empty for none


def annotate(
    path: Path, sheet: str | None, book: Workbook | None, findings: Sequence[Finding], *, fix: bool = False
) -> tuple[bytes, list[Finding], int]:
    """Copy a workbook, with a coloured cell and comment for each finding, and a sheet that lists the findings.

    Args:
        path: an .xlsx or .xlsm file.
        sheet: the sheet that was read; None takes the first visible one.
        book: what was read from it; None if it could not be read.
        findings: all findings about it.
        fix: also write what lrc reads into the cells that show something else. A repair of a good row is then listed as
            a change, not as a finding.

    Returns:
        The content of the copy, findings about what it lacks, and the number of changed cells.

    Raises:
        LrcError: the workbook cannot be copied.
    """
    copy = WorkbookCopy(path, book.sheet if book else sheet)
    places = _Places(copy, book)
    changes: list[Change] = []
    if fix and book:
        good = {question.row for question in book.questions}
        done = [one for one in findings if one.level == "repair" and one.row in good]
        bad = {one.row for one in findings if one.level == "error"}
        findings = [one if one.row in good else _restate(one, bad) for one in findings if one not in done]
        reasons = {place: one for one in done for place in places.of(one)}
        changes = [change._replace(reason=reasons.get((change.row, change.column))) for change in _find_changes(book)]
    # The worst level last, so that its colour stays.
    order = list(WORDS)
    for finding in sorted(findings, key=lambda one: order.index(one.level)):
        for row, column in places.of(finding):
            line = _("{level}: {line}").format(level=WORDS[finding.level], line=finding.text)
            copy.mark(row, column + 1, finding.level, " ".join(localized(line).split()))
    for change in changes:
        copy.write(change.row, change.column + 1, change.after)
        told = _("changed by lrc; it was: {before}").format(before=change.before or _("(empty)"))
        copy.mark(change.row, change.column + 1, "changed", localized(told))
    _summarize(copy, findings, changes, places)
    content = copy.to_bytes()
    return content, copy.left_out(content), len(changes)


def _restate(finding: Finding, bad: Container[int | None]) -> Finding:
    """Turn a repair that the copy lacks into a warning if its row has an error, or else into a note (an empty row)."""
    if finding.level != "repair" or finding.row is None:
        return finding
    if finding.row not in bad:
        return replace(finding, level="note")
    text = _("{found}; not changed in this copy, because its row has an error")
    return replace(finding, level="warning", text=text.format(found=first_clause(finding.text)))


class _Places:
    """Finds the cells that a finding is about."""

    def __init__(self, copy: WorkbookCopy, book: Workbook | None) -> None:
        self.columns = book.columns if book else None
        self.header_row = book.header_row if book else 0
        self.by_name: dict[str, int] = {}
        if self.columns is None:
            self._guess_headers(copy)
        else:
            self._index_headers(self.columns)
        self.first = self.columns.id if self.columns and self.columns.id is not None else 0

    def _index_headers(self, columns: Columns) -> None:
        for place, header in enumerate(columns.headers):
            self.by_name.setdefault(normalise_header(header), place)
        for place in columns.used:  # these go before unread columns of the same name
            self.by_name[normalise_header(columns.headers[place])] = place
        for role, place in (("文章", columns.passage), ("問題", columns.question)):
            self.by_name.setdefault(role, place)

    def _guess_headers(self, copy: WorkbookCopy) -> None:
        """Take the row with the most known headers, of a table that could not be read."""
        rows = copy.sheet.iter_rows(max_row=LOOKED_AT)
        best = max(rows, key=lambda row: sum(role_of(str(cell.value or "")) is not None for cell in row), default=())
        for place, cell in enumerate(best):
            self.by_name.setdefault(normalise_header(str(cell.value or "")), place)
            self.header_row = cell.row or 0

    def of(self, finding: Finding) -> Iterator[tuple[int, int]]:
        """The cells of a finding, as row from 1 and column from 0; none if it is about the whole file."""
        row = finding.row or (self.header_row if finding.column else 0)
        if not row:
            return
        columns = [self.columns.options[number - 1] for number in finding.options] if self.columns else []
        if finding.column and (place := self.by_name.get(normalise_header(finding.column))) is not None:
            columns.append(place)
        yield from ((row, column) for column in columns or [self.first])


def _find_changes(book: Workbook) -> Iterator[Change]:
    """The cells that show something else than lrc reads, or hold a formula or a formatted number."""
    columns = book.columns
    if columns is None:
        return
    questions = {question.row: question for question in book.questions}
    with open_sheet(book.path, book.sheet) as table:
        for row in table.rows:
            question = questions.get(row.number)
            if question is None:
                continue
            repaired = {place for place, one in row.findings.items() if one.level == "repair" and place != WHOLE_ROW}
            for column, text in _list_cells(question, columns):
                shown = row.cells[column] if column < len(row.cells) else ""
                same = str(text) == shown and column not in repaired
                if not same and (column != columns.id or shown or column in row.findings):
                    yield Change(row.number, column, shown, text)


def _list_cells(question: Question, columns: Columns) -> Iterator[tuple[int, str | int]]:
    """What lrc read for a question: the column and the text."""
    if columns.id is not None:
        yield columns.id, question.id
    yield columns.passage, question.passage
    yield columns.question, question.question
    yield from zip(columns.options, question.options, strict=False)
    if columns.answer is not None and question.answer is not None:
        yield columns.answer, question.answer


def _summarize(copy: WorkbookCopy, findings: Sequence[Finding], changes: Sequence[Change], places: _Places) -> None:
    """Add a sheet with a line for each finding and each change, which links to its cell."""
    from openpyxl.styles import Alignment, PatternFill

    sheet = copy.add_sheet(SUMMARY, _WIDTHS)
    titles = (_("level"), _("row"), _("column"), _("kind"), _("finding"))
    head = [*_count_levels(copy, findings, changes), tuple(map(localized, titles))]
    top = len(head)
    for number, values in enumerate(head, start=1):
        for column, value in enumerate(values, start=1):
            set_value(sheet.cell(number, column), value)
            if number in (1, top):
                embolden(sheet.cell(number, column))
        sheet.cell(number, 2).alignment = Alignment(horizontal="center")
    for number, line in enumerate(_list_lines(findings, changes, places), start=top + 1):
        word = localized(_CHANGED if line.fill == "changed" else WORDS[line.fill])
        for place, value in enumerate((word, *line[1:5]), start=1):
            set_value(sheet.cell(number, place), value)
            sheet.cell(number, place).alignment = Alignment(vertical="top", wrap_text=place > 2)
        sheet.cell(number, 1).fill = PatternFill("solid", fgColor=FILLS[line.fill])
        if line.cell:
            copy.link(sheet.cell(number, 2), line.cell)
    sheet.freeze_panes = f"A{top + 1}"
    sheet.print_title_rows = f"{top}:{top}"
    sheet.auto_filter.ref = f"A{top}:E{max(top, sheet.max_row)}"


def _count_levels(
    copy: WorkbookCopy, findings: Iterable[Finding], changes: Sequence[Change]
) -> Iterator[tuple[str | int, ...]]:
    """The rows above the list: a title, then the number of findings and the meaning of each level."""
    levels = Counter(finding.level for finding in findings)
    yield (localized(_("lrc check: {file}, sheet {sheet}").format(file=copy.path.name, sheet=copy.sheet.title)),)
    lines = [
        (_("errors"), levels["error"], _("a row with one is refused, or left out with --on-error skip")),
        (_("warnings"), levels["warning"], _("may be a mistake; the row is used as it is")),
        (_CHANGED, len(changes), _("cells changed by lrc; the comment says what was there"))
        if changes
        else (WORDS["repair"], levels["repair"], _("read as if it were right; --fix writes it so")),
        (_("notes"), levels["note"], _("what was passed over")),
    ]
    yield from ((localized(name), count, localized(meaning)) for name, count, meaning in lines)
    yield ()


def _list_lines(findings: Sequence[Finding], changes: Sequence[Change], places: _Places) -> Iterator[_Line]:
    """The lines of the list: findings from the worst level on, then changes."""
    for level in reversed(WORDS):
        for finding in findings:
            if finding.level == level:
                row, column = next(places.of(finding), (0, 0))
                link = f"{letters(column)}{row}" if row else ""
                kind, text = localized(spell_kind(finding.kind)), " ".join(localized(finding.text).split())
                yield _Line(level, finding.row or "", localized(finding.column or ""), kind, text, link)
    for change in changes:
        header = localized(places.columns.header(change.column)) if places.columns else ""
        kind = localized(spell_kind(change.reason.kind) if change.reason else _("cell read another way"))
        text = " ".join(localized(change.reason.text).split()) if change.reason else _show_difference(change)
        yield _Line("changed", change.row, header, kind, text, f"{letters(change.column)}{change.row}")


def _show_difference(change: Change) -> str:
    before = _quote(change.before) if change.before else localized(_("(empty)"))
    return f"{before} → {_quote(str(change.after))}"


def _quote(text: str) -> str:
    return f"「{text[:SHOWN]}{'…' * (len(text) > SHOWN)}」"
