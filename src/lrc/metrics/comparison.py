"""Compares two models on the same questions: how much better one is, and which questions only one has right."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lrc.metrics.accuracy import CONFIDENCE, Figures, accuracy, compare_paired, passages_of
from lrc.metrics.predictions import Outcome
from lrc.runtime.errors import DataError
from lrc.runtime.translation import Message, _

Pair = tuple[Outcome, Outcome]  # of one question


@dataclass(frozen=True)
class Comparison:
    """The answers of two models to the same questions."""

    names: tuple[str, str]
    pairs: tuple[Pair, ...]  # in the order of the first model's answers
    figures: tuple[Figures, Figures]  # see `accuracy.accuracy`
    test: dict[str, float]  # of the first against the second, see `accuracy.compare_paired`

    @property
    def certain(self) -> bool:
        """Whether the difference is statistically significant: p < 0.05."""
        return self.test["p_value"] < 1 - CONFIDENCE

    @property
    def ahead(self) -> int | None:
        """Which of the two has more right answers, 0 or 1; None if they have equally many."""
        difference = self.test["difference"]
        return None if difference == 0 else int(difference < 0)

    @property
    def text(self) -> Message:
        """The result in words: how large the difference is, and whether it may be chance."""
        ahead, sign = self.ahead or 0, -1 if self.ahead else 1
        better, worse = self.names[ahead], self.names[1 - ahead]
        if self.ahead is None:
            return _("{better} and {worse} answer equally many questions right.").format(better=better, worse=worse)
        text = _(
            "{better} is {points:.1f} points better than {worse} (95% CI {low:.1f} to {high:.1f}, "
            "p = {p:.2g}): this may be chance. More questions would tell."
        )
        if self.certain:
            text = _(
                "{better} is {points:.1f} points better than {worse} (95% CI {low:.1f} to {high:.1f}, "
                "p = {p:.2g}): more than chance."
            )
        low, high = sorted(100 * sign * self.test[bound] for bound in ("ci_low", "ci_high"))
        points, p_value = 100 * abs(self.test["difference"]), self.test["p_value"]
        return text.format(better=better, worse=worse, points=points, low=low, high=high, p=p_value)

    @property
    def first_only(self) -> list[Pair]:
        """The questions that only the first has right, sorted by the confidence of the second, the highest first."""
        alone = [pair for pair in self.pairs if pair[0].right and not pair[1].right]
        return sorted(alone, key=lambda pair: -pair[1].confidence)

    @property
    def second_only(self) -> list[Pair]:
        """The questions that only the second has right, sorted by the confidence of the first, the highest first."""
        alone = [pair for pair in self.pairs if pair[1].right and not pair[0].right]
        return sorted(alone, key=lambda pair: -pair[0].confidence)

    @property
    def both_wrong(self) -> list[Pair]:
        """The questions that neither has right, sorted by their probabilities of the right option, the lowest first."""
        wrong = [pair for pair in self.pairs if not (pair[0].right or pair[1].right)]
        return sorted(wrong, key=lambda pair: sum(one.answer_probability for one in pair))

    @property
    def both_right(self) -> int:
        """The number of questions that both have right."""
        return sum(first.right and second.right for first, second in self.pairs)

    @property
    def same_choice(self) -> int:
        """The number of questions that both answer with the same option, right or wrong."""
        return sum(first.prediction == second.prediction for first, second in self.pairs)


def compare_answers(
    names: tuple[str, str], sources: tuple[Path, Path], first: Sequence[Outcome], second: Sequence[Outcome]
) -> Comparison:
    """Compare the answers of two models question by question.

    Args:
        names: the names of the models.
        sources: the files of their answers, for errors.
        first, second: the answers of each, in any order.

    Raises:
        DataError: the answers are not to the same questions, or the right answers differ.
    """
    pairs = _pair(sources, first, second)
    answers = [one.answer for one, _other in pairs]
    passages = passages_of(one.question for one, _other in pairs)
    ones, twos = ([pair[side].prediction for pair in pairs] for side in (0, 1))
    return Comparison(
        names,
        tuple(pairs),
        (accuracy(ones, answers, passages), accuracy(twos, answers, passages)),
        compare_paired(ones, twos, answers, passages),
    )


def _pair(sources: tuple[Path, Path], first: Sequence[Outcome], second: Sequence[Outcome]) -> list[Pair]:
    """Pair the answers to the same question; questions may be in any order, and may repeat."""
    if not first or not second:
        source = sources[0] if not first else sources[1]
        raise DataError(_("{source}: holds no answers; evaluate the model again").format(source=source))
    waiting: dict[Hashable, list[Outcome]] = defaultdict(list)
    for outcome in reversed(second):
        waiting[_identify(outcome)].append(outcome)
    pairs, lacking = [], []
    for outcome in first:
        if others := waiting[_identify(outcome)]:
            pairs.append((outcome, others.pop()))
        else:
            lacking.append(outcome)
    left = {id(outcome) for others in waiting.values() for outcome in others}
    more = [outcome for outcome in second if id(outcome) in left]
    if findings := [
        *_report_missing(*sources, lacking, len(first)),
        *_report_missing(*sources[::-1], more, len(second)),
    ]:
        raise DataError(*findings)
    other = [one for one, two in pairs if one.answer != two.answer]
    if other:
        where = _name_questions(other)
        text = _("{second}: has another right answer than {first} to {where}; evaluate both on the same file")
        raise DataError(text.format(second=sources[1], first=sources[0], where=where))
    return pairs


def _identify(outcome: Outcome) -> Hashable:
    question = outcome.question
    return question.source_passage, question.question, question.options


def _report_missing(source: Path, other: Path, lacking: Sequence[Outcome], count: int) -> list[str]:
    if not lacking:
        return []
    text = _(
        "{source}: {lacking:,} of its {count:,} questions are not in {other}, first {named}; evaluate both models on "
        "one file with lrc evaluate --scores, and compare these with --data"
    )
    named = _name_question(lacking[0])
    return [text.format(source=source, lacking=len(lacking), count=count, other=other, named=named)]


def _name_question(outcome: Outcome) -> Message:
    question = outcome.question
    named = _("question {id}") if question.row is None else _("question {id} (row {row})")
    return named.format(id=question.id, row=question.row)


def _name_questions(outcomes: Sequence[Outcome]) -> Message:
    named = _name_question(outcomes[0])
    if len(outcomes) == 1:
        return named
    return _("{count:,} questions, the first {named}").format(count=len(outcomes), named=named)
