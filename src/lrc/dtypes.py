"""The number formats that this machine has: what a recipe asks for, or else float32, said in one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

# Keys of a recipe that ask for a format by being true, and that format.
SWITCHES = {"bf16": "bfloat16", "fp16": "float16"}


def settle(values: Mapping[str, Any]) -> dict[str, Any]:
    """Replace what this machine cannot do by float32, and have `use_cpu` say where the run takes place.

    It has to happen before `SFTConfig` is built, which raises on what it cannot do.

    Args:
        values: keys and values of a recipe.

    Returns:
        The same, with `use_cpu` added, and with the formats that are missing here switched off; each of
        those is said on stderr, by the first process only.
    """
    settled = dict(values)
    device = device_type(use_cpu=bool(values.get("use_cpu")))
    settled["use_cpu"] = device == "cpu"
    for key, dtype in SWITCHES.items():
        if values.get(key) and not supported(dtype, device):
            settled[key] = False
            _say(f"{key}: this machine has no {dtype} units ({device}); float32 is used")
    dtype = str(values.get("dtype"))
    if dtype in SWITCHES.values() and not supported(dtype, device):
        settled["dtype"] = "float32"
        _say(f"dtype: this machine has no {dtype} units ({device}); float32 is used")
    return settled


def device_type(*, use_cpu: bool = False) -> str:
    """`cpu`, `cuda`, `xpu`, `mps` …: where a run takes place.

    Args:
        use_cpu: stay on the CPU. `accelerate launch --cpu` asks for the same by an environment variable.
    """
    import torch

    asked = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    accelerator = None if use_cpu or asked else torch.accelerator.current_accelerator(check_available=True)
    return accelerator.type if accelerator else "cpu"


def supported(dtype: str, device: str) -> bool:
    """Whether the hardware computes in `dtype`, rather than emulating it many times slower.

    Args:
        dtype: `float32`, `float16` or `bfloat16`.
        device: see `device_type`.
    """
    import torch

    if dtype == "float32":
        return True
    if device != "cpu":
        return dtype == "float16" or _accelerator_has_bfloat16()
    if dtype == "float16":
        # torch computes float16 on x86 one number at a time, whatever the processor has.
        return False
    # The query is younger than the oldest torch that lrc takes.
    has: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(has.get(unit) for unit in ("avx512_bf16", "amx_bf16", "bf16"))


def _accelerator_has_bfloat16() -> bool:
    import torch
    from transformers.utils import is_torch_bf16_gpu_available

    if torch.cuda.is_available():
        # transformers counts a card that only emulates bfloat16.
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(is_torch_bf16_gpu_available())


def _say(line: str) -> None:
    if os.environ.get("RANK", "0") == "0":
        print(line, file=sys.stderr, flush=True)
