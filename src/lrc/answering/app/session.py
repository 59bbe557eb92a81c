"""Trying a model: one question with the effect of its options' order, or a whole file of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lrc.answering.answer import read_questions_to_answer
from lrc.answering.scoring import OptionScores, Scorer
from lrc.answering.submission import write_submission
from lrc.data.alpaca import Record, to_record
from lrc.data.questions import MAX_OPTIONS, MIN_OPTIONS, Question, option_orders
from lrc.data.tables.cleaning import clean
from lrc.metrics.verdict import Verdict, judge
from lrc.runtime.errors import DataError
from lrc.runtime.findings import Finding, format_findings
from lrc.runtime.progress import Advance, track
from lrc.tokenization.prompt import question_of, reordered

MAX_CHARACTERS = 20_000  # of a text on the page; a workbook has no such limit


@dataclass(frozen=True)
class InOrder:
    """What a model makes of a question whose options are listed in one order."""

    order: tuple[int, ...]  # see `Question.reordered`
    probabilities: tuple[float, ...]  # of each option, in the question's own order
    prediction: int  # the option's number in the question's own order

    @property
    def shown(self) -> str:
        """The options' own numbers in the order in which they are listed."""
        return " ".join(str(place + 1) for place in self.order)


@dataclass(frozen=True)
class Answered:
    """A file's answers, in short."""

    n: int
    counts: dict[int, int]  # how often each option was chosen
    verdict: Verdict | None  # None where the file has no answers
    told: tuple[str, ...] = ()  # what was found in the file, as lines


@dataclass(frozen=True)
class Trial:
    """A model that is tried out."""

    scorer: Scorer

    def ask(self, question: Question) -> tuple[OptionScores, list[InOrder]]:
        """Answer one question as `lrc generate` would, and with its options in every cyclic order.

        Returns:
            The scores, and one `InOrder` for each order; none where the order cannot matter: the prompt lists no
            options, or only one order makes sense.
        """
        (record,), _ = self.scorer.fitted([to_record(question)])
        orders = option_orders(question, len(question.options)) if self.scorer.prompt.list_options else []
        if len(orders) < 2:
            return self.scorer([record])[0], []
        once = replace(self.scorer, votes=1)
        found = once([reordered(record, order) for order in orders])
        # The first order is the question's own, so with one vote this is what generate scores.
        scores = found[0] if self.scorer.votes == 1 else self.scorer([record])[0]
        return scores, [_restore_order(order, one) for order, one in zip(orders, found, strict=True)]

    def answer_file(self, path: Path, output: Path, advance: Advance) -> Answered:
        """Write the submission of a file's questions: the CSV that `lrc generate` writes.

        Raises:
            DataError: the file cannot be read or answered; nothing is written then.
        """
        findings: list[Finding] = []
        records = read_questions_to_answer(path, report=findings.extend)
        with track("answer", len(records)) as count:

            def both(done: int = 1) -> None:
                count(done)
                advance(done)

            scores = self.scorer(self.scorer.fitted(records)[0], both)
        predictions = [score.prediction for score in scores]
        write_submission(output, [record.id for record in records], predictions)
        return replace(_summary(records, predictions), told=tuple(format_findings(findings)))


def make_question(passage: str, question: str, options: Sequence[str]) -> Question:
    """A question of what somebody typed, cleaned as a workbook's cells are; blank options at the end are none.

    Raises:
        DataError: one finding for each text that is missing or too long.
    """
    passage, question, *options = (clean(text or "")[0] for text in (passage, question, *options))
    texts = {"文章": passage, "問題": question} | {f"選項{n}": text for n, text in enumerate(options, start=1)}
    lines = [f"{name}: is empty; fill it in" for name, text in list(texts.items())[:2] if not text]
    lines += [
        f"{name}: has {len(text):,} characters, expected up to {MAX_CHARACTERS:,}; shorten it"
        for name, text in texts.items()
        if len(text) > MAX_CHARACTERS
    ]
    while options and not options[-1]:
        options.pop()
    filled = sum(map(bool, options))
    if filled < MIN_OPTIONS:
        lines.append(f"選項: {filled} with text, expected {MIN_OPTIONS} to {MAX_OPTIONS}; fill in more")
    if lines:
        raise DataError(*lines)
    return Question("1", passage, question, tuple(options))


def _restore_order(order: tuple[int, ...], scores: OptionScores) -> InOrder:
    own = dict(zip(order, scores.probabilities, strict=True))
    return InOrder(order, tuple(own[place] for place in range(len(order))), order[scores.prediction - 1] + 1)


def _summary(records: Sequence[Record], predictions: Sequence[int]) -> Answered:
    questions = [question_of(record) for record in records]
    counts = dict(sorted(Counter(predictions).items()))
    labelled = all(question.answer is not None for question in questions)
    return Answered(len(questions), counts, judge(questions, predictions) if labelled else None)
