"""The verdict: its numbers beside an independent count, its words everywhere the same."""

from __future__ import annotations

import re
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest
from report_runs import make_run

from lrc.commands.report import report
from lrc.data.questions import Question
from lrc.metrics.accuracy import compare_credits
from lrc.metrics.baselines import BASELINES, credit
from lrc.metrics.predictions import OUTCOMES_FILE, Outcome, write_outcomes
from lrc.metrics.verdict import Verdict, judge, verdict_of
from lrc.reporting.summary import summarize, validation_figures
from lrc.runtime.translation import CHINESE, localized

OPTIONS = ("甲", "乙", "丙", "丁")


def ask(count: int) -> list[Question]:
    """Questions with a passage each, in which no option stands."""
    return [Question(str(k), f"第{k}篇", f"問題{k}", OPTIONS, k % 4 + 1) for k in range(count)]


def answered(count: int, right: int) -> list[Outcome]:
    """The first `right` of them answered rightly."""
    return [
        Outcome(one, (0.25,) * 4, one.answer if k < right else (one.answer or 0) % 4 + 1)
        for k, one in enumerate(ask(count))
        if one.answer
    ]


def verdict_on(outcomes: list[Outcome]) -> Verdict:
    return judge([one.question for one in outcomes], [one.prediction for one in outcomes])


def best_credits(questions: list[Question]) -> list[Fraction]:
    """Those of the best baseline."""
    answers = [one.answer or 0 for one in questions]
    return max((credit(choose(questions), answers) for choose in BASELINES.values()), key=sum)


def sign_test(ahead: list[Fraction]) -> float:
    """The probability of a total as far from 0 where each has a random sign, one at a time."""
    ways = Counter({Fraction(0): 1})
    for one in ahead:
        added = Counter({total + one: count for total, count in ways.items()})
        ways = added + Counter({total - one: count for total, count in ways.items()})
    return sum(count for total, count in ways.items() if abs(total) >= abs(sum(ahead))) / 2 ** len(ahead)


@pytest.mark.parametrize(("count", "right"), [(200, 150), (200, 80), (8, 4), (8, 3), (40, 14), (40, 10), (40, 3)])
def test_kind_is_that_of_a_sign_test_against_the_best_baseline(count: int, right: int) -> None:
    outcomes = answered(count, right)
    credits = best_credits([one.question for one in outcomes])
    assert set(credits) == {Fraction(1, 4)}  # no baseline can tell the options apart
    # Every passage has one question, so questions are what is swapped.
    ahead = [one.right - part for one, part in zip(outcomes, credits, strict=True)]
    expected = "not above" if sum(ahead) <= 0 else "above" if sign_test(ahead) < 0.05 else "perhaps above"
    found = verdict_on(outcomes)
    assert found.kind == expected
    assert found.headline.startswith(f"{100 * right / count:.1f}% (")
    points = float(100 * abs(sum(ahead))) / count
    assert not points or f"{points:.1f} points {'above' if sum(ahead) > 0 else 'below'}" in found.text
    assert not points or f"{points:.1f} 個百分點" in localized(found.text, CHINESE)


def test_every_kind_of_verdict_has_a_meaning_and_a_next_step() -> None:
    texts = [verdict_on(answered(count, right)) for count, right in ((200, 150), (8, 4), (40, 3))]
    assert {one.kind for one in texts} == {"above", "perhaps above", "not above"}
    for one in texts:
        assert re.fullmatch(r".*\(.*\).*\. [A-Z].*\. Next: .*\.", one.text)
        assert re.fullmatch(r".*（.*）.*。.*。下一步：.*。", localized(one.text, CHINESE))
    assert len({one.meaning for one in texts}) == len({one.next for one in texts}) == 3


@pytest.mark.parametrize(("right", "told"), [(199, True), (200, False)])
def test_wrong_answers_are_to_be_read_only_where_there_are_some(right: int, told: bool) -> None:
    found = verdict_on(answered(200, right))
    assert found.kind == "above"
    assert ("wrong answers" in found.text) == ("答錯" in localized(found.text, CHINESE)) == told
    assert "lrc generate" in found.text
    assert (found.next_to_report is not None) == told  # the report has them, and nothing else is left to do


