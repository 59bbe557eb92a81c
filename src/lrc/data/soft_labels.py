"""Soft labels: the probabilities that other models give the options, as part of the target of the option contrast.

The target of a question is a mixture of its right option and of the probabilities in a file of scores, as in
distillation (Hinton et al. 2015, arXiv 1503.02531): a vote of several models, or a larger model, teaches a small one.
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
    """The soft labels of the training questions.

    Args:
        probabilities: of each option, by question (see `_key`); 0 for an option that cannot be chosen.
        weight: the share of the soft labels in the target, 0 to 1; the right option has the rest.
    """

    probabilities: dict[QuestionKey, tuple[float, ...]]
    weight: float

    @classmethod
    def read(cls, path: Path, data: Sequence[Path], weight: float, temperature: float) -> SoftLabels:
        """Read the scores of all questions of the training files.

        Args:
            path: one file with the scores of all files in `data`, as `lrc generate --scores` writes them.
            data: the training files.
            weight: see the class.
            temperature: of the softmax that turns scores into probabilities.

        Raises:
            DataError: the training files have no questions with options, the scores are not of the same questions, or
                they cannot be read; or two questions differ in their passages only, and not in their ids.
        """
        records = [record for file in data for record in read_records(file)]
        questions = [record.question for record in records if record.question is not None]
        if not questions:
            raise DataError(
                _("{data}: has no questions with options, which soft_labels are for; remove them").format(data=data[0])
            )
        scores = match_scores(path, read_scores(path), questions, data[0]) / temperature
        probabilities = np.exp(scores - np.logaddexp.reduce(scores, axis=1, keepdims=True))
        _refuse_alike(questions, path)
        pairs = zip(questions, probabilities.tolist(), strict=True)
        return cls({_key(question): tuple(line[: len(question.options)]) for question, line in pairs}, weight)

    def target(self, record: Record) -> tuple[float, ...]:
        """The target distribution over the options of a labelled record, in the order of its options."""
        question = record.question
        assert question is not None and question.answer is not None  # other records have no contrast
        probabilities = self.probabilities.get(_key(question))
        if probabilities is None:  # a pseudo-labelled question; those of the training files all have soft labels
            return tuple(float(number == question.answer) for number in range(1, len(question.options) + 1))
        mixed = [self.weight * one for one in probabilities]
        mixed[question.answer - 1] += 1 - self.weight
        return tuple(mixed)


def _refuse_alike(questions: Sequence[Question], path: Path) -> None:
    """Refuse questions that would get each other's soft labels, as in two files that both count from 1."""
    first: dict[QuestionKey, Question] = {}
    for question in questions:
        if first.setdefault(_key(question), question).passage != question.passage:
            text = _(
                "{path}: two training questions have the id {id}, and differ in their passages only, so their soft "
                "labels cannot be told apart; give each an id of its own"
            )
            raise DataError(text.format(path=path, id=question.id))


def _key(question: Question) -> QuestionKey:
    """What identifies a question; not its passage, which may have been shortened."""
    return question.id, question.row, question.question, question.options
