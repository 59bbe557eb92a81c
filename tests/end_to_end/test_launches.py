"""Every launch config trains what one process trains, on simulated GPUs: losses, adapters, best checkpoints, resume.

The default is FSDP2 in bfloat16, trained and resumed, half a minute. `make launches` runs all configs: with
LRC_LAUNCHES=all in the environment, and DeepSpeed's where it is installed, as docs/scaling.md says. What processes
without a divided model do is also in `test_processes.py`, without simulation.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from oracle import Sample, training_step
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from simulated_gpus import launch
from small_runs import make_run, pairs, run
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, set_seed

from lrc.config.run_record import METRICS_FILE, RUN_FILE, read_run
from lrc.data.alpaca import to_record
from lrc.data.questions import Question
from lrc.reporting.summary import summarize
from lrc.tokenization.prompt import Prompt
from lrc.training.checkpoint import checkpoints, find_damage

BATCH = 4  # questions a step, over all processes
STEPS, EVERY = 6, 2
RATE = 3.0  # of SGD
WEIGHTS = "adapter_model.safetensors"
PATIENCE = 600.0  # seconds: DeepSpeed compiles its operations at the first run
FOUR_BITS = ["--load_in_4bit", "--dtype", "float32"]
HALF = ("--bf16", "--dtype", "bfloat16")
SCALED = ("--fp16", "--dtype", "float16")  # with a gradient scaler
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

everything = pytest.mark.skipif(
    os.environ.get("LRC_LAUNCHES") != "all", reason="takes minutes; `make launches` runs it"
)
deepspeed = pytest.mark.skipif(find_spec("deepspeed") is None, reason="DeepSpeed is not installed")


@dataclass(frozen=True)
class Launch:
    """A config, its processes, and the keys of the recipe that go with it."""

    config: str
    processes: int
    overrides: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "-".join([self.config, str(self.processes), *(word.strip("-") for word in self.overrides)])


FSDP, FSDP_HALF = Launch("fsdp", 2), Launch("fsdp", 2, HALF)
QLORA, DDP = Launch("fsdp_qlora", 2, tuple(FOUR_BITS)), Launch("multi_gpu", 2)
ZERO2, ZERO3, LOW_MEMORY = Launch("deepspeed_zero2", 2), Launch("deepspeed_zero3", 2), Launch("low_memory", 1)


def cases(*launches: Launch, marks: Any = ()) -> list[Any]:
    return [pytest.param(one, id=str(one), marks=[everything, *marks]) for one in launches]


# Each way to divide the work, and what else a launch may look like.
WAYS = [*cases(FSDP, DDP, QLORA), *cases(ZERO2, ZERO3, LOW_MEMORY, marks=[deepspeed])]
OTHERS = [
    *cases(
        Launch("single_gpu", 1),
        Launch("fsdp", 2, ("--gradient_checkpointing",)),
        Launch("fsdp", 2, ("--tree_packing", "false")),
        Launch("fsdp", 4),
        Launch("multi_gpu", 2, HALF),
    ),
    *cases(
        Launch("deepspeed_zero2", 1),
        Launch("deepspeed_zero3", 1),
        Launch("low_memory", 2),
        marks=[deepspeed],
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and questions with passages of unequal lengths, too few for all processes at times.

    The last step of an epoch has one question, so that of two processes one is idle; of four, one has none to evaluate.
    """
    return make_run(
        tmp_path_factory.mktemp("launches"),
        pairs(9, (3, 9, 5, 14)),
        pairs(3, (2, 7), name="v"),
        template="alpaca",
        answer_style="digit",
        max_length=512,
        row_tokens=256,
        lora_r=4,
        lora_alpha=8,
        lora_dropout=0.0,
        lora_target_modules=TARGETS,
        max_steps=STEPS,
        learning_rate=1.0e-3,
        lr_scheduler_type="linear",
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=EVERY,
        eval_on_start=True,
        save_strategy="steps",
        save_steps=EVERY,
    )


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose every step has all questions, so that nobody has to know how they are drawn.

    SGD moves weights by their gradients; Adam would move those without a gradient by the sign of a rounding error.
    """
    return make_run(
        tmp_path_factory.mktemp("few"),
        pairs(BATCH, (3, 9)),
        template="alpaca",
        answer_style="digit",
        max_length=512,
        lora_dropout=0.0,
        lora_r=4,
        lora_alpha=8,
        lora_target_modules=TARGETS,
        max_steps=STEPS,
        optim="sgd",
        optim_args="momentum=0.5",  # without, there is nothing that FSDP could resume
        learning_rate=RATE,
        lr_scheduler_type="constant",
        logging_steps=1,
        save_strategy="no",
    )


def train(folder: Path, output: Path, how: Launch, *overrides: str, **failure: Any) -> list[tuple[int, list[str]]]:
    """Run a launch to its end; each process's exit status and what it said."""
    batch = ["--per_device_train_batch_size", "1", "--gradient_accumulation_steps", str(BATCH // how.processes)]
    words: list[str | Path] = ["--config", folder / "recipe.yaml", "--output_dir", output, *batch]
    commands = launch(how.config, how.processes, [*words, *how.overrides, *overrides], output, **failure)
    return [(command.wait(PATIENCE), command.told) for command in commands]


def succeed(folder: Path, output: Path, how: Launch, *overrides: str, **gpu: Any) -> Path:
    ended = train(folder, output, how, *overrides, **gpu)
    assert all(status == 0 for status, _ in ended), ended
    told = read_run(output)
    assert told is not None and told.finished and told.recipe["world_size"] == how.processes
    return output


def history(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / METRICS_FILE).read_text(encoding="utf-8").splitlines()]


def figures(output: Path, *names: str) -> list[tuple[float, ...]]:
    return [tuple(line[name] for name in ("step", *names)) for line in history(output) if names[0] in line]


def assert_same_run(one: Path, other: Path) -> None:
    for names in (("loss", "grad_norm"), ("eval_loss", "eval_accuracy")):
        expected = figures(one, *names)
        assert len(expected) == (STEPS if names[0] == "loss" else 1 + STEPS // EVERY)
        for (step, value, second), same in zip(expected, figures(other, *names), strict=True):
            assert same == (step, pytest.approx(value, rel=1e-5), pytest.approx(second, rel=2e-4, nan_ok=True)), names
    assert_same_adapter(one / WEIGHTS, other / WEIGHTS)


def assert_same_adapter(one: Path, other: Path, apart: float = 2e-5) -> None:
    """Equal tensors, each of them whole, in float32, and none of `one` as it was before training."""
    whole, found = load_file(one), load_file(other)
    assert {name: tensor.shape for name, tensor in found.items()} == {n: t.shape for n, t in whole.items()}
    assert {str(tensor.dtype) for tensor in found.values()} == {"torch.float32"}
    for name, tensor in whole.items():
        assert tensor.any() and (found[name] - tensor).abs().max() <= apart, name


@pytest.fixture(scope="module")
def alone(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Launch], Path]:
    """What one process on the CPU trains, without a launcher, of a launch's recipe; in 16 bits, on one simulated GPU.

    In 16 bits, rounding differs where a row holds more questions.
    """
    made = tmp_path_factory.mktemp("alone")

    def trained(how: Launch) -> Path:
        output = made / "-".join(["a", *how.overrides])
        if not output.exists() and {"--bf16", "--fp16"} & set(how.overrides):
            succeed(folder, output, replace(how, config="single_gpu", processes=1))
        elif not output.exists():
            batch = ["--per_device_train_batch_size", str(BATCH), "--use_cpu"]
            assert run(folder, output, *batch, *how.overrides) == 0
        return output

    return trained


def resume(folder: Path, whole: Path, output: Path, how: Launch) -> Path:
    """Run the launch again from the second checkpoint of `whole`, as if it had been killed after it."""
    shutil.copytree(whole, output)
    checkpoint = output / f"checkpoint-{EVERY}"
    for path in output.iterdir():
        if path.is_file():
            path.unlink()
        elif path != checkpoint:
            shutil.rmtree(path)
    shutil.copy(checkpoint / RUN_FILE, output / RUN_FILE)
    return succeed(folder, output, how)


def check_training(folder: Path, alone: Callable[[Launch], Path], tmp_path: Path, how: Launch) -> None:
    output = succeed(folder, tmp_path / "a", how)
    assert_same_run(alone(how), output)
    steps = [path.name for path in checkpoints(output)]
    assert steps == [f"checkpoint-{step}" for step in range(EVERY, STEPS + 1, EVERY)]
    assert [find_damage(path) for path in checkpoints(output)] == [None] * len(steps)
    assert_same_adapter(output / steps[-1] / WEIGHTS, output / WEIGHTS, apart=0.0)


def check_resume(folder: Path, tmp_path: Path, how: Launch) -> None:
    """What goes on from a checkpoint of `check_training` ends as that did."""
    again = resume(folder, tmp_path / "a", tmp_path / "b", how)
    assert [step for step, _ in figures(again, "loss")][-1] == STEPS
    assert_same_adapter(tmp_path / "a" / WEIGHTS, again / WEIGHTS, apart=1e-6)


def check_best(folder: Path, tmp_path: Path, how: Launch) -> None:
    """Where later checkpoints have no higher accuracy, the first one is the best, and the run ends with its weights."""
    output, best = tmp_path / "a", ["--load_best_model_at_end", "--metric_for_best_model", "accuracy"]
    succeed(folder, output, how, *best, "--learning_rate", "0.3", "--eval_on_start", "false")
    evaluated = dict(figures(output, "eval_accuracy"))
    step = max(evaluated, key=evaluated.__getitem__)  # the first of equals
    assert step < STEPS, evaluated
    assert_same_adapter(output / f"checkpoint-{step}" / WEIGHTS, output / WEIGHTS, apart=0.0)


def check_out_of_memory(folder: Path, tmp_path: Path, how: Launch, **failure: Any) -> None:
    """One line of the process that it happened to, an exit status for all, and nothing saved of the broken step."""
    ended = train(folder, tmp_path / "a", how, fail_at=3, **failure)
    assert all(status != 0 for status, _ in ended), ended
    told = [line for _, lines in ended for line in lines]
    assert not [line for line in told if "Traceback" in line or "AssertionError" in line], told
    assert len([line for line in told if "out of memory; set row_tokens below 256 and run again" in line]) == 1, told
    assert not (tmp_path / "a" / WEIGHTS).exists()


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(FSDP_HALF, id=str(FSDP_HALF)),
        *WAYS,
        # PEFT's groups of parameters for LoRA+, of which some are empty.
        *cases(replace(FSDP, overrides=("--loraplus_lr_ratio", "4"))),
    ],
)
def test_it_trains_and_goes_on_as_one_process(
    how: Launch, folder: Path, alone: Callable[[Launch], Path], tmp_path: Path
) -> None:
    check_training(folder, alone, tmp_path, how)
    check_resume(folder, tmp_path, how)


