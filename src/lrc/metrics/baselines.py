"""Baselines without a model, which at most compare characters. An accuracy means little unless it is well above them.

If the right options are often quoted from the passage, they reach an accuracy of two thirds (docs/results.md).

Many questions have several options that a baseline cannot tell apart. Scores are compared exactly, as integers and
fractions, so that no rounding decides between them, and the tied options share the credit: if the right one is among k
of them, the baseline is credited with 1/k. So its accuracy is what it has on average if it draws one of the tied
options, and does not depend on the order of the options.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from fractions import Fraction
from typing import Any

from lrc.data.questions import Question

Tied = tuple[int, ...]  # the numbers of the options that share the highest score, ascending; one if none is tied
Baseline = Callable[[Sequence[Question]], list[Tied]]  # for each question


def majority(questions: Sequence[Question]) -> list[Tied]:
    """The most frequent answer of these very questions, of those numbers that are options with text."""
    counts = Counter(question.answer for question in questions)
    return [_best(one, [counts[number] for number in range(1, len(one.options) + 1)]) for one in questions]


def longest(questions: Sequence[Question]) -> list[Tied]:
    """The option with the most characters."""
    return [_best(question, [len(option) for option in question.options]) for question in questions]


def overlap(questions: Sequence[Question]) -> list[Tied]:
    """The option with the largest share of its character bigrams in the passage, the longest of several."""
    return [_choose_by_overlap(question) for question in questions]


def sliding_window(questions: Sequence[Question]) -> list[Tied]:
    """The option that, with the question, has most in common with a window of the passage.

    This is the sliding window of Richardson et al. 2013 (MCTest) over character bigrams: the window is as long as the
    number of distinct bigrams in question and option, and each of these in the window counts log(1 + 1 / its frequency
    in the passage). Here, windows are compared by the exponential of that sum, which is a fraction.
    """
    return [_choose_by_window(question) for question in questions]


BASELINES: dict[str, Baseline] = {
    "majority": majority,
    "longest option": longest,
    "bigram overlap": overlap,
    "sliding window": sliding_window,
}


def credit(chosen: Sequence[Tied], answers: Sequence[int]) -> list[Fraction]:
    """The credit for each question: 1/k if the right option is one of k that are tied, 0 if it is none of them.

    Args:
        chosen: the tied options of each question.
        answers: the number of the right option of each question.
    """
    return [Fraction(int(answer in tied), len(tied)) for tied, answer in zip(chosen, answers, strict=True)]


def _choose_by_overlap(question: Question) -> Tied:
    passage = set(_bigrams(question.source_passage))
    scores = []
    for option in question.options:
        grams = set(_bigrams(option))
        scores.append((Fraction(len(grams & passage), max(1, len(grams))), len(option)))
    return _best(question, scores)


def _choose_by_window(question: Question) -> Tied:
    passage = _bigrams(question.source_passage)
    counts, asked = Counter(passage), set(_bigrams(question.question))
    return _best(question, [_score_window(passage, counts, asked | set(_bigrams(one))) for one in question.options])


def _score_window(passage: Sequence[str], counts: Mapping[str, int], wanted: Collection[str]) -> Fraction:
    """The largest product of 1 + 1 / frequency over the wanted bigrams of a window of the passage; 1 if it has none.

    A bigram of frequency n is a factor n + 1 of the numerator and n of the denominator while the window is over it.
    """
    above = below = 1
    best, best_below = 1, 1
    for place, gram in enumerate(passage):
        if place >= len(wanted) and (left := passage[place - len(wanted)]) in wanted:
            above, below = above // (counts[left] + 1), below // counts[left]
        if gram in wanted:
            above, below = above * (counts[gram] + 1), below * counts[gram]
            if above * best_below > best * below:
                best, best_below = above, below
    return Fraction(best, best_below)


def _bigrams(text: str) -> list[str]:
    """The character bigrams of a text without white space; a text of one character is its own bigram."""
    text = "".join(text.split())
    return [text] if len(text) == 1 else [text[i : i + 2] for i in range(len(text) - 1)]


def _best(question: Question, scores: Sequence[Any]) -> Tied:
    """The numbers of the options with the highest score; blank options are left out.

    Args:
        question: the options are its own.
        scores: of each option; exact, not floating-point sums, whose rounding would tell equal ones apart.
    """
    highest = max(scores[number - 1] for number in question.choosable)
    return tuple(number for number in question.choosable if scores[number - 1] == highest)
