"""The number formats of a run, and why they are so: on this machine, or on a GPU that is only meant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from lrc.config.recipe import Recipe
from lrc.runtime.devices import SWITCHES


@dataclass(frozen=True)
class Precision:
    """The formats that a run computes in."""

    weights: torch.dtype  # of the base, as far as it is not quantized
    autocast: torch.dtype | None  # mixed precision
    reasons: tuple[str, ...]


def choose_precision(recipe: Recipe, config: Any, device: str, *, assumed: bool) -> Precision:
    """Settle the formats.

    Args:
        config: the base's configuration, which says what `dtype: auto` is; None where there is none.
        device: the type of the device that is meant.
        assumed: this machine does not have it; then what the recipe asks for is taken to be there.
    """
    # What is missing here was replaced as the recipe was read; what it asks for is in `given`.
    values = recipe.given if assumed else {**vars(recipe.training), "dtype": recipe.model.dtype}
    asked = str(values.get("dtype") or recipe.model.dtype or "auto")
    name = _own(config) if asked == "auto" else asked
    reasons = [] if assumed else list(recipe.notices)
    reasons.append(f"dtype: {name}" + (", as the base has it" if asked == "auto" else ""))
    switch = next((switch for switch in SWITCHES if values.get(switch)), None)
    autocast = SWITCHES[switch] if switch else None
    if autocast:
        reasons.append(f"{switch}: mixed precision, {autocast}")
    if assumed and "bfloat16" in (name, autocast):
        reasons.append("bfloat16 needs an Ampere GPU or a newer one; older ones compute in float16 instead")
    if assumed and (autocast or name != "float32"):
        reasons.append(f"these hold for the {device} device that is assumed, whatever this machine has")
    if recipe.model.use_peft:
        reasons.append("adapter: float32, so that small updates are not rounded away")
    return Precision(getattr(torch, name), getattr(torch, autocast) if autocast else None, tuple(reasons))


def _own(config: Any) -> str:
    dtype = getattr(config, "dtype", None)
    return str(dtype or "float32").removeprefix("torch.")
