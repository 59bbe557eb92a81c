"""The same question with different answers: some copies must be wrong, and nothing tells which."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lrc.data.questions import Question
from lrc.data.tables.cleaning import collapse
from lrc.runtime.findings import Finding

Key = tuple[str, str, tuple[str, ...]]


def find_conflicts(questions: Sequence[Question], file: str, header: str) -> list[Finding]:
    """Find the labelled questions that another one contradicts.

    Two questions are the same when passage, question and options are, white space and the order of the
    options apart. They contradict each other when the text of the right option differs.

    Args:
        file: the name of the file that they are from.
        header: the name of the column with the answers.
    """
    findings: list[Finding] = []
    for group in _same(questions):
        rights = [_right(question) for question in group]
        if len(set(rights)) == 1:
            continue
        for question, right in zip(group, rights, strict=True):
            other = next(twin for twin, answer in zip(group, rights, strict=True) if answer != right)
            text = (
                f"{header} gives {_short(right)}, but row {other.row} has the same question and gives "
                f"{_short(_right(other))}; correct one of them"
            )
            findings.append(Finding("error", "conflicting-answers", file, text, question.row, header))
    return findings


def _same(questions: Sequence[Question]) -> Iterable[list[Question]]:
    """The groups of two and more that are the same question."""
    # Question and options first: they are short, and few rows need their passage compared.
    candidates = _groups(range(len(questions)), [hash(_brief(question)) for question in questions])
    for candidate in candidates:
        members = [questions[place] for place in candidate]
        for group in _groups(range(len(members)), [_key(member) for member in members]):
            yield [members[place] for place in group]


def _groups(places: Iterable[int], keys: Sequence[object]) -> list[list[int]]:
    first: dict[object, int] = {}
    groups: dict[int, list[int]] = {}
    for place in places:
        earlier = first.setdefault(keys[place], place)
        if earlier != place:
            groups.setdefault(earlier, [earlier]).append(place)
    return list(groups.values())


def _brief(question: Question) -> tuple[str, tuple[str, ...]]:
    return collapse(question.question), tuple(sorted(map(collapse, question.options)))


def _key(question: Question) -> Key:
    return collapse(question.passage), *_brief(question)


def _right(question: Question) -> str:
    return collapse(question.options[(question.answer or 1) - 1])


def _short(text: str) -> str:
    return f"「{text[:20]}…」" if len(text) > 20 else f"「{text}」"
