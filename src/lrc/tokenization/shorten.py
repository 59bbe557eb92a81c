"""Passages that are too long for the model, shortened by whole sentences.

Kept are the sentences that share the most character bigrams with the question and its options, in their own order;
question, options and answer are never touched.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from lrc.data.questions import Question

_SENTENCE = re.compile(r"[^。！？!?；;\n]*[。！？!?；;\n]+[」』”’）)]*|[^。！？!?；;\n]+$")


def sentences(passage: str) -> list[str]:
    """Cut a passage behind its full stops, question marks, semicolons and line breaks; joined, they are the passage."""
    return _SENTENCE.findall(passage) or [passage]


def bigrams(text: str) -> set[str]:
    """The pairs of neighbouring characters, white space left out."""
    text = "".join(text.split())
    return {text[i : i + 2] for i in range(len(text) - 1)}


def shorten(question: Question, fits: Callable[[Question], bool]) -> Question | None:
    """Leave out the sentences farthest from question and options until `fits` is content.

    Args:
        fits: whether a question is short enough; true for fewer sentences wherever it is for more.

    Returns:
        The question with the longest passage that fits; None where not even an empty passage does.
    """
    pieces = sentences(question.passage)
    wanted = bigrams(question.question).union(*(bigrams(option) for option in question.options))
    # Of two sentences as close as each other, the earlier one: passages put first what they are about.
    ranked = sorted(range(len(pieces)), key=lambda i: (-_closeness(pieces[i], wanted), i))

    def keeping(count: int) -> Question:
        return replace(question, passage="".join(pieces[i] for i in sorted(ranked[:count])))

    if not fits(keeping(0)):
        return None
    low, high = 0, len(pieces)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(keeping(middle)) else (low, middle - 1)
    return keeping(low)


def _closeness(sentence: str, wanted: set[str]) -> float:
    """Shared bigrams over the root of the sentence's own, so that length alone does not win."""
    own = bigrams(sentence)
    return len(own & wanted) / max(len(own), 1) ** 0.5
