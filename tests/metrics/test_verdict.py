"""The verdict: its numbers beside an independent count, its words everywhere the same."""

from __future__ import annotations

import re
from math import comb
from pathlib import Path

import pytest
from report_runs import make_run

from lrc.commands.report import report
from lrc.data.questions import Question
from lrc.metrics.baselines import BASELINES
from lrc.metrics.predictions import OUTCOMES_FILE, Outcome, write_outcomes
from lrc.metrics.verdict import Verdict, judge
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


def verdict_of(outcomes: list[Outcome]) -> Verdict:
    return judge([one.question for one in outcomes], [one.prediction for one in outcomes])


@pytest.mark.parametrize(("count", "right"), [(200, 150), (200, 80), (8, 4), (8, 3), (40, 14), (40, 10), (40, 3)])
def test_kind_is_that_of_a_sign_test_against_the_best_baseline(count: int, right: int) -> None:
    outcomes = answered(count, right)
    questions = [one.question for one in outcomes]
    chosen = max(
        (predict(questions) for predict in BASELINES.values()),
        key=lambda numbers: sum(number == one.answer for number, one in zip(numbers, outcomes, strict=True)),
    )
    ours = sum(one.right and number != one.answer for number, one in zip(chosen, outcomes, strict=True))
    theirs = sum(not one.right and number == one.answer for number, one in zip(chosen, outcomes, strict=True))
    # Every passage has one question, so the test is McNemar's exact one.
    n, least = ours + theirs, min(ours, theirs)
    p_value = min(1.0, 2 * sum(comb(n, k) for k in range(least + 1)) / 2**n)
    expected = "not above" if ours <= theirs else "above" if p_value < 0.05 else "perhaps above"
    found = verdict_of(outcomes)
    assert found.kind == expected
    assert found.headline.startswith(f"{100 * right / count:.1f} % (")
    points = 100 * abs(ours - theirs) / count
    assert not points or f"{points:.1f} points {'above' if ours > theirs else 'below'}" in found.text
    assert not points or f"{points:.1f} 個百分點" in localized(found.text, CHINESE)


def test_every_kind_of_verdict_has_a_meaning_and_a_next_step() -> None:
    texts = [verdict_of(answered(count, right)) for count, right in ((200, 150), (8, 4), (40, 3))]
    assert {one.kind for one in texts} == {"above", "perhaps above", "not above"}
    for one in texts:
        assert re.fullmatch(r".*\(.*\).*\. [A-Z].*\. Next: .*\.", one.text)
        assert re.fullmatch(r".*（.*）.*。.*。下一步：.*。", localized(one.text, CHINESE))
    assert len({one.meaning for one in texts}) == len({one.next for one in texts}) == 3


@pytest.mark.parametrize(("right", "told"), [(199, True), (200, False)])
def test_wrong_answers_are_to_be_read_only_where_there_are_some(right: int, told: bool) -> None:
    found = verdict_of(answered(200, right))
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
    found = verdict_of(outcomes)
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
