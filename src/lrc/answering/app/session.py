"""What the page does with a model: answer one question in all orders of its options, or a whole file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from lrc.answering.answer import describe_shortened, refuse_not_numbers
from lrc.answering.answered_workbook import fill_in, is_workbook
from lrc.answering.app.translations import WORDS
from lrc.answering.scoring import Scorer, silent
from lrc.answering.submission import write_submission
from lrc.config.run_record import Run
from lrc.data.alpaca import Record, question_of, to_record
from lrc.data.questions import MAX_OPTIONS, MIN_OPTIONS, Question, option_orders
from lrc.data.sources import read_questions_to_answer
from lrc.data.tables.cleaning import clean, collapse, unpaired_surrogate
from lrc.metrics.calibration import is_guess
from lrc.metrics.option_scores import OptionScores
from lrc.metrics.verdict import Verdict, judge
from lrc.runtime.errors import DataError, LrcError
from lrc.runtime.findings import Finding
from lrc.runtime.progress import Advance, track
from lrc.runtime.translation import _
from lrc.tokenization.prompt import reordered

MAX_CHARACTERS = 20_000  # of a text on the page; a workbook has no such limit


@dataclass(frozen=True)
class InOrder:
    """A model's answer to a question with its options listed in one order."""

    order: tuple[int, ...]  # see `Question.reordered`
    probabilities: tuple[float, ...]  # of each option, in the question's own order
    prediction: int  # the option's number in the question's own order

    @property
    def shown(self) -> str:
        """The options' numbers, in the order in which they are listed."""
        return " ".join(str(place + 1) for place in self.order)


class AskedOnce(NamedTuple):
    """What a model says to one question on the page."""

    scores: OptionScores
    orders: list[InOrder]  # one for each order; empty if the prompt lists no options, or only one order is possible
    shortened: bool  # whether the passage was, to fit the model


@dataclass(frozen=True)
class OneAnswer:
    """One answer of a file, as the page lists it."""

    id: str
    question: str
    number: int  # of the chosen option
    option: str  # its text
    probability: float
    guess: bool  # whether the answer is practically a guess


@dataclass(frozen=True)
class Answered:
    """A file's answers."""

    answers: tuple[OneAnswer, ...]
    n_options: int  # of the question with the most
    verdict: Verdict | None  # None if the file does not have all right answers
    csv: Path
    workbook: Path | None  # the copy with the answers in it; None if the file is not an .xlsx workbook
    findings: tuple[Finding, ...] = ()  # about the file

    @property
    def counts(self) -> dict[int, int]:
        """How often each option was chosen, by its number; 0 for one that never was."""
        found = Counter(one.number for one in self.answers)
        return {number: found[number] for number in range(1, self.n_options + 1)}

    @property
    def guesses(self) -> int:
        """The number of answers that are practically a guess."""
        return sum(one.guess for one in self.answers)


@dataclass(frozen=True)
class AppSession:
    """A model on the page.

    Args:
        scorer: the model.
        run: how it was trained, if there is one run that says so.
    """

    scorer: Scorer
    run: Run | None = None

    def ask(self, question: Question) -> AskedOnce:
        """Answer one question as `lrc generate` would, and with its options in every cyclic order.

        Raises:
            DataError: the question is too long even without its passage.
            ModelError: a score is NaN.
        """
        (record,), shortened = self.scorer.fitted([to_record(question)])
        orders = option_orders(question, len(question.options)) if self.scorer.prompt.list_options else []
        if len(orders) < 2:
            return AskedOnce(_score(self.scorer, [record])[0], [], bool(shortened))
        found = _score(replace(self.scorer, votes=1), [reordered(record, order) for order in orders])
        # The first order is that of the question, so with one vote its scores are those of generate.
        scores = found[0] if self.scorer.votes == 1 else _score(self.scorer, [record])[0]
        in_order = [_restore_order(order, one) for order, one in zip(orders, found, strict=True)]
        return AskedOnce(scores, in_order, bool(shortened))

    def answer_file(self, path: Path, folder: Path, advance: Callable[[int, int], None]) -> Answered:
        """Answer a file's questions, and write the CSV and the workbook that `lrc generate` would.

        Args:
            path: the file of questions.
            folder: where the outputs go.
            advance: is called with the number of finished questions, and of all.

        Raises:
            DataError: the file cannot be read or answered; then nothing is written.
            ModelError: a score is NaN.
        """
        findings: list[Finding] = []
        records = read_questions_to_answer(path, report=findings.extend)
        answered = 0
        with track(_("answer"), len(records)) as count:

            def both(done: int = 1) -> None:
                nonlocal answered
                answered += done
                count(done)
                advance(answered, len(records))

            advance(0, len(records))
            fitted, shortened = self.scorer.fitted(records)
            scores = _score(self.scorer, fitted, both)
        if shortened:
            text = describe_shortened(self.scorer, shortened)
            findings.append(Finding("warning", "shortened-passage", path.name, text))
        submission = folder / "answer.csv"
        write_submission(submission, [record.id for record in records], [score.prediction for score in scores])
        workbook, lost = _fill_in(path, folder, records, scores)
        answers = tuple(_one_answer(record, score) for record, score in zip(records, scores, strict=True))
        n_options = max((len(score.probabilities) for score in scores), default=0)
        return Answered(answers, n_options, _verdict(records, scores), submission, workbook, (*findings, *lost))


