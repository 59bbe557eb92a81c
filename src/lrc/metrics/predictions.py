"""A model's answers to labelled questions, as in the file `validation_scores.jsonl` in the folder of a run.

A line has what `lrc evaluate --scores` writes, and the question with its right answer, so that a report can show it.
Since the file has passages, it is never published, like the data that it was made from.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from math import exp, inf, isfinite
from pathlib import Path
from typing import Any

from lrc.data.questions import Question
from lrc.data.score_files import ScoredQuestion, align, parse_lines, parse_probabilities, parse_scores, read_scores
from lrc.metrics.option_scores import OptionScores
from lrc.runtime.errors import DataError, no_file
from lrc.runtime.outputs import new_file
from lrc.runtime.translation import _, message_of

OUTCOMES_FILE = "validation_scores.jsonl"


@dataclass(frozen=True)
class Outcome:
    """A labelled question, and a model's answer to it.

    Raises:
        ValueError: the question has no answer, there is not a probability for every option, or the prediction is not
            the number of an option.
    """

    question: Question
    probabilities: tuple[float, ...]  # of each option, 0 to 1
    prediction: int  # 1 to the number of options
    scores: tuple[float | None, ...] = ()  # log-probabilities; None for an option that cannot be chosen

    def __post_init__(self) -> None:
        size = len(self.question.options)
        if self.question.answer is None:
            raise ValueError(_("answer is missing"))
        if len(self.probabilities) != size or not all(0 <= one <= 1 for one in self.probabilities):
            text = _("probabilities are {probabilities}, expected {size} from 0 to 1")
            raise ValueError(text.format(probabilities=str(list(self.probabilities)), size=size))
        if type(self.prediction) is not int or not 1 <= self.prediction <= size:
            text = _("prediction is {prediction}, expected 1 to {size}")
            raise ValueError(text.format(prediction=repr(self.prediction), size=size))

    @classmethod
    def of(cls, question: Question, scores: OptionScores) -> Outcome:
        """Make an outcome from a labelled question and its scores."""
        finite = tuple(value if isfinite(value) else None for value in scores.log_probs)
        return cls(question, scores.probabilities, scores.prediction, finite)

    @property
    def answer(self) -> int:
        """The number of the right option."""
        assert self.question.answer is not None  # see __post_init__
        return self.question.answer

    @property
    def right(self) -> bool:
        """Whether the model chose the right option."""
        return self.prediction == self.answer

    @property
    def confidence(self) -> float:
        """The probability of the chosen option."""
        return self.probabilities[self.prediction - 1]

    @property
    def answer_probability(self) -> float:
        """The probability of the right option."""
        return self.probabilities[self.answer - 1]


def write_outcomes(path: Path, outcomes: Iterable[Outcome], *, force: bool = False) -> None:
    """Write one JSON line per question.

    Raises:
        OutputError: `path` exists and `force` is false, or the file system refuses.
    """
    with new_file(path, force=force) as temporary, temporary.open("w", encoding="utf-8") as file:
        for outcome in outcomes:
            file.write(json.dumps(_to_object(outcome), ensure_ascii=False) + "\n")


def answers_of(source: Path) -> Path:
    """The file with the answers: that in a run's folder, or the source itself."""
    return source / OUTCOMES_FILE if source.is_dir() else source


def read_outcomes(path: Path) -> list[Outcome]:
    """Read what `write_outcomes` wrote.

    Returns:
        Nothing if there is no such file.

    Raises:
        DataError: the file is not UTF-8, or has lines that are not outcomes; one finding for each of these.
    """
    if not path.is_file():
        return []
    return parse_lines(path, lambda line, _number: _from_object(line), _("train again, or remove the file"))


def name_models(sources: Sequence[Path]) -> list[str]:
    """Names for models: the last parts of their paths, as many as distinguish them.

    Args:
        sources: folders of runs, or files of scores, which are named without their suffix if that distinguishes them.

    Raises:
        DataError: one is given twice.
    """
    whole = [source.resolve() for source in sources]
    places = [path.parent if path.name == OUTCOMES_FILE else path for path in whole]
    for place, source in enumerate(sources):
        if places[place] in places[:place]:
            raise DataError(_("{second}: is given twice; give another run or file of scores").format(second=source))
    # Of a folder such as qwen2.5-lora, what follows the point is not a suffix.
    bare = [path.with_suffix("") if path.suffix in (".json", ".jsonl") else path for path in places]
    parts = [path.parts for path in (bare if len(set(bare)) == len(bare) else places)]
    names = (["/".join(part[-depth:]) for part in parts] for depth in count(1))
    return next(found for found in names if len(set(found)) == len(found))