@pytest.mark.parametrize("how", OTHERS)
def test_it_trains_what_one_process_trains(
    how: Launch, folder: Path, alone: Callable[[Launch], Path], tmp_path: Path
) -> None:
    check_training(folder, alone, tmp_path, how)


@pytest.mark.parametrize(
    "how",
    cases(
        Launch("multi_gpu", 2, SCALED), Launch("fsdp", 2, SCALED), Launch("fsdp_qlora", 2, (*SCALED, "--load_in_4bit"))
    ),
)
def test_a_gradient_scaler_skips_a_step_in_all_processes_and_goes_on(
    how: Launch, folder: Path, alone: Callable[[Launch], Path], tmp_path: Path
) -> None:
    """In float16, with too large a scale at first. As losses are multiplied by the processes, it is divided by them."""
    first = 2.0**22
    one = succeed(folder, tmp_path / "one", replace(how, config="single_gpu", processes=1), scale=first)
    output = succeed(folder, tmp_path / "a", how, scale=first / how.processes)
    assert_same_run(one, output)
    skipped = [not math.isfinite(norm) for _, norm in figures(output, "grad_norm")]
    assert skipped[0] and not all(skipped[EVERY:])
    check_resume(folder, tmp_path, how)  # which would skip all of them with the scale of a new run
    for run_dir, steps in ((output, skipped), (tmp_path / "b", skipped[EVERY:])):
        rows, _commands = summarize(run_dir, "base")
        assert dict(rows)["skipped"].startswith(f"{sum(steps)} of {STEPS} steps overflowed float16")
    for trained in (succeed(folder, tmp_path / "not_skipped", how), alone(how)):
        wide = figures(
            alone(replace(how, overrides=tuple(FOUR_BITS) if "--load_in_4bit" in how.overrides else ())), "loss"
        )
        assert [value for _, value in figures(trained, "loss")] == pytest.approx([v for _, v in wide], rel=2e-3)


