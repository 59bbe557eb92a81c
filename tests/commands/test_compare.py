"""`lrc compare` from the command line: runs and files of scores, text, JSON and page, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from browser import DESKTOP, PHONE, chromium, complaints
from click.testing import CliRunner
from report_runs import ATTACK, OUTCOMES, make_run, outcome

from lrc.cli import cli
from lrc.data.alpaca import dump_records, to_record
from lrc.metrics.predictions import OUTCOMES_FILE, write_outcomes
from lrc.runtime.errors import DataError, OutputError

# The second model: another choice in the third, the right one in the last two.
SECOND = [
    OUTCOMES[0],
    OUTCOMES[1],
    outcome(4, answer=3, prediction=2, confidence=0.5, passage=ATTACK, question="攻擊題"),
    outcome(5, answer=4, prediction=4, confidence=0.6, options=("甲", "乙", ATTACK, "")),
    outcome(6, answer=2, prediction=2, confidence=0.6, passage="燈塔在海邊。"),
]

WHOLE = [*OUTCOMES[:3], OUTCOMES[4]]  # those that a data file may hold: in the other the right option is blank


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    first, second = make_run(tmp_path / "first"), make_run(tmp_path / "second")
    write_outcomes(second / OUTCOMES_FILE, SECOND, force=True)
    return first, second


def call(*words: Any) -> Any:
    result = CliRunner().invoke(cli, ["compare", *map(str, words)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def write_scores(path: Path, outcomes: list[Any]) -> Path:
    """What `lrc evaluate --scores` writes: no question, no answer."""
    lines = [
        {
            "id": one.question.id,
            "row": one.question.row,
            "scores": [-1.0] * 4,
            "probabilities": one.probabilities,
            "prediction": one.prediction,
        }
        for one in outcomes
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def write_data(path: Path) -> Path:
    path.write_text("".join(dump_records(to_record(one.question) for one in WHOLE)), encoding="utf-8")
    return path


def test_two_runs_are_compared_as_text(runs: tuple[Path, Path]) -> None:
    text = call(*runs).stdout
    # Two of five and four of five; the passages of the two that differ are two, so p = 2 of 4 signs.
    assert text.startswith("second is 40.0 points better than first (95% CI ")
    assert ", p = 0.5): this may be chance. More questions would tell.\n" in text
    assert re.search(r"^only \S+ +0\nonly \S+ +2$", text, flags=re.MULTILINE)
    assert "both wrong            1\n" in text and "same answer           2 of 5\n" in text
    assert "Only second is right\n" in text and "Only first is right" not in text
    row = next(line for line in text.splitlines() if line.startswith("5 "))
    assert text.splitlines()[-1] == f"next: lrc compare {runs[0]} {runs[1]} --output compare.html"
    assert row.split()[:5] == ["5", "2", "1", "(70%)", "2"]


def test_a_difference_of_zero_has_no_sign(runs: tuple[Path, Path]) -> None:
    write_outcomes(runs[1] / OUTCOMES_FILE, OUTCOMES, force=True)
    text = call(*runs).stdout
    assert "difference            0.0 points (0.0 to 0.0)\n" in text


def test_json_has_both_answers_to_every_question(runs: tuple[Path, Path]) -> None:
    found = json.loads(call(*runs, "--json").stdout)
    assert found["first"]["accuracy"] == 0.4 and found["second"]["accuracy"] == 0.8
    assert [(one["first"], one["second"]) for one in found["questions"]] == [(1, 1), (2, 2), (1, 2), (2, 4), (1, 2)]


def test_files_of_scores_need_their_questions_and_give_the_same(runs: tuple[Path, Path], tmp_path: Path) -> None:
    whole = [*SECOND[:3], SECOND[4]]
    for folder, outcomes in zip(runs, (WHOLE, whole), strict=True):
        write_outcomes(folder / OUTCOMES_FILE, outcomes, force=True)
    one, two = write_scores(tmp_path / "one.jsonl", WHOLE), write_scores(tmp_path / "two.jsonl", whole)
    with pytest.raises(DataError, match=r"one.jsonl: holds scores and not the questions .* name these with --data"):
        call(one, two)
    with_runs, with_files = call(*runs, "--json"), call(one, two, "--data", write_data(tmp_path / "d.json"), "--json")
    assert json.loads(with_files.stdout)["paired"] == json.loads(with_runs.stdout)["paired"]
    mixed = json.loads(call(runs[0], two, "--data", tmp_path / "d.json", "--json").stdout)
    assert mixed["paired"] == json.loads(with_runs.stdout)["paired"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda runs: (runs[1] / OUTCOMES_FILE).unlink(), r"second: holds no validation_scores.jsonl; give a file"),
        (lambda runs: write_outcomes(runs[1] / OUTCOMES_FILE, SECOND[:4], force=True), r"1 of its 5 questions are not"),
        (lambda runs: (runs[1] / OUTCOMES_FILE).write_text('{"id": 1}\n'), r"line 1: has neither scores"),
    ],
)
def test_what_cannot_be_compared_is_refused(runs: tuple[Path, Path], change: Any, message: str) -> None:
    change(runs)
    with pytest.raises(DataError, match=message):
        call(*runs)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("eval.json", '{\n  "accuracy": 0.5,\n  "n": 5\n}\n', r"holds an evaluation's figures .* --scores` wrote with"),
        ("answer.csv", "ID,Answer\n1,2\n", r"answer.csv: holds no probabilities; .* lrc evaluate --predictions"),
        ("missing.jsonl", None, r"missing.jsonl: No such file"),
        ("empty.jsonl", "", r"empty.jsonl: holds no scores"),
    ],
)
def test_other_files_are_refused_in_one_line(
    name: str, content: str | None, message: str, runs: tuple[Path, Path], tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message) as refused:
        call(runs[0], tmp_path / name)
    assert len(refused.value.lines()) == 1


def test_data_that_is_not_needed_and_a_run_given_twice_are_refused(runs: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not needed, since both sides hold their questions"):
        call(*runs, "--data", write_data(tmp_path / "d.json"))
    with pytest.raises(DataError, match="is given twice"):
        call(runs[0], runs[0])


def test_page_is_written_once_and_another_needs_force(runs: tuple[Path, Path], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="already exists"):
        call(*runs, "--output", page)
    assert page.read_text(encoding="utf-8") == "mine"
    assert call(*runs, "--output", page, "--force").stdout.endswith(f"wrote {page}\n")
    before = page.read_text(encoding="utf-8")
    assert "second 比 first 高 40.0 個百分點" in before and "<script>window" not in before
    assert "wrote" not in call(*runs, "--output", page).stdout
    with pytest.raises(OutputError, match="already exists"):
        call(*runs[::-1], "--output", page)
    call(*runs, "--output", page, "--force")
    assert page.read_text(encoding="utf-8") == before


@pytest.mark.parametrize("dark", [False, True])
def test_page_in_a_browser(runs: tuple[Path, Path], tmp_path: Path, dark: bool) -> None:
    call(*runs, "--output", tmp_path / "page.html")
    with chromium(size=PHONE if dark else DESKTOP, dark=dark) as browser:
        browser.get((tmp_path / "page.html").as_uri())
        assert complaints(browser) == [] and browser.execute_script("return window.broken") is None
        width = browser.execute_script("return document.documentElement.scrollWidth")
        assert width <= (PHONE if dark else DESKTOP)[0]
        titles = [title.get_attribute("innerText") for title in browser.find_elements("css selector", "main h2")]
        assert titles == ["Verdict", "Only first is right", "Only second is right", "Both wrong"]
        cards = browser.find_elements("css selector", ".mistake h3")
        assert [card.text for card in cards] == [
            "第6題：小明在做什麼？",
            "第5題：小明在做什麼？",
            "攻擊題",
        ]
