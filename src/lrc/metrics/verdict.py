"""What an accuracy comes to, in words: beside the best baseline on the same questions, what that means, what is next.

Training, evaluation, report, card and app say it in these words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lrc.data.questions import Question
from lrc.metrics.accuracy import CONFIDENCE, Figures, accuracy, compare_paired, passages_of
from lrc.metrics.baselines import BASELINES

# Of the baselines in `baselines.BASELINES`.
CHINESE = {
    "majority": "最常見的答案",
    "longest option": "最長的選項",
    "bigram overlap": "字元重疊",
    "sliding window": "滑動視窗",
}

Kind = Literal["above", "perhaps above", "not above"]
MEANINGS: dict[Kind, str] = {
    "above": "That is more than chance: it answers better than methods that only count characters.",
    "perhaps above": "These questions are too few to tell it from a method that only counts characters.",
    "not above": "A method that only counts characters does as well or better.",
}
NEXT: dict[Kind, str] = {
    "above": "Next: read its wrong answers (lrc report), then answer the test workbook (lrc generate).",
    "perhaps above": "Next: evaluate it on more questions; if there are none, train on more or for longer.",
    "not above": "Next: see whether the loss falls; train on more questions or for longer, or take a larger base.",
}
CHINESE_MEANINGS: dict[Kind, str] = {
    "above": "差異超出巧合：模型答得比只計算字元的方法好。",
    "perhaps above": "題數太少，無法斷定它優於只計算字元的方法。",
    "not above": "只計算字元的方法也能達到同樣或更好的結果。",
}
CHINESE_NEXT: dict[Kind, str] = {
    "above": "下一步：先看答錯的題目（lrc report），再用 lrc generate 回答測試活頁簿。",
    "perhaps above": "下一步：用更多題目評估；沒有更多題目時，增加訓練資料或訓練更久。",
    "not above": "下一步：確認訓練損失是否下降；增加訓練題目、訓練更久，或改用較大的基礎模型。",
}


@dataclass(frozen=True)
class Verdict:
    """An accuracy compared with the best baseline."""

    figures: Figures  # of the predictions, see `accuracy.accuracy`
    baselines: dict[str, Figures]  # likewise, by name; the best first
    test: dict[str, float]  # of the predictions against the best baseline, see `accuracy.compare_paired`

    @property
    def best(self) -> str:
        """The name of the best baseline."""
        return next(iter(self.baselines))

    @property
    def certain(self) -> bool:
        """Whether the difference is more than chance would have it."""
        return self.test["p_value"] < 1 - CONFIDENCE

    @property
    def kind(self) -> Kind:
        """Whether it is above the best baseline for certain, perhaps, or not at all."""
        if self.test["difference"] <= 0:
            return "not above"
        return "above" if self.certain else "perhaps above"

    def __str__(self) -> str:
        return self.english

    @property
    def english(self) -> str:
        """All of it: the accuracy beside the best baseline, what that means, and what to do next."""
        return f"{self.headline}. {self.meaning} {self.next}"

    @property
    def chinese(self) -> str:
        """Likewise."""
        return f"{self.chinese_headline}。{self.chinese_meaning}{self.chinese_next}"

    @property
    def meaning(self) -> str:
        """What the difference means."""
        return MEANINGS[self.kind]

    @property
    def next(self) -> str:
        """What to do next."""
        return NEXT[self.kind]

    @property
    def chinese_meaning(self) -> str:
        """What the difference means."""
        return CHINESE_MEANINGS[self.kind]

    @property
    def chinese_next(self) -> str:
        """What to do next."""
        return CHINESE_NEXT[self.kind]

    @property
    def headline(self) -> str:
        """The accuracy with its interval, beside the best baseline."""
        points = 100 * self.test["difference"]
        if points <= 0:
            how = f"{-points:.1f} points below" if points else "as"
            return f"{spell(self.figures)}, {how} the best baseline ({self.best}): no evidence of learning"
        chance = "" if self.certain else f", which may be chance (p = {self.test['p_value']:.2g})"
        return f"{spell(self.figures)}, {points:.1f} points above the best baseline ({self.best}){chance}"

    @property
    def chinese_headline(self) -> str:
        """Likewise."""
        points, name = 100 * self.test["difference"], CHINESE.get(self.best, self.best)
        if points <= 0:
            how = f"比最佳基準（{name}）低 {-points:.1f} 個百分點" if points else f"與最佳基準（{name}）相同"
            return f"{spell(self.figures)}，{how}：看不出學到了什麼"
        chance = "" if self.certain else f"，但可能只是巧合（p = {self.test['p_value']:.2g}）"
        return f"{spell(self.figures)}，比最佳基準（{name}）高 {points:.1f} 個百分點{chance}"


def judge(questions: Sequence[Question], predictions: Sequence[int]) -> Verdict:
    """Compare predictions with the best baseline on the same questions.

    Args:
        questions: all of which have an answer.

    Raises:
        ValueError: there are none.
    """
    answers, passages = [question.answer or 0 for question in questions], passages_of(questions)
    chosen = {name: predict(questions) for name, predict in BASELINES.items()}
    found = {name: accuracy(numbers, answers, passages) for name, numbers in chosen.items()}
    found = dict(sorted(found.items(), key=lambda item: -item[1]["accuracy"]))
    test = compare_paired(predictions, chosen[next(iter(found))], answers, passages)
    return Verdict(accuracy(predictions, answers, passages), found, test)


def spell(figures: Figures) -> str:
    """An accuracy with its interval, in per cent: `77.0 % (73.9–79.9)`."""
    value, low, high = (f"{100 * figures[key]:.1f}" for key in ("accuracy", "ci_low", "ci_high"))
    return f"{value} % ({low}–{high})"


def describe_size(figures: Figures) -> str:
    """How many questions an accuracy is of: `n = 1000 in 483 passages, as good as 720 independent ones`."""
    n, passages, effective = figures["n"], figures["passages"], figures["n_effective"]
    text = f"n = {n:.0f}"
    if passages == n:
        return text
    return f"{text} in {passages:.0f} passage{'s' if passages > 1 else ''}, effective n = {effective:.0f}"
