"""Every recipe and every accelerate config that ships can be read, and is what its name says."""

from __future__ import annotations

import re
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.commands import launch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import FullyShardedDataParallelPlugin, patch_environment
from accelerate.utils.launch import prepare_multi_gpu_env
from torch.distributed.fsdp import CPUOffloadPolicy
from torch.distributed.fsdp.fully_sharded_data_parallel import StateDictType

from lrc.commands.train import train
from lrc.config.accelerate_config import find_accelerate_config, read_topology
from lrc.config.recipe import find_recipe, load_recipe
from lrc.runtime.errors import MachineError

ROOT = Path(__file__).parents[2]
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


# What lrc makes of each: engine, processes, and what is divided or kept in the memory of the host.
KINDS = {
    "cpu": ("one process", 1, ""),
    "cpu_2": ("DDP", 2, ""),
    "single_gpu": ("one process", 1, ""),
    "multi_gpu": ("DDP", 2, ""),
    "multi_node": ("DDP", 16, ""),
    "deepspeed_zero2": ("ZeRO-2", 1, "optimizer gradients"),
    "deepspeed_zero3": ("ZeRO-3", 2, "optimizer gradients weights"),
    "fsdp": ("FSDP", 2, "optimizer gradients weights"),
    "fsdp_qlora": ("FSDP", 2, "optimizer gradients weights"),
    "low_memory": ("ZeRO-3", 1, "optimizer gradients weights host-optimizer host-weights"),
}
# The groups of keys that accelerate copies into its arguments without asking whether there are such.
GROUPS = ("deepspeed_config", "fsdp_config")


def launched(name: str, *words: str) -> Namespace:
    """What `accelerate launch` makes of a config and of the words after it, all but the start."""
    command = ["--config_file", str(ROOT / f"accelerate_configs/{name}.yaml"), *words, "-m", "lrc.sft"]
    arguments, _, _ = launch._validate_launch_command(launch.launch_command_parser().parse_args(command))
    return arguments


def fsdp_plugin(name: str) -> FullyShardedDataParallelPlugin:
    """What each process of a launch would find in its environment."""
    environment = prepare_multi_gpu_env(launched(name, "--main_process_port", "0"))
    with patch_environment(**{key: value for key, value in environment.items() if key.startswith("FSDP_")}):
        return FullyShardedDataParallelPlugin()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_accelerate_would_launch_it(path: Path) -> None:
    given: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    arguments = launched(path.stem)
    assert arguments.num_processes == given["num_processes"] and arguments.num_machines == given["num_machines"]
    assert arguments.use_fsdp == (given["distributed_type"] == "FSDP")
    assert arguments.use_deepspeed == (given["distributed_type"] == "DEEPSPEED")
    assert arguments.multi_gpu == (given["distributed_type"] == "MULTI_GPU")
    known = vars(launch.launch_command_parser().parse_args(["-m", "lrc.sft"]))
    for group in GROUPS:
        for key, value in given.get(group, {}).items():
            assert key in known, f"{key}: accelerate would never read it"
            assert getattr(arguments, key) == value


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_header_of_an_accelerate_config_describes_it(path: Path) -> None:
    header = "".join(line for line in path.read_text(encoding="utf-8").splitlines(True) if line.startswith("#"))
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert header
    assert ("pip install deepspeed" in header) == ("deepspeed_config" in given)
    if given["num_machines"] > 1:
        assert "main_process_ip" in header and "machine_rank" in header
    if {"fsdp_config", "deepspeed_config"} & given.keys() and path.stem != "deepspeed_zero2":
        assert "simulated GPUs" in header


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_an_accelerate_config_is_what_its_name_says(path: Path) -> None:
    found = read_topology(path.stem, device="cpu", gpu_assumed=True)
    held = {
        "optimizer": found.shards_optimizer,
        "gradients": found.shards_gradients,
        "weights": found.shards_weights,
        "host-optimizer": found.offloads_optimizer,
        "host-weights": found.offloads_weights,
    }
    assert (found.kind, found.processes, " ".join(key for key, value in held.items() if value)) == KINDS[path.stem]
    assert (found.device == "cpu") == (path.stem == "cpu")


@pytest.mark.parametrize("name", ["fsdp", "fsdp_qlora"])
def test_fsdp_is_version_2_and_saves_whole_adapters(name: str, caplog: pytest.LogCaptureFixture) -> None:
    plugin = fsdp_plugin(name)
    assert plugin.fsdp_version == 2 and plugin.reshard_after_forward is True
    assert plugin.state_dict_type == StateDictType.FULL_STATE_DICT
    assert plugin.auto_wrap_policy is not None and not isinstance(plugin.cpu_offload, CPUOffloadPolicy)
    assert plugin.cpu_ram_efficient_loading == (name == "fsdp")
    assert not plugin.activation_checkpointing  # beside the recipe's, transformers would refuse the two
    assert "obsolete" not in caplog.text


def test_several_machines_have_to_know_the_first(tmp_path: Path) -> None:
    files = {"train_file": tmp_path / "a.json", "validation_file": tmp_path / "b.json"}
    for file in files.values():
        file.write_text("[]")
    places = {**files, "model_name_or_path": tmp_path, "output_dir": tmp_path / "run"}
    given = [f"--{key}={value}" for key, value in places.items()]
    with pytest.raises(MachineError, match="multi_node.yaml: main_process_ip is missing"):
        train("tiny/lora", "multi_node", given)
    words = ("--machine_rank", "1", "--main_process_ip", "10.0.0.1")
    arguments = launched("multi_node", *words)
    prepare_multi_gpu_env(arguments)
    assert (arguments.nnodes, arguments.nproc_per_node, arguments.node_rank) == ("2", "8", 1)
    assert (arguments.rdzv_endpoint, arguments.rdzv_backend) == ("10.0.0.1:29500", "static")
