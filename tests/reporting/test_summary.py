"""What the summary of a run, its report and a sweep take for the best evaluation."""

from __future__ import annotations

import json
from dataclasses import replace
from math import nan
from pathlib import Path

import pytest
from report_runs import make_run

from lrc.config.run_record import read_run
from lrc.metrics.training_log import Point, read_curves
from lrc.reporting.summary import best_point, summarize, untrained_figures


@pytest.mark.parametrize(
    ("values", "best"),
    [([0.2, 0.5, 0.4], 2), ([0.5, 0.2, 0.5], 1), ([nan, 0.5, 0.4], 2), ([0.5, nan], 1), ([nan, nan], 1)],
    ids=["highest", "first of several", "after NaN", "before NaN", "all NaN"],
)
def test_the_best_point_is_the_highest_number(values: list[float], best: int) -> None:
    found = best_point(tuple(Point(step, value) for step, value in enumerate(values, start=1)))
    assert found is not None and found.step == best


def test_untrained_is_what_was_evaluated_before_the_first_step(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [
        {"step": step, "eval_accuracy": value, "eval_ci_low": value - 0.1, "eval_ci_high": value + 0.1}
        for step, value in ((0, 0.25), (5, 0.75))
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    wanted = {"untrained_accuracy": 0.25, "untrained_ci_low": 0.15, "untrained_ci_high": 0.35}
    assert untrained_figures(read_curves(path)) == pytest.approx(wanted)
    path.write_text(json.dumps(lines[1]) + "\n", encoding="utf-8")
    assert untrained_figures(read_curves(path)) == {}


def test_an_empty_curve_has_no_best_point() -> None:
    assert best_point(()) is None


@pytest.mark.parametrize(
    ("step", "recipe", "kept"),
    [
        (20, {}, "20 of 30, the best by loss"),
        (20, {"metric_for_best_model": "eval_loss"}, "20 of 30, the best by loss"),
        (20, {"early_stopping_patience": 2}, "20 of 30, the best by accuracy"),
        (10, {"metric_for_best_model": "eval_ci_low"}, "10 of 30, the best by ci_low"),
        (30, {}, None),
    ],
)
def test_weights_of_another_step_than_the_last_are_named(
    tmp_path: Path, step: int, recipe: dict[str, object], kept: str | None
) -> None:
    folder = make_run(tmp_path / "run")
    run = read_run(folder)
    assert run is not None
    replace(run, step=step, recipe=run.recipe | recipe).write(folder / "lrc_run.json")
    rows, _commands = summarize(folder, "base")
    assert dict(rows).get("kept step") == kept


def test_the_last_step_is_the_result_though_no_loss_was_logged_there(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    metrics = folder / "metrics.jsonl"
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if line["step"] < 30] + [{"step": 30, "train_runtime": 9.0}]
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    run = read_run(folder)
    assert run is not None
    replace(run, step=30).write(folder / "lrc_run.json")
    rows = dict(summarize(folder, "base")[0])
    assert "kept step" not in rows and rows["time"] == "9.0 s"
