"""Sweeps with the real thing: trials that are trained, a kill and what goes on after it, failures, and refusals."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fork_server
import pytest
import yaml
from small_runs import make_run, pairs

from lrc.cli import main
from lrc.config.recipe import load_recipe
from lrc.data.questions import Question
from lrc.metrics.accuracy import wilson
from lrc.metrics.predictions import Outcome, write_outcomes
from lrc.training.sweep.leaderboard import LeaderboardEntry, compare_best, print_leaderboard, rank, write
from lrc.training.sweep.sweep_file import read_sweep
from lrc.training.sweep.trial import SweepTrial, TrialResult

pytest.importorskip("optuna")
OPTIONS = ("甲", "乙", "丙", "丁")


@pytest.fixture(autouse=True)
def keep_signals(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`main` takes SIGTERM for itself; trials are forked, not started."""
    monkeypatch.setattr(sys, "executable", str(fork_server.python()))
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base, questions, and a recipe of three steps."""
    questions = pairs(8, (1,))
    return make_run(
        tmp_path_factory.mktemp("swept"),
        questions,
        questions,
        lora_target_modules=["q_proj", "v_proj"],
        per_device_train_batch_size=4,
        max_steps=3,
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
    )


def written(folder: Path, output: Path, **changes: Any) -> Path:
    """A SWEEP.yaml beside its output; `changes` by key, None leaves one out."""
    values = {
        "recipe": str(folder / "recipe.yaml"),
        "trials": 2,
        "output_dir": str(output),
        "search": {"learning_rate": {"low": 1.0e-4, "high": 1.0e-2, "log": True}, "lora_r": [2, 4]},
        **changes,
    }
    path = output.with_suffix(".yaml")
    text = yaml.safe_dump(
        {key: value for key, value in values.items() if value is not None}, allow_unicode=True, sort_keys=False
    )
    path.write_text(text, encoding="utf-8")
    return path


def status(*words: str | Path) -> int:
    with pytest.raises(SystemExit) as end:
        main([*map(str, words)])
    return int(end.value.code or 0)


def document(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "sweep.json").read_text(encoding="utf-8"))
    return found


def test_trials_are_trained_compared_and_added_to(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "sweep"
    file = written(folder, output, overrides={"lora_alpha": 4})
    main(["sweep", str(file), "--accelerate-config", "cpu"])
    told, found = capsys.readouterr(), document(output)
    assert len(found["trials"]) == 2
    for trial in found["trials"]:
        assert 1e-4 <= trial["values"]["learning_rate"] <= 1e-2 and trial["values"]["lora_r"] in (2, 4)
        run = Path(trial["folder"])
        lines = (run / "validation_scores.jsonl").read_text(encoding="utf-8").splitlines()
        right = [line["prediction"] == line["answer"] for line in map(json.loads, lines)]
        assert (trial["accuracy"], trial["n"], trial["steps"]) == (sum(right) / len(right), 8, 3)
        given = json.loads((run / "lrc_run.json").read_text(encoding="utf-8"))["recipe"]
        assert given["lora_alpha"] == 4 and given["lora_r"] == trial["values"]["lora_r"]
        assert json.loads((run / "adapter_config.json").read_text(encoding="utf-8"))["r"] == given["lora_r"]
    assert [trial["accuracy"] for trial in found["trials"]] == sorted(
        (trial["accuracy"] for trial in found["trials"]), reverse=True
    )
    best = found["trials"][0]
    share = f"{100 * best['accuracy']:.1f}% ({100 * best['ci_low']:.1f}–{100 * best['ci_high']:.1f})"
    assert told.out.startswith(f"the best is trial {best['trial']}: {share}, ") and told.out.count(share) >= 2
    adapter = shlex.quote(best["folder"])
    assert told.out.splitlines()[-1].endswith(f" --adapter {adapter} --data TEST.xlsx --output answer.csv")
    assert load_recipe(output / f"trial-{best['trial']}.yaml").given["lora_r"] == best["values"]["lora_r"]

    adapter = Path(best["folder"]) / "adapter_model.safetensors"
    before = adapter.stat().st_mtime_ns
    main(["sweep", str(file), "--trials", "3", "--accelerate-config", "cpu"])
    assert len(document(output)["trials"]) == 3 and adapter.stat().st_mtime_ns == before
    values = [tuple(trial["values"].values()) for trial in document(output)["trials"]]
    assert len(set(values)) == 3  # the third begins no series again

    other = written(folder, output, overrides={"lora_alpha": 8})
    assert status("sweep", other) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == f"{output}: holds another sweep (recipe lora_alpha); choose another output_dir"


def checkpoints(output: Path) -> set[Path]:
    return set(output.glob("trial-0/checkpoint-*"))


def wait_for_checkpoint(output: Path, process: subprocess.Popen[str], unlike: set[Path]) -> None:
    """Wait until the first trial has a checkpoint that was not there before."""
    end = time.monotonic() + 150
    while not checkpoints(output) - unlike:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_sweep_that_was_stopped_goes_on(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "sweep"
    more = {"max_steps": 90, "eval_steps": 90, "save_total_limit": 2}
    file = written(folder, output, search={"learning_rate": [0.001]}, overrides=more)
    command = [sys.executable, "-m", "lrc", "sweep", str(file), "--accelerate-config", "cpu"]
    for number in (signal.SIGTERM, signal.SIGKILL):
        seen = checkpoints(output)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_for_checkpoint(output, process, unlike=seen)
        process.send_signal(number)
        told = process.communicate(timeout=100)[1]
        if number == signal.SIGTERM:
            assert process.returncode == 143
            assert told.splitlines()[-1] == f"{output}: stopped with 0 of 2 trials; run again to resume from there"
            assert checkpoints(output) and not (output / "trial-0/adapter_model.safetensors").exists()
    with (output / "study.jsonl").open("a", encoding="utf-8") as study:
        study.write('{"op_code": 6, "wor')  # what a kill may leave
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    (found,) = document(output)["trials"]
    assert (found["trial"], found["steps"], found["values"]) == (0, 90, {"learning_rate": 0.001})
    said = (output / "trial-0.log").read_text(encoding="utf-8")
    # After the SIGKILL the training went on without its sweep, which was not to begin a second one beside it.
    assert said.count("resuming from") == 1 and "this run has already finished" in said and "is writing it" not in said
    again = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert again.returncode == 0 and again.stdout == done.stdout  # nothing is left to train
    assert (output / "trial-0.log").read_text(encoding="utf-8") == said


def test_a_trial_that_fails_is_recorded_and_the_next_one_runs(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "sweep"
    modules = [["q_proj", "k_proj"], ["q_proj", "missing_proj"]]
    file = written(folder, output, search={"lora_target_modules": modules}, overrides={"max_steps": 1})
    main(["sweep", str(file), "--accelerate-config", "cpu"])
    found = {json.dumps(trial["values"]["lora_target_modules"]): trial for trial in document(output)["trials"]}
    assert found[json.dumps(modules[0])]["accuracy"] >= 0
    failed = found[json.dumps(modules[1])]
    assert "missing_proj" in failed["failed"] and "accuracy" not in failed
    told = capsys.readouterr()
    assert f"trial {failed['trial']} failed: {failed['failed']}" in told.out
    assert "no other trial has answered the same questions" in told.out
    main(["sweep", str(file), "--accelerate-config", "cpu"])  # it stays failed
    assert f"trial {failed['trial']} failed: " in capsys.readouterr().out
    alone = written(folder, tmp_path / "alone", search={"lora_target_modules": modules[1:]}, trials=5)
    assert status("sweep", alone, "--accelerate-config", "cpu") == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"{tmp_path / 'alone'}: every trial failed; ")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"trails": 3}, "sweep.yaml, line 12: unknown key 'trails'; did you mean 'trials'?"),
        ({"trials": None}, "sweep.yaml: trials is missing; give a whole number, 1 or more"),
        ({"trials": 0}, "trials is 0, expected a whole number, 1 or more"),
        ({"search": {}}, "search is {}, expected a mapping"),
        ({"search": {"lora_rnak": [1]}}, "sweep.yaml, search: unknown key 'lora_rnak'; did you mean 'lora_r'?"),
        ({"search": {"lora_r": [4, 0]}}, "sweep.yaml, search: lora_r is 0, expected 1 or more"),
        ({"search": {"lora_r": {"low": 1, "high": 2.5}}}, "lora_r is 2.5, expected a whole number"),
        ({"search": {"lora_r": {"low": 8, "high": 4}}}, "lora_r has 8 as low, expected less than high, 4"),
        ({"search": {"lora_r": {"low": 8, "hihg": 9}}}, "lora_r has an unknown key 'hihg'; did you mean 'high'?"),
        ({"search": {"lora_r": 4}}, "lora_r is 4, expected a list of values, or {low: …, high: …}"),
        ({"search": {"lora_r": [4, 4]}}, "lora_r lists 4 twice; keep one"),
        ({"search": {"learning_rate": {"low": 0, "high": 1, "log": True}}}, "learning_rate has log: true, which needs"),
        ({"search": {"output_dir": ["a"]}}, "search: output_dir is set by the sweep itself; remove it"),
        ({"overrides": {"lora_r": 2}}, "lora_r is in both search and overrides; keep one"),
        ({"overrides": {"lr": 2}}, "sweep.yaml, overrides: unknown key 'lr'"),
        (
            {"overrides": {"validation_file": None, "eval_strategy": "no"}},
            "the recipe has no validation_file, by which trials are compared",
        ),
        ({"overrides": {"push_to_hub": True, "hub_model_id": "a/b"}}, "push_to_hub is true, and every trial would"),
        ({"overrides": {"train_file": "missing.json"}}, "missing.json: No such file or directory"),
        ({"recipe": "tiny/lroa"}, "tiny/lroa: no such recipe; did you mean 'tiny/lora'?"),
    ],
    ids=str,
)
def test_a_sweep_that_cannot_be_is_refused_before_any_trial(
    folder: Path, tmp_path: Path, changes: dict[str, Any], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(folder, tmp_path / "sweep", **changes)
    assert status("sweep", file) == 1
    told = capsys.readouterr().err
    assert any(line in said for said in told.splitlines()), told
    assert "Traceback" not in told and not (tmp_path / "sweep").exists()


def test_a_folder_of_something_else_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep/thesis.txt").write_text("mine")
    assert status("sweep", written(folder, tmp_path / "sweep")) == 1
    assert "holds something that is not an lrc sweep" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "sweep").iterdir()] == ["thesis.txt"]


def test_optuna_is_asked_for(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert status("sweep", written(folder, tmp_path / "sweep")) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "sweep: optuna is not installed; pip install 'lora-reading-comprehension[sweep]'"


def test_what_can_be_counted_is_counted(folder: Path, tmp_path: Path) -> None:
    search = {"lora_r": {"low": 2, "high": 6, "step": 2}, "learning_rate": [0.1, 0.2]}
    plan = read_sweep(written(folder, tmp_path / "a", search=search))
    assert plan.size == 6 and [values["lora_r"] for values in plan.combinations()] == [2, 2, 4, 4, 6, 6]
    search = {"lora_r": {"low": 2, "high": 6}, "learning_rate": {"low": 0.1, "high": 0.2}}
    assert read_sweep(written(folder, tmp_path / "a", search=search)).size is None


def entry(root: Path, number: int, predictions: list[int]) -> LeaderboardEntry:
    """A trial that answered questions, all of which 1 is the answer of."""
    trial, n = SweepTrial(number, {"lora_r": number}, root), len(predictions)
    trial.folder.mkdir()
    probabilities = (0.25, 0.25, 0.25, 0.25)
    questions = [Question(str(i), f"文{i}", "問", OPTIONS, 1) for i in range(n)]
    found = [Outcome(question, probabilities, given) for question, given in zip(questions, predictions, strict=True)]
    write_outcomes(trial.folder / "validation_scores.jsonl", found)
    right = predictions.count(1)
    low, high = wilson(right, n)
    return LeaderboardEntry(trial, TrialResult(right / n, low, high, n, 5, 10, 0.5, right / n, 3.0))


@pytest.mark.parametrize(
    ("others", "told"),
    [
        (
            [1] * 12 + [2] * 8,
            "of 20 questions, 3 are right only in it, 0 only in the next, trial 1: that may be",
        ),
        (
            [1] * 5 + [2] * 15,
            "of 20 questions, 10 are right only in it, 0 only in the next, trial 1: that is",
        ),
    ],
)
def test_the_best_is_compared_with_the_second(
    tmp_path: Path, others: list[int], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    worse, better = entry(tmp_path, 1, others), entry(tmp_path, 2, [1] * 15 + [3] * 5)
    failed = LeaderboardEntry(SweepTrial(0, {"lora_r": 0}, tmp_path), None, "out of memory")
    found = rank([failed, worse, better])
    assert [one.trial.number for one in found] == [2, 1, 0]
    test = compare_best(found)
    assert test is not None and (test["best"], test["second"]) == (2, 1)
    print_leaderboard(found, "some/base")
    out = capsys.readouterr().out
    assert told in out and "trial 0 failed: out of memory" in out
    assert f"--adapter {tmp_path / 'trial-2'}" in out


def test_trials_are_ranked_by_what_they_left_and_not_by_what_they_passed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, (right, logged) in enumerate([(2, 0.9), (3, 0.5)]):
        entry(tmp_path, number, [1] * right + [2] * (4 - right))
        line = {"step": 5, "eval_accuracy": logged, "eval_ci_low": 0.1, "eval_ci_high": 0.95, "eval_loss": 1.0}
        (tmp_path / f"trial-{number}" / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    trials = [SweepTrial(number, {"lora_r": number}, tmp_path) for number in range(2)]
    found = rank([LeaderboardEntry(trial, trial.result()) for trial in trials])
    assert [(one.trial.number, one.result.accuracy) for one in found if one.result] == [(1, 0.75), (0, 0.5)]
    assert found[0].result is not None and (found[0].result.ci_low, found[0].result.ci_high) == wilson(3, 4)
    print_leaderboard(found, "some/base")
    assert "trial 0 had 0.9000 at step 5, and left 0.5000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("lines", "step"),
    [
        ([{"step": 2, "eval_accuracy": 0.9}, {"step": 4, "eval_accuracy": 0.8}], 2),  # of a sample
        ([{"step": 0, "eval_accuracy": 1.0}], 5),  # of the sample before the training only
        ([], 5),
    ],
)
def test_the_accuracy_on_a_sample_is_not_compared_with_that_on_all_questions(
    lines: list[dict[str, float]], step: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry(tmp_path, 0, [1, 1, 1, 2])
    bounds = {"eval_ci_low": 0.1, "eval_ci_high": 1.0, "eval_loss": 9.0}
    every = {"step": 5, "eval_all_accuracy": 0.75, "eval_all_loss": 0.5}
    log = "".join(json.dumps(line) + "\n" for line in [*(line | bounds for line in lines), every])
    (tmp_path / "trial-0" / "metrics.jsonl").write_text(log)
    trial = SweepTrial(0, {"lora_r": 0}, tmp_path)
    result = trial.result()
    assert (result.accuracy, result.best_accuracy, result.step, result.eval_loss) == (0.75, 0.75, step, 0.5)
    print_leaderboard([LeaderboardEntry(trial, result)], "some/base")
    assert "and left" not in capsys.readouterr().out


def test_the_size_of_the_sample_is_told_as_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    questions = [Question(str(i), f"文{i // 2}", "問", OPTIONS, 1) for i in range(8)]
    rights = (0, 1, 0, 1, 1, 1, 0, 0)  # two of four passages are right in one question
    trials = [SweepTrial(number, {"lora_r": number}, tmp_path) for number in range(2)]
    for trial in trials:
        trial.folder.mkdir()
        pairs_of = zip(questions, rights, strict=True)
        write_outcomes(
            trial.folder / "validation_scores.jsonl",
            [Outcome(question, (0.25,) * 4, 1 if right else 2) for question, right in pairs_of],
        )
        line = {"step": 5, "eval_accuracy": 0.5, "eval_ci_low": 0.1, "eval_ci_high": 0.95, "eval_loss": 1.0}
        (trial.folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    entries = [LeaderboardEntry(trial, trial.result()) for trial in trials]
    # By hand: the passages' sums of answers minus 1/2 are 0, 0, 1, -1, so that the clustered variance of the mean is
    # 4/3 · 2/64 = 1/24, against 1/2 · 1/2 / 7 = 1/28 of independent questions: 8 · 24/28, corrected for few passages.
    t7, t3 = 2.3646, 3.1824
    effective = 8 * 24 / 28 * (t7 / t3) ** 2
    for one in entries:
        assert one.result is not None and (one.result.n, one.result.passages) == (8, 4)
        assert one.result.n_effective == pytest.approx(effective, rel=5e-3)
    print_leaderboard(entries, "some/base")
    size = "n = 8 in 4 passages, effective n = 4"
    out = capsys.readouterr().out
    assert out.count(size) == 3 and out.splitlines()[1].endswith(f"), {size}")
    write(tmp_path / "sweep.json", {}, entries)
    kept = json.loads((tmp_path / "sweep.json").read_text(encoding="utf-8"))["trials"]
    assert [(one["n"], one["passages"]) for one in kept] == [(8, 4)] * 2
    assert [one["n_effective"] for one in kept] == [pytest.approx(effective, rel=5e-3)] * 2


def test_the_loss_decides_only_between_equal_accuracies(tmp_path: Path) -> None:
    given = [(0.7, 0.1), (0.8, 2.0), None, (0.8, 1.5), (0.8, None), (0.8, 1.5)]
    entries = [
        LeaderboardEntry(
            SweepTrial(number, {}, tmp_path), one and TrialResult(one[0], 0, 1, 9, 1, 1, one[1], one[0], 1)
        )
        for number, one in enumerate(given)
    ]
    assert [one.trial.number for one in rank(entries)] == [3, 5, 1, 4, 0, 2]
    for key in ("option_contrast", "model_name_or_path"):  # losses of another kind say nothing
        searched = [replace(one, trial=replace(one.trial, values={key: one.trial.number})) for one in entries]
        assert [one.trial.number for one in rank(searched)] == [1, 3, 4, 5, 0, 2]


def test_the_shipped_sweep_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[3])
    plan = read_sweep(Path("examples/sweep.yaml"))
    header = plan.path.read_text(encoding="utf-8").split("\n\n")[0]
    assert "lrc sweep examples/sweep.yaml" in header and plan.size is None and plan.trials == 6
