"""Finds the header row of a table, and the role of each column, by the names that people give them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache

from lrc.data.questions import MAX_OPTIONS, MIN_OPTIONS
from lrc.data.tables.table import Table, TableRow, letters
from lrc.runtime.arguments import require_choice
from lrc.runtime.errors import DataError
from lrc.runtime.findings import Finding
from lrc.runtime.translation import CHINESE, ENGLISH, Message, _, alternatives, localized

ROLES = ("文章", "問題", *(f"選項{number}" for number in range(1, MAX_OPTIONS + 1)), "正確答案", "ID")
LOOKED_AT = 20  # the first rows, one of which is the header

# By role: the preferred names, then names that count only if the table has none of the preferred ones.
_NAMES = {
    "文章": (
        "文章 passage article context flores_passage",
        "短文 閱讀文章 阅读文章 閱讀短文 阅读短文 閱讀測驗 阅读测验 閱讀材料 阅读材料 閱讀內容 阅读内容 閱讀選文 "
        "文章內容 文章内容 文章內文 短文內容 短文内容 選文 选文 課文 课文 文本 篇章 內文 内文 文段 段落 引文 原文 材料 "
        "text story paragraph reading_passage reading_text document passage_text article_text context_text",
    ),
    "問題": (
        "問題 问题 question",
        "題目 题目 題幹 题干 問句 问句 提問 提问 試題 试题 題目內容 题目内容 問題內容 问题内容 題目敘述 問題敘述 "
        "題幹內容 question_text question_stem stem query",
    ),
    "正確答案": (
        "正確答案 正确答案 答案 answer correct_answer_num",
        "標準答案 标准答案 解答 正解 正答 參考答案 参考答案 正確選項 正确选项 正確解答 答 ans answers answer_key "
        "correct_answer correct_option right_answer",
    ),
    "ID": (
        "id 題號 题号",
        "編號 编号 序號 序号 題目編號 题目编号 試題編號 問題編號 流水號 題次 題序 項次 no num number qid question_id "
        "question_no question_number",
    ),
}
_PLACES = ("一二三四五六七八", "abcdefgh", "甲乙丙丁戊己庚辛", "壹貳參肆伍陸柒捌", "壹贰叁肆伍陆柒捌")
_ROMAN = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii")
_PLACE = rf"([0-9]{{1,3}}|[{''.join(_PLACES)}]|{'|'.join(reversed(_ROMAN))})"
_OPTION_WORD = "(?:[選选][項项]|[選选]擇|答案[選选][項项]|option|choice|mcanswer)"
_OPTION = re.compile(f"{_OPTION_WORD}第?{_PLACE}|第?{_PLACE}[個个]?[選选][項项]|opt{_PLACE}|[選选]{_PLACE}")
# 1, A, 甲, 答案1: only if no column has a plainer name of an option.
_BARE_OPTION = re.compile(f"(?:答案|answer)?{_PLACE}")
_ROW_OF_OPTIONS = re.compile(f"{_OPTION_WORD}s?")
_BRACKETS = re.compile(r"[(（\[【〔「].*?[)）\]】〕」]")
_CURE = _("name it with --columns, or correct the header")
Error = tuple[str, Message]  # the kind and the text of a finding

# Remarks in brackets that say what is to be filled in: (1-4), (A~D), (必填), (單選).
_HARMLESS = re.compile(f"[0-9a-h甲乙丙丁]{{1,8}}|必填|必要|單選|单选|單選題|單一選擇|required|{_OPTION_WORD}?{_PLACE}")


@dataclass(frozen=True)
class Columns:
    """The indices, from 0, of the columns that lrc reads."""

    id: int | None
    passage: int
    question: int
    options: tuple[int, ...]
    answer: int | None
    headers: tuple[str, ...]  # of all columns, as the table has them but without white space
    named: frozenset[int] = frozenset()  # the columns that the user named with --columns

    @property
    def used(self) -> tuple[int, ...]:
        """The columns of passage, question and options, then those of answer and ID if the table has them."""
        more = (column for column in (self.answer, self.id) if column is not None)
        return (self.passage, self.question, *self.options, *more)

    def header(self, column: int) -> str:
        """The header of a column, or `column C` if it has none."""
        return self.headers[column] if self.headers[column] else _name_place(column)


@dataclass(frozen=True)
class Header:
    """The header of a table."""

    columns: Columns
    row: int  # its row number; the last one of a header of two rows
    used: int  # the number of rows up to and including it
    findings: tuple[Finding, ...]


def name_roles(columns: Mapping[str, str]) -> dict[str, str]:
    """The headers that the user gives, by role.

    Args:
        columns: the header of a column by any name of its role: 文章, passage …

    Raises:
        DataError: a role is not known or named twice, or a header is empty.
    """
    named: dict[str, str] = {}
    for name, header in columns.items():
        role = role_of(str(name))
        require_choice(_("columns: role"), role if role in ROLES else name, ROLES, DataError)
        if role in named:
            raise DataError(_("columns: {role} is named twice; keep one of the two").format(role=role))
        if not isinstance(header, str) or not header.strip():
            raise DataError(_("columns: {role} has no header; give the text above its column").format(role=role))
        named[str(role)] = header
    return named


def find_header(table: Table, rows: Sequence[TableRow], named: Mapping[str, str] | None = None) -> Header:
    """Find the header: the first row that names passage, question and options, by itself or together with the next row.

    White space, punctuation, case and width are ignored; traditional and simplified names are known.

    Args:
        table: for its file name and sheets; its rows are not read.
        rows: the first rows of the table, including empty ones.
        named: the headers that the user gives, by role.

    Raises:
        DataError: no row has all columns; or the best one has a column twice, or options that are not numbered from 1
            without a gap.
    """
    named = {role: normalise_header(header) for role, header in (named or {}).items()}
    candidates = list(_candidates(rows, named))
    best = _first_whole(candidates) or max(candidates, key=lambda one: one.likeness, default=None)
    if best is None:
        raise DataError(
            _("{file}: no rows, not even a header; add the questions{table}").format(
                file=table.file, table=table.elsewhere
            )
        )
    if errors := list(_find_errors(table, best, named)):
        raise DataError(*errors)
    above = [row for row in rows[: best.first] if any(map(str.strip, row.cells))]
    findings = []
    if above:
        title = next(cell.strip() for cell in above[0].cells if cell.strip())
        text = _("「{text}{value}」 is above the header in row {number}; skipped").format(
            text=title[:20], value="…" * (len(title) > 20), number=best.row.number
        )
        findings.append(Finding("note", "title-row", table.file, text, above[0].number))
    if best.used - best.first > 1:
        text = _("the header spans rows {number} and {number2}; both were read as one").format(
            number=rows[best.first].number, number2=best.row.number
        )
        findings.append(Finding("note", "two-row-header", table.file, text))
    columns = best.columns(named)
    findings += _report_remarks(table, best, columns)
    return Header(columns, best.row.number, best.used, tuple(findings))


def _report_remarks(table: Table, found: _Candidate, columns: Columns) -> Iterator[Finding]:
    """Notes on headers with a remark in brackets that may change their meaning, such as 答案(學生)."""
    for role, places in found.places.items():
        header = columns.headers[places[0]]
        remarks = [normalise_header(text) for text in _BRACKETS.findall(header)]
        known = {role, role_of(_BRACKETS.sub("", header))}
        if places[0] not in columns.named and any(
            text and role_of(text) not in known and not _HARMLESS.fullmatch(text) for text in remarks
        ):
            text = _("{header} was read as {role}").format(header=header, role=role)
            yield Finding("note", "remark-in-header", table.file, text, found.row.number or None, header)


def _first_whole(candidates: Sequence[_Candidate]) -> _Candidate | None:
    """The first complete candidate. The row above it is a title, unless the two together have more columns."""
    whole = [one for one in candidates if one.is_whole]
    for one in whole:
        if one.used - one.first == 1:
            return next((two for two in whole if two.used == one.used and len(two.places) > len(one.places)), one)
        if all(other.first != one.used - 1 for other in whole):
            return one
    return None


def is_repeated_header(columns: Columns, cells: Sequence[str]) -> bool:
    """Whether a row below the header is a header again, perhaps in another language."""
    return role_of(cells[columns.question]) == "問題" and role_of(cells[columns.passage]) == "文章"


@dataclass(frozen=True)
class _Candidate:
    """One row or two, read as a header."""

    first: int  # the index of its first row
    used: int  # one past the index of its last row
    row: TableRow  # its last row
    headers: tuple[str, ...]
    places: dict[str, list[int]]  # the columns of each role

    @property
    def numbers(self) -> list[int]:
        """The numbers of its options, ascending."""
        return sorted(int(role.removeprefix("選項")) for role in self.places if role.startswith("選項"))

    @property
    def is_whole(self) -> bool:
        """Whether it has passage, question and enough options."""
        return "文章" in self.places and "問題" in self.places and len(self.numbers) >= MIN_OPTIONS

    @property
    def likeness(self) -> int:
        """The number of known columns; 0 if all of them are options, which may be single digits or letters."""
        plain = sum(not role.startswith("選項") for role in self.places)
        return plain and plain + len(self.numbers)

    def columns(self, named: Mapping[str, str]) -> Columns:
        """Make the columns of a whole candidate that has each role once."""
        places = {role: found[0] for role, found in self.places.items()}
        options = tuple(places[f"選項{number}"] for number in self.numbers)
        answer, name = places.get("正確答案"), places.get("ID")
        by_user = frozenset(places[role] for role in named)
        return Columns(name, places["文章"], places["問題"], options, answer, self.headers, by_user)


def _candidates(rows: Sequence[TableRow], named: Mapping[str, str]) -> Iterator[_Candidate]:
    for place, row in enumerate(rows):
        if not any(map(str.strip, row.cells)):
            continue
        yield _make_candidate(place, place + 1, row, row.cells, named)
        if row.number == 0:  # the keys of JSON objects
            return
        if place + 1 < len(rows):
            lower = rows[place + 1]
            yield _make_candidate(place, place + 2, lower, _join_rows(row.cells, lower.cells), named)


def _make_candidate(
    first: int, used: int, row: TableRow, headers: Sequence[str], named: Mapping[str, str]
) -> _Candidate:
    return _Candidate(first, used, row, tuple("".join(text.split()) for text in headers), _assign_roles(headers, named))


def _join_rows(upper: Sequence[str], lower: Sequence[str]) -> list[str]:
    """Join two rows to one header: 選項 above 1, 2, 3, 4 becomes 選項1 to 選項4."""
    headers: list[str] = []
    group = ""
    for place in range(max(len(upper), len(lower))):
        over, under = (cells[place].strip() if place < len(cells) else "" for cells in (upper, lower))
        group = over or group
        both = f"{group}{under}"
        if not under or (role_of(over) and not role_of(under) and not role_of(both)):
            headers.append(over)
        else:
            headers.append(both if (role_of(both) or "").startswith("選項") else under)
    return headers


def _assign_roles(headers: Sequence[str], named: Mapping[str, str]) -> dict[str, list[int]]:
    """The columns of each role: those that the user names, else those with the most preferred name."""
    ranked: dict[str, dict[int, list[int]]] = {}
    for place, text in enumerate(headers):
        role, rank = _rank(text)
        names = [text] if normalise_header(text) else [localized(_name_place(place), to) for to in (ENGLISH, CHINESE)]
        by_user = next((role for role, header in named.items() if header in map(normalise_header, names)), None)
        if by_user:
            ranked.setdefault(by_user, {}).setdefault(-1, []).append(place)
        elif role and role not in named:
            ranked.setdefault(role, {}).setdefault(rank, []).append(place)
    if not any(role.startswith("選項") for role in ranked):  # else a column A may be anything
        for place, text in enumerate(headers):
            if (found := _BARE_OPTION.fullmatch(normalise_header(text))) and (role := _number_option(found)):
                ranked.setdefault(role, {}).setdefault(0, []).append(place)
    return {role: found[min(found)] for role, found in ranked.items()}


def _name_place(column: int) -> Message:
    return _("column {letter}").format(letter=letters(column))


def as_word(header: str) -> str:
    """A header as a word of a command, for --columns, which compares letters and digits only."""
    return re.sub(r"\W+", "_", header)


def role_of(header: str) -> str | None:
    """The role of a header (文章, 問題, 選項1 …, 正確答案, ID); None if lrc does not know it."""
    return _rank(header)[0]


@lru_cache(maxsize=4096)
def _rank(header: str) -> tuple[str | None, int]:
    """The role of a header, and its rank: 0 is a preferred name, larger numbers are less certain ones."""
    if len(header) > 100:
        return None, 0
    text = normalise_header(header)
    if found := _OPTION.fullmatch(text):
        return _number_option(found), 0
    if text in _KNOWN:
        return _KNOWN[text]
    # 文章（Passage）, 題目/Question, 正確答案(1-4)
    parts = [part for part in re.split(r"[/／|\n]", _BRACKETS.sub("", header)) if normalise_header(part)]
    if parts and normalise_header(parts[0]) != text:
        roles = {role_of(part) for part in parts}
        return (roles.pop() if len(roles) == 1 else None), 2
    return None, 0


def normalise_header(header: str) -> str:
    """Normalise a header for comparison: NFKC, case-folded, letters and digits only."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", header).casefold()))


