"""Small bases as people publish them quantized, and beside each the same weights in ordinary numbers.

Weights are rounded to the nearest value: GPTQ and AWQ themselves choose better ones, and store them in the same way.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]
GROUP = 128  # the weights of a column that share a scale; in FP8 a scale is for a square of that size
FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [GROUP, GROUP], "fmt": "e4m3"}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": False, "sym": True}
GPTQ["checkpoint_format"] = "gptq"
AWQ = {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"}
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # of the columns in a packed integer
FULL = 15  # the largest number of 4 bits
KINDS = ("nf4", "int8", "fp8", "gptq", "awq")


def quantize(kind: str, base: Path, stored: Path, exact: Path, device: str) -> None:
    """Write a base quantized, and the same in ordinary numbers.

    Args:
        kind: one of `KINDS`.
        base: a folder, in safetensors.
        stored: the folder for the quantized base.
        exact: the folder for that base dequantized.
        device: on which bitsandbytes quantizes.
    """
    if kind in ("nf4", "int8"):
        _with_bitsandbytes(kind, base, stored, exact, device)
        return
    settings, write = WRITERS[kind]
    kept: Tensors = {}
    dequantized: Tensors = {}
    for name, weight in load_file(base / "model.safetensors").items():
        if "_proj" in name:
            parts, dequantized[name] = write(weight.float())
            kept |= {name.removesuffix("weight") + part: tensor.contiguous() for part, tensor in parts.items()}
        else:
            kept[name] = dequantized[name] = weight.bfloat16()
    for place, tensors, added in ((stored, kept, {"quantization_config": settings}), (exact, dequantized, {})):
        shutil.copytree(base, place)
        config = json.loads((place / "config.json").read_text(encoding="utf-8"))
        config |= {**added, "dtype": "bfloat16" if place == stored else "float32"}
        (place / "config.json").write_text(json.dumps(config), encoding="utf-8")
        tensors = tensors if place == stored else {name: tensor.float() for name, tensor in tensors.items()}
        save_file(tensors, place / "model.safetensors", {"format": "pt"})


def _with_bitsandbytes(kind: str, base: Path, stored: Path, exact: Path, device: str) -> None:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    how = BitsAndBytesConfig(load_in_8bit=True)
    if kind == "nf4":
        nested = {"bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": torch.bfloat16}
        how = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", **nested)
    model = AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.bfloat16, quantization_config=how, device_map={"": device}
    )
    model.save_pretrained(stored)
    model.dequantize(dtype=torch.float32).float().save_pretrained(exact)
    for place in (stored, exact):
        for file in base.glob("tokenizer*"):
            shutil.copy(file, place)


def _fp8(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    """In squares, as DeepSeek's and Qwen3's repositories have it."""
    rows, columns = (size // GROUP for size in weight.shape)
    scale = weight.reshape(rows, GROUP, columns, GROUP).abs().amax(dim=(1, 3)) / torch.finfo(torch.float8_e4m3fn).max
    wide = scale.repeat_interleave(GROUP, 0).repeat_interleave(GROUP, 1)
    rounded = (weight / wide).to(torch.float8_e4m3fn)
    return {"weight": rounded, "weight_scale_inv": scale}, rounded.float() * wide


def _gptq(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    """Symmetric around 8: eight rows of a column in an integer, and zero points that are one too small."""
    groups = weight.T.reshape(-1, GROUP, len(weight))
    scales = (groups.abs().amax(1) / 7).half()
    wide = scales.float().repeat_interleave(GROUP, 0)
    numbers = ((weight.T / wide).round() + 8).clamp(0, FULL).int()
    zeros = torch.full_like(scales, 8).int()
    parts = {"qweight": _pack(numbers.T).T, "qzeros": _pack(zeros - 1), "scales": scales}
    parts["g_idx"] = torch.arange(len(numbers), dtype=torch.int32) // GROUP
    return parts, ((numbers - 8) * wide).T


def _awq(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    """Between the smallest and the largest of a group: eight columns of a row in an integer, in AWQ's order."""
    groups = weight.T.reshape(-1, GROUP, len(weight))
    low, high = groups.amin(1).clamp(max=0), groups.amax(1).clamp(min=0)
    scales = ((high - low) / FULL).half()
    zeros = (-low / scales.float()).round().clamp(0, FULL).int()
    wide, shift = (part.repeat_interleave(GROUP, 0) for part in (scales.float(), zeros))
    numbers = ((weight.T / wide).round() + shift).clamp(0, FULL).int()
    parts = {"qweight": _pack(numbers, AWQ_ORDER), "qzeros": _pack(zeros, AWQ_ORDER), "scales": scales}
    return parts, ((numbers - shift) * wide).T


WRITERS: dict[str, tuple[dict[str, Any], Callable[[torch.Tensor], tuple[Tensors, torch.Tensor]]]] = {
    "fp8": (FP8, _fp8),
    "gptq": (GPTQ, _gptq),
    "awq": (AWQ, _awq),
}


def _pack(numbers: torch.Tensor, order: tuple[int, ...] = tuple(range(8))) -> torch.Tensor:
    """Eight neighbours of a row in an integer of 32 bits, the first of the order in the lowest bits."""
    eights = numbers.reshape(len(numbers), -1, 8)[:, :, list(order)].long()
    packed = (eights << (4 * torch.arange(8))).sum(-1)
    return torch.where(packed >= 2**31, packed - 2**32, packed).int()
