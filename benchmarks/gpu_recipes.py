"""Stages of gpu.py about what lrc ships: its launch configs, its commands, and its recipes in their real sizes."""

from __future__ import annotations

import socket
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from gpu_stages import (
    ROOT,
    Stage,
    arguments,
    batches,
    failed,
    free_memory,
    losses,
    lrc,
    make_run,
    pack_all,
    peaks,
    quantized,
    questions,
    status,
    step_sequences,
    timed,
    tokenizer,
    unique_tokens,
)

# Every launch config that one machine's GPUs can run, and what its recipe needs beside.
LAUNCHES: dict[str, dict[str, Any]] = {
    "single_gpu": {},
    "multi_gpu": {},
    "fsdp": {},
    "fsdp_qlora": {"load_in_4bit": True},
    "deepspeed_zero2": {},
    "deepspeed_zero3": {},
    "low_memory": {},
}
ON_CPU: dict[str, dict[str, Any]] = {"cpu": {}, "cpu_2": {}}
QUESTIONS_A_STEP = 8
# The recipes that are tried, and the smallest memory in GiB of a card that they are for.
LARGE = {
    "qwen3-1.7b/lora": 7.6,
    "qwen3-8b/qlora": 10.8,
    "chinese-alpaca-2-13b/qlora": 11.5,
    "qwen3-14b/qlora": 22.0,
    "llama-3-taiwan-8b/lora": 23.5,
    "qwen3-32b/qlora": 44.3,
    "qwen3-32b/lora": 79.1,
}
TOY = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 6}
TOY |= {"num_attention_heads": 2, "vocab_size": 1000, "max_position_embeddings": 4096}


def stage_launches(stage: Stage) -> None:
    """Each launch config with as many processes as there are GPUs, beside one process without a launcher."""
    with tempfile.TemporaryDirectory() as scratch:
        settings = {"dtype": "bfloat16", "bf16": True} if stage.gpu else {"dtype": "float32", "use_cpu": True}
        folder = make_run(
            Path(scratch), **settings, per_device_train_batch_size=QUESTIONS_A_STEP, lora_dropout=0.0, logging_steps=1,
            optim="adamw_torch", eval_on_start=True,
        )  # fmt: skip
        configs = {name: keys for name, keys in (LAUNCHES if stage.gpu else ON_CPU).items() if stage.wants(name)}
        alone: dict[tuple[str, ...], Path] = {}
        for keys in configs.values():
            if tuple(keys) not in alone:
                output = alone[tuple(keys)] = folder / "-".join(["alone", *keys])
                words = ["-m", "lrc.sft", "--config", folder / "recipe.yaml", "--output_dir", output, *_flags(keys)]
                begun = time.monotonic()
                done = lrc(*words, device=stage.device)
                seconds = time.monotonic() - begun
                stage.note(config="none", **keys, train=status(done), seconds=seconds, losses=_losses(output))
        with ThreadPoolExecutor(4 if stage.gpu else 1) as pool:
            started = {
                name: pool.submit(_launch, stage, folder, name, keys, losses(alone[tuple(keys)]))
                for name, keys in configs.items()
            }
            for name, ended in started.items():
                if error := ended.exception():  # one that took too long, for one
                    stage.note(config=name, failed=f"{type(error).__name__}: {error}"[:400])


def _flags(keys: dict[str, Any]) -> list[str]:
    return [word for key, value in keys.items() for word in (f"--{key}", str(value).lower())]


def _losses(output: Path) -> list[float]:
    return [loss for _, loss in losses(output)]


