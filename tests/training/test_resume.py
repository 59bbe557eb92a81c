"""A run that goes on is the same run, wherever its folder lies, or is refused; the best checkpoint is its own."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import pytest
import yaml
from small_runs import lrc, make_run, pairs, run, write_questions
from transformers import AutoModelForCausalLM

from lrc.config.arguments import AdapterArguments, DataArguments, ModelArguments, TrainingArguments
from lrc.config.ignored_keys import IGNORED
from lrc.config.run_record import Run, read_run
from lrc.reporting.model_card import model_card
from lrc.runtime.packages import versions
from lrc.training.callbacks import MetricsCallback
from lrc.training.resume import EVALUATION, MAY_CHANGE, differences, is_longer, nondeterminism
from lrc.training.trainer import TreeTrainer

WEIGHTS = "adapter_model.safetensors"
DOCS = Path(__file__).parents[2] / "docs"
STEPS, BEST = 6, 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, questions and a recipe of six steps with dropout and a changing learning rate."""
    return make_run(
        tmp_path_factory.mktemp("inputs"),
        pairs(16, (2,)),
        pairs(6, (2,), name="v"),
        template="alpaca",
        lora_r=4,
        lora_dropout=0.2,
        lora_target_modules=["q_proj", "v_proj"],
        per_device_train_batch_size=4,
        max_steps=STEPS,
        learning_rate=1.0e-2,
        lr_scheduler_type="cosine",
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        save_total_limit=1,
        metric_for_best_model="loss",
        load_best_model_at_end=True,
    )


