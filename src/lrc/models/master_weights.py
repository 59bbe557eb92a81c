"""Every trained weight in float32, whatever the base is in: in bfloat16 an update below 0.4 % of a weight is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch


def to_float32(model: Any) -> torch.dtype | None:
    """Turn all trained weights to float32.

    PEFT casts around its own layers. Modules that are trained whole stand between layers of the base's format, and need
    mixed precision.

    Returns:
        the format that such modules had, in which the model computes; None where there are none.
    """
    computed = None
    for name, parameter in model.named_parameters():
        if hasattr(parameter, "ds_id"):
            continue  # ZeRO-3 divides it already, and keeps float32 of its own
        if parameter.requires_grad and parameter.is_floating_point() and parameter.itemsize < 4:
            if ".lora_" not in name:
                computed = parameter.dtype
            parameter.data = parameter.data.float()
    return computed


def cast_state_dict(state: dict[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """A model's weights in the format of its base; what shares memory still shares it."""
    made: dict[tuple[int, torch.Size], torch.Tensor] = {}
    for tensor in state.values():
        key = tensor.data_ptr(), tensor.shape
        if key not in made:
            made[key] = tensor.to(dtype) if tensor.is_floating_point() else tensor
    return {name: made[tensor.data_ptr(), tensor.shape] for name, tensor in state.items()}


def write_dtype(config: Path, dtype: torch.dtype) -> None:
    """Have a model's config.json say the format of its weights."""
    settings = json.loads(config.read_text(encoding="utf-8"))
    settings["dtype"] = str(dtype).removeprefix("torch.")
    config.write_text(json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
