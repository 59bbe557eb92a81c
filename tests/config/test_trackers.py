"""What a run tells trackers and its own log: speed, sharing and memory, read back from where they were stored."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import fork_server
import pytest
from small_runs import make_run, pairs

from lrc import sft
from lrc.runtime.memory import peak_memory

PACE = {"questions_per_second", "tokens_per_second", "unique_token_share", "peak_memory_mb"}
STEPS = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base, questions of which two share a passage each, and a recipe."""
    questions = pairs(12, (6,))
    return make_run(
        tmp_path_factory.mktemp("tracked"),
        questions,
        questions,
        lora_r=2,
        lora_target_modules=["q_proj", "v_proj"],
        per_device_train_batch_size=4,
        max_steps=STEPS,
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="no",
        train_sampling_strategy="sequential",
    )


def train(folder: Path, output: Path, *overrides: str) -> None:
    sft.main(["--config", str(folder / "recipe.yaml"), "--output_dir", str(output), *overrides])


def lines(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_log_has_speed_sharing_and_memory(folder: Path, tmp_path: Path) -> None:
    before = peak_memory() / 1e6
    train(folder, tmp_path / "a", "--option_orders", "2")
    train(folder, tmp_path / "b", "--tree_packing", "false")
    told = [line for line in lines(tmp_path / "a") if "loss" in line]
    assert len(told) == STEPS and all(line.keys() >= PACE for line in told)
    assert all(0 < line["unique_token_share"] < 0.6 for line in told)  # two passages of two questions in two orders
    assert {line["unique_token_share"] for line in lines(tmp_path / "b") if "loss" in line} == {1.0}
    assert all(line["peak_memory_mb"] >= before - 0.1 for line in told)  # which are rounded
    assert told[-1]["peak_memory_mb"] <= peak_memory() / 1e6 + 0.1
    (whole,) = [line for line in lines(tmp_path / "a") if "train_runtime" in line]
    assert 0 < whole["train_unique_token_share"] < 0.6
    # Four questions a step, whatever number of orders: the mean of the steps' speeds by their time.
    seconds = [4 / line["questions_per_second"] for line in told]
    assert whole["train_questions_per_second"] == pytest.approx(4 * STEPS / sum(seconds), rel=0.01)
    tokens = sum(line["tokens_per_second"] * second for line, second in zip(told, seconds, strict=True))
    assert whole["train_tokens_per_second"] == pytest.approx(tokens / sum(seconds), rel=0.01)
    assert not any(PACE & line.keys() for line in lines(tmp_path / "a") if "eval_accuracy" in line)


def test_two_processes_count_together(folder: Path, tmp_path: Path) -> None:
    settings = ["--per_device_train_batch_size", "2", "--include_num_input_tokens_seen", "all"]
    words = [
        str(fork_server.python()),
        "-m",
        "lrc",
        "train",
        str(folder / "recipe.yaml"),
        "--accelerate-config",
        "cpu_2",
    ]
    told = subprocess.run(
        [*words, "--output_dir", str(tmp_path / "two"), *settings],
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert told.returncode == 0, told.stderr
    # Each process has the two questions of one passage, as one process has with two questions a step.
    train(folder, tmp_path / "one", *settings)
    one, two = ([line for line in lines(tmp_path / name) if "loss" in line] for name in ("one", "two"))
    for alone, both in zip(one, two, strict=True):
        assert both["unique_token_share"] == pytest.approx(alone["unique_token_share"], abs=0.005)
        assert both["num_input_tokens_seen"] == pytest.approx(2 * alone["num_input_tokens_seen"], rel=0.02)
    assert max(both["unique_token_share"] for both in two) < 0.9
    assert told.stdout.count("peak memory") == 1


def test_the_summary_stands_on_stdout(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "some run"
    train(folder, output)
    told = capsys.readouterr().out.splitlines()
    rows = {line[:13].strip(): line[14:] for line in told if not line.startswith("next")}
    measured = ["accuracy", "baseline", "best step", "loss", "time", "speed", "sharing", "peak memory"]
    assert list(rows) == ["verdict", *measured, "adapter"]
    last = [line for line in lines(output) if "eval_accuracy" in line][-1]
    interval = f"({last['eval_ci_low']:.4f} to {last['eval_ci_high']:.4f})"
    assert rows["accuracy"].startswith(f"{last['eval_accuracy']:.4f} {interval}, n = 12 in 6 passages")
    assert rows["adapter"] == str(output)
    base = folder / "base"
    assert [line[14:] for line in told if line.startswith("next")] == [
        f"lrc generate --model {base} --adapter '{output}' --data TEST.xlsx --output answer.csv",
        f"lrc merge --adapter '{output}' --output-dir '{output}-merged'",
    ]
    train(folder, output)  # finished already: the same again
    assert capsys.readouterr().out.splitlines() == told


def test_tensorboard_gets_it_all(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(folder, tmp_path / "a", "--report_to", "tensorboard")
    (events,) = (tmp_path / "a/runs").iterdir()
    found = EventAccumulator(str(events))
    found.Reload()
    for name in sorted(PACE):
        told = [(line["step"], line[name]) for line in lines(tmp_path / "a") if "loss" in line]
        stored = [(event.step, pytest.approx(event.value, rel=1e-6)) for event in found.Scalars(f"train/{name}")]
        assert told == stored[: len(told)], name
    evaluated = [(line["step"], line["eval_accuracy"]) for line in lines(tmp_path / "a") if "eval_accuracy" in line]
    assert [(event.step, pytest.approx(event.value)) for event in found.Scalars("eval/accuracy")] == evaluated
    assert {"eval/ci_low", "eval/ci_high", "train/loss"} <= set(found.Tags()["scalars"])


def test_trackio_gets_it_all_and_tensorboard_too(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    pytest.importorskip("tensorboard")
    words = [str(fork_server.python()), "-m", "lrc.sft", "--config", str(folder / "recipe.yaml")]
    words += ["--report_to", "trackio", "tensorboard"]
    told = subprocess.run(
        [*words, "--output_dir", str(tmp_path / "my-run"), "--run_name", "first"],
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio")},
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("verdict ")  # what trackio prints is on stderr
    with sqlite3.connect(tmp_path / "trackio/lrc.db") as database:
        stored = database.execute("SELECT run_name, metrics FROM metrics ORDER BY id").fetchall()
    assert {name for name, _ in stored} == {"first"}
    logs = [json.loads(metrics) for _, metrics in stored]
    for name in sorted(PACE):
        wanted = [line[name] for line in lines(tmp_path / "my-run") if "loss" in line]
        assert [log[f"train/{name}"] for log in logs if "train/loss" in log] == wanted
    wanted = [line["eval_accuracy"] for line in lines(tmp_path / "my-run") if "eval_accuracy" in line]
    assert [log["eval/accuracy"] for log in logs if "eval/accuracy" in log] == wanted and len(wanted) == 2
    assert list((tmp_path / "my-run/runs").glob("*/events.out.*"))


@pytest.mark.parametrize(
    ("tracker", "line"),
    [
        ("trackoi", "report_to is trackoi, expected trackio, wandb, tensorboard or none; did you mean 'trackio'?"),
        ("swanlab", "report_to is swanlab, which is not installed; pip install swanlab, or write none"),
    ],
)
def test_a_tracker_that_is_not_installed_is_reported_in_a_line(
    folder: Path, tmp_path: Path, tracker: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        train(folder, tmp_path / "a", "--report_to", tracker)
    assert end.value.code == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"recipe.yaml: {line}"
    assert not (tmp_path / "a").exists()


def test_without_a_tracker_nothing_is_stored(folder: Path, tmp_path: Path) -> None:
    train(folder, tmp_path / "a", "--report_to", "none", "--max_steps", "1")
    assert not (tmp_path / "a/runs").exists()
