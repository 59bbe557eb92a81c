"""Master weights: trained weights are kept in float32, since bfloat16 loses updates below 0.4 % of a weight."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch


def to_float32(model: Any) -> torch.dtype | None:
    """Convert all trained weights to float32, in place.

    PEFT casts the inputs of its own layers. Other trained modules stand between layers in the dtype of the base, and
    need autocast.

    Returns:
        The dtype for autocast, which such modules had before; None if there are none.
    """
    dtype = None
    for name, parameter in model.named_parameters():
        if hasattr(parameter, "ds_id"):
            continue  # sharded by ZeRO-3, which has float32 master weights of its own
        if parameter.requires_grad and parameter.is_floating_point() and parameter.itemsize < 4:
            if ".lora_" not in name:
                dtype = parameter.dtype
            parameter.data = parameter.data.float()
    return dtype


def cast_state_dict(state: dict[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """A model's floating-point weights cast to a dtype; tensors that share memory still do."""
    made: dict[tuple[int, torch.Size], torch.Tensor] = {}
    for tensor in state.values():
        key = tensor.data_ptr(), tensor.shape
        if key not in made:
            made[key] = tensor.to(dtype) if tensor.is_floating_point() else tensor
    return {name: made[tensor.data_ptr(), tensor.shape] for name, tensor in state.items()}


def write_dtype(config: Path, dtype: torch.dtype) -> None:
    """Set the `dtype` of a model's config.json."""
    settings = json.loads(config.read_text(encoding="utf-8"))
    settings["dtype"] = str(dtype).removeprefix("torch.")
    config.write_text(json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
