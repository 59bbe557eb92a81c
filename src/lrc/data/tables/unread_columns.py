"""Reports the columns that are not read, and refuses those that may hold answers, options or text.

Otherwise, a workbook whose answers are in an unknown column would be read as a test workbook, and one with an unknown
fifth option or second passage would be trained on without it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from lrc.data.tables.headers import Columns, as_word, normalise_header
from lrc.data.tables.rows import Draft, Unread
from lrc.runtime.findings import Finding, Level
from lrc.runtime.translation import _

_ANSWERS = re.compile(
    "答案|解答|解析|[詳详]解|正(?:解|答|[確确])(?!率)|answer|^ans|^keys?$|correct|solution|^gold|^labels?$|explanation"
)
# Headers of columns that hold answers if their cells look like answers: 標答, 應選, 對的選項, Right, target.
_LIKELY = re.compile("答|[選选]|[對对]|right|target|truth|result|結果|结果|choice|option")
ANSWERS_NAME = re.compile("答|解答|詳解|answer|key|solution", re.I)  # of a sheet
_SIGN = "(?:[0-9]{1,2}|[a-z]|[一二三四五六七八九十甲乙丙丁戊己庚辛壬癸上中下續续])"
_MORE_OPTIONS = re.compile(f"(?:[選选][項项擇]|option|choice){_SIGN}|{_SIGN}[選选][項项]")
_MORE_TEXT = re.compile(
    f"(?P<passage>文章|短文|[內内]文|文本|段落|passage|article|context|paragraph|text){_SIGN}"
    f"|(?P<question>問題|问题|題目|题目|題幹|题干|question){_SIGN}"
)
_MOST = 0.8  # of the rows
_SHOWN = 10  # headers in the note


def name_unread(draft: Draft) -> Iterator[Finding]:
    """The note that names the columns that are not empty and were not read, if there are any."""
    names = [draft.columns.header(column) for column, one in draft.unread.items() if one.filled]
    if names:
        text, more = _("columns not read: {names}"), len(names) - _SHOWN
        if more > 0:
            text = _("columns not read: {names} and {more} more")
        yield Finding("note", "unread-columns", draft.file, text.format(names=tuple(names[:_SHOWN]), more=more))


def find_lost(draft: Draft, *, labelled: bool) -> Iterator[Finding]:
    """Find the columns that must not be skipped.

    Args:
        draft: the table.
        labelled: whether it has answers; if not, a column that may hold them is an error.

    Yields:
        Errors, and a warning for a column that may or may not hold the answers.
    """
    for column, one in draft.unread.items():
        if one.filled:
            header = draft.columns.header(column)
            name = normalise_header(draft.columns.headers[column])
            found = [] if labelled else [*_find_answers(name, header, one, len(draft.rows))]
            found += _find_text(column, name, header, draft.columns)
            for level, kind, text in found:
                yield Finding(level, kind, draft.file, text, draft.header_row or None, header)


def _find_answers(name: str, header: str, one: Unread, n_rows: int) -> Iterator[tuple[Level, str, str]]:
    """What is wrong if a column holds the answers."""
    take = _("give --columns 正確答案={header}, or remove the column").format(header=as_word(header))
    most = _MOST * max(one.filled, n_rows / 2)
    seems = one.answers >= most and 1 < len(one.different) <= 8
    if _ANSWERS.search(name) or (seems and (not name or _LIKELY.search(name))):
        text = _("{header} is not read and may hold the answers; {take}")
        yield "error", "unread-answers", text.format(header=header, take=take)
    elif one.options >= most:
        text = _("{header} is not read, and its cells are the texts of options; {take}")
        yield "error", "unread-answers", text.format(header=header, take=take)
    elif seems:
        text = _("{header} is not read and has {shown}; if these are the answers, {take}")
        shown = tuple(sorted(one.different)[:4])
        yield "warning", "unread-answers", text.format(header=header, shown=shown, take=take)


def _find_text(column: int, name: str, header: str, columns: Columns) -> Iterator[tuple[Level, str, str]]:
    """What is wrong if a column is an option, or a part of a passage or a question."""
    if _MORE_OPTIONS.fullmatch(name) or _is_next_option(column, name, columns):
        text = _("{header} looks like an option and is not read; call it 選項{next}, or remove it")
        yield "error", "unread-option", text.format(header=header, next=len(columns.options) + 1)
    elif (found := _MORE_TEXT.fullmatch(name)) and not _is_named(found, columns):
        role = "文章" if found["passage"] else "問題"
        cure = _("put all of it into one column, or name that with --columns {role}=HEADER").format(role=role)
        text = _("{header} looks like a part of {role} and is not read; {cure}")
        yield "error", "unread-text", text.format(header=header, role=role, cure=cure)


def _is_next_option(column: int, name: str, columns: Columns) -> bool:
    """Whether a column continues the options, such as E next to 選項D."""
    signs = [
        signs[len(columns.options)] for signs in ("123456789", "abcdefghi", "一二三四五六七八九", "甲乙丙丁戊己庚辛壬")
    ]
    return column == columns.options[-1] + 1 and name in signs


def _is_named(found: re.Match[str], columns: Columns) -> bool:
    return (columns.passage if found["passage"] else columns.question) in columns.named
