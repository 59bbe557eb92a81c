"""Questions that are in a file more than once, and near-duplicate passages: warnings only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from lrc.data.near_duplicates import Groups
from lrc.data.questions import Question
from lrc.runtime.findings import Finding

_ROWS_SHOWN = 5


def find_duplicates(questions: Sequence[Question], groups: Groups, file: str) -> list[Finding]:
    """Find repeated questions and near-duplicate passages, one finding for all the rows that belong together.

    Kinds: `duplicate-question` (passage, question and options are the same, white space and the order of the
    options apart) and `near-duplicate-passage`.

    Args:
        groups: the passages of `questions`.
        file: the name of the file that they are from.
    """
    return [*_questions(questions, groups, file), *_passages(questions, groups, file)]


def _questions(questions: Sequence[Question], groups: Groups, file: str) -> Iterator[Finding]:
    # Numbers first: only what is repeated needs its texts side by side, too much for a million rows.
    hashes = np.fromiter(
        (hash((passage, _key(question))) for passage, question in zip(groups.passages, questions, strict=True)),
        dtype=np.int64,
        count=len(questions),
    )
    _, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    same: dict[object, list[Question]] = {}
    for place in np.flatnonzero(counts[inverse] > 1).tolist():
        same.setdefault((groups.passages[place], _key(questions[place])), []).append(questions[place])
    for first, *others in same.values():
        if others:
            text = f"the same question is in {_rows(others)}; all are kept, on one side of a split"
            yield Finding("warning", "duplicate-question", file, text, first.row)


def _passages(questions: Sequence[Question], groups: Groups, file: str) -> Iterator[Finding]:
    firsts: dict[int, dict[int, Question]] = {}  # by cluster, the first question of each passage
    for question, passage, cluster in zip(questions, groups.passages, groups.clusters, strict=True):
        firsts.setdefault(cluster, {}).setdefault(passage, question)
    for members in firsts.values():
        first, *others = members.values()
        if others:
            text = f"文章 is nearly the same in {_rows(others)}; all are kept, on one side of a split"
            yield Finding("warning", "near-duplicate-passage", file, text, first.row, "文章")


def _key(question: Question) -> tuple[str, tuple[str, ...]]:
    return _without_space(question.question), tuple(sorted(map(_without_space, question.options)))


def _without_space(text: str) -> str:
    return "".join(text.split())


def _rows(questions: Sequence[Question]) -> str:
    shown = ", ".join(str(question.row) for question in questions[:_ROWS_SHOWN])
    more = f" and {len(questions) - _ROWS_SHOWN:,} more" if len(questions) > _ROWS_SHOWN else ""
    return f"row {shown}" if len(questions) == 1 else f"rows {shown}{more}"
