"""Words an accuracy: compared with the best baseline on the same questions, what that means, and what to do next.

Training, evaluation, report, model card and app all use these words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lrc.data.questions import Question
from lrc.metrics.accuracy import CONFIDENCE, Credit, Figures, accuracy, compare_credits, mean_credit, passages_of
from lrc.metrics.baselines import BASELINES, credit
from lrc.runtime.translation import Message, _

# The names of the baselines in `baselines.BASELINES`, for translation.
NAMES = {
    "majority": _("majority"),
    "longest option": _("longest option"),
    "bigram overlap": _("bigram overlap"),
    "sliding window": _("sliding window"),
}

Kind = Literal["above", "perhaps above", "not above", "undecided"]
MEANINGS: dict[Kind, Message] = {
    "above": _("That is more than chance: it answers better than rules that do not understand the text."),
    "perhaps above": _("These questions are too few to tell it from a rule that does not understand the text."),
    "not above": _("A rule that does not understand the text does as well or better."),
    "undecided": _(
        "A rule that does not understand the text is wrong in so few of these passages that not even right answers to "
        "all questions would be more than chance."
    ),
}
NEXT: dict[Kind, Message] = {
    "above": _("Next: answer the test workbook (lrc generate)."),
    "perhaps above": _("Next: evaluate it on more questions; if there are none, train on more or for longer."),
    "not above": _(
        "Next: train it; if it has been trained, see whether the loss falls, train on more questions or for longer, or "
        "take a larger base."
    ),
    "undecided": _("Next: evaluate it on more passages, with questions that such a rule gets wrong."),
}
SUSPECT_NUMBERS = _(
    "Next: read its wrong answers (lrc report): it is worse than a guess, as if options and answers were numbered "
    "differently."
)
ASK_MORE = _("Next: evaluate it on more questions.")
READ_MISTAKES = _("Next: read its wrong answers (lrc report), then answer the test workbook (lrc generate).")
READ_REPORT = _("Next: read its wrong answers in the report.")


@dataclass(frozen=True)
class Verdict:
    """An accuracy compared with the best baseline."""

    figures: Figures  # of the predictions, see `accuracy.accuracy`
    # Likewise, by name, the best first; with `ties`, the number of questions in which options share the highest score.
    baselines: Mapping[str, Figures]
    test: Mapping[str, float]  # of the predictions against the best baseline, see `accuracy.compare_credits`
    least_p_value: float = 0.0  # that of the same test if all answers were right

    @property
    def best(self) -> str:
        """The name of the best baseline."""
        return next(iter(self.baselines))

    @property
    def certain(self) -> bool:
        """Whether the difference is statistically significant: p < 0.05."""
        return self.test["p_value"] < 1 - CONFIDENCE

    @property
    def kind(self) -> Kind:
        """Whether the accuracy is significantly above the best baseline, perhaps above it, or not above it.

        It is undecided if no answers to these questions could be significantly above the best baseline.
        """
        if self.least_p_value >= 1 - CONFIDENCE:
            return "undecided"
        if self.test["difference"] <= 0:
            return "not above"
        return "above" if self.certain else "perhaps above"

    def __str__(self) -> str:
        return str(self.text)

    @property
    def text(self) -> Message:
        """The accuracy compared with the best baseline, what that means, and what to do next."""
        return self.tell(self.next)

    @property
    def meaning(self) -> Message:
        """What the difference means."""
        return MEANINGS[self.kind]

    @property
    def next(self) -> Message:
        """What to do next."""
        if self.kind == "above" and self.has_mistakes:
            return READ_MISTAKES
        if self.kind == "not above" and self.below_guessing:
            return SUSPECT_NUMBERS
        return ASK_MORE if self.kind == "perhaps above" and not self.has_mistakes else NEXT[self.kind]

    @property
    def has_mistakes(self) -> bool:
        """Whether an answer is wrong."""
        return self.figures["accuracy"] < 1

    @property
    def below_guessing(self) -> bool:
        """Whether the accuracy is significantly below that of always choosing the most frequent answer."""
        return "majority" in self.baselines and self.figures["ci_high"] < self.baselines["majority"]["accuracy"]

    @property
    def next_to_report(self) -> Message | None:
        """What to do next where a report has been written and the test is answered; None where that is all."""
        if self.kind == "above":
            return READ_REPORT if self.has_mistakes else None
        return self.next

    def tell(self, next_step: Message | None) -> Message:
        """The accuracy beside the best baseline, what that means, and a next step, if any."""
        text = _("{headline}. {meaning} {next}") if next_step else _("{headline}. {meaning}")
        return text.format(headline=self.headline, meaning=self.meaning, next=next_step or "")

    @property
    def headline(self) -> Message:
        """The accuracy with its interval, compared with the best baseline."""
        points = 100 * self.test["difference"]
        text = _("{share}, {points:.1f} points above the best baseline ({name}), which may be chance (p = {p:.2g})")
        if self.certain:
            text = _("{share}, {points:.1f} points above the best baseline ({name})")
        if points < 0:
            text = _("{share}, {points:.1f} points below the best baseline ({name}): no evidence of learning")
            if self.kind == "undecided":
                text = _("{share}, {points:.1f} points below the best baseline ({name})")
        if points == 0:
            text = _("{share}, the same as the best baseline ({name}): no evidence of learning")
            if self.kind == "undecided":
                text = _("{share}, the same as the best baseline ({name})")
        name, p_value = NAMES.get(self.best, self.best), self.test["p_value"]
        return text.format(share=spell(self.figures), points=abs(points), name=name, p=p_value)


def judge(questions: Sequence[Question], predictions: Sequence[int]) -> Verdict:
    """Compare predictions with the best baseline on the same questions.

    Args:
        questions: all have an answer.
        predictions: the number of the chosen option of each question.

    Raises:
        ValueError: there are no questions.
    """
    answers, passages = [question.answer or 0 for question in questions], passages_of(questions)
    chosen = {name: choose(questions) for name, choose in BASELINES.items()}
    credits = {name: credit(tied, answers) for name, tied in chosen.items()}
    found = {
        name: mean_credit(part, passages) | {"ties": sum(len(tied) > 1 for tied in chosen[name])}
        for name, part in credits.items()
    }
    found = dict(sorted(found.items(), key=lambda item: -item[1]["accuracy"]))
    best = credits[next(iter(found))]
    rights = [given == wanted for given, wanted in zip(predictions, answers, strict=True)]
    test = compare_credits(rights, best, passages)
    return Verdict(accuracy(predictions, answers, passages), found, test, _least_p_value(best, passages))


def _least_p_value(best: Sequence[Credit], passages: Sequence[str]) -> float:
    """The p-value of right answers to all questions against a baseline: all or no passages it errs in are swapped."""
    wrong = {passage for one, passage in zip(best, passages, strict=True) if one < 1}
    return min(1.0, 2.0 ** (1 - len(wrong)))


def verdict_of(figures: Mapping[str, Any]) -> Verdict:
    """The verdict on figures that `lrc evaluate --output` wrote, be it of an earlier version."""
    best = figures["best_baseline"]
    return Verdict(dict(figures), figures["baselines"], best["paired"], best.get("least_p_value", 0.0))


def spell(figures: Figures) -> str:
    """An accuracy with its interval as percentages: `77.0% (73.9–79.9)`."""
    value, low, high = (f"{100 * figures[key]:.1f}" for key in ("accuracy", "ci_low", "ci_high"))
    return f"{value}% ({low}–{high})"


def describe_size(figures: Figures) -> Message:
    """The size of the sample behind an accuracy: `n = 1000 in 483 passages, effective n = 720`."""
    n, passages = figures["n"], figures["passages"]
    text = _("n = {n:.0f} in {passages:.0f} passages, effective n = {effective:.0f}")
    if passages == 1:
        text = _("n = {n:.0f} in one passage, effective n = {effective:.0f}")
    if passages == n:
        text = _("n = {n:.0f}")
    return text.format(n=n, passages=passages, effective=figures["n_effective"])
