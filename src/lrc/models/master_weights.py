"""Master weights: trained weights are kept in float32, since bfloat16 loses updates below 0.4 % of a weight.

DeepSpeed computes in 16-bit copies of the trained weights, and its optimizer has the float32 master weights. These are
what is initialized and saved; the copies follow from them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from peft.utils.other import ModulesToSaveWrapper


def restore_modules_to_save(model: Any) -> None:
    """Give whole modules that are trained beside an adapter the base's weights again, in their dtype.

    If the base is quantized, TRL has rounded everything that is trained to bfloat16.
    """
    if not (getattr(model, "is_loaded_in_4bit", False) or getattr(model, "is_loaded_in_8bit", False)):
        return
    for wrapper in (module for module in model.modules() if isinstance(module, ModulesToSaveWrapper)):
        originals = list(wrapper.original_module.parameters())
        for trained in wrapper.modules_to_save.values():
            for parameter, original in zip(trained.parameters(), originals, strict=True):
                if original.is_floating_point() and original.shape == parameter.shape:  # neither packed nor sharded
                    parameter.data = original.detach().clone()


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


def use_float32_gradients(deepspeed: dict[str, Any]) -> None:
    """Have DeepSpeed accumulate and average gradients in float32, unless the configuration says otherwise.

    Its default is the dtype of mixed precision, in which the gradients of a step's rows would be added up.

    Args:
        deepspeed: DeepSpeed's configuration as accelerate made it; is changed in place.
    """
    deepspeed.setdefault("communication_data_type", "fp32")
    deepspeed.setdefault("data_types", {}).setdefault("grad_accum_dtype", "fp32")


def rounded_by(dtype: torch.dtype, model: Any) -> dict[str, torch.Tensor]:
    """Copies, on the CPU, of the trained weights that a dtype would round, by all of their names."""
    named = model.named_parameters(remove_duplicate=False)
    trained = ((name, p.detach()) for name, p in named if p.requires_grad and p.dtype == torch.float32)
    return {name: p.to("cpu", copy=True) for name, p in trained if not torch.equal(p, p.to(dtype).float())}


def set_masters(model: Any, values: Mapping[str, torch.Tensor]) -> None:
    """Set DeepSpeed's master weights, whose 16-bit copies the model has already; all processes call this.

    Args:
        model: a model that DeepSpeed trains.
        values: float32 weights by the names of the model's parameters; others stay as they are.
    """
    from deepspeed.utils import safe_set_full_fp32_param

    for name, parameter in _copies(model):
        if name in values:
            safe_set_full_fp32_param(parameter, values[name].to(parameter.device))


def masters_of(model: Any) -> dict[str, torch.Tensor]:
    """DeepSpeed's master weights of all trained weights that the model has in 16 bits; all processes call this.

    Returns:
        Whole float32 tensors on the CPU, by the names of the model's parameters. Tied weights are one tensor.
    """
    from deepspeed.utils import safe_get_full_fp32_param

    found: dict[int, torch.Tensor | None] = {}
    for _name, parameter in _copies(model):
        if id(parameter) not in found:
            master = safe_get_full_fp32_param(parameter)
            found[id(parameter)] = None if master is None else master.detach().cpu()
    named = {name: found[id(parameter)] for name, parameter in _copies(model)}
    return {name: master for name, master in named.items() if master is not None}


def _copies(model: Any) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """The trained parameters that are in 16 bits, by all of their names."""
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if parameter.requires_grad and parameter.is_floating_point() and parameter.itemsize < 4:
            yield name, parameter


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
