"""Baselines without a model, which compare characters at most: an accuracy means little unless it is well above these.

On a workbook whose right options are often word for word in the passage they reach two thirds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import accumulate
from math import log

from lrc.data.questions import Question

Baseline = Callable[[Sequence[Question]], list[int]]  # the number of the chosen option of each question


def majority(questions: Sequence[Question]) -> list[int]:
    """The most frequent answer of the questions themselves, for all of them; the first of several."""
    counts = Counter(question.answer for question in questions if question.answer is not None)
    answer = min(counts, key=lambda number: (-counts[number], number), default=1)
    return [answer if answer in question.choosable else question.choosable[0] for question in questions]


def longest(questions: Sequence[Question]) -> list[int]:
    """The option with the most characters; the first of several."""
    return [_best(question, [float(len(option)) for option in question.options]) for question in questions]


def overlap(questions: Sequence[Question]) -> list[int]:
    """The option with the greatest share of its character bigrams in the passage; the longest of several."""
    return [_overlap(question) for question in questions]


def sliding_window(questions: Sequence[Question]) -> list[int]:
    """The option that, with the question, has most in common with some stretch of the passage.

    The measure is that of Richardson et al. 2013 (MCTest), over character bigrams: within a window as long as
    question and option have distinct bigrams, those that they contain count log(1 + 1/frequency in the
    passage).
    """
    return [_sliding_window(question) for question in questions]


BASELINES: dict[str, Baseline] = {
    "majority": majority,
    "longest option": longest,
    "bigram overlap": overlap,
    "sliding window": sliding_window,
}


def _overlap(question: Question) -> int:
    passage = set(_bigrams(question.passage))
    scores = []
    for option in question.options:
        grams = set(_bigrams(option))
        # The length only decides between equal shares: an option has far fewer than 10⁶ characters.
        scores.append(len(grams & passage) / max(1, len(grams)) + len(option) / 1e6)
    return _best(question, scores)


def _sliding_window(question: Question) -> int:
    passage = _bigrams(question.passage)
    weights = {gram: log(1 + 1 / count) for gram, count in Counter(passage).items()}
    asked = set(_bigrams(question.question))
    scores = []
    for option in question.options:
        wanted = asked | set(_bigrams(option))
        sums = [0.0, *accumulate(weights[gram] if gram in wanted else 0.0 for gram in passage)]
        size = min(len(wanted), len(passage))
        scores.append(max(end - start for start, end in zip(sums, sums[size:], strict=False)))
    return _best(question, scores)


def _bigrams(text: str) -> list[str]:
    """The character bigrams of a text without white space; a single character is one."""
    text = "".join(text.split())
    return [text] if len(text) == 1 else [text[i : i + 2] for i in range(len(text) - 1)]


def _best(question: Question, scores: Sequence[float]) -> int:
    """The option with text that has the highest score; the first of several."""
    return max(question.choosable, key=lambda number: (scores[number - 1], -number))
