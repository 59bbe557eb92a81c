"""Splits a question that was pasted as one text into passage, question and options."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

from lrc.data.questions import MAX_OPTIONS, MIN_OPTIONS
from lrc.data.tables.cleaning import clean, unpaired_surrogate
from lrc.runtime.errors import DataError
from lrc.runtime.translation import _

# One more than `MAX_OPTIONS`, so that a surplus option is not taken for a part of the last one.
_SERIES = ("123456789", "ABCDEFGHI", "①②③④⑤⑥⑦⑧⑨", "甲乙丙丁戊己庚辛壬", "一二三四五六七八九")
_SIGN = "[1-9A-I甲乙丙丁戊己庚辛壬一二三四五六七八九]"
# (A), 【1】 and ① anywhere; 1:, A., 甲、 and 選項1 at the beginning of a line or after white space.
_MARK = re.compile(
    rf"[(\[【]\s*({_SIGN})\s*[)\]】][.、:]?|(?:(?<=\s)|^)(?:選項|选项|option\s*)?({_SIGN})\s*(?:[)、:]|\.(?!\d))"
    r"|(?:(?<=\s)|^)(?:選項|选项)([1-9])(?=\s)|([①-⑨])",
    flags=re.MULTILINE | re.IGNORECASE,
)
_PASSAGE = re.compile(r"^\s*(?:文章|短文|課文|passage)\s*[:：]\s*", re.IGNORECASE)
# `^\s*` would read a run of empty lines again from each of them.
_QUESTION = re.compile(r"^[^\S\n]*(?:問題|问题|題目|题目|question)\s*[:：]\s*", re.IGNORECASE | re.MULTILINE)
_INSTRUCTION = re.compile(r"^[^\S\n]*請根據以下輸入回答.*$", re.MULTILINE)
_ANSWER = re.compile(r"^[^\S\n]*(?:正確答案|答案|answer)\s*[:：].*$", re.IGNORECASE | re.MULTILINE)
# What may follow the last option, and is none of it; before the options, such words may be those of the passage.
_LABEL = "(?:正確|參考|標準)?(?:答案|解答)|正解|答|解析|詳解|(?:correct )?ans(?:wer)?|explanation"
_AFTERWARDS = re.compile(rf"(?:^|(?<=\s))(?:{_LABEL})\s*[:：]|[【\[(（](?:{_LABEL})[】\])）]", re.IGNORECASE)


class PastedQuestion(NamedTuple):
    """A question's parts, cleaned."""

    passage: str
    question: str
    options: tuple[str, ...]


def split_question(text: str) -> PastedQuestion:
    """Split a text. Options start with marks such as 1:, (A) or ①; the question is labelled, or the line before them.

    The right answer is left out if it was pasted, too.

    Raises:
        DataError: there are no options or too many, or nothing before them that could be passage and question, or
            there is another question before them, or a character is only half of one.
    """
    if place := unpaired_surrogate(text):
        half = _("pasted text: character {place} is half of one (an unpaired surrogate); remove it, or paste it again")
        raise DataError(half.format(place=place))
    text = _ANSWER.sub("", _INSTRUCTION.sub("", clean(text)[0])).strip()
    marks = _marks(text)
    if len(marks) > MAX_OPTIONS:
        raise DataError(_("pasted text: more than {most} options; leave some out").format(most=MAX_OPTIONS))
    if len(marks) < MIN_OPTIONS:
        raise DataError(_("pasted text: no options found; begin each on a line of its own with 1:, (A) or ①"))
    before = _marks(text[: marks[0][0]])
    if before and _is_question(text[: before[0][0]].strip()):
        raise DataError(_("pasted text: more than one question with options; paste one at a time"))
    ends = [*(start for start, _end in marks[1:]), len(text)]
    *parts, last = (text[end:stop] for (_start, end), stop in zip(marks, ends, strict=True))
    options = tuple(" ".join(part.split()) for part in (*parts, _AFTERWARDS.split(last)[0]))
    passage, question = _split_head(text[: marks[0][0]].strip())
    if not passage or not question:
        raise DataError(_("pasted text: no passage and question before the options; put each on a line of its own"))
    return PastedQuestion(passage, question, options)


def _marks(text: str) -> list[tuple[int, int]]:
    """The (start, end) of each mark of the last list of options in a text."""
    plain = "".join(unicodedata.normalize("NFKC", sign) if sign not in _SERIES[2] else sign for sign in text)
    if len(plain) != len(text):
        plain = text  # places would shift
    found = [(*_place(match), match.start(), match.end()) for match in _MARK.finditer(plain)]
    # From the end, so that each mark finds what follows it: a text of many marks is not read again for each.
    lists: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for series, place, start, end in reversed(found):
        lists[series, place] = [(start, end), *lists.get((series, place + 1), [])]
        if place == 0 and len(lists[series, place]) >= MIN_OPTIONS:
            return lists[series, place]
    return []


def _place(match: re.Match[str]) -> tuple[int, int]:
    """The index of the series that a mark belongs to, and its index there."""
    sign = next(filter(None, match.groups())).upper()
    return next((number, signs.index(sign)) for number, signs in enumerate(_SERIES) if sign in signs)


def _is_question(head: str) -> bool:
    """Whether what is before a list of options asks something; it may as well be a list in the passage."""
    return head.endswith(("？", "?")) or bool(_QUESTION.match(head.rpartition("\n")[2]))


def _split_head(head: str) -> tuple[str, str]:
    """Split into passage and question: at the label of the question, or else before the last line."""
    named = list(_QUESTION.finditer(head))
    if named:
        passage, question = head[: named[-1].start()], head[named[-1].end() :]
    else:
        passage, _line, question = head.rpartition("\n")
    return _PASSAGE.sub("", passage).strip(), " ".join(question.split())
