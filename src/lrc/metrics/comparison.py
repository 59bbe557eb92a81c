"""Two models on the same questions: how much better one is, and which questions one alone has right."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lrc.metrics.accuracy import CONFIDENCE, Figures, accuracy, compare_paired, passages_of
from lrc.metrics.predictions import Outcome
from lrc.runtime.errors import DataError

Pair = tuple[Outcome, Outcome]  # of one question


@dataclass(frozen=True)
class Comparison:
    """The answers of two models to the same questions."""

    names: tuple[str, str]
    pairs: tuple[Pair, ...]  # in the order of the first
    figures: tuple[Figures, Figures]  # see `accuracy.accuracy`
    test: dict[str, float]  # of the first against the second, see `accuracy.compare_paired`

    @property
    def certain(self) -> bool:
        """Whether the difference is more than chance would have it."""
        return self.test["p_value"] < 1 - CONFIDENCE

    @property
    def ahead(self) -> int | None:
        """Which of the two has more right, 0 or 1; None where both have as many."""
        difference = self.test["difference"]
        return None if difference == 0 else int(difference < 0)

    @property
    def english(self) -> str:
        """What the comparison comes to: how large the difference is, and whether it may be chance."""
        if self.ahead is None:
            return f"{self.names[0]} and {self.names[1]} have as many questions right."
        better, worse, points, low, high, chance = self._difference
        difference = f"{better} is {points} points better than {worse} (95 % interval {low} to {high}, p = {chance})"
        if self.certain:
            return f"{difference}: more than chance."
        return f"{difference}: this may be chance. More questions would tell."

    @property
    def chinese(self) -> str:
        """The same in Chinese."""
        if self.ahead is None:
            return f"{self.names[0]} 與 {self.names[1]} 答對的題數相同。"
        better, worse, points, low, high, chance = self._difference
        difference = f"{better} 比 {worse} 高 {points} 個百分點（95% 信賴區間 {low} 至 {high}，p = {chance}）"
        return (
            f"{difference}：差異超出巧合。" if self.certain else f"{difference}：可能只是巧合，需要更多題目才能判斷。"
        )

    @property
    def _difference(self) -> tuple[str, str, str, str, str, str]:
        """Better, worse, by how many points, between which two, and p."""
        ahead, sign = self.ahead or 0, -1 if self.ahead else 1
        low, high = sorted(100 * sign * self.test[bound] for bound in ("ci_low", "ci_high"))
        points = f"{100 * abs(self.test['difference']):.1f}"
        chance = f"{self.test['p_value']:.2g}"
        return self.names[ahead], self.names[1 - ahead], points, f"{low:.1f}", f"{high:.1f}", chance

    @property
    def first_only(self) -> list[Pair]:
        """The questions that the first alone has right: those first where the second was the surest."""
        alone = [pair for pair in self.pairs if pair[0].right and not pair[1].right]
        return sorted(alone, key=lambda pair: -pair[1].confidence)

    @property
    def second_only(self) -> list[Pair]:
        """Likewise of the second."""
        alone = [pair for pair in self.pairs if pair[1].right and not pair[0].right]
        return sorted(alone, key=lambda pair: -pair[0].confidence)

    @property
    def both_wrong(self) -> list[Pair]:
        """The questions that neither has right: those first whose right option both thought the least likely."""
        wrong = [pair for pair in self.pairs if not (pair[0].right or pair[1].right)]
        return sorted(wrong, key=lambda pair: sum(one.answer_probability for one in pair))

    @property
    def both_right(self) -> int:
        """How many questions both have right."""
        return sum(first.right and second.right for first, second in self.pairs)

    @property
    def same_choice(self) -> int:
        """How many questions both answer with the same option, right or wrong."""
        return sum(first.prediction == second.prediction for first, second in self.pairs)


def compare_answers(
    names: tuple[str, str], sources: tuple[Path, Path], first: Sequence[Outcome], second: Sequence[Outcome]
) -> Comparison:
    """Compare two models, question by question.

    Args:
        names: what they are called.
        sources: where their answers come from, for errors.

    Raises:
        DataError: they were not asked the same questions, or these have other right answers.
    """
    pairs = _pair(sources, first, second)
    answers = [one.answer for one, _ in pairs]
    passages = passages_of(one.question for one, _ in pairs)
    ones, twos = ([pair[side].prediction for pair in pairs] for side in (0, 1))
    return Comparison(
        names,
        tuple(pairs),
        (accuracy(ones, answers, passages), accuracy(twos, answers, passages)),
        compare_paired(ones, twos, answers, passages),
    )


def _pair(sources: tuple[Path, Path], first: Sequence[Outcome], second: Sequence[Outcome]) -> list[Pair]:
    """Each answer of the first with that of the second to the same question, whatever the order of the two."""
    if not first or not second:
        raise DataError(f"{sources[0] if not first else sources[1]}: holds no answers; evaluate the model again")
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
    if findings := [*_differ(*sources, lacking, len(first)), *_differ(*sources[::-1], more, len(second))]:
        raise DataError(*findings)
    other = [one for one, two in pairs if one.answer != two.answer]
    if other:
        where = _places(other)
        raise DataError(
            f"{sources[1]}: has another right answer than {sources[0]} to {where}; evaluate both on the same file"
        )
    return pairs


def _identify(outcome: Outcome) -> Hashable:
    question = outcome.question
    return question.passage, question.question, question.options


def _differ(source: Path, other: Path, lacking: Sequence[Outcome], count: int) -> list[str]:
    if not lacking:
        return []
    cure = "evaluate both models on one file with lrc evaluate --scores, and compare these with --data"
    return [f"{source}: {len(lacking):,} of its {count:,} questions are not in {other}, {_places(lacking)}; {cure}"]


def _places(outcomes: Sequence[Outcome]) -> str:
    question = outcomes[0].question
    row = "" if question.row is None else f" (row {question.row})"
    named = f"question {question.id}{row}"
    return named if len(outcomes) == 1 else f"{len(outcomes):,} questions, the first {named}"
