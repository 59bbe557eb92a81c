"""In which format a recipe's base is loaded where the recipe leaves it to the base."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from small_models import make_model
from small_runs import lrc, make_run, pairs

from lrc.config.recipe import Recipe, load_recipe
from lrc.models.from_recipe import (
    build_lora_config,
    check_adapted,
    check_formats,
    check_modules,
    load_base_model,
    quantization_of,
)
from lrc.runtime.errors import LrcError, MachineError


@pytest.mark.parametrize(
    ("family", "stored", "units", "loaded"),
    [
        ("llama", torch.bfloat16, True, torch.bfloat16),
        ("llama", torch.bfloat16, False, torch.float32),
        ("llama", torch.float16, True, torch.bfloat16),
        ("llama", torch.float16, False, torch.float32),
        ("llama", torch.float32, True, torch.float32),
        ("gemma3", torch.bfloat16, True, torch.bfloat16),
    ],
)
def test_the_format_of_the_base_is_one_of_the_device(
    family: str,
    stored: torch.dtype,
    units: bool,
    loaded: torch.dtype,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": units}, raising=False)
    folder = make_run(tmp_path, pairs(4), template="alpaca", answer_style="digit", dtype="auto", use_cpu=True)
    make_model(family).to(stored).save_pretrained(folder / "base")
    for bits in ([], ["--load_in_4bit"]):
        recipe = load_recipe(folder / "recipe.yaml", ["--output_dir", str(tmp_path / "a"), *bits])
        model = load_base_model(recipe)
        assert model.get_input_embeddings().weight.dtype == loaded
        computed = {module.compute_dtype for module in model.modules() if hasattr(module, "compute_dtype")}
        assert computed == ({loaded} if bits else set())
        name = str(stored).removeprefix("torch.")
        assert (f"dtype: auto is {name} for this base" in capsys.readouterr().err) == (loaded != stored)


def test_preview_reads_4_bits_in_the_format_of_the_base(tmp_path: Path) -> None:
    folder = make_run(tmp_path, pairs(4), template="alpaca", answer_style="digit", dtype="auto", use_cpu=True)
    assert lrc("preview", folder / "recipe.yaml", "--load_in_4bit", "--output_dir", tmp_path / "a") == 0


def recipe_of(folder: Path, *overrides: str, family: str = "llama", **keys: Any) -> Recipe:
    """A recipe whose base is of a family."""
    make_run(folder, pairs(4), template="alpaca", answer_style="digit", use_cpu=True, **keys)
    make_model(family).save_pretrained(folder / "base")
    return load_recipe(folder / "recipe.yaml", ["--output_dir", str(folder / "a"), *overrides])


TIED = {"lora_modules_to_save": ["embed_tokens"], "ensure_weight_tying": True, "rank_pattern": {"q_proj": 2}}


def test_peft_does_not_change_the_recipe_that_a_run_records(tmp_path: Path) -> None:
    """PEFT adds the tied layer to the list; a run that was recorded with it could not be resumed."""
    recipe = recipe_of(tmp_path, family="llama-tied", **TIED)
    get_peft_model(load_base_model(recipe), build_lora_config(recipe))
    assert recipe.given["lora_modules_to_save"] == recipe.model.lora_modules_to_save == ["embed_tokens"]


NOT_TARGETED = "but lora_target_modules names no such layer; name it there, too, or remove it"
NO_MODULE = "but the base model has no such module; remove it"


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"rank_pattern": {"q_proj": 2, "k_proj": 2}}, f"rank_pattern has 'k_proj', {NOT_TARGETED}"),
        ({"alpha_pattern": {"o_proj": 2}}, f"alpha_pattern has 'o_proj', {NOT_TARGETED}"),
        ({"lora_target_parameters": ["mlp.experts.up"]}, f"lora_target_parameters has 'mlp.experts.up', {NO_MODULE}"),
        (
            {"lora_target_parameters": ["lm_head.weight"], "lora_target_modules": "none.+"},
            f"lora_target_modules has 'none.+', {NO_MODULE}",
        ),
        ({"lora_target_parameters": ["lm_head.weight"]}, None),
        ({"rank_pattern": {r"layers\.0\..*v_proj": 2}, "alpha_pattern": {"q_proj|v_proj": 2}}, None),
    ],
)
def test_what_only_other_layers_have_is_refused(keys: dict[str, Any], told: str | None, tmp_path: Path) -> None:
    """PEFT ignores it; here it is what it would have changed."""
    recipe = recipe_of(tmp_path, **{"lora_target_modules": ["q_proj", "v_proj"], "lora_dropout": 0.0, **keys})
    base = load_base_model(recipe)
    check_modules(recipe, base)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = get_peft_model(base, build_lora_config(recipe))
    assert any("were ignored" in str(one.message) or "matched" in str(one.message) for one in caught) == bool(told)
    if told is None:
        check_adapted(recipe, model)
        return
    with pytest.raises(LrcError, match=f"^recipe.yaml: {re.escape(told)}"):
        check_adapted(recipe, model)


@pytest.mark.parametrize("name", ["embed_tokens", "lm_head"])
def test_fsdp_does_not_train_what_a_base_ties(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """accelerate ties the weights again while it divides the model, and stops at the layers that PEFT has wrapped."""
    recipe = recipe_of(tmp_path, family="llama-tied", lora_modules_to_save=[name])
    model, untied = load_base_model(recipe), make_model("llama")
    check_modules(recipe, model)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    check_modules(recipe, untied)
    with pytest.raises(
        LrcError, match=f"^recipe.yaml: lora_modules_to_save has {name}, which this base ties to another"
    ):
        check_modules(recipe, model)


def test_fsdp_does_not_divide_8_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch would end in a traceback where FSDP moves the weights."""
    recipe = recipe_of(tmp_path, load_in_8bit=True)
    assert quantization_of(recipe) is not None
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(LrcError, match="load_in_8bit is true, and FSDP does not divide weights in 8 bits; write"):
        quantization_of(recipe)


