"""Optimizers: LoRA+, what each keeps of a weight, and what upstream says of keys that it does not take."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from peft.optimizers import create_loraplus_optimizer

from lrc.runtime.errors import RecipeError
from lrc.runtime.translation import _

# How many numbers an optimizer keeps of each trained one; the first name that is part of `optim` counts. The rows and
# columns of Adafactor are next to nothing, LOMO keeps nothing, AdEMAMix has a third moment.
MOMENTS = {
    "adafactor": 0,
    "schedule_free_sgd": 1,
    "sgd": 0,
    "lomo": 0,
    "lion": 1,
    "rmsprop": 1,
    "adagrad": 1,
    "ademamix": 3,
}
ADAM = 2  # moments, which every other one has


def optimizer_bytes(optim: str, element_size: int = 4) -> int:
    """What an optimizer keeps of each trained number, in bytes: on the device, and in a checkpoint.

    Args:
        optim: its name in a recipe; states of 8 bits and fewer count as a byte.
        element_size: bytes of the number itself, in whose dtype torch's optimizers keep theirs.
    """
    moments = next((count for name, count in MOMENTS.items() if name in optim), ADAM)
    return moments * (1 if "8bit" in optim or "4bit" in optim else element_size)


@dataclass(frozen=True)
class LoraPlus:
    """LoRA+ (Hayou et al. 2024): B learns faster than A.

    Args:
        lr_ratio: the learning rate of B over that of A.
        lr_embedding: the learning rate of both matrices of LoRA on embeddings; None takes that of A, as without LoRA+.
            PEFT's own default is 1e-6, whatever the recipe's rate is.
    """

    lr_ratio: float
    lr_embedding: float | None = None


def create_loraplus(trainer: Any, rates: LoraPlus) -> torch.optim.Optimizer:
    """The trainer's optimizer with LoRA+.

    Args:
        trainer: a transformers Trainer of a PEFT model.
    """
    embedding = rates.lr_embedding
    kind, settings = trainer.get_optimizer_cls_and_kwargs(trainer.args, trainer.model)
    settings |= {
        "loraplus_lr_ratio": rates.lr_ratio,
        "loraplus_lr_embedding": trainer.args.learning_rate if embedding is None else embedding,
        # PEFT sets it group by group, and passes over the optimizer's own.
        "loraplus_weight_decay": trainer.args.weight_decay,
    }
    made: torch.optim.Optimizer = create_loraplus_optimizer(trainer.model, kind, **settings)
    return made


@contextlib.contextmanager
def explain_refusal(key: str) -> Iterator[None]:
    """Turn what upstream says only when it makes something into a line.

    Args:
        key: of the recipe that asked for it; others may have settings for it.

    Raises:
        RecipeError: the block ended in one of upstream's errors.
    """
    try:
        yield
    except (ValueError, TypeError, KeyError, ImportError) as error:
        raise RecipeError(
            _("{key}: {names}; correct it or the keys that go with it").format(
                key=key, names=" ".join(str(error).split())
            )
        ) from error
