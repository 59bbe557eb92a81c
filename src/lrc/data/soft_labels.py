"""Soft labels: what other models make of the training questions, as a part of what the contrast of options learns.

A question's target is a mixture of its right option and of the probabilities that a file of scores gives its options,
as in distillation (Hinton et al. 2015, arXiv 1503.02531): a vote of several models, or a larger one, teaches a small
one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lrc.data.alpaca import Record
from lrc.data.questions import Question
from lrc.data.score_files import match_scores, read_scores
from lrc.data.sources import read_records
from lrc.runtime.errors import DataError
from lrc.runtime.translation import _

QuestionKey = tuple[str, int | None, str, tuple[str, ...]]


@dataclass(frozen=True)
class SoftLabels:
    """The probabilities of each training question's options.

    Args:
        probabilities: by question; 0 where an option cannot be chosen.
        weight: their part of the target, 0 to 1; the rest is the right option's.
    """

    probabilities: dict[QuestionKey, tuple[float, ...]]
    weight: float

    @classmethod
    def read(cls, path: Path, data: Sequence[Path], weight: float, temperature: float) -> SoftLabels:
        """Read the scores of all questions of the training files.

        Args:
            path: the scores, as `lrc generate --scores` writes them.
            data: the training questions, whose scores follow each other as the files do.
            temperature: what the scores are divided by before they become probabilities.

        Raises:
            DataError: the two are not about the same questions, or the scores cannot be read.
        """
        records = [record for file in data for record in read_records(file)]
        questions = [record.question for record in records if record.question is not None]
        if not questions:
            raise DataError(
                _("{data}: has no questions with options, which soft_labels are for; remove them").format(data=data[0])
            )
        scores = match_scores(path, read_scores(path), questions, data[0]) / temperature
        probabilities = np.exp(scores - np.logaddexp.reduce(scores, axis=1, keepdims=True))
        pairs = zip(questions, probabilities.tolist(), strict=True)
        return cls({_key(question): tuple(line[: len(question.options)]) for question, line in pairs}, weight)

    def target(self, record: Record) -> tuple[float, ...]:
        """What the contrast learns of a labelled record: a probability an option, in its own order; their sum is 1."""
        question = record.question
        assert question is not None and question.answer is not None  # others are not compared
        probabilities = self.probabilities.get(_key(question))
        if probabilities is None:  # of a question that pseudo-labels answer: the training files' all have theirs
            return tuple(float(number == question.answer) for number in range(1, len(question.options) + 1))
        mixed = [self.weight * one for one in probabilities]
        mixed[question.answer - 1] += 1 - self.weight
        return tuple(mixed)


def _key(question: Question) -> QuestionKey:
    """What a question is found by; a passage may have been shortened since."""
    return question.id, question.row, question.question, question.options
