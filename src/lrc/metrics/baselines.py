"""Baselines without a model, which at most compare characters. An accuracy means little unless it is well above them.

If the right options are often quoted from the passage, they reach an accuracy of two thirds (docs/results.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import accumulate
from math import log

from lrc.data.questions import Question

Baseline = Callable[[Sequence[Question]], list[int]]  # the number of the chosen option of each question


def majority(questions: Sequence[Question]) -> list[int]:
    """The most frequent answer of these very questions, the smallest of several; where it is blank, another option."""
    counts = Counter(question.answer for question in questions if question.answer is not None)
    answer = min(counts, key=lambda number: (-counts[number], number), default=1)
    return [answer if answer in question.choosable else question.choosable[0] for question in questions]


def longest(questions: Sequence[Question]) -> list[int]:
    """The option with the most characters, the first of several."""
    return [_best(question, [float(len(option)) for option in question.options]) for question in questions]


def overlap(questions: Sequence[Question]) -> list[int]:
    """The option with the largest share of its character bigrams in the passage, the longest of several."""
    return [_choose_by_overlap(question) for question in questions]


def sliding_window(questions: Sequence[Question]) -> list[int]:
    """The option that, with the question, has most in common with a window of the passage.

    This is the sliding window of Richardson et al. 2013 (MCTest) over character bigrams: the window is as long as the
    number of distinct bigrams in question and option, and each of these in the window counts log(1 + 1 / its frequency
    in the passage).
    """
    return [_choose_by_window(question) for question in questions]


BASELINES: dict[str, Baseline] = {
    "majority": majority,
    "longest option": longest,
    "bigram overlap": overlap,
    "sliding window": sliding_window,
}


def _choose_by_overlap(question: Question) -> int:
    passage = set(_bigrams(question.passage))
    scores = []
    for option in question.options:
        grams = set(_bigrams(option))
        # The length only breaks ties: an option has far fewer than 10⁶ characters.
        scores.append(len(grams & passage) / max(1, len(grams)) + len(option) / 1e6)
    return _best(question, scores)


def _choose_by_window(question: Question) -> int:
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
    """The character bigrams of a text without white space; a text of one character is its own bigram."""
    text = "".join(text.split())
    return [text] if len(text) == 1 else [text[i : i + 2] for i in range(len(text) - 1)]


def _best(question: Question, scores: Sequence[float]) -> int:
    """The number of the option with the highest score, the first of several; blank options are left out."""
    return max(question.choosable, key=lambda number: (scores[number - 1], -number))