@pytest.mark.parametrize(("count", "right"), [(200, 150), (8, 4), (40, 3)])
def test_a_step_of_another_verb_leaves_it_to_that_what_is_next(
    count: int, right: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run(tmp_path / "run")
    write_outcomes(folder / OUTCOMES_FILE, answered(count, right), force=True)
    alone, commands = summarize(folder, "base")
    monkeypatch.setenv("LRC_STEP", "1")
    rows, none = summarize(folder, "base")
    assert "Next: " in dict(alone)["verdict"] and commands
    assert dict(rows)["verdict"] == dict(alone)["verdict"].partition(" Next: ")[0] and none == []


@pytest.mark.parametrize(("count", "right"), [(200, 150), (8, 4), (40, 3)])
def test_summary_record_and_page_use_the_same_words(count: int, right: int, tmp_path: Path) -> None:
    outcomes = answered(count, right)
    folder = make_run(tmp_path / "run")
    write_outcomes(folder / OUTCOMES_FILE, outcomes, force=True)
    found = verdict_on(outcomes)
    rows, _ = summarize(folder, "base")
    assert dict(rows)["verdict"] == found.text
    recorded = validation_figures(outcomes)["verdict"]  # shown on the model card, whose readers trained nothing
    assert found.text.startswith(f"{recorded} Next: ")
    report(folder)
    page = (folder / "report.html").read_text(encoding="utf-8")
    for part in (
        found.headline,
        found.meaning,
        found.next,
        *(localized(one, CHINESE) for one in (found.headline, found.next)),
    ):
        assert part in page


THINGS = ("紅色氣球", "藍色書包", "綠色帽子", "黃色雨傘")


def asked(passages: list[str], counted: list[bool]) -> list[Question]:
    """Questions whose right answer alone stands in their passage, where counting characters is to find it."""
    return [
        Question(str(k), f"{name}說：{THINGS[k % 4] if easy else '不知道'}。", "有什麼？", THINGS, k % 4 + 1)
        for k, (name, easy) in enumerate(zip(passages, counted, strict=True))
    ]


UNDECIDED = {
    "the baseline knows all": ([f"第{k}篇" for k in range(40)], [True] * 40),
    "the baseline knows all but five": ([f"第{k}篇" for k in range(40)], [True] * 35 + [False] * 5),
    "two questions": (["第一篇", "第二篇"], [False] * 2),
    "one passage": (["第一篇"] * 40, [False] * 40),
}


@pytest.mark.parametrize("case", UNDECIDED)
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_nothing_is_said_of_learning_where_no_answers_could_be_significantly_above_the_baseline(
    case: str, share: float
) -> None:
    questions = asked(*UNDECIDED[case])
    answers = [one.answer or 0 for one in questions]
    passages = [one.passage for one in questions]
    perfect = compare_credits([1] * len(questions), best_credits(questions), passages)["p_value"]
    assert perfect >= 0.05
    right = round(share * len(questions))
    found = judge(questions, [one if k < right else one % 4 + 1 for k, one in enumerate(answers)])
    assert found.kind == "undecided" and found.least_p_value == pytest.approx(perfect)
    assert "no evidence of learning" not in found.text and "loss" not in found.text and "train" not in found.text
    chinese = localized(found.text, CHINESE)
    assert "損失" not in chinese and "訓練" not in chinese and "看不出" not in chinese
    assert "evaluate it on more passages" in found.text and "更多文章" in chinese


def test_six_passages_that_the_baseline_errs_in_are_enough_for_a_verdict() -> None:
    questions = asked([f"第{k}篇" for k in range(40)], [True] * 34 + [False] * 6)
    missed = sum(one < 1 for one in best_credits(questions))
    found = judge(questions, [one.answer or 0 for one in questions])
    assert found.kind == ("above" if missed > 5 else "undecided")


@pytest.mark.parametrize(("right", "told"), [(0, True), (4, True), (20, False)])
def test_worse_than_a_guess_is_not_to_be_trained_for_longer(right: int, told: bool) -> None:
    """Of 80 questions with four options that are right equally often, 20 are guessed."""
    found = verdict_on(answered(80, right))
    assert ("worse than a guess" in found.text) == ("亂猜" in localized(found.text, CHINESE)) == told
    assert ("train on more" in found.text) == (not told)


def test_all_right_is_not_told_to_train_for_longer() -> None:
    """Beside a baseline with half of ten questions right, all right is only perhaps above."""
    found = Verdict(
        {"accuracy": 1.0, "ci_low": 0.7, "ci_high": 1.0}, {"majority": {}}, {"difference": 0.5, "p_value": 0.06}
    )
    assert found.kind == "perhaps above" and found.next == "Next: evaluate it on more questions."


def test_figures_of_an_earlier_version_are_read_without_the_least_p_value() -> None:
    paired = {"difference": 0.1, "p_value": 0.2}
    old = {
        "accuracy": 0.5,
        "ci_low": 0.4,
        "ci_high": 0.6,
        "baselines": {"majority": {}},
        "best_baseline": {"paired": paired},
    }
    assert verdict_of(old).kind == "perhaps above"
    old["best_baseline"] = {"paired": paired, "least_p_value": 0.25}
    assert verdict_of(old).kind == "undecided"