_KNOWN = {
    normalise_header(name): (role, rank)
    for role, names in _NAMES.items()
    for rank, row in enumerate(names)
    for name in row.split()
}


def _number_option(found: re.Match[str]) -> str | None:
    """The role of a header such as 選項B: 選項2."""
    sign = next(filter(None, found.groups()))
    number = next((signs.index(sign) + 1 for signs in (*_PLACES, _ROMAN) if sign in signs), None)
    return f"選項{number or int(sign)}"


def _find_errors(table: Table, found: _Candidate, named: Mapping[str, str]) -> Iterator[Finding]:
    """The errors of the best candidate."""
    shown = tuple(header[:20] for header in found.headers[:12] if header) or _("empty cells")
    errors = [*_find_named(found, named, shown)]
    if not found.likeness and found.row.number:
        text = _("is not a header with {need} …, and neither is any row below: {shown}; add one{table}")
        need = ("文章", "問題", "選項1", "選項2")
        errors.append(("no-header", text.format(need=need, shown=shown, table=table.elsewhere)))
    else:
        errors += [*_find_doubled(found), *_find_misnumbered(found), *_find_missing(table, found, named, shown)]
    for kind, text in errors:
        yield Finding("error", kind, table.file, text, found.row.number or None)  # keys of JSON are in no row


