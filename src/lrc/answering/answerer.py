"""`lrc generate` for a notebook: a model that answers data frames and questions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lrc.answering.answer import answer
from lrc.answering.load import load_scorer
from lrc.answering.options import ScoringOptions, check_options
from lrc.data.alpaca import to_record
from lrc.data.frames import to_frame, to_questions
from lrc.data.questions import Question
from lrc.data.tables.cleaning import unpaired_surrogate
from lrc.runtime.errors import DataError
from lrc.runtime.hub_connection import ask_again
from lrc.runtime.translation import _


class Answerer:
    """Answers multiple-choice questions with one model.

    Args:
        model: a base or merged model: a folder, or a name on the Hub.
        adapter: the folder of an adapter on top, or several to average over.
        options: the flags of `lrc generate`, with underscores: `votes`, `template`, `answer_style`, `dtype` …

    Raises:
        LrcError: the model cannot be loaded, or nothing says how it was trained.
    """

    def __init__(
        self, model: str | Path, adapter: str | Path | Sequence[str | Path] | None = None, **options: Any
    ) -> None:
        adapters = [adapter] if isinstance(adapter, str | Path) else [*(adapter or ())]
        ask_again()
        asking = ScoringOptions(adapters=tuple(map(Path, adapters)), **options)
        check_options(str(model), asking)
        self._scorer = load_scorer(str(model), asking)

    def answer(self, questions: pd.DataFrame | Sequence[Question]) -> pd.DataFrame:
        """Answer every question.

        Args:
            questions: a frame as `frames.to_questions` takes it, or questions.

        Returns:
            A copy of the frame with its index, and the columns `prediction` (Int64, the number of the chosen option)
            and `probability_1`, `probability_2` … (Float64, NA for an option that the question does not have). An empty
            row of the frame has NA in all of them.

        Raises:
            DataError: a row is invalid, it is neither a frame nor questions, a part of a question is not text, or a
                question is too long even without its passage.
        """
        if isinstance(questions, pd.DataFrame):
            frame, asked = questions.copy(), to_questions(questions)
            places = [(question.row or 1) - 1 for question in asked]
        else:
            asked = list(questions)
            if strangers := [one for one in asked if not isinstance(one, Question)]:
                text = _("expected a data frame or lrc.Question objects, not {kind}; lrc.read_questions reads a file")
                raise DataError(text.format(kind=type(strangers[0]).__name__))
            if faults := [fault for one in asked for fault in _find_faults(one)]:
                raise DataError(*faults)
            frame = to_frame(asked)
            places = list(range(len(asked)))
        scores = answer(self._scorer, [to_record(question) for question in asked])
        found = dict(zip(places, scores, strict=True))
        each = [found.get(place) for place in range(len(frame))]
        chosen = [None if score is None else score.prediction for score in each]
        frame["prediction"] = pd.array(chosen, dtype="Int64")
        for number in range(max((len(score.probabilities) for score in scores), default=0)):
            shares = [
                score.probabilities[number] if score and number < len(score.probabilities) else None for score in each
            ]
            frame[f"probability_{number + 1}"] = pd.array(shares, dtype="Float64")
        return frame


def _find_faults(question: Question) -> Iterator[str]:
    """What no tokenizer takes: parts that are not text, such as a number, or have half of a character."""
    parts = {"passage": question.passage, "question": question.question}
    parts |= {f"option {number}": text for number, text in enumerate(question.options, start=1)}
    for name, part in parts.items():
        if not isinstance(part, str):
            text = _("question {id}: {name} is {value}, expected a text")
            yield text.format(id=question.id, name=name, value=repr(part))
        elif place := unpaired_surrogate(part):
            text = _("question {id}: {name} has an unpaired surrogate at character {place}; correct it")
            yield text.format(id=question.id, name=name, place=place)
