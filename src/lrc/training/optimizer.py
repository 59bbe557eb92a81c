"""Optimizers: LoRA+, the size of optimizer states, and upstream's errors about `optim` as errors of the recipe."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from peft.optimizers import create_loraplus_optimizer
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import fully_shard
from transformers import Trainer, get_scheduler

from lrc.config.optimizers import LOW_RANK, OFFLOADED, SHAPED, TAKES_ARGUMENTS
from lrc.runtime.errors import RecipeError, first_line
from lrc.runtime.translation import _

# How many values an optimizer keeps for each trained weight; the first name that `optim` contains counts. Adafactor's
# rows and columns are negligible, AdEMAMix has a third moment.
MOMENTS = {
    "adafactor": 0,
    "schedule_free_sgd": 1,
    "sgd": 0,
    "lion": 1,
    "rmsprop": 1,
    "adagrad": 1,
    "ademamix": 3,
}
ADAM = 2  # moments, as in all others


def optimizer_bytes(optim: str, element_size: int = 4) -> int:
    """The bytes of optimizer state for each trained weight, on the device and in a checkpoint.

    Args:
        optim: the optimizer's name in a recipe; states of 8 or 4 bits count as one byte.
        element_size: bytes of the weight itself, whose dtype torch's optimizers use for their states.
    """
    moments = next((count for name, count in MOMENTS.items() if name in optim), ADAM)
    return moments * (1 if "8bit" in optim or "4bit" in optim else element_size)


@dataclass(frozen=True)
class LoraPlus:
    """LoRA+ (Hayou et al. 2024): matrix B has a higher learning rate than A.

    Args:
        lr_ratio: the learning rate of B divided by that of A.
        lr_embedding: the learning rate of both matrices of LoRA on embeddings; None takes that of A, as without LoRA+.
            PEFT's own default is 1e-6, whatever the recipe's learning rate is.
    """

    lr_ratio: float
    lr_embedding: float | None = None


def create_loraplus(trainer: Any, rates: LoraPlus) -> torch.optim.Optimizer:
    """Create the optimizer of the trainer's `optim`, with the learning rates of LoRA+.

    Args:
        trainer: a transformers Trainer of a PEFT model.
        rates: the learning rates.
    """
    embedding = rates.lr_embedding
    kind, settings = trainer.get_optimizer_cls_and_kwargs(trainer.args, trainer.model)
    settings |= {
        "loraplus_lr_ratio": rates.lr_ratio,
        "loraplus_lr_embedding": trainer.args.learning_rate if embedding is None else embedding,
        # PEFT sets it for each parameter group, and ignores the optimizer's own.
        "loraplus_weight_decay": trainer.args.weight_decay,
    }
    made: torch.optim.Optimizer = create_loraplus_optimizer(trainer.model, kind, **settings)
    if trainer.is_fsdp_enabled:  # which cannot load the state of empty groups
        made.param_groups[:] = [group for group in made.param_groups if group["params"]]
    return made


@contextlib.contextmanager
def explain_refusal(key: str) -> Iterator[None]:
    """Turn an error that upstream raises in the block into one that names a key of the recipe.

    Args:
        key: the recipe's key that asked for what is created in the block.

    Raises:
        RecipeError: upstream raised an error about values or missing packages.
    """
    try:
        yield
    except (ValueError, TypeError, KeyError, ImportError) as error:
        raise RecipeError(
            _("{key}: {names}; correct it or the keys that go with it").format(
                key=key, names=" ".join(str(error).split())
            )
        ) from error


def check_optimizer(args: Any) -> None:
    """Try the optimizer and the schedule on a single weight, before minutes are spent on loading the base.

    Optimizers that are made for a model are not tried. Where FSDP 2 will divide the weights, this is a collective.

    Args:
        args: the SFTConfig.

    Raises:
        RecipeError: `optim`, `lr_scheduler_type` or their arguments are wrong, or the optimizer does not go with FSDP
            or DeepSpeed, as the launch has them.
    """
    if args.deepspeed_plugin is not None:
        _refuse_with_deepspeed(args.optim.value, args.deepspeed_plugin.deepspeed_config)
    if not _needs_model(args):
        with explain_refusal("optim"):
            kind, settings = Trainer.get_optimizer_cls_and_kwargs(args)
            kind([torch.nn.Parameter(torch.zeros(1))], **settings)
        if os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true" and os.environ.get("FSDP_VERSION") == "2":
            _try_on_shards(args, kind, settings)
    learning_rates(args, args.max_steps if args.max_steps > 0 else 1000)


def _refuse_with_deepspeed(optim: str, configured: Mapping[str, Any]) -> None:
    """Refuse an optimizer that would not be trained with, or not as it is without ZeRO.

    Raises:
        RecipeError: it is one.
    """
    zero = configured.get("zero_optimization") or {}
    device = (zero.get("offload_optimizer") or {}).get("device", "none")
    replaced = device not in (None, "none", "auto") and configured.get("zero_force_ds_cpu_optimizer", True)
    if replaced and not OFFLOADED.fullmatch(optim):
        text = _(
            "optim: {optim}: DeepSpeed cannot keep the state of this optimizer in the host's memory, and would train "
            "with Adam, or fail; take adamw_torch, or a launch config that does not offload the optimizer"
        )
        raise RecipeError(text.format(optim=optim))
    if zero.get("stage", 0) not in (0, "0", "auto") and SHAPED.fullmatch(optim):
        text = _(
            "optim: {optim}: this optimizer goes by the rows and columns of weights, which DeepSpeed flattens; take "
            "adamw_torch, or launch with multi_gpu"
        )
        raise RecipeError(text.format(optim=optim))


def _try_on_shards(args: Any, kind: Any, settings: dict[str, Any]) -> None:
    """Have the optimizer make a step with divided weights, save its state and load it.

    Many compute with operations that are not defined for such weights.

    Raises:
        RecipeError: it cannot.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, broadcast_from_rank0=True)
    model: Any = torch.nn.Linear(128, 128, bias=False, device=args.device)
    try:
        fully_shard(model)
        first, second = (kind(model.parameters(), **settings) for _time in range(2))
        if hasattr(first, "train"):  # of schedule-free optimizers
            first.train()
        model(torch.ones(1, 128, device=args.device)).sum().backward()
        first.step()
        first.zero_grad()
        state = get_optimizer_state_dict(model, first, options=options)
        set_optimizer_state_dict(model, second, state, options=options)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # torch, and whatever package the optimizer is of, may raise anything
        text = _(
            "optim: {optim} cannot train or resume where FSDP divides the weights ({reason}); take adamw_torch_fused, "
            "or launch with multi_gpu"
        )
        raise RecipeError(text.format(optim=args.optim.value, reason=first_line(error))) from error