def _find_named(found: _Candidate, named: Mapping[str, str], shown: object) -> Iterator[Error]:
    for role, header in named.items():
        if role not in found.places:
            text = _("no column {header} for {role}, only {shown}; correct --columns")
            yield "no-column", text.format(header=header, role=role, shown=shown)


def _find_doubled(found: _Candidate) -> Iterator[Error]:
    for role, places in found.places.items():
        headers = [found.headers[place] for place in places]
        if len(headers) > 1:
            both = alternatives(headers, _("{words} and {last}"))
            choice = _(", or choose with --columns {role}={header}").format(role=role, header=as_word(headers[0]))
            cure = choice if len(set(map(normalise_header, headers))) > 1 else ""
            text = _("{both} are both {role}; keep one of them{cure}")
            yield "doubled-column", text.format(both=both, role=role, cure=cure)


def _find_misnumbered(found: _Candidate) -> Iterator[Error]:
    first, last = min(found.numbers, default=1), max(found.numbers, default=1)
    if first < 1:
        text = _("options {numbers} to {numbers2} count from 0; call them 1 to {numbers3}")
        yield "options-from-zero", text.format(numbers=first, numbers2=last, numbers3=last + 1)
    elif last > MAX_OPTIONS:
        text = _("options {numbers} to {numbers2}, expected 1 to {max_options}; remove the others")
        yield "too-many-options", text.format(numbers=first, numbers2=last, max_options=MAX_OPTIONS)


