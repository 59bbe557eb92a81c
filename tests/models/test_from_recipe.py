"""In which format a recipe's base is loaded where the recipe leaves it to the base."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_models import make_model
from small_runs import lrc, make_run, pairs

from lrc.config.recipe import load_recipe
from lrc.models.from_recipe import load_base_model


@pytest.mark.parametrize(
    ("family", "stored", "units", "loaded"),
    [
        ("llama", torch.bfloat16, True, torch.bfloat16),
        ("llama", torch.bfloat16, False, torch.float32),
        ("llama", torch.float16, True, torch.float32),
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