@pytest.fixture(autouse=True)
def _best(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the evaluation of the second step come out as the best, whatever was learnt."""
    _make_best(monkeypatch, BEST)


def _make_best(patch: pytest.MonkeyPatch, step: int) -> None:
    evaluation_loop = TreeTrainer.evaluation_loop

    def evaluated(self: TreeTrainer, *args: Any, **kwargs: Any) -> Any:
        output = evaluation_loop(self, *args, **kwargs)
        output.metrics["eval_loss"] = 1.0 + abs(self.state.global_step - step)
        return output

    patch.setattr(TreeTrainer, "evaluation_loop", evaluated)


def cut(folder: Path, output: Path, *overrides: str, step: int = 4) -> None:
    """Run until a step, of which no checkpoint is saved any more."""

    def killed(self: MetricsCallback, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == step:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MetricsCallback, "on_step_end", killed)
        assert run(folder, output, *overrides) == 130


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()


def evaluated(output: Path) -> list[int]:
    lines = map(json.loads, (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [line["step"] for line in lines if "eval_loss" in line]


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing interrupted."""
    output = tmp_path_factory.mktemp("whole") / "a"
    with pytest.MonkeyPatch.context() as patch:
        _make_best(patch, BEST)
        assert run(folder, output) == 0
    return output


def test_the_best_checkpoint_is_the_result_and_is_evaluated_once(whole: Path) -> None:
    assert digest(whole) == digest(whole / f"checkpoint-{BEST}") != digest(whole / f"checkpoint-{STEPS}")
    assert evaluated(whole) == list(range(1, STEPS + 1))
    told = read_run(whole)
    assert told is not None and (told.finished, told.step) == (True, BEST)


MOVES = ("the same", "absolute", "moved", "link", "other drive")


@pytest.mark.parametrize("move", MOVES)
def test_a_run_goes_on_wherever_its_folder_lies(
    folder: Path, whole: Path, move: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cut(folder, Path("a"))
    now = Path("a")
    if move == "absolute":
        now = tmp_path / "a"
    elif move == "moved":
        now = (tmp_path / "a").rename(tmp_path / "b")
    elif move == "link":
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "a").rename(tmp_path / "elsewhere" / "real")
        now = tmp_path / "link"
        now.symlink_to(tmp_path / "elsewhere" / "real")
    elif move == "other drive":
        others = [Path("/dev/shm"), Path(gettempdir())]
        drives = [one for one in others if os.access(one, os.W_OK) and one.stat().st_dev != tmp_path.stat().st_dev]
        if not drives:
            pytest.skip("there is no other drive")
        drive = drives[0]
        now = Path(shutil.copytree("a", drive / f"lrc-{os.getpid()}", symlinks=True))
        shutil.rmtree("a")
    try:
        assert run(folder, Path(f"{now}/") if move == "moved" else now) == 0
        assert digest(now) == digest(whole) == digest(now / f"checkpoint-{BEST}")
        assert sorted(path.name for path in now.glob("checkpoint-*")) == [f"checkpoint-{BEST}", f"checkpoint-{STEPS}"]
        assert evaluated(now) == evaluated(whole)
    finally:
        if move == "other drive":
            shutil.rmtree(now, ignore_errors=True)


def test_a_run_goes_on_from_another_folder_and_says_so(folder: Path, whole: Path, tmp_path: Path) -> None:
    cut(folder, tmp_path / "a")
    moved = shutil.copytree(tmp_path / "a", tmp_path / "kept")
    assert run(folder, tmp_path / "b", "--resume_from_checkpoint", f"{moved}/checkpoint-3/") == 0
    shutil.rmtree(moved)
    assert digest(tmp_path / "b") == digest(whole) == digest(tmp_path / "b" / f"checkpoint-{BEST}")
    told = read_run(tmp_path / "b")
    assert told is not None and (told.origin["folder"], told.origin["checkpoint"]) == ("kept", "checkpoint-3")


def test_the_base_and_the_data_are_known_by_what_they_hold(folder: Path, whole: Path, tmp_path: Path) -> None:
    cut(folder, tmp_path / "a")
    there = shutil.copytree(folder, tmp_path / "inputs elsewhere")
    (there / "t_train.json").rename(there / "mine.json")
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    recipe |= {"model_name_or_path": str(there / "base"), "train_file": str(there / "mine.json")}
    # What has its default anyway may be given as well, and nothing of this changes what is computed.
    recipe |= {"weight_decay": 0.0, "save_total_limit": 3, "logging_steps": 2, "report_to": [], "seed": 42}
    (there / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    assert run(there, tmp_path / "a") == 0
    assert digest(tmp_path / "a") == digest(whole)
    lines = map(json.loads, (tmp_path / "a" / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    # The interval is the one that is asked for now, not the one that the checkpoint had.
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 6]


def other_questions(folder: Path, tmp_path: Path) -> list[str]:
    return ["--train_file", str(write_questions(tmp_path / "t_train.json", pairs(16, (3,))))]


def other_base(folder: Path, tmp_path: Path) -> list[str]:
    """The same shapes with one number changed."""
    base = shutil.copytree(folder / "base", tmp_path / "base")
    data = bytearray((base / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (base / "model.safetensors").write_bytes(data)
    return ["--model_name_or_path", str(base)]


def other_end_token(folder: Path, tmp_path: Path) -> list[str]:
    base = shutil.copytree(folder / "base", tmp_path / "base")
    settings = json.loads((base / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings["eos_token"] = settings["bos_token"]
    (base / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return ["--model_name_or_path", str(base)]


OTHERS: dict[str, tuple[Any, str]] = {
    "learning_rate": (["--learning_rate", "0.02"], "learning_rate was 0.01 and is 0.02 now; set learning_rate: 0.01"),
    "rank": (["--lora_r", "8"], "lora_r was 4 and is 8 now; set lora_r: 4"),
    "targets": (
        ["--lora_target_modules", "q_proj", "down_proj"],
        'lora_target_modules was ["q_proj", "v_proj"] and is ["q_proj", "down_proj"] now; ',
    ),
    "template": (["--template", "plain"], "template was alpaca and is plain now; set template: alpaca"),
    "seed": (["--seed", "7"], "seed was 42 and is 7 now; set seed: 42"),
    "steps": (["--max_steps", "9"], "max_steps was 6 and is 9 now; set max_steps: 6"),
    "best": (["--load_best_model_at_end", "false"], "load_best_model_at_end was true and is false now; "),
    "evaluation": (["--eval_steps", "2", "--save_steps", "2"], "eval_steps was 1 and is 2 now; set eval_steps: 1"),
    "data": (other_questions, "train_file was t_train.json (sha256 "),
    "base": (other_base, "the base model's weights was base (contents_sha256 "),
    "tokenizer": (other_end_token, "the tokenizer's files was "),
}


@pytest.fixture(scope="module")
def stopped(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("stopped") / "a"
    with pytest.MonkeyPatch.context() as patch:
        _make_best(patch, BEST)
        cut(folder, output)
    return output


@pytest.mark.parametrize("other", OTHERS)
def test_another_run_is_refused_in_one_line(
    folder: Path, stopped: Path, other: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, fact = OTHERS[other]
    overrides = words if isinstance(words, list) else words(folder, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in stopped.rglob("*")}
    named = f"{stopped}/checkpoint-3"
    assert run(folder, tmp_path / "b", "--resume_from_checkpoint", named, *overrides) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("resume_from_checkpoint: ")]
    assert len(lines) == 1 and lines[0].startswith(
        f"resume_from_checkpoint: {named}: belongs to another run: {fact}"
    ), lines
    assert lines[0].endswith(", or remove resume_from_checkpoint")
    assert not (tmp_path / "b").exists()
    assert run(folder, stopped, *overrides) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"{stopped}: holds another run ({fact.partition('; ')[0]}") and "choose another" in last
    assert {path: path.stat().st_mtime_ns for path in stopped.rglob("*")} == before


def test_a_finished_run_is_not_gone_on_with(
    folder: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = whole / f"checkpoint-{BEST}"
    assert run(folder, tmp_path / "b", "--resume_from_checkpoint", str(named)) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"resume_from_checkpoint: {named}: its run is finished; use {whole}, or remove resume_from_checkpoint"
    )


def test_weights_that_were_removed_are_trained_again(folder: Path, whole: Path, tmp_path: Path) -> None:
    mine = shutil.copytree(whole, tmp_path / "mine")
    (mine / WEIGHTS).unlink()
    assert run(folder, mine) == 0
    assert digest(mine) == digest(whole) and evaluated(mine) == evaluated(whole)


def test_a_checkpoint_of_another_run_among_ones_own_is_refused(
    folder: Path, stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut(folder, tmp_path / "other", "--learning_rate", "0.02", step=6)
    mine = shutil.copytree(stopped, tmp_path / "mine")
    strange = Path(shutil.copytree(tmp_path / "other" / "checkpoint-5", mine / "checkpoint-5"))
    assert run(folder, mine) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"{strange}: belongs to another run, whose learning_rate was 0.02 and is 0.01 now; move it away"
    )


@pytest.mark.parametrize("harm", ["missing", "damaged", "another run's"])
def test_the_last_weights_never_pass_for_the_best(
    folder: Path, stopped: Path, harm: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = shutil.copytree(stopped, tmp_path / "mine")
    best = mine / f"checkpoint-{BEST}"
    if harm == "damaged":
        (best / WEIGHTS).write_bytes(b"")
    else:
        shutil.rmtree(best)
    if harm == "another run's":
        cut(folder, tmp_path / "other", "--seed", "7", step=3)
        shutil.copytree(tmp_path / "other" / best.name, best)
    assert run(folder, mine) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"{best}: ") and "and it was the best so far at checkpoint-3; put it back" in last
    assert not (mine / WEIGHTS).exists()


def test_the_best_that_goes_while_the_run_trains_is_missed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "a"
    end = MetricsCallback.on_train_end

    def gone(self: MetricsCallback, *args: Any, **kwargs: Any) -> None:
        end(self, *args, **kwargs)
        shutil.rmtree(output / f"checkpoint-{BEST}")

    monkeypatch.setattr(MetricsCallback, "on_train_end", gone)
    assert run(folder, output) == 1
    assert "so there is no best checkpoint for load_best_model_at_end" in capsys.readouterr().err.splitlines()[-1]
    assert not (output / WEIGHTS).exists()


def test_the_best_is_saved_between_two_saves(folder: Path, tmp_path: Path) -> None:
    """Upstream saves at every third step, and would take the last weights for the best."""
    output = tmp_path / "a"
    assert run(folder, output, "--save_steps", "3") == 0
    assert digest(output) == digest(output / f"checkpoint-{BEST}")


def test_evaluations_that_are_due_after_the_last_step_come_before(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "a"
    settings = ["--eval_steps", "50", "--save_steps", "50", "--eval_delay", "50"]
    assert run(folder, output, *settings) == 0
    assert evaluated(output) == [STEPS] and digest(output) == digest(output / f"checkpoint-{STEPS}")


@pytest.mark.parametrize("best", ["true", "false"])
def test_a_longer_run_goes_on_from_a_shorter(folder: Path, best: str, tmp_path: Path) -> None:
    even = ["--lr_scheduler_type", "constant", "--load_best_model_at_end", best]
    assert run(folder, tmp_path / "short", *even, "--max_steps", "3") == 0
    named = ["--resume_from_checkpoint", str(tmp_path / "short" / "checkpoint-3")]
    cut(folder, tmp_path / "long", *even, *named)
    assert run(folder, tmp_path / "long", *even, *named) == 0
    assert run(folder, tmp_path / "whole", *even) == 0
    assert digest(tmp_path / "long") == digest(tmp_path / "whole")
    assert (digest(tmp_path / "short") == digest(tmp_path / "long")) == (best == "true")
    told = read_run(tmp_path / "long")
    assert told is not None and told.finished and told.origin["checkpoint"] == "checkpoint-3"


@pytest.mark.parametrize("best", [True, False])
def test_interrupted_in_its_evaluation_it_goes_on_with_that(
    folder: Path, whole: Path, best: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = [] if best else ["--load_best_model_at_end", "false", "--save_strategy", "no", "--eval_strategy", "no"]
    output, undisturbed = tmp_path / "a", whole
    if not best:
        undisturbed = tmp_path / "whole"
        assert run(folder, undisturbed, *settings) == 0

    def interrupted(self: TreeTrainer) -> Any:
        assert (output / WEIGHTS).exists()
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TreeTrainer, "final_scores", interrupted)
        assert run(folder, output, *settings) == 130
    assert f"the adapter is safe in {output}; the same command finishes the evaluation\n" in capfd.readouterr().err
    before = (output / WEIGHTS).stat().st_mtime_ns
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TreeTrainer, "training_step", lambda *args: pytest.fail("trains again"))
        assert run(folder, output, *settings) == 0
    told = capfd.readouterr().err
    assert f"{output}: already trained; continuing with the evaluation" in told and "validation: temperature" in told
    assert (output / WEIGHTS).stat().st_mtime_ns == before and digest(output) == digest(undisturbed)
    name = "validation_scores.jsonl"
    assert (output / name).read_text(encoding="utf-8") == (undisturbed / name).read_text(encoding="utf-8")
    ended = [
        replace(run_of_one, versions={}, launch={}) for run_of_one in map(read_run, (output, undisturbed)) if run_of_one
    ]
    assert len(ended) == 2 and ended[0] == ended[1]
    clock = ("runtime", "per_second", "peak_memory")
    histories = [
        [
            {key: value for key, value in json.loads(line).items() if not any(word in key for word in clock)}
            for line in (place / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        for place in (output, undisturbed)
    ]
    assert histories[0] == histories[1]


@pytest.mark.parametrize(
    ("trained", "weights"),
    [
        (("--use_peft", "false"), "model.safetensors"),
        (("--use_peft", "false", "--bf16"), "model.safetensors"),
        (("--lora_modules_to_save", "lm_head", "--bf16"), WEIGHTS),
    ],
)
def test_whole_modules_are_evaluated_as_they_are_saved(
    trained: tuple[str, ...], weights: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base is in bfloat16, and what a later process reads of it is, too, with or without mixed precision."""
    monkeypatch.setattr("lrc.runtime.devices.supported", lambda dtype, device: True)
    base = Path(shutil.copytree(folder / "base", tmp_path / "base"))
    AutoModelForCausalLM.from_pretrained(base).bfloat16().save_pretrained(base)
    settings = ["--model_name_or_path", str(base), "--dtype", "bfloat16", *trained, "--max_steps", "2"]
    settings += ["--load_best_model_at_end", "false", "--save_strategy", "no"]
    assert run(folder, tmp_path / "whole", *settings) == 0

    def interrupted(self: TreeTrainer) -> Any:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TreeTrainer, "final_scores", interrupted)
        assert run(folder, tmp_path / "cut", *settings) == 130
    assert run(folder, tmp_path / "cut", *settings) == 0
    for name in (weights, "validation_scores.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_the_line_that_is_said_when_a_signal_comes(tmp_path: Path) -> None:
    code = (
        "import os, signal\nfrom lrc.runtime.signals import end_at_once, ending_with\nend_at_once()\n"
        "with ending_with('the adapter is safe'):\n    os.kill(os.getpid(), signal.SIGINT)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (130, "the adapter is safe\nlrc: interrupted\n")


def test_a_checkpoint_is_asked_as_its_run_was_trained(
    folder: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = shutil.copytree(whole, tmp_path / "run") / f"checkpoint-{STEPS}"
    (last / "lrc_run.json").unlink()  # as earlier versions have it: in the folder of the run only
    asked = ["--data", folder / "t_validation.json", "--adapter", last]
    assert lrc("generate", "--model", folder / "base", *asked, "--output", tmp_path / "answer.csv") == 0
    assert lrc("evaluate", "--model", folder / "base", *asked) == 0
    assert "was trained on questions of it" not in capsys.readouterr().err
    trained_on = folder / "t_train.json"
    assert lrc("evaluate", "--model", folder / "base", "--adapter", last, "--data", trained_on) == 0
    again = ["evaluate", "--model", folder / "base", *asked, "--output", tmp_path / "figures.json"]
    assert lrc(*again) == lrc("report", last) == 0
    assert lrc(*again) == 0  # the page in the folder changes no answer
    assert f"{trained_on}: {last} was trained on questions of it; the accuracy says little" in capsys.readouterr().err
    assert lrc("merge", "--adapter", last, "--base-model", folder / "base", "--output-dir", tmp_path / "m") == 0
    merged, run_of_all = read_run(tmp_path / "m"), read_run(whole)
    assert merged is not None and run_of_all is not None
    assert (merged.template, merged.base, merged.temperature) == ("alpaca", run_of_all.base, 1.0)
    best = read_run(whole / f"checkpoint-{BEST}")
    assert best is not None and best.temperature == run_of_all.temperature != 1.0
    # Nor does its accuracy say anything about the weights of another step, on whose card it would stand.
    assert best.validation == run_of_all.validation and "accuracy" in best.validation and merged.validation == {}
    assert "## Results" in str(model_card(whole / f"checkpoint-{BEST}", "me/mine"))
    assert "## Results" not in str(model_card(last, "me/mine"))
    capsys.readouterr()
    assert lrc("publish", "--adapter", last, "--repo-id", "me/mine", "--dry-run") == 0
    assert "lrc_run.json" in capsys.readouterr().out


def test_what_may_change_is_documented_and_exists() -> None:
    known = {
        name
        for cls in (DataArguments, TrainingArguments, ModelArguments, AdapterArguments)
        for name in cls.__dataclass_fields__
    }
    keys = {key for group in MAY_CHANGE.values() for key in group}
    assert keys | set(EVALUATION) <= known
    text = (DOCS / "reliability.md").read_text(encoding="utf-8")
    assert not [key for key in (keys | set(EVALUATION)) - set(IGNORED) if f"`{key}`" not in text]
    assert "(recipes.md#without-effect)" in text


FILE = {"name": "a.json", "sha256": "1", "questions": 2}
BASE = {"name": "b", "config_sha256": "1", "weights_sha256": "1", "contents_sha256": "1", "tokenizer_sha256": "1"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"template": "alpaca"}, "template was plain and is alpaca now"),
        ({"answer_style": "judge"}, "answer_style was text and is judge now"),
        ({"list_options": True}, "list_options was false and is true now"),
        ({"recipe": {"world_size": 2}}, "the number of processes was 1 and is 2 now"),
        ({"recipe": {"lora_r": 8, "seed": 1}}, "lora_r was 16 and is 8 now"),
        ({"data": {"train_file": {**FILE, "sha256": "2"}}}, "train_file was a.json (sha256 1…) and is a.json (sha256"),
        ({"data": {"train_file": FILE, "soft_labels": FILE}}, "soft_labels was none and is a.json"),
        ({"data": {}}, "train_file was a.json (sha256 1…) and is none now"),
        ({"base": {**BASE, "config_sha256": "2"}}, "the base model's configuration was b (config_sha256 1…) and is"),
        ({"base": {**BASE, "contents_sha256": "2"}}, "the base model's weights was b (contents_sha256 1…) and is"),
        ({"base": {**BASE, "tokenizer_sha256": "2"}}, "the base model's tokenizer was b (tokenizer_sha256 1…) and is"),
        ({"tokenizer": {"sha256": "2"}}, "the tokenizer's files was (sha256 1…) and is (sha256 2…) now"),
    ],
)
def test_whatever_decides_on_the_weights_makes_another_run(change: dict[str, Any], told: str) -> None:
    then = Run("plain", "text", False, data={"train_file": FILE}, base=BASE, tokenizer={"sha256": "1"})
    moved = {"name": "elsewhere", "revision": "main"}
    assert not differences(then, replace(then, base=BASE | moved, data={"train_file": {**FILE, "name": "c.json"}}))
    first = differences(then, replace(then, **change))[0]
    assert str(first.fact).startswith(told)


def test_a_key_without_effect_may_be_removed() -> None:
    then = Run("plain", "text", False, recipe={"remove_unused_columns": False, "pad_token": "<pad>", "lora_r": 4})
    assert not differences(then, replace(then, recipe={"lora_r": 4}))
    assert differences(then, replace(then, recipe={"lora_r": 8}))


@pytest.mark.parametrize("schedule", ["reduce_lr_on_plateau", "greedy"])
def test_evaluations_that_set_the_learning_rate_may_not_change(schedule: str) -> None:
    recipe = {"lr_scheduler_type": schedule, "eval_strategy": "steps", "eval_steps": 1}
    then = Run("plain", "text", False, recipe=recipe)
    now = replace(then, recipe=recipe | {"eval_steps": 4})
    assert [one.what for one in differences(then, now)] == ["eval_steps"]
    linear = {"lr_scheduler_type": "linear"}
    assert not differences(replace(then, recipe=then.recipe | linear), replace(now, recipe=now.recipe | linear))


def test_the_length_may_grow_where_the_rate_is_constant() -> None:
    def made(**recipe: Any) -> Run:
        return Run("plain", "text", False, recipe=recipe)

    constant = {"lr_scheduler_type": "constant"}
    assert is_longer(made(num_train_epochs=1, **constant), made(num_train_epochs=2, **constant))
    assert not is_longer(made(num_train_epochs=2, **constant), made(num_train_epochs=1, **constant))
    assert not is_longer(made(num_train_epochs=1), made(num_train_epochs=2))
    assert not is_longer(made(num_train_epochs=1, **constant), made(num_train_epochs=2, seed=1, **constant))
    assert not differences(made(), made(lr_scheduler_type="linear", learning_rate=2e-5))


@pytest.mark.parametrize(
    ("device", "full", "told"), [("cpu", False, False), ("cuda", False, True), ("cuda", True, False)]
)
def test_a_gpu_keeps_every_bit_only_with_full_determinism(device: str, full: bool, told: bool) -> None:
    assert bool(nondeterminism(device, full)) is told
    assert not told or "full_determinism: true" in str(nondeterminism(device, full))


def test_resumed_with_other_software_it_says_so(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    cut(folder, tmp_path / "a")
    now = versions()
    monkeypatch.setattr("lrc.training.run.versions", lambda: {**now, "peft": "99.0"})
    capfd.readouterr()
    assert run(folder, tmp_path / "a") == 0
    told = capfd.readouterr().err
    assert f"was made with peft {now['peft']}, now 99.0; the result may differ in its last bits" in told
