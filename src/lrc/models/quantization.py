"""How a model is quantized for answering: by default as its base was when the adapter was trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import BitsAndBytesConfig

from lrc.models.stored_quantization import StoredQuantization
from lrc.runtime.devices import SWITCHES, answering_dtype, instead, why_not


def quantization_config(
    recipe: Mapping[str, Any],
    device: torch.device,
    load_in_4bit: bool | None = None,
    *,
    family: str,
    dtype: str | None = None,
) -> BitsAndBytesConfig | None:
    """How to quantize the base of an adapter.

    Args:
        recipe: the keys of the adapter's recipe, as in `lrc_run.json`; empty for a model without adapter.
        device: where the model runs.
        load_in_4bit: overrides the recipe; None follows it. True is NF4 unless the recipe has another type.
        family: the base's `model_type`.
        dtype: the compute dtype of 4-bit weights; None or `auto` takes that of the training.

    Returns:
        None if the base is loaded as it is on the disk.

    Raises:
        MachineError: the device does not support the dtype.
    """
    four, eight = bool(recipe.get("load_in_4bit")), bool(recipe.get("load_in_8bit"))
    if four if load_in_4bit is None else load_in_4bit:
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_compute_dtype=_compute_dtype(recipe, device, family, dtype),
            bnb_4bit_quant_type=recipe.get("bnb_4bit_quant_type", "nf4"),
            bnb_4bit_use_double_quant=bool(recipe.get("use_bnb_nested_quant")),
        )
    return BitsAndBytesConfig(load_in_8bit=True) if eight and load_in_4bit is None else None


def quantization_on_disk(config: Any) -> BitsAndBytesConfig | None:
    """How bitsandbytes has quantized a base's files; None if it has not."""
    stored = StoredQuantization.of(config)
    if stored is None or stored.method != "bitsandbytes":
        return None
    given = config.quantization_config
    return BitsAndBytesConfig.from_dict(dict(given if isinstance(given, Mapping) else given.to_dict()))


def _compute_dtype(recipe: Mapping[str, Any], device: torch.device, family: str, asked: str | None) -> torch.dtype:
    """The dtype asked for; otherwise that of the training if the device supports it, or one that it does support."""
    if asked not in (None, "auto"):
        asked, _why = answering_dtype("float32", device.type, family, asked)
        found: torch.dtype = getattr(torch, asked)
        return found
    trained = recipe.get("dtype")
    if device.type == "cpu":  # as `devices.apply_device_support` settles it for a training
        half = str(trained) if trained in SWITCHES.values() else "float32"
        taken = instead(half, device.type, family) if why_not(half, device.type, family) else half
        computed: torch.dtype = getattr(torch, taken)
        return computed
    for name in (trained if trained != "auto" else None, "bfloat16", "float16"):
        if name is not None and why_not(str(name), device.type, family) is None:
            dtype: torch.dtype = getattr(torch, str(name))
            return dtype
    return torch.float32