def start_plainly(folder: Path, quantization: BitsAndBytesConfig | None = None) -> Any:
    """A base and its new adapter by transformers and PEFT alone."""
    set_seed(42)
    device_map = {"": "cpu"} if quantization else None
    base = AutoModelForCausalLM.from_pretrained(
        folder / "base", dtype=torch.float32, quantization_config=quantization, device_map=device_map
    )
    return get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS, task_type="CAUSAL_LM"))


def samples_of(folder: Path, questions: list[Question], style: str) -> list[Sample]:
    prompt = Prompt(AutoTokenizer.from_pretrained(folder / "base"), "alpaca", style)
    sequences = [one for question in questions for one in prompt.supervised_sequences(to_record(question))]
    return [(s.tokens[: s.prompt_length].tolist(), s.tokens[s.prompt_length :].tolist()) for s in sequences]


def train_plainly(folder: Path, nested: bool) -> tuple[list[float], dict[str, torch.Tensor]]:
    """The losses and the adapter of the same steps by transformers, bitsandbytes and PEFT, each question by itself."""
    model = start_plainly(
        folder, BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=nested)
    )
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:  # TRL rounds the initial adapter of a base in 4 bits, which is random anyway
        parameter.data = parameter.data.bfloat16().float()
    optimizer = torch.optim.SGD(trained, lr=RATE, momentum=0.5)
    samples = samples_of(folder, pairs(BATCH, (3, 9)), "digit")
    losses = []
    for _step in range(STEPS):
        losses.append(training_step(model, samples)[0])
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return losses, get_peft_model_state_dict(model)


