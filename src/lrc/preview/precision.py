"""The dtypes of a run, and the reasons for them: on this machine, or on a simulated GPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from lrc.config.recipe import Recipe
from lrc.models.loading import stored_dtype
from lrc.runtime.cards import Card
from lrc.runtime.devices import SWITCHES, family_of, instead, lacks_scaler, why_not
from lrc.runtime.translation import _


@dataclass(frozen=True)
class Precision:
    """The dtypes of a run."""

    weights: torch.dtype  # of the base's weights that are not quantized
    autocast: torch.dtype | None  # mixed precision
    reasons: tuple[str, ...]


def choose_precision(recipe: Recipe, config: Any, device: str, card: Card | None = None) -> Precision:
    """Choose the dtypes as `devices.apply_device_support` does for a training.

    Args:
        recipe: the recipe.
        config: the base's configuration, which decides about `dtype: auto`; None if it is not available.
        device: the type of device of the run.
        card: the GPU, if it is not that of this machine.
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

    # The recipe has been adapted to this machine already; `given` has what was asked for.
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
    if lacks_scaler(recipe.given, weights, device):
        autocast = weights
        reasons.append(_("fp16: mixed precision, since weights in float16 need a gradient scaler"))
    reasons += _notes(recipe, device, card, weights, autocast)
    return Precision(getattr(torch, weights), getattr(torch, autocast) if autocast else None, tuple(reasons))


def _notes(recipe: Recipe, device: str, card: Card | None, weights: str, autocast: str | None) -> Iterator[str]:
    if card is not None and not card.sold and "bfloat16" in (weights, autocast):
        yield _("bfloat16 needs an Ampere GPU or a newer one; on older ones float16 is used: --gpu T4 shows it")
    if card is not None and (autocast or weights != "float32"):
        yield _("assumed: a {device} device, whatever this machine has").format(device=device)
    if recipe.model.use_peft:
        yield _("adapter: float32, so that small updates are not rounded away")
