"""Questions that stand in a file more than once, and passages that nearly do, or in part.

Repeats are warnings. The same question with different answers is an error: some copies must be wrong, and nothing tells
which.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from lrc.data.near_duplicates import Groups, canonical
from lrc.data.questions import Question
from lrc.data.tables.cleaning import collapse
from lrc.runtime.findings import Finding
from lrc.runtime.translation import _

_ROWS_SHOWN = 5


def question_key(question: Question) -> tuple[str, tuple[str, tuple[str, ...]]]:
    """What two questions have alike that are the same.

    The passage, white space, case and width apart (`near_duplicates.canonical`); the question and its options, white
    space and their order apart.
    """
    return canonical(question.passage), _key(question)


def find_duplicates(questions: Sequence[Question], groups: Groups, file: str) -> list[Finding]:
    """Find repeated questions, near-duplicate passages and parts of one another.

    There is one finding for all the rows that belong together. Kinds: `duplicate-question` (see `question_key`),
    `near-duplicate-passage` and `partial-passage`.

    Args:
        groups: the passages of `questions`.
        file: the name of the file that they are from.
    """
    return [found for search in (_questions, _near_duplicates, _parts) for found in search(questions, groups, file)]


def _questions(questions: Sequence[Question], groups: Groups, file: str) -> Iterator[Finding]:
    # `question_key`, with the passage's number in `groups` for its text. Numbers first: only what is repeated needs its
    # texts side by side, too much for a million rows.
    hashes = np.fromiter(
        (hash((passage, _key(question))) for passage, question in zip(groups.passages, questions, strict=True)),
        dtype=np.int64,
        count=len(questions),
    )
    _hashes, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    same: dict[object, list[Question]] = {}
    for place in np.flatnonzero(counts[inverse] > 1).tolist():
        same.setdefault((groups.passages[place], _key(questions[place])), []).append(questions[place])
    for first, *others in same.values():
        if others:
            text = _("the same question is in {others}; all are kept, on one side of a split").format(
                others=_rows(others)
            )
            yield Finding("warning", "duplicate-question", file, text, first.row)


def _near_duplicates(questions: Sequence[Question], groups: Groups, file: str) -> Iterator[Finding]:
    for first, *others in _firsts(questions, groups.passages, groups.near_duplicates):
        text = _("文章 is nearly the same in {others}; all are kept, on one side of a split").format(
            others=_rows(others)
        )
        yield Finding("warning", "near-duplicate-passage", file, text, first.row, "文章")


def _parts(questions: Sequence[Question], groups: Groups, file: str) -> Iterator[Finding]:
    for first, *others in _firsts(questions, groups.near_duplicates, groups.clusters):
        text = _("文章 and that of {others} are parts of one another; all are kept, on one side of a split").format(
            others=_rows(others)
        )
        yield Finding("warning", "partial-passage", file, text, first.row, "文章")


def _firsts(questions: Sequence[Question], inner: Sequence[int], outer: Sequence[int]) -> Iterator[list[Question]]:
    """For each outer group with several inner ones, the first question of each of these."""
    firsts: dict[int, dict[int, Question]] = {}
    for question, within, cluster in zip(questions, inner, outer, strict=True):
        firsts.setdefault(cluster, {}).setdefault(within, question)
    return (list(members.values()) for members in firsts.values() if len(members) > 1)


def _key(question: Question) -> tuple[str, tuple[str, ...]]:
    return _without_space(question.question), tuple(sorted(map(_without_space, question.options)))


def _without_space(text: str) -> str:
    return "".join(text.split())


def _rows(questions: Sequence[Question]) -> str:
    shown, more = tuple(str(question.row) for question in questions[:_ROWS_SHOWN]), len(questions) - _ROWS_SHOWN
    if more > 0:
        return _("rows {rows} and {more:,} more").format(rows=shown, more=more)
    return _("row {rows}").format(rows=shown) if len(questions) == 1 else _("rows {rows}").format(rows=shown)


def find_conflicts(questions: Sequence[Question], file: str, header: str) -> list[Finding]:
    """Find the labelled questions that another one contradicts.

    Two questions are the same when their `question_key` is. They contradict each other when the text of the right
    option differs.

    Args:
        file: the name of the file that they are from.
        header: the name of the column with the answers.
    """
    findings: list[Finding] = []
    for group in _same(questions):
        rights = [_without_space(_right(question)) for question in group]
        if len(set(rights)) == 1:
            continue
        for question, right in zip(group, rights, strict=True):
            other = next(twin for twin, answer in zip(group, rights, strict=True) if answer != right)
            text = _(
                "{header} gives {question}, but row {row} has the same question and gives {other}; correct one of them"
            ).format(header=header, question=_short(_right(question)), row=other.row, other=_short(_right(other)))
            findings.append(Finding("error", "conflicting-answers", file, text, question.row, header))
    return findings


def _same(questions: Sequence[Question]) -> Iterable[list[Question]]:
    """The groups of two and more that are the same question."""
    # Question and options first: they are short, and few rows need their passage compared.
    candidates = _groups(range(len(questions)), [hash(_key(question)) for question in questions])
    for candidate in candidates:
        members = [questions[place] for place in candidate]
        for group in _groups(range(len(members)), list(map(question_key, members))):
            yield [members[place] for place in group]


def _groups(places: Iterable[int], keys: Sequence[object]) -> list[list[int]]:
    first: dict[object, int] = {}
    groups: dict[int, list[int]] = {}
    for place in places:
        earlier = first.setdefault(keys[place], place)
        if earlier != place:
            groups.setdefault(earlier, [earlier]).append(place)
    return list(groups.values())


def _right(question: Question) -> str:
    return collapse(question.options[(question.answer or 1) - 1])


def _short(text: str) -> str:
    return f"「{text[:20]}…」" if len(text) > 20 else f"「{text}」"
