"""The one place that decides number formats, for training and for answering, and says why.

bfloat16 is computed where there are units for it: GPUs from compute capability 8.0 on, CPUs with AVX-512 BF16 or AMX. A
GPU without them (Turing: T4, RTX 20) computes in float16, with a gradient scaler in training, eight times as fast as in
float32; but families whose activations overflow float16 stay in float32. A CPU without them computes in float32.
What is trained is float32 everywhere.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lrc.runtime.cards import AMPERE, Card
from lrc.runtime.errors import MachineError
from lrc.runtime.translation import _

# Keys of a recipe that ask for a format by being true, and that format.
SWITCHES = {"bf16": "bfloat16", "fp16": "float16"}
MIXED_PRECISION = "ACCELERATE_MIXED_PRECISION"  # what `accelerate launch` asks for
# Families whose activations are beyond 65,504, the most that float16 holds; their model_type begins so.
OVERFLOWING = ("gemma2", "gemma3", "gemma3n", "t5gemma")


class DeviceSupport(NamedTuple):
    """A recipe's keys and values as this machine can compute them."""

    values: dict[str, Any]
    notices: tuple[str, ...]  # a line for each format that is replaced


def apply_device_support(values: Mapping[str, Any]) -> DeviceSupport:
    """Replace what this machine cannot do by what it can, and have `use_cpu` say where the run takes place.

    It has to happen before `SFTConfig` is built, which raises on what it cannot do.

    Args:
        values: keys and values of a recipe.

    Returns:
        The same, with `use_cpu` added, and with other formats in the place of those that are missing here.
    """
    settled = dict(values)
    notices: list[str] = []
    device = device_type(use_cpu=bool(values.get("use_cpu")))
    settled["use_cpu"] = device == "cpu"
    family = family_of(str(values.get("model_name_or_path") or ""))
    for key, dtype in SWITCHES.items():
        if values.get(key) and (reason := why_not(dtype, device, family)):
            taken = instead(dtype, device, family)
            settled[key] = False
            settled.update({other: True for other, format in SWITCHES.items() if format == taken})
            notices.append(_("{key}: {reason}; {taken} is used").format(key=key, reason=reason, taken=taken))
    dtype = str(values.get("dtype"))
    if dtype in SWITCHES.values() and (reason := why_not(dtype, device, family)):
        settled["dtype"] = instead(dtype, device, family)
        text = _("{key}: {reason}; {taken} is used")
        notices.append(text.format(key="dtype", reason=reason, taken=settled["dtype"]))
    notices.extend(_settle_launch(settled))
    return DeviceSupport(settled, tuple(notices))


def _settle_launch(values: Mapping[str, Any]) -> list[str]:
    """Have the recipe decide on mixed precision: upstream takes the launch's where the recipe asks for none.

    Returns:
        A notice where the launch asks for something else.
    """
    wanted = next((key for key in SWITCHES if values.get(key)), "no")
    asked = os.environ.get(MIXED_PRECISION, "no").lower()
    if asked in ("no", wanted):
        return []
    os.environ[MIXED_PRECISION] = wanted
    text = _("launch: its mixed_precision {asked} is not used; the recipe's bf16 and fp16 decide: {wanted}")
    return [text.format(asked=asked, wanted=wanted)]


def why_not(dtype: str, device: str, family: str, card: Card | None = None) -> str | None:
    """Why a model is not to be computed in `dtype` on a device; None where it can be.

    Args:
        device: see `device_type`.
        family: the `model_type` of the model's configuration; empty where it is not known.
        card: the GPU that is meant, where it is not the one of this machine.
    """
    if card is not None:
        if not card.supports(dtype):
            return _("a {card} has no {dtype} units").format(card=card.name, dtype=dtype)
    elif not supported(dtype, device):
        return _("this machine does not support {dtype} ({device})").format(dtype=dtype, device=device)
    if dtype == "float16" and family.startswith(OVERFLOWING):
        return _("{family} overflows float16").format(family=family)
    return None


def instead(dtype: str, device: str, family: str, card: Card | None = None) -> str:
    """What is taken in the place of a 16-bit format that `why_not` refuses."""
    other = "float16" if dtype == "bfloat16" else "bfloat16"
    return "float32" if device == "cpu" or why_not(other, device, family, card) else other


def answering_dtype(stored: str, device: str, family: str, asked: str | None = None) -> tuple[str, str]:
    """In which format a model is asked, and why.

    Args:
        stored: the format of its weights on the disk.
        asked: `float32`, `float16` or `bfloat16`; None or `auto` takes what the device computes fast and the weights
            were stored in.

    Returns:
        The format, and the reason in some words.

    Raises:
        MachineError: the format that is asked for is not there.
    """
    if asked not in (None, "auto"):
        if reason := why_not(str(asked), device, family):
            raise MachineError(
                _("--dtype: {asked}, but {reason}; give float32, or leave it out").format(asked=asked, reason=reason)
            )
        return str(asked), _("asked for")
    if stored not in SWITCHES.values():
        return "float32", _("as the weights are")
    if device == "cpu":
        taken = "bfloat16" if supported("bfloat16", device) else "float32"
        why = _("the processor has units for it") if taken == "bfloat16" else _("the processor has no other units")
        return taken, why
    reason = why_not(stored, device, family)
    return (instead(stored, device, family), reason) if reason else (stored, _("as the weights are"))


def family_of(name: str) -> str:
    """The `model_type` of the model in a folder; of a name on the Hub what it tells, or nothing."""
    try:
        found = json.loads((Path(name) / "config.json").read_text(encoding="utf-8"))
        return str(found.get("model_type", "")) if isinstance(found, dict) else ""
    except (OSError, ValueError):
        plain = name.rpartition("/")[2].lower().replace("-", "")
        return next((family for family in OVERFLOWING if plain.startswith(family)), "")


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
        return torch.cuda.is_bf16_supported(including_emulation=False) and _others_have_bfloat16()
    return bool(is_torch_bf16_gpu_available())


def _others_have_bfloat16() -> bool:
    """Whether every GPU that processes of one launch share has it: all of them compute in one format."""
    import torch

    if torch.version.hip or os.environ.get("WORLD_SIZE", "1") == "1":
        return True
    return all(torch.cuda.get_device_capability(index) >= AMPERE for index in range(torch.cuda.device_count()))
