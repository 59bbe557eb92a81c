"""Reading `metrics.jsonl`: what a kill leaves, what a resume writes again, what is no such file."""

from __future__ import annotations

from math import isnan
from pathlib import Path

import pytest

from lrc.metrics.training_log import read_curves
from lrc.runtime.errors import DataError

LINES = """{"step": 10, "loss": 2.5, "epoch": 1.0}
{"step": 20, "loss": NaN}
{"step": 20, "eval_accuracy": 0.4, "eval_ci_low": 0.1, "eval_ci_high": 0.8}
{"step": 20, "train_runtime": 120.0}
"""


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    path = tmp_path / "metrics.jsonl"
    path.write_text(LINES)
    return path


def test_values_come_by_name_with_their_intervals(metrics: Path) -> None:
    curves = read_curves(metrics)
    assert [point.step for point in curves["loss"]] == [10, 20] and isnan(curves["loss"][1].value)
    (point,) = curves["eval_accuracy"]
    assert (point.value, point.low, point.high) == (0.4, 0.1, 0.8)
    assert curves["learning_rate"] == () and curves.totals == {"train_runtime": 120.0}


def test_run_that_logged_nothing_has_no_curves(tmp_path: Path) -> None:
    curves = read_curves(tmp_path / "metrics.jsonl")
    assert curves.last_step == 0 and not curves["loss"]


def test_a_line_cut_by_a_kill_is_skipped_with_a_notice(metrics: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics.write_text(LINES + '{"step": 40, "lo')
    assert read_curves(metrics).last_step == 20
    assert "metrics.jsonl, line 5: cut short; left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "finding"),
    [
        ('{"step": 40, "lo', "line 1: .*; remove the line, or restore the file"),
        ("[]", "line 1: is not an object with a step"),
        ('{"loss": 1}', "line 1: is not an object with a step"),
        ('{"step": 1, "loss": "low"}', 'line 1: loss is "low", expected a number'),
    ],
)
def test_wrong_line_is_named(metrics: Path, line: str, finding: str) -> None:
    metrics.write_text(f"{line}\n{LINES}")
    with pytest.raises(DataError, match=finding):
        read_curves(metrics)


def test_later_of_two_values_of_a_step_counts(metrics: Path) -> None:
    metrics.write_text(LINES + '{"step": 10, "loss": 0.75}\n')
    assert read_curves(metrics)["loss"][0].value == 0.75


def test_a_step_that_no_chart_can_hold_is_refused(metrics: Path) -> None:
    metrics.write_text(f'{{"step": 1{"0" * 400}, "loss": 2.5}}\n')
    with pytest.raises(DataError) as refused:
        read_curves(metrics)
    (line,) = refused.value.lines()
    assert line.startswith(f"{metrics}, line 1: step is 1000") and ", expected up to 9007199254740992; " in line
