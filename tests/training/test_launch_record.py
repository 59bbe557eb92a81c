"""What a run records about its start."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from lrc.config.recipe import load_recipe
from lrc.training.launch_record import record_launch

GIVEN = "model_name_or_path: base\ntrain_file: t.json\nvalidation_file: v.json\noutput_dir: out\nbf16: true\n"
CHANGES = ["--validation_file", "null", "--bf16", "false", "--lora_target_modules", "q_proj", "v_proj"]
CHANGES += [
    "--lr_scheduler_type",
    "cosine_with_min_lr",
    "--lr_scheduler_kwargs",
    '{"min_lr": 1e-05}',
    "--run_name",
    "a b",
]


def test_the_recorded_command_can_be_typed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.json").write_text("[]", encoding="utf-8")
    path = tmp_path / "recipe.yaml"
    path.write_text(GIVEN, encoding="utf-8")
    recipe = load_recipe(path, CHANGES)
    assert recipe.given["validation_file"] is None and recipe.given["bf16"] is False
    words = shlex.split(record_launch(recipe, ["文章"])["command"])
    assert words[:3] == ["lrc", "train", "recipe.yaml"]
    assert load_recipe(path, words[3:]).given == recipe.given
