"""Every recipe and every accelerate config that ships can be read, and is what its name says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from lrc.recipe import find_accelerate_config, find_recipe, load_recipe

ROOT = Path(__file__).parents[1]
RECIPES = sorted(ROOT.glob("recipes/*/*.yaml"))
CONFIGS = sorted(ROOT.glob("accelerate_configs/*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recipe_loads_and_its_header_gives_the_command(path: Path) -> None:
    recipe = load_recipe(path)
    assert Path(recipe.training.output_dir).parts[0] in ("runs", "demo")
    header = path.read_text(encoding="utf-8").partition("\n\n")[0]
    name = path.relative_to(ROOT).as_posix()
    assert f"-m lrc.sft --config {name}" in header and find_recipe(name).samefile(path)
    (config,) = re.findall(r"--config_file (\S+)", header)
    assert find_accelerate_config(config).is_file()


@pytest.mark.parametrize("size", ["1.3b", "7b", "13b"])
def test_the_reference_recipes_are_the_reference_run(size: str) -> None:
    given = load_recipe(find_recipe(f"chinese-alpaca-2-{size}/qlora")).given
    assert given["model_name_or_path"] == f"hfl/chinese-alpaca-2-{size}"
    assert (given["lora_r"], given["lora_alpha"], given["lora_dropout"]) == (4, 8, 0.05)
    assert len(given["lora_target_modules"]) == 7 and "lora_modules_to_save" not in given
    assert (given["learning_rate"], given["lr_scheduler_type"], given["warmup_steps"]) == (
        1e-4,
        "cosine",
        0.03,
    )
    assert (given["weight_decay"], given["num_train_epochs"], given["max_length"]) == (0, 1, 1450)
    assert (given["per_device_train_batch_size"], given["gradient_accumulation_steps"]) == (1, 8)
    assert given["load_in_4bit"] and given["fp16"] and given["gradient_checkpointing"]
    assert (given["eval_steps"], given["save_steps"], given["save_total_limit"], given["logging_steps"]) == (
        500,
        200,
        3,
        10,
    )
    assert "load_best_model_at_end" not in given


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_an_accelerate_config_leaves_the_precision_to_the_recipe(path: Path) -> None:
    assert load_config_from_file(str(path)).mixed_precision == "no"


def test_an_accelerate_config_is_what_its_name_says() -> None:
    configs = {path.stem: load_config_from_file(str(path)) for path in CONFIGS}
    kinds = {
        name: (str(config.distributed_type.value), config.num_processes, config.use_cpu)
        for name, config in configs.items()
    }
    assert kinds["cpu"] == ("NO", 1, True)
    assert kinds["cpu_2"] == ("MULTI_GPU", 2, False)
    assert kinds["single_gpu"] == ("NO", 1, False)
    assert kinds["multi_gpu"] == ("MULTI_GPU", 2, False)
    assert kinds["deepspeed_zero2"] == ("DEEPSPEED", 1, False)
    zero = configs["deepspeed_zero2"].deepspeed_config
    assert (zero["zero_stage"], zero["offload_optimizer_device"], zero["offload_param_device"]) == (
        2,
        "none",
        "none",
    )
