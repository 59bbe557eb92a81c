"""Bases that are quantized on the disk train and answer as they are, and merge into what they were made from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from oracle import difference
from safetensors.torch import load_file, save_file
from small_runs import lrc, make_run, pairs, run
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from lrc.config.run_record import read_run

WEIGHTS = "adapter_model.safetensors"
NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.bfloat16}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, the same in NF4 as bitsandbytes' repositories have it, and an adapter that was trained on that."""
    where = make_run(
        tmp_path_factory.mktemp("stored"),
        pairs(8, (2, 3)),
        pairs(4, (2,), name="v"),
        template="alpaca",
        answer_style="digit",
        lora_r=4,
        lora_dropout=0.0,
        lora_target_modules=["q_proj", "v_proj", "down_proj"],
        max_steps=2,
        per_device_train_batch_size=4,
        learning_rate=1.0e-2,
        save_strategy="no",
        use_cpu=True,
    )
    weights = load_file(where / "base/model.safetensors")
    vectors = {name: 1.0 + torch.rand(value.shape) / 2 for name, value in weights.items() if value.ndim == 1}
    save_file({**weights, **vectors}, where / "base/model.safetensors", {"format": "pt"})  # norms as trained ones are
    config = BitsAndBytesConfig(**NF4)
    quantized = AutoModelForCausalLM.from_pretrained(
        where / "base", dtype=torch.bfloat16, quantization_config=config, device_map={"": "cpu"}
    )
    quantized.save_pretrained(where / "nf4")
    AutoTokenizer.from_pretrained(where / "base").save_pretrained(where / "nf4")
    assert run(where, where / "a", "--model_name_or_path", str(where / "nf4"), "--dtype", "float32") == 0
    return where


def test_it_trains_the_adapter_of_a_base_that_is_quantized_as_it_is_loaded(folder: Path, tmp_path: Path) -> None:
    words = ["--dtype", "bfloat16", "--load_in_4bit", "--bnb_4bit_quant_type", "nf4"]
    assert run(folder, tmp_path / "loaded", *words) == 0
    stored = ["--model_name_or_path", str(folder / "nf4"), "--dtype", "bfloat16"]
    assert run(folder, tmp_path / "stored", *stored) == 0
    one, other = (load_file(tmp_path / name / WEIGHTS) for name in ("loaded", "stored"))
    assert any(tensor.any() for name, tensor in one.items() if "lora_B" in name)
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name
    told = read_run(tmp_path / "stored")
    assert told is not None and told.base["quantized"]["method"] == "bitsandbytes, 4 bits"


def test_it_answers_and_merges_into_the_original(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, adapter = ["--data", folder / "t_validation.json"], ["--adapter", folder / "a"]
    assert lrc("evaluate", "--model", folder / "nf4", *adapter, *data, "--output", tmp_path / "nf4.json") == 0
    assert lrc("merge", *adapter, "--base-model", folder / "base", "--output-dir", tmp_path / "merged") == 0
    assert "was trained on nf4 (bitsandbytes, 4 bits)" in capsys.readouterr().err
    assert difference(folder / "base", folder / "a", tmp_path / "merged") <= 2e-6
    assert lrc("evaluate", "--model", tmp_path / "merged", *data, "--output", tmp_path / "merged.json") == 0
    assert lrc("evaluate", "--model", folder / "base", *adapter, *data, "--output", tmp_path / "base.json") == 0


def test_another_model_of_its_shapes_is_not_its_original(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(folder / "base", tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    weights["model.norm.weight"] += 0.1
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    words = ["merge", "--adapter", folder / "a", "--output-dir", tmp_path / "merged"]
    assert lrc(*words, "--base-model", other) == 1
    assert "not the model of which nf4 was made" in capsys.readouterr().err
    assert lrc(*words) == 1
    told = capsys.readouterr().err
    assert "nf4: is quantized on disk (bitsandbytes, 4 bits)" in told and "--base-model" in told
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--load_in_8bit"], "nf4: its weights are quantized already (bitsandbytes, 4 bits), and load_in_8bit asks"),
        (["--use_peft", "false"], "nf4 is quantized on the disk (bitsandbytes, 4 bits), and use_peft is false"),
    ],
)
def test_what_it_cannot_do_is_refused(
    words: list[str], line: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, tmp_path / "a", "--model_name_or_path", str(folder / "nf4"), *words) == 1
    assert line in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(("method", "package"), [("gptq", "gptqmodel"), ("awq", "gptqmodel")])
def test_a_method_whose_package_is_missing_is_told_with_the_cure(
    method: str,
    package: str,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lrc.models.stored_quantization.find_spec", lambda name: None)
    base = shutil.copytree(folder / "base", tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    config["quantization_config"] = {"quant_method": method, "bits": 4, "group_size": 128}
    (base / "config.json").write_text(json.dumps(config))
    assert run(folder, tmp_path / "a", "--model_name_or_path", str(base)) == 1
    (told,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith(str(base))]
    assert f"quantized ({method}, 4 bits)" in told and f"pip install {package}" in told and "load_in_4bit" in told