def _find_missing(table: Table, found: _Candidate, named: Mapping[str, str], shown: object) -> Iterator[Error]:
    """The columns that are missing, each with the header that is most like it."""
    numbers = [] if any(_find_misnumbered(found)) else found.numbers
    wanted = [role for role in ("文章", "問題", *_name_options(numbers)) if role not in (*found.places, *named)]
    nearest = _find_nearest(wanted, found)
    together = next((header for header in found.headers if _ROW_OF_OPTIONS.fullmatch(normalise_header(header))), None)
    if not numbers and together:
        text = _("{together} is one column for all options; give each a column of its own: 選項1, 選項2 …")
        if not found.row.number:
            text = _('{together} is not a list; write the options as ["…", "…"]')
        yield "no-column", text.format(together=together)
        wanted = [role for role in wanted if not role.startswith("選項")]
    for role in wanted:
        text, cure = _("no column {role}, only {shown}; {cure}{table}"), _CURE
        if role in nearest:
            text = _("no column {role}; is it {nearest}? Then give --columns {role}={word}")
        near = nearest.get(role, "")
        filled = {"role": role, "shown": shown, "cure": cure, "nearest": near, "word": as_word(near)}
        yield "no-column", text.format(**filled, table=table.elsewhere)


def _name_options(numbers: Sequence[int]) -> list[str]:
    """The roles of the options from 1 to the last number, at least two; none if there are too many."""
    last = max((MIN_OPTIONS, *numbers)) if not numbers or numbers[-1] <= MAX_OPTIONS else 0
    return [f"選項{number}" for number in range(1, last + 1)]


def _find_nearest(wanted: Sequence[str], found: _Candidate) -> dict[str, str]:
    """For each role without a column, the unknown header that is most similar to one of its names, if there is one."""
    taken = {place for places in found.places.values() for place in places}
    free = [header for place, header in enumerate(found.headers) if header and place not in taken]
    scores = sorted(
        ((_rate_likeness(role, header), role, header) for role in wanted for header in free), key=lambda one: -one[0]
    )
    nearest: dict[str, str] = {}
    for score, role, header in scores:
        if score >= 0.5 and role not in nearest and header not in nearest.values():
            nearest[role] = header
    return nearest


def _rate_likeness(role: str, header: str) -> float:
    """How similar a header is to the names of a role, 0 to 1."""
    text = normalise_header(header)
    if role.startswith("選項"):
        same = _ROW_OF_OPTIONS.search(text) or len(text) <= 4
        return 0.6 * bool(same and text.endswith(role.removeprefix("選項")))
    names = [normalise_header(name) for row in _NAMES[role] for name in row.split() if len(name) > 1]
    inside = any(name in text for name in names if len(name) * 3 >= len(text))
    return max(0.7 * inside, *(SequenceMatcher(None, text, name).ratio() for name in names))