@pytest.mark.parametrize("more", [(), ("--use_bnb_nested_quant", "--gradient_checkpointing")])
@pytest.mark.parametrize("how", [*cases(DDP, Launch("fsdp_qlora", 2)), *cases(ZERO2, marks=[deepspeed])])
def test_a_base_in_4_bits_trains_as_with_plain_peft(
    how: Launch, more: tuple[str, ...], few: Path, tmp_path: Path
) -> None:
    losses, adapter = train_plainly(few, nested=bool(more))
    output = succeed(few, tmp_path / "a", how, *FOUR_BITS, *more)
    assert [loss for _, loss in figures(output, "loss")] == pytest.approx(losses, rel=2e-4)
    save_file({name: tensor.contiguous() for name, tensor in adapter.items()}, tmp_path / WEIGHTS)
    assert_same_adapter(tmp_path / WEIGHTS, output / WEIGHTS)
    assert max(tensor.abs().max() for name, tensor in adapter.items() if "lora_B" in name) > 1e-3


# Steps of six questions and, as the last of an epoch, of five; a warmup of two steps, then a cosine down to zero.
UNEVEN = {"questions": 11, "accumulated": 3, "steps": 7, "rate": 0.01, "decay": 0.05, "epsilon": 1e-5, "norm": 0.4}


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in the order of its file, so that a plain loop knows what is in each step."""
    return make_run(
        tmp_path_factory.mktemp("uneven"),
        pairs(UNEVEN["questions"], (3, 9, 5, 14)),
        template="alpaca",
        answer_style="text",
        max_length=512,
        row_tokens=256,
        lora_dropout=0.0,
        lora_r=4,
        lora_alpha=8,
        lora_target_modules=TARGETS,
        train_sampling_strategy="sequential",
        per_device_train_batch_size=1,
        gradient_accumulation_steps=UNEVEN["accumulated"],
        max_steps=UNEVEN["steps"],
        learning_rate=UNEVEN["rate"],
        weight_decay=UNEVEN["decay"],
        adam_epsilon=UNEVEN["epsilon"],
        max_grad_norm=UNEVEN["norm"],
        lr_scheduler_type="cosine",
        warmup_steps=2,
        logging_steps=1,
        save_strategy="no",
    )


@pytest.fixture(scope="module")
def plain(uneven: Path) -> tuple[list[tuple[float, float]], dict[str, torch.Tensor]]:
    """Losses, norms of gradients, and the adapter of a plain loop over separate samples."""
    model = start_plainly(uneven)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, eps=UNEVEN["epsilon"], weight_decay=UNEVEN["decay"])
    samples = samples_of(uneven, pairs(UNEVEN["questions"], (3, 9, 5, 14)), "text")
    size = 2 * UNEVEN["accumulated"]
    told = []
    for step in range(UNEVEN["steps"]):
        part = samples[:size] if step % 2 == 0 else samples[size:]
        progress = (step - 2) / (UNEVEN["steps"] - 2)
        share = step / 2 if step < 2 else 0.5 * (1 + math.cos(math.pi * progress))
        optimizer.param_groups[0]["lr"] = UNEVEN["rate"] * share
        loss = training_step(model, part)[0]
        told.append((loss, float(torch.nn.utils.clip_grad_norm_(trained, UNEVEN["norm"]))))
        optimizer.step()
        optimizer.zero_grad()
    return told, {name: tensor.contiguous() for name, tensor in get_peft_model_state_dict(model).items()}


def assert_trained_plainly(output: Path, plain: Any) -> None:
    told, adapter = plain
    found = [values[1:] for values in figures(output, "loss", "grad_norm")]
    assert len(found) == UNEVEN["steps"] and found == [pytest.approx(one, rel=2e-4) for one in told]
    save_file(adapter, output / "plain.safetensors")
    assert_same_adapter(output / "plain.safetensors", output / WEIGHTS)


def test_one_process_trains_steps_of_unequal_size_as_plain_peft(uneven: Path, plain: Any, tmp_path: Path) -> None:
    assert run(uneven, tmp_path / "a", "--per_device_train_batch_size", "2", "--use_cpu") == 0
    assert_trained_plainly(tmp_path / "a", plain)


@pytest.mark.parametrize(
    "how",
    [*cases(Launch("single_gpu", 1), FSDP, DDP), *cases(ZERO2, ZERO3, Launch("low_memory", 2), marks=[deepspeed])],
)
def test_launches_train_steps_of_unequal_size_as_plain_peft(
    how: Launch, uneven: Path, plain: Any, tmp_path: Path
) -> None:
    part = ["--per_device_train_batch_size", str(2 // how.processes)]
    succeed(uneven, tmp_path / "a", how, *part, "--gradient_accumulation_steps", str(UNEVEN["accumulated"]))
    assert_trained_plainly(tmp_path / "a", plain)


@pytest.mark.parametrize(
    "how", cases(replace(ZERO2, overrides=SCALED), replace(ZERO3, overrides=SCALED), marks=[deepspeed])
)
def test_deepspeed_in_float16_trains_and_goes_on_as_one_process(
    how: Launch, folder: Path, alone: Callable[[Launch], Path], tmp_path: Path
) -> None:
    output = succeed(folder, tmp_path / "a", how)
    names = ("loss", "grad_norm")
    for expected, found in zip(figures(alone(how), *names), figures(output, *names), strict=True):
        assert found == pytest.approx(expected, rel=1e-3)
    check_resume(folder, tmp_path, how)


@pytest.mark.parametrize(
    ("how", "optim", "told"),
    [
        pytest.param(FSDP, "adafactor", "cannot train or resume where FSDP divides the weights (", marks=everything),
        pytest.param(
            ZERO2, "adafactor", "this optimizer goes by the rows and columns of", marks=[everything, deepspeed]
        ),
        pytest.param(
            LOW_MEMORY,
            "sgd",
            "cannot keep the state of this optimizer in the host's memory",
            marks=[everything, deepspeed],
        ),
    ],
    ids=str,
)
def test_an_optimizer_that_would_not_train_as_elsewhere_is_refused(
    how: Launch, optim: str, told: str, folder: Path, tmp_path: Path
) -> None:
    ended = train(folder, tmp_path / "a", how, "--optim", optim)
    lines = [line for _, lines in ended for line in lines]
    assert all(status != 0 for status, _ in ended) and not [line for line in lines if "Traceback" in line], ended
    assert len([line for line in lines if line.startswith("optim: ") and optim in line and told in line]) == 1


def masters(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The float32 weights in the optimizer states of a checkpoint, put together by DeepSpeed's own converter."""
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    found = get_fp32_state_dict_from_zero_checkpoint(str(checkpoint), exclude_frozen_parameters=True)
    return {name.replace(".default", ""): tensor for name, tensor in found.items()}