def unread_arguments(args: Any) -> list[str]:
    """The names in `optim_args` without which the optimizer would be the same.

    Args:
        args: the SFTConfig.
    """
    pairs = (args.optim_args or "").replace(" ", "").split(",")
    if not args.optim_args or not TAKES_ARGUMENTS.fullmatch(args.optim.value) or _needs_model(args):
        return []  # where the optimizer takes none, `ignored_keys` says so
    whole = Trainer.get_optimizer_cls_and_kwargs(args)

    def without(place: int) -> Any:
        fewer = copy(args)
        fewer.optim_args = ",".join(pairs[:place] + pairs[place + 1 :])
        return Trainer.get_optimizer_cls_and_kwargs(fewer)

    return [pair.partition("=")[0] for place, pair in enumerate(pairs) if without(place) == whole]


def _needs_model(args: Any) -> bool:
    return str(args.optim.value).startswith(LOW_RANK)


def learning_rates(args: Any, steps: int) -> dict[int, float]:
    """The learning rate at the first step, after the warmup, half-way and at the last step, by step.

    Args:
        args: the SFTConfig.
        steps: the number of steps of the run.

    Raises:
        RecipeError: `lr_scheduler_type` or its arguments are wrong.
    """
    warmup = args.get_warmup_steps(steps)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=args.learning_rate)
    kind, settings = args.lr_scheduler_type, args.lr_scheduler_kwargs
    places = sorted({1, min(warmup + 1, steps), max(steps // 2, 1), steps})
    with explain_refusal("lr_scheduler_type"):
        schedule = get_scheduler(kind, optimizer, warmup, steps, settings or None)
        rates = getattr(schedule, "lr_lambdas", None)  # without it, the schedule depends on evaluations
        return {step: args.learning_rate * (rates[0](step - 1) if rates else 1.0) for step in places}