def read_predictions(source: Path, data: Path | None, questions: Sequence[Question] = ()) -> list[Outcome]:
    """Read a model's answers to labelled questions.

    Args:
        source: the folder of a run, its `validation_scores.jsonl`, or a file of `lrc evaluate --scores`.
        data: the file with the questions, which a file of scores does not contain.
        questions: the content of `data`.

    Raises:
        DataError: there is no such file, it has no answers, or they are not answers to these questions.
    """
    path = answers_of(source)
    if not path.is_file():
        if not source.is_dir():
            raise DataError(no_file(source))
        cure = _("give a file of `lrc evaluate --scores` and its --data, or train with a validation_file")
        raise DataError(
            _("{source}: holds no {outcomes_file}; {cure}").format(
                source=source, outcomes_file=OUTCOMES_FILE, cure=cure
            )
        )
    if path.suffix.lower() in (".csv", ".xlsx"):
        raise DataError(
            _("{path}: holds no probabilities; compare such files with lrc evaluate --predictions").format(path=path)
        )
    if _holds_figures(path):
        cure = _("give the file that `lrc evaluate --scores` wrote with it")
        raise DataError(
            _("{path}: holds an evaluation's figures and not its answers; {cure}").format(path=path, cure=cure)
        )
    if holds_questions(path):
        return read_outcomes(path)
    scored = read_scores(path)
    if data is None:
        raise DataError(
            _("{path}: holds scores and not the questions that they are of; name these with --data").format(path=path)
        )
    return _make_outcomes(path, align(path, scored, questions, data), questions, data)


def holds_questions(path: Path) -> bool:
    """Whether a file of answers contains the questions: that of a run does, a file of scores does not."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            first = json.loads(file.readline())
    except (ValueError, RecursionError, OSError):
        return False
    return isinstance(first, dict) and {"passage", "options", "answer"} <= first.keys()


def _holds_figures(path: Path) -> bool:
    """Whether a file is what `lrc evaluate --output` writes: one object over several lines."""
    try:
        whole = json.loads(path.read_text(encoding="utf-8-sig")) if path.suffix.lower() == ".json" else None
    except (ValueError, RecursionError, OSError):
        return False
    return isinstance(whole, dict) and "accuracy" in whole


def _make_outcomes(
    path: Path, scored: Sequence[ScoredQuestion], questions: Sequence[Question], data: Path
) -> list[Outcome]:
    outcomes, findings = [], []
    for one, question in zip(scored, questions, strict=True):
        try:
            outcomes.append(_make_outcome(one, question))
        except (ValueError, TypeError) as error:
            text = _("{path}: question {id}: {reason}; score {data} again")
            findings.append(text.format(path=path, id=question.id, reason=message_of(error), data=data.name))
    if findings:
        raise DataError(*findings)
    return outcomes


def _make_outcome(one: ScoredQuestion, question: Question) -> Outcome:
    """Make an outcome from scores; probabilities and prediction follow from these if the line has none.

    Raises:
        ValueError, TypeError: the scores are not of this question.
    """
    if len(one.scores) != len(question.options):
        text = _("has {count} scores, expected one for each of its {options} options")
        raise ValueError(text.format(count=len(one.scores), options=len(question.options)))
    scores = tuple(score if place in question.choosable else -inf for place, score in enumerate(one.scores, start=1))
    if not any(map(isfinite, scores)):
        raise ValueError(_("has no score of an option that can be chosen"))
    weights = [exp(score - max(scores)) for score in scores]
    probabilities = one.probabilities or tuple(weight / sum(weights) for weight in weights)
    prediction = scores.index(max(scores)) + 1 if one.prediction is None else one.prediction
    return Outcome(question, probabilities, prediction, tuple(score if isfinite(score) else None for score in scores))


def _to_object(outcome: Outcome) -> dict[str, Any]:
    question = outcome.question
    return {
        "id": question.id,
        "row": question.row,
        "scores": list(outcome.scores),
        "probabilities": list(outcome.probabilities),
        "prediction": outcome.prediction,
        "answer": question.answer,
        "passage": question.source_passage,
        "question": question.question,
        "options": list(question.options),
    }


def _from_object(line: Any) -> Outcome:
    """Make an outcome from the object of a line.

    Raises:
        ValueError, TypeError, KeyError: it is not an outcome.
    """
    if not isinstance(line, dict):
        raise ValueError(_("is not a JSON object"))
    name, passage, asked, options = (line[key] for key in ("id", "passage", "question", "options"))
    if not isinstance(options, list) or not all(isinstance(text, str) for text in (name, passage, asked, *options)):
        raise ValueError(_("id, passage, question and options are not all texts"))
    row = line.get("row")
    if type(line["answer"]) is not int or type(line["prediction"]) is not int or type(row) not in (int, type(None)):
        raise ValueError(_("answer, prediction and row are not all whole numbers"))
    question = Question(name, passage, asked, tuple(options), line["answer"], row)
    probabilities, scores = parse_probabilities(line["probabilities"], len(options)), line.get("scores", [])
    if scores != []:
        parse_scores(scores)
        if len(scores) != len(options):
            text = _("has {found} scores for {expected} options")
            raise ValueError(text.format(found=len(scores), expected=len(options)))
    return Outcome(question, probabilities, line["prediction"], tuple(scores))