def make_question(passage: str, question: str, options: Sequence[str]) -> Question:
    """Make a question of what somebody typed; texts are cleaned like a workbook's cells, blank last options dropped.

    Raises:
        DataError: a text is missing, too long or no text, or two options are the same, with a finding for each.
    """
    passage, question, *options = (clean(text or "")[0] for text in (passage, question, *options))
    needed = {WORDS["passage"]: passage, WORDS["question"]: question}
    numbered = {WORDS["option"].format(n=number): text for number, text in enumerate(options, start=1)}
    lines: list[str] = [
        _("{field}: is empty; fill it in").format(field=name) for name, text in needed.items() if not text
    ]
    lines += [
        _("{field}: has {count:,} characters, expected up to {limit:,}; shorten it").format(
            field=name, count=len(text), limit=MAX_CHARACTERS
        )
        for name, text in (needed | numbered).items()
        if len(text) > MAX_CHARACTERS
    ]
    lines += [
        _("{field}: character {place} is half of one (an unpaired surrogate); remove it, or type it again").format(
            field=name, place=place
        )
        for name, text in (needed | numbered).items()
        if (place := unpaired_surrogate(text))
    ]
    while options and not options[-1]:
        options.pop()
    filled = sum(map(bool, options))
    if filled < MIN_OPTIONS:
        text = _("{field}: {filled} with text, expected {least} to {most}; fill in more")
        lines.append(text.format(field=WORDS["options"], filled=filled, least=MIN_OPTIONS, most=MAX_OPTIONS))
    compared = [collapse(option) for option in options]
    filled_in = [(number, option) for number, option in enumerate(compared, start=1) if option]
    same = _("{field}: {first} and {second} have the same text; change one")
    lines += [
        same.format(field=WORDS["options"], first=compared.index(option) + 1, second=number)
        for number, option in filled_in
        if option in compared[: number - 1]
    ]
    if lines:
        raise DataError(*lines)
    return Question("1", passage, question, tuple(options))


def _score(scorer: Scorer, records: Sequence[Record], advance: Advance = silent) -> list[OptionScores]:
    scores = scorer(records, advance)
    refuse_not_numbers(records, dict(enumerate(scores)))
    return scores


def _restore_order(order: tuple[int, ...], scores: OptionScores) -> InOrder:
    own = dict(zip(order, scores.probabilities, strict=True))
    return InOrder(order, tuple(own[place] for place in range(len(order))), order[scores.prediction - 1] + 1)


def _one_answer(record: Record, score: OptionScores) -> OneAnswer:
    question, number = question_of(record), score.prediction
    guess = is_guess(score.probabilities, len(question.choosable))
    option = question.options[number - 1]
    return OneAnswer(record.id, question.question, number, option, score.probabilities[number - 1], guess)


def _verdict(records: Sequence[Record], scores: Sequence[OptionScores]) -> Verdict | None:
    questions = [question_of(record) for record in records]
    if any(question.answer is None for question in questions):
        return None
    return judge(questions, [score.prediction for score in scores])


def _fill_in(
    path: Path, folder: Path, records: Sequence[Record], scores: Sequence[OptionScores]
) -> tuple[Path | None, list[Finding]]:
    """Write the answers into a copy of the workbook; if that fails, return findings, since there is the CSV."""
    if not is_workbook(path):
        return None, []
    copy = folder / f"{path.stem}_answers{path.suffix.lower()}"
    try:
        content, lost = fill_in(path, records, scores)
    except LrcError as error:
        return None, [replace(one, level="warning") for one in error.findings]
    copy.write_bytes(content)
    return copy, lost