@pytest.mark.parametrize(
    ("formats", "told"),
    [
        (
            [("bfloat16", "bfloat16"), ("float16", "float16")],
            "bfloat16, float16; set bf16: false, fp16: true, dtype: float16 in",
        ),
        (
            [("float32", "bfloat16"), ("float32", "float32")],
            "bfloat16, float32; set bf16: false, fp16: false, dtype: float32 in",
        ),
        ([("bfloat16", "float32"), ("float16", "float32")], "bfloat16, float16; set bf16: false, fp16: true in"),
        ([("bfloat16", "bfloat16")] * 2, None),
    ],
)
def test_all_processes_of_a_launch_compute_in_one_dtype(
    formats: list[tuple[str, str]], told: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Machines of a launch may have GPUs of several generations, of which each process sees its own only."""
    recipe = recipe_of(tmp_path)
    config = make_model("llama").config
    monkeypatch.setattr("lrc.models.from_recipe.gather_object", lambda own: formats)
    check_formats(recipe, config)  # a process alone has nobody to differ from
    monkeypatch.setattr(type(recipe.training), "world_size", 2)
    if told is None:
        check_formats(recipe, config)
    else:
        with pytest.raises(
            MachineError, match=f"^launch: on their devices the processes would compute in {told} the r"
        ):
            check_formats(recipe, config)


def test_a_family_that_its_name_does_not_tell_is_kept_from_float16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A base on the Hub whose name says nothing is known by its configuration only, once that is there."""
    recipe = recipe_of(tmp_path, family="gemma3")
    monkeypatch.setattr("lrc.runtime.devices.supported", lambda dtype, device: dtype != "bfloat16")
    check_formats(recipe, make_model("gemma3").config)
    recipe.training.fp16 = True
    check_formats(recipe, make_model("llama").config)
    cure = "set bf16: false, fp16: false, dtype: float32 in the recipe"
    with pytest.raises(MachineError, match=f"base: gemma3_text overflows float16; {cure}$"):
        check_formats(recipe, make_model("gemma3").config)
