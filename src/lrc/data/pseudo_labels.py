"""Pseudo-labels: unanswered questions to train on, with the answers that models are confident about.

Only the recipe key `pseudo_labels` makes them. Beware: accuracy on a file that was trained on in this way is biased.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from lrc.data.alpaca import Record, with_question
from lrc.data.score_files import match_scores, read_scores, tied_options
from lrc.data.sources import read_records
from lrc.runtime.errors import DataError
from lrc.runtime.translation import _


def assign_labels(path: Path, scores: Path, threshold: float) -> tuple[list[Record], list[str]]:
    """Select the questions whose best option is probable enough, and make that option their answer.

    Args:
        path: the questions: a workbook, or another file that can be answered.
        scores: the scores of all of them, as `lrc vote --scores` and `lrc generate --scores` write them, with
            probabilities; where a line has none, they are the softmax of its scores.
        threshold: the least probability of the best option, 0 to 1.

    Returns:
        The labelled records of the selected questions, and the ids of probable enough ones whose best options tie, of
        which none is selected.

    Raises:
        DataError: the two files are not about the same questions, a question has an answer already, or no option is
            probable enough.
    """
    records = read_records(path)
    questions = [record.question for record in records if record.question is not None]
    if len(questions) < len(records):
        raise DataError(
            _("{path}: {value} records have no question with options; leave out what has none").format(
                path=path, value=len(records) - len(questions)
            )
        )
    answered = [question.id for question in questions if question.answer is not None]
    if answered:
        raise DataError(
            _(
                "{path}: {count} questions have an answer, first {answered}; pseudo-labels are for those "
                "that have none, so give it as a train_file instead"
            ).format(path=path, count=len(answered), answered=answered[0])
        )
    matrix = match_scores(scores, read_scores(scores), questions, path, calibrated=True)
    probabilities = np.exp(matrix - np.logaddexp.reduce(matrix, axis=1, keepdims=True))
    labelled, tied = [], []
    for record, question, line, log_probs in zip(records, questions, probabilities, matrix, strict=True):
        if line.max() < threshold:
            continue
        best = tied_options(log_probs.tolist())
        if len(best) > 1:
            tied.append(question.id)
        else:
            labelled.append(with_question(record, replace(question, answer=best[0])))
    if not labelled and not tied:
        raise DataError(
            _(
                "{scores}: no question has an option of probability {threshold:g} or more, the highest "
                "has {max:.3f}; lower pseudo_label_threshold"
            ).format(scores=scores, threshold=threshold, max=probabilities.max())
        )
    if not labelled:
        text = _(
            "{scores}: in each of the {count} questions that reach {threshold:g}, the most probable options tie; give "
            "scores that tell them apart"
        )
        raise DataError(text.format(scores=scores, count=len(tied), threshold=threshold))
    return labelled, tied
