"""Early stopping: evaluations that get no better end a run, also one that was killed and is run again."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from small_runs import make_run, pairs, run

from lrc.training.callbacks import MetricsCallback
from lrc.training.output_dir import OutputDir

KEYS = {
    "max_steps": 8,
    "per_device_train_batch_size": 4,
    "learning_rate": 1.0e-30,  # nothing is learnt, so the first evaluation stays the best
    "eval_strategy": "steps",
    "eval_steps": 1,
    "save_strategy": "steps",
    "save_steps": 1,
    "early_stopping_patience": 2,
    "lora_dropout": 0.1,
}


def made(folder: Path, **keys: Any) -> Path:
    return make_run(folder, pairs(12), pairs(6, name="v"), **{**KEYS, **keys})


def steps_evaluated(output: Path) -> list[int]:
    lines = map(json.loads, (output / "metrics.jsonl").read_text().splitlines())
    return [line["step"] for line in lines if "eval_accuracy" in line]


def test_two_evaluations_that_are_no_better_end_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made(tmp_path, load_best_model_at_end=True)
    assert run(folder, tmp_path / "run") == 0
    assert steps_evaluated(tmp_path / "run")[:3] == [1, 2, 3] and max(steps_evaluated(tmp_path / "run")) == 3
    told = capsys.readouterr().err
    assert told.count("step 3: 2 evaluations in a row without improvement; stopping early") == 1
    assert told.count("without improvement") == 1
    assert json.loads((tmp_path / "run" / "lrc_run.json").read_text())["finished"]


def test_the_count_goes_on_where_a_run_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, output = made(tmp_path), tmp_path / "run"

    def killed(self: MetricsCallback, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(MetricsCallback, "on_step_end", killed)
        assert run(folder, output) == 130
    assert steps_evaluated(output) == [1, 2]
    assert run(folder, output) == 0
    assert max(steps_evaluated(output)) == 3


@pytest.mark.parametrize("how", ["a signal in a step that is evaluated", "a kill, and eval_on_start"])
def test_an_interrupted_run_stops_where_a_whole_one_does(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An evaluation counts once, whether the run ends in its step or goes on from it."""
    signalled = how.startswith("a signal")
    folder = made(tmp_path, early_stopping_patience=3, eval_on_start=not signalled)
    assert run(folder, tmp_path / "whole") == 0

    def interrupted(self: MetricsCallback, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if signalled and state.global_step == 2:
            signal.raise_signal(signal.SIGTERM)
        elif not signalled and state.global_step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(MetricsCallback, "on_step_end", interrupted)
        assert run(folder, tmp_path / "cut") == (143 if signalled else 130)
    assert max(steps_evaluated(tmp_path / "cut")) == 2
    assert run(folder, tmp_path / "cut") == 0
    assert steps_evaluated(tmp_path / "cut") == steps_evaluated(tmp_path / "whole")


@pytest.mark.parametrize("moment", ["keep", "finish"])
def test_a_run_that_was_killed_after_its_early_end_trains_no_further(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights are in the last checkpoint only, or in its folder, too."""
    folder = made(tmp_path, learning_rate=1e-3, early_stopping_patience=1, early_stopping_threshold=1.0)
    assert run(folder, tmp_path / "whole") == 0

    def killed(self: OutputDir, trainer: Any, **decided: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(OutputDir, moment, killed)
        assert run(folder, tmp_path / "cut") == 130
    assert run(folder, tmp_path / "cut") == 0
    assert max(steps_evaluated(tmp_path / "cut")) == 2
    name = "adapter_model.safetensors"
    assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_records_without_options_choose_nothing_by_accuracy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, foreign = made(tmp_path), tmp_path / "foreign.json"
    foreign.write_text('[{"instruction": "翻譯", "input": "貓", "output": "cat"}]', encoding="utf-8")
    assert run(folder, tmp_path / "run", "--validation_file", str(foreign)) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"{foreign}: has no question to choose by accuracy; set metric_for_best_model: loss, or remove it"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"eval_strategy": "no"}, "early_stopping_patience counts evaluations, but eval_strategy is no"),
        ({"early_stopping_patience": None, "early_stopping_threshold": 0.1}, "set that as well"),
        ({"early_stopping_patience": 0}, "early_stopping_patience is 0, expected 1 or more"),
        ({"save_only_model": True}, "save_only_model is true, but a run cannot be resumed without its optimizer state"),
    ],
)
def test_what_does_not_go_together_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], keys: dict[str, Any], told: str
) -> None:
    assert run(made(tmp_path, **keys), tmp_path / "run") == 1
    assert told in capsys.readouterr().err and not (tmp_path / "run").exists()