def _launch(stage: Stage, folder: Path, config: str, keys: dict[str, Any], alone: Sequence[tuple[int, float]]) -> None:
    if ("deepspeed" in config or config == "low_memory") and find_spec("deepspeed") is None:
        stage.note(config=config, skipped="DeepSpeed is not installed")
        return
    processes = max(torch.cuda.device_count(), 1) if stage.gpu else 2 if config == "cpu_2" else 1
    processes = 1 if config in ("single_gpu", "low_memory") else processes
    output = folder / config
    words = ["-m", "accelerate.commands.launch", "--config_file", ROOT / "accelerate_configs" / f"{config}.yaml"]
    words += [
        "--num_processes",
        processes,
        "--main_process_port",
        _free_port(),
        "-m",
        "lrc.sft",
        "--config",
        folder / "recipe.yaml",
    ]
    words += ["--output_dir", output, "--per_device_train_batch_size", QUESTIONS_A_STEP // processes, *_flags(keys)]
    begun = time.monotonic()
    done = lrc(*words, device=stage.device)
    found: dict[str, Any] = {"config": config, "processes": processes, "train": status(done)}
    found["seconds"] = time.monotonic() - begun
    if done.returncode == 0:
        pairs = list(zip(losses(output), alone, strict=True))
        found["losses_apart"] = max(abs(one - other) for (_, one), (_, other) in pairs)
        found |= {"losses": _losses(output), "adapter": _adapter(output)}
    stage.note(**found)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _adapter(output: Path) -> str:
    """Whether every tensor of an adapter is whole: finite, in float32, and moved away from zero."""
    from safetensors.torch import load_file

    found = load_file(output / "adapter_model.safetensors")
    bad = [name for name, one in found.items() if not (one.isfinite().all() and one.any())]
    kinds = {str(one.dtype).removeprefix("torch.") for one in found.values()}
    return f"{len(found)} tensors in {'/'.join(sorted(kinds))}, {len(bad)} of them empty or not finite"


COMMANDS = {"doctor": [], "gpu-check": [], "demo": ["--output-dir", "FOLDER/demo"]}


def stage_commands(stage: Stage) -> None:
    """What people begin with: doctor, gpu-check, the demo, preview; the last lines that each says."""
    with tempfile.TemporaryDirectory() as scratch:
        for name, words in COMMANDS.items():
            if not stage.wants(name):
                continue
            words = [name, *(word.replace("FOLDER", scratch) for word in words)]
            words += ["--device", "cpu"] if name == "gpu-check" and not stage.gpu else []
            begun = time.monotonic()
            done = lrc("-m", "lrc", *words, device=stage.device)
            said = [line for line in done.stdout.splitlines() if line.strip()]
            stage.note(command=name, ended=status(done), seconds=time.monotonic() - begun, said=said[-14:])


@dataclass(frozen=True)
class Tried:
    """A recipe as it is run with random weights: its base's shape, and what its keys say."""

    name: str
    config: Any  # transformers' configuration of the base
    keys: dict[str, Any]

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, and of mixed precision."""
        return torch.float16 if self.keys.get("fp16") else torch.bfloat16

    @property
    def lora(self) -> Any:
        """The recipe's adapter."""
        from peft import LoraConfig

        names = {"r": "lora_r", "lora_alpha": "lora_alpha", "lora_dropout": "lora_dropout"}
        settings = {key: self.keys[name] for key, name in names.items()}
        return LoraConfig(target_modules=self.keys["lora_target_modules"], task_type="CAUSAL_LM", **settings)

    @property
    def row_tokens(self) -> int:
        """The length of rows."""
        return int(self.keys["row_tokens"])

    @property
    def batch(self) -> int:
        """The questions of a step: lrc packs those of all accumulated batches together."""
        return int(self.keys["per_device_train_batch_size"]) * int(self.keys.get("gradient_accumulation_steps", 1))

    def rows(self, stage: Stage) -> list[Any]:
        """The rows of the first three steps."""
        sequences = _asked(stage)[0]
        batch = self.batch
        return [
            row
            for start in range(0, 3 * batch, batch)
            for row in pack_all(sequences[start : start + batch], self.row_tokens)
        ]


def _asked(stage: Stage) -> tuple[list[Any], list[int]]:
    return questions(200 if stage.gpu else 24)


def _recipes(stage: Stage) -> list[Tried]:
    from cards import SHAPES
    from transformers import AutoConfig

    from lrc.config.recipe import find_recipe
    from lrc.config.yaml_reader import read_mapping

    found = []
    for name in LARGE if stage.gpu else ["qwen3-8b/qlora"]:
        if stage.wants(name):
            shape = dict(SHAPES[name] if stage.gpu else TOY)
            config = AutoConfig.for_model(shape.pop("model_type"), **shape)
            keys = dict(read_mapping(find_recipe(name)).values)
            found.append(Tried(name, config, keys if stage.gpu else keys | {"per_device_train_batch_size": 4}))
    return found


def stage_recipes(stage: Stage) -> None:
    """The recipes' own settings with random weights, in the memory of the cards that they are for."""
    from lrc.packing.attention import choose_attention

    for one in _recipes(stage):
        free_memory()
        if stage.gpu:
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(min(LARGE[one.name] * 1024**3 / total, 1.0))
        begun = time.monotonic()
        trainer = None
        try:
            trainer = _trainer(stage, one)
            stage.wait()
            made = time.monotonic() - begun
            choose_attention(trainer.model, "auto", torch.device(stage.device))
            found = timed(stage, trainer)
            unique = unique_tokens(step_sequences(trainer, int(found["step"])))
            longest = max(len(row) for batch in batches(trainer) for row in batch.rows)
            stage.note(
                recipe=one.name, limit_gib=LARGE[one.name], longest=longest, **peaks(found), made_s=made,
                step_s=found["seconds"], unique_tokens=unique, unique_tok_s=unique / found["seconds"],
                losses=[line["loss"] for line in trainer.state.log_history if "loss" in line],
            )  # fmt: skip
        except Exception as error:  # one that cannot run says so, and the others go on
            stage.note(recipe=one.name, failed=failed(error))
        del trainer


def _trainer(stage: Stage, one: Tried) -> Any:
    from datasets import Dataset

    from lrc.training.trainer import TreeTrainer

    sequences, passages = _asked(stage)
    columns = {
        "tokens": [sequence.tokens.tolist() for sequence in sequences],
        "prompt_length": [sequence.prompt_length for sequence in sequences],
        "passage": passages,
        "id": list(map(str, range(len(sequences)))),
    }
    settings: dict[str, Any] = {"gradient_checkpointing": bool(one.keys.get("gradient_checkpointing"))}
    if stage.gpu:
        settings |= {"bf16": one.dtype == torch.bfloat16, "fp16": one.dtype == torch.float16}
    trainer = TreeTrainer(
        model=_base(stage, one),
        args=arguments(stage, one.batch, **settings),
        peft_config=one.lora,
        processing_class=tokenizer(),
        train_dataset=Dataset.from_dict(columns),
        source=lambda key: [sequences[key[0]]],
        validation=None,
    )
    trainer.row_tokens = one.row_tokens
    return trainer


def _base(stage: Stage, one: Tried) -> Any:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    dtype = one.dtype if stage.gpu else torch.float32
    if one.keys.get("load_in_4bit"):
        return quantized(stage, one.config, dtype, nested=bool(one.keys.get("use_bnb_nested_quant")))
    with torch.device(stage.device):
        return AutoModelForCausalLM.from_config(one.config, dtype=dtype)


def stage_plans(stage: Stage) -> None:
    """What `lrc preview` computes of the same recipes and rows; needs no GPU."""
    from transformers import BitsAndBytesConfig

    from lrc.config.accelerate_config import Topology
    from lrc.preview.memory_plan import Planner
    from lrc.preview.meta_model import ModelSpec

    for one in _recipes(stage):
        row = max(one.rows(stage), key=len)
        quantization = None
        if one.keys.get("load_in_4bit"):
            nested = bool(one.keys.get("use_bnb_nested_quant"))
            settings = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": nested}
            quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=one.dtype, **settings)
        checkpointing = bool(one.keys.get("gradient_checkpointing"))
        build = ModelSpec(
            one.config, one.dtype, one.lora, quantization, None, checkpointing, one.dtype, "cuda", capability=(9, 0)
        )
        plan = Planner().plan(build, row, Topology("single_gpu", device="cuda"), "adamw_torch")
        parts = {f"{name}_gib": value / 1024**3 for name, value in vars(plan).items()}
        without = (plan.total - plan.overhead) / 1024**3
        stage.note(recipe=one.name, longest=len(row), allocated_gib=without, total_gib=plan.total / 1024**3, **parts)
