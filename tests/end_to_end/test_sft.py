"""The entrypoint of training: what it leaves behind, how it goes on, and what it refuses in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import fork_server
import pytest
import torch
from safetensors.torch import load_file
from small_runs import make_run, pairs, run

from lrc import sft
from lrc.config.run_record import read_run
from lrc.training.callbacks import MetricsCallback

ROOT = Path(__file__).parents[2]
QUESTIONS = pairs(12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, twelve questions to train on and four to evaluate on, and a recipe of three steps."""
    return make_run(
        tmp_path_factory.mktemp("run"),
        QUESTIONS,
        QUESTIONS[::3],
        template="chinese-alpaca-2",
        lora_r=4,
        lora_dropout=0.0,
        lora_target_modules=["q_proj", "v_proj", "down_proj"],
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        max_steps=3,
        learning_rate=1.0e-3,
        lr_scheduler_type="constant",
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="no",
    )


def command(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command from outside, without network."""
    return subprocess.run(
        [str(word) for word in words],
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, **environment},
    )


def adapter(output: Path) -> dict[str, torch.Tensor]:
    return load_file(output / "adapter_model.safetensors")


def history(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("trained") / "adapter"
    assert run(folder, output) == 0
    return output


def test_what_a_run_leaves(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "tokenizer_config.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl"))]
    told = read_run(trained)
    assert told is not None and told.finished
    assert (told.template, told.answer_style, told.list_options) == ("chinese-alpaca-2", "digit", True)
    assert told.data["train_file"]["questions"] == 12 and told.recipe["learning_rate"] == 0.001
    lines = history(trained)
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3]
    assert [line["step"] for line in lines if "eval_accuracy" in line] == [2, 3]
    assert any(tensor.any() for name, tensor in adapter(trained).items() if "lora_B" in name)


def test_an_identical_run_is_finished_already(folder: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (trained / "adapter_model.safetensors").stat().st_mtime_ns
    assert run(folder, trained) == 0
    assert f"{trained}: this run has already finished; nothing to do" in capsys.readouterr().err
    assert (trained / "adapter_model.safetensors").stat().st_mtime_ns == before


def test_another_run_in_the_same_folder_is_refused(
    folder: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (trained / "adapter_model.safetensors").read_bytes()
    assert run(folder, trained, "--lora_r", "2") == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == (
        f"{trained}: holds another run (lora_r was 4 and is 2 now); set lora_r: 4 to resume it, "
        "choose another output_dir, or set overwrite_output_dir: true"
    )
    assert (trained / "adapter_model.safetensors").read_bytes() == before


def test_overwriting_begins_again(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "something").write_text("else")
    assert run(folder, tmp_path, "--max_steps", "1") == 1
    assert run(folder, tmp_path, "--max_steps", "1", "--overwrite_output_dir") == 0
    assert not (tmp_path / "something").exists() and (tmp_path / "adapter_model.safetensors").is_file()


def test_nf4(folder: Path, tmp_path: Path) -> None:
    four_bits = ["--load_in_4bit", "--bnb_4bit_quant_type", "nf4", "--use_bnb_nested_quant", "--dtype", "float32"]
    assert run(folder, tmp_path / "a", *four_bits) == 0
    losses = [line["loss"] for line in history(tmp_path / "a") if "loss" in line]
    assert len(losses) == 3 and len(set(losses)) == 3
    assert {tensor.dtype for tensor in adapter(tmp_path / "a").values()} == {torch.float32}


def test_all_weights(folder: Path, tmp_path: Path) -> None:
    assert run(folder, tmp_path / "a", "--use_peft", "false", "--max_steps", "1") == 0
    before, after = (load_file(where / "model.safetensors") for where in (folder / "base", tmp_path / "a"))
    assert before.keys() == after.keys() and not torch.equal(before["lm_head.weight"], after["lm_head.weight"])


def test_a_run_that_was_cut_off_goes_on(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saving = ["--save_strategy", "steps", "--save_steps", "1", "--lora_dropout", "0.1"]
    assert run(folder, tmp_path / "whole", *saving) == 0

    def cut(self: MetricsCallback, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MetricsCallback, "on_step_end", cut)
        assert run(folder, tmp_path / "cut", *saving) == 130
    assert not (tmp_path / "cut/adapter_model.safetensors").exists()
    with (tmp_path / "cut/metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 3, "loss": 9.9}\n{"step": 3, "lo')
    assert run(folder, tmp_path / "cut", *saving) == 0
    for name, tensor in adapter(tmp_path / "whole").items():
        assert torch.equal(adapter(tmp_path / "cut")[name], tensor), name
    steps = [(line["step"], line["loss"]) for line in history(tmp_path / "cut") if "loss" in line]
    assert steps == [(line["step"], line["loss"]) for line in history(tmp_path / "whole") if "loss" in line]


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (["--lora_rnak", "8"], "unknown key 'lora_rnak'; did you mean 'lora_r'?"),
        (["--learning_rate", "fast"], "learning_rate"),
        (["--train_file", "missing.json"], "missing.json"),
        (["--model_name_or_path", "missing/base"], "missing/base"),
        (["--template", "llama"], "template"),
        (["--template", "chat"], "has no chat template"),
        (["--max_length", "20"], "max_length 20"),
        (["--expected_vocab_size", "5"], "expected_vocab_size is 5"),
        (["--lora_target_modules", "no_such_proj"], "no_such_proj"),
        (["--lora_target_modules", "lm_head"], "lm_head"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    folder: Path, tmp_path: Path, overrides: list[str], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, tmp_path / "a", *overrides) == 1
    error = capsys.readouterr().err
    assert fault in error.splitlines()[-1] and "Traceback" not in error
    assert not (tmp_path / "a/adapter_model.safetensors").exists()


def test_a_damaged_base_is_said_in_a_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in (folder / "base").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()[: 5000 if file.suffix == ".safetensors" else None])
    assert run(folder, tmp_path / "a", "--model_name_or_path", str(tmp_path)) == 1
    assert str(tmp_path) in capsys.readouterr().err.splitlines()[-1]


def test_the_recipe_has_to_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        sft.main(["--config"])
    assert end.value.code == 1
    assert capsys.readouterr().err == "--config: no recipe follows; give a YAML file\n"


def test_two_processes_give_the_adapter_of_one(folder: Path, trained: Path, tmp_path: Path) -> None:
    config = ROOT / "accelerate_configs/cpu_2.yaml"
    told = command(
        fork_server.python(), "-m", "lrc", "train", folder / "recipe.yaml", "--accelerate-config", config,
        "--output_dir", tmp_path / "two", "--gradient_accumulation_steps", "1", "--use_cpu", "true",
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    run_of_two = read_run(tmp_path / "two")
    assert run_of_two is not None and run_of_two.recipe["world_size"] == 2
    two = adapter(tmp_path / "two")
    for name, tensor in adapter(trained).items():
        assert (two[name] - tensor).abs().max() <= 1e-5, name
    evaluated = [[line for line in history(out) if "eval_loss" in line] for out in (trained, tmp_path / "two")]
    assert evaluated[1][0]["eval_loss"] == pytest.approx(evaluated[0][0]["eval_loss"], rel=1e-4)
    assert evaluated[1][0]["eval_accuracy"] == evaluated[0][0]["eval_accuracy"]


def test_processes_that_would_not_join_are_refused(folder: Path, tmp_path: Path) -> None:
    told = command(
        fork_server.python(), "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "-m", "lrc.sft",
        "--config", folder / "recipe.yaml", "--output_dir", tmp_path / "a",
    )  # fmt: skip
    assert told.returncode == 1
    (line,) = [line for line in told.stderr.splitlines() if line.startswith("launch: ")]
    assert "processes were asked for, 1 would train together; use accelerate_configs/cpu_2.yaml" in line
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("config", ["cpu", "cpu_2"])
def test_lrc_train_passes_the_status_on_and_no_traceback(folder: Path, tmp_path: Path, config: str) -> None:
    told = command(
        sys.executable, "-m", "lrc", "train", folder / "recipe.yaml", "--accelerate-config", config,
        "--output_dir", tmp_path / "a", "--lora_rnak", "8",
    )  # fmt: skip
    assert told.returncode == 1
    assert "Traceback" not in told.stderr
    assert told.stderr.count("unknown key 'lora_rnak'") == 1


def test_one_module_may_be_named_alone(folder: Path, tmp_path: Path) -> None:
    assert run(folder, tmp_path / "a", "--lora_target_modules", "q_proj", "--max_steps", "1") == 0
    assert all(".q_proj." in name for name in adapter(tmp_path / "a"))


def test_quiet_holds_for_what_a_verb_starts(folder: Path, tmp_path: Path) -> None:
    words = ["train", folder / "recipe.yaml", "--output_dir", tmp_path / "a", "--max_steps", "1"]
    done = command(fork_server.python(), "-m", "lrc", "--quiet", *words)
    assert done.returncode == 0 and "train: " not in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--attn_implementation", "flex_attention"], "attn_implementation is flex_attention, which has no backward"),
        (["--attn_implementation", "flash_attention_2"], "attn_implementation flash_attention_2 cannot be used here ("),
    ],
)
def test_what_needs_a_gpu_is_refused_on_a_cpu(
    words: list[str], told: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, tmp_path / "a", "--use_cpu", *words) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert told in last and last.endswith("leave it out") and not (tmp_path / "a").exists()
