"""Finds repeated questions in a file, and passages that are repeated nearly or in part.

Repeats are warnings. The same question with different answers is an error: some of the copies must be wrong, and it
cannot be told which.
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


def duplicate_key(question: Question) -> tuple[str, tuple[str, tuple[str, ...]]]:
    """The key that is equal for two copies of a question.

    Passages are compared in their canonical form (`near_duplicates.canonical`); the question and its options without
    white space, and the options in any order.
    """
    return canonical(question.passage), _short_key(question)


def find_duplicates(questions: Sequence[Question], groups: Groups, file: str) -> list[Finding]:
    """Find repeated questions, near-duplicate passages and passages that are parts of one another.

    Args:
        questions: the questions of a file, with or without answers.
        groups: their passages, from `near_duplicates.group_passages`.
        file: the name of the file.

    Returns:
        A warning for each set of rows that belong together, of the kinds `duplicate-question` (equal in
        `duplicate_key`), `near-duplicate-passage` and `partial-passage`.
    """
    nearly = _("文章 is nearly the same in {others}; all are kept, on one side of a split")
    partly = _("文章 and that of {others} are parts of one another; all are kept, on one side of a split")
    found = [*_find_repeated_questions(questions, groups, file)]
    for kind, text, inner, outer in (
        ("near-duplicate-passage", nearly, groups.passages, groups.near_duplicates),
        ("partial-passage", partly, groups.near_duplicates, groups.clusters),
    ):
        for first, *others in _pick_firsts(questions, inner, outer):
            found.append(Finding("warning", kind, file, text.format(others=_list_rows(others)), first.row, "文章"))
    return found


def _find_repeated_questions(questions: Sequence[Question], groups: Groups, file: str) -> Iterator[Finding]:
    # As `duplicate_key`, with the number of the passage for its text. Hashes first, since the keys of a million rows
    # would take too much memory.
    hashes = np.fromiter(
        (hash((passage, _short_key(question))) for passage, question in zip(groups.passages, questions, strict=True)),
        dtype=np.int64,
        count=len(questions),
    )
    _hashes, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    same: dict[object, list[Question]] = {}
    for place in np.flatnonzero(counts[inverse] > 1).tolist():
        same.setdefault((groups.passages[place], _short_key(questions[place])), []).append(questions[place])
    for first, *others in same.values():
        if others:
            text = _("the same question is in {others}; all are kept, on one side of a split").format(
                others=_list_rows(others)
            )
            yield Finding("warning", "duplicate-question", file, text, first.row)


def _pick_firsts(questions: Sequence[Question], inner: Sequence[int], outer: Sequence[int]) -> Iterator[list[Question]]:
    """For each outer group with several inner groups, the first question of each inner group."""
    firsts: dict[int, dict[int, Question]] = {}
    for question, within, cluster in zip(questions, inner, outer, strict=True):
        firsts.setdefault(cluster, {}).setdefault(within, question)
    return (list(members.values()) for members in firsts.values() if len(members) > 1)


def _short_key(question: Question) -> tuple[str, tuple[str, ...]]:
    """The part of `duplicate_key` that does not depend on the passage."""
    return _strip_spaces(question.question), tuple(sorted(map(_strip_spaces, question.options)))


def _strip_spaces(text: str) -> str:
    return "".join(text.split())


def _list_rows(questions: Sequence[Question]) -> str:
    shown, more = tuple(str(question.row) for question in questions[:_ROWS_SHOWN]), len(questions) - _ROWS_SHOWN
    if more > 0:
        return _("rows {rows} and {more:,} more").format(rows=shown, more=more)
    return _("row {rows}").format(rows=shown) if len(questions) == 1 else _("rows {rows}").format(rows=shown)


def find_conflicts(questions: Sequence[Question], file: str, header: str) -> list[Finding]:
    """Find labelled questions whose copies have another answer.

    Two questions are copies if their `duplicate_key` is equal. They conflict if the text of the right option differs.

    Args:
        questions: all have an answer.
        file: the name of the file.
        header: the header of the column with the answers.

    Returns:
        An error for each question of a conflict, which names one of the others.
    """
    findings: list[Finding] = []
    for group in _group_copies(questions):
        rights = [_strip_spaces(_right_option(question)) for question in group]
        if len(set(rights)) == 1:
            continue
        for question, right in zip(group, rights, strict=True):
            other = next(twin for twin, answer in zip(group, rights, strict=True) if answer != right)
            text = _(
                "{header} gives {question}, but row {row} has the same question and gives {other}; correct one of them"
            ).format(
                header=header,
                question=_quote(_right_option(question)),
                row=other.row,
                other=_quote(_right_option(other)),
            )
            findings.append(Finding("error", "conflicting-answers", file, text, question.row, header))
    return findings


def _group_copies(questions: Sequence[Question]) -> Iterable[list[Question]]:
    """The groups of two or more copies of a question."""
    # By question and options first: they are short, and few rows then need their passage compared.
    for candidates in _group_equal([hash(_short_key(question)) for question in questions]):
        members = [questions[place] for place in candidates]
        for group in _group_equal(list(map(duplicate_key, members))):
            yield [members[place] for place in group]


def _group_equal(keys: Sequence[object]) -> list[list[int]]:
    """The positions of equal keys, for each key that occurs more than once."""
    first: dict[object, int] = {}
    groups: dict[int, list[int]] = {}
    for place, key in enumerate(keys):
        earlier = first.setdefault(key, place)
        if earlier != place:
            groups.setdefault(earlier, [earlier]).append(place)
    return list(groups.values())


def _right_option(question: Question) -> str:
    return collapse(question.options[(question.answer or 1) - 1])


def _quote(text: str) -> str:
    return f"「{text[:20]}…」" if len(text) > 20 else f"「{text}」"
