"""The number formats of a run, and why they are so: on this machine, or on a GPU that is only meant."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from lrc.config.recipe import Recipe
from lrc.models.loading import stored_dtype
from lrc.runtime.cards import Card
from lrc.runtime.devices import SWITCHES, family_of, instead, why_not
from lrc.runtime.translation import _


@dataclass(frozen=True)
class Precision:
    """The formats that a run computes in."""

    weights: torch.dtype  # of the base, as far as it is not quantized
    autocast: torch.dtype | None  # mixed precision
    reasons: tuple[str, ...]


def choose_precision(recipe: Recipe, config: Any, device: str, card: Card | None = None) -> Precision:
    """Choose the formats, as `devices.apply_device_support` does for a training.

    Args:
        config: the base's configuration, which says what `dtype: auto` is; None where there is none.
        device: the type of the device that is meant.
        card: the GPU that is meant, where it is not the one of this machine.
    """
    family = config.get_text_config().model_type if config else family_of(recipe.model.model_name_or_path or "")
    reasons: list[str] = []

    def settle(key: str, dtype: str) -> str:
        if dtype == "float32" or not (reason := why_not(dtype, device, family, card)):
            return dtype
        taken = instead(dtype, device, family, card)
        text = _("{key}: {dtype} is asked for, but {reason}: {taken}")
        reasons.append(text.format(key=key, dtype=dtype, reason=reason, taken=taken))
        return taken

    # On this machine the recipe is settled already; what it asked for is in `given`.
    asked = str(recipe.given.get("dtype") or recipe.model.dtype or "auto")
    weights = settle("dtype", (config and stored_dtype(config)) or "float32" if asked == "auto" else asked)
    if not reasons:
        text = _("dtype: {dtype}, as the base has it") if asked == "auto" else _("dtype: {dtype}")
        reasons.append(text.format(dtype=weights))
    autocast = None
    for switch in (key for key in SWITCHES if recipe.given.get(key)):
        taken = settle(switch, SWITCHES[switch])
        autocast = None if taken == "float32" else taken
        if taken == SWITCHES[switch]:
            reasons.append(_("{key}: mixed precision, {dtype}").format(key=switch, dtype=taken))
    reasons += _notes(recipe, device, card, weights, autocast)
    return Precision(getattr(torch, weights), getattr(torch, autocast) if autocast else None, tuple(reasons))


def _notes(recipe: Recipe, device: str, card: Card | None, weights: str, autocast: str | None) -> Iterator[str]:
    if card is not None and not card.sold and "bfloat16" in (weights, autocast):
        yield _("bfloat16 needs an Ampere GPU or a newer one; on older ones float16 is used: --gpu T4 shows it")
    if card is not None and (autocast or weights != "float32"):
        yield _("assumed: a {device} device, whatever this machine has").format(device=device)
    if recipe.model.use_peft:
        yield _("adapter: float32, so that small updates are not rounded away")