@pytest.mark.parametrize("how", cases(ZERO2, ZERO3, LOW_MEMORY, marks=[deepspeed]))
def test_deepspeed_in_bfloat16_trains_and_saves_the_adapter_in_float32(
    how: Launch, folder: Path, tmp_path: Path
) -> None:
    """DeepSpeed computes in bfloat16 copies. A step moves a weight by the learning rate at most, copies by far more."""
    rate = 1e-5
    how = replace(how, overrides=(*HALF, "--learning_rate", str(rate)))
    output = succeed(folder, tmp_path / "a", how)
    whole = load_file(output / WEIGHTS)
    for checkpoint in checkpoints(output):
        saved, kept = load_file(checkpoint / WEIGHTS), masters(checkpoint)
        assert saved.keys() == kept.keys() == whole.keys()
        assert all(torch.equal(tensor, kept[name]) and tensor.dtype == torch.float32 for name, tensor in saved.items())
    assert all(torch.equal(tensor, saved[name]) for name, tensor in whole.items())
    assert sum(not torch.equal(tensor, tensor.bfloat16().float()) for tensor in whole.values()) == len(whole)

    alone = succeed(folder, tmp_path / "alone", replace(how, config="single_gpu", processes=1))
    for name, tensor in load_file(alone / WEIGHTS).items():
        assert (whole[name] - tensor).abs().max() <= 2 * STEPS * rate, name
    for (_, loss), (_, other) in zip(figures(alone, "loss"), figures(output, "loss"), strict=True):
        assert loss == pytest.approx(other, rel=5e-3)
    assert_same_adapter(output / WEIGHTS, resume(folder, output, tmp_path / "b", how) / WEIGHTS, apart=1e-7)
    (tmp_path / "best").mkdir()
    check_best(folder, tmp_path / "best", replace(how, overrides=HALF))


@pytest.mark.parametrize("how", WAYS)
def test_every_process_ends_with_the_best_weights(how: Launch, folder: Path, tmp_path: Path) -> None:
    check_best(folder, tmp_path, how)


@pytest.mark.parametrize("how", WAYS)
def test_a_full_memory_is_one_line(how: Launch, folder: Path, tmp_path: Path) -> None:
    check_out_of_memory(folder, tmp_path, how)


@pytest.mark.parametrize("during", ["forward", "evaluation"])
@pytest.mark.parametrize("how", cases(FSDP, QLORA) + cases(ZERO3, marks=[deepspeed]))
def test_a_full_memory_between_layers_stops_all(how: Launch, during: str, folder: Path, tmp_path: Path) -> None:
    """Sharded weights are gathered by all: one that tried again with shorter rows would hang, or get garbage."""
    check_out_of_memory(folder, tmp_path, how, rank=1, during=during)
