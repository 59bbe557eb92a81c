"""Chooses the dtype for training and for answering by the hardware, and says why.

bfloat16 is used if the hardware has units for it: GPUs from compute capability 8.0 on, CPUs with AVX-512 BF16 or AMX.
A GPU without them (Turing: T4, RTX 20) computes in float16, with a gradient scaler in training, eight times as fast as
in float32; but model families whose activations overflow float16 stay in float32. A CPU without them computes in
float32. Trained weights are float32 everywhere.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lrc.runtime.cards import AMPERE, Card
from lrc.runtime.errors import MachineError
from lrc.runtime.translation import _

# Boolean keys of a recipe, and the dtype that they ask for.
SWITCHES = {"bf16": "bfloat16", "fp16": "float16"}
FORMATS = ("float32", "float16", "bfloat16")  # from the one that all devices have to the one that the fewest have
MIXED_PRECISION = "ACCELERATE_MIXED_PRECISION"  # what `accelerate launch` asks for
OLDER = "https://pytorch.org/get-started/previous-versions/"
NEWER = "https://pytorch.org/get-started/locally/"
# Prefixes of the model_type of families whose activations exceed 65,504, the largest float16; of Gemma 4, reports vary.
OVERFLOWING = ("gemma2", "gemma3", "gemma4", "t5gemma")
# How they are called on the Hub: gemma-3-1b-it, and not gemma-2b, which is the first Gemma.
_OVERFLOWING_NAMES = re.compile(r"(t5gemma)|gemma-?([234])(?!\d|\.?\d*b)", re.IGNORECASE)


class DeviceSupport(NamedTuple):
    """A recipe's keys and values, adapted to this machine."""

    values: dict[str, Any]
    notices: tuple[str, ...]  # a line for each dtype that was replaced


def apply_device_support(values: Mapping[str, Any]) -> DeviceSupport:
    """Replace dtypes and switch off offloading that this machine does not support, and set `use_cpu`.

    This has to happen before `SFTConfig` is built, which raises on unsupported values.

    Args:
        values: keys and values of a recipe.

    Returns:
        A changed copy, and notices.
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
    if lacks_scaler(settled, _loaded_dtype(settled, device, family), device):
        settled["fp16"] = True
        notices.append(
            _("fp16: is set to true: weights in float16 need its gradient scaler (fp16: false turns it off)")
        )
    if device == "cpu" and values.get("activation_offloading"):
        settled["activation_offloading"] = False
        notices.append(_("activation_offloading: there is no GPU memory that it would spare; it is off"))
    notices.extend(_settle_launch(settled))
    return DeviceSupport(settled, tuple(notices))


def lacks_scaler(values: Mapping[str, Any], weights: str, device: str) -> bool:
    """Whether a training would compute in float16 without a gradient scaler: small gradients would become 0.

    Args:
        values: keys and values of a recipe; one that says `fp16: false` is taken at its word.
        weights: the dtype in which the base is loaded.
        device: see `device_type`.
    """
    return weights == "float16" and device != "cpu" and values.get("fp16") is None and not values.get("bf16")


def _loaded_dtype(values: Mapping[str, Any], device: str, family: str) -> str:
    """In which dtype a training would load its base; empty if only the base tells, and it is not here."""
    asked = str(values.get("dtype"))
    if asked != "auto":
        return asked
    config = _read_config(str(values.get("model_name_or_path") or ""))
    text = config.get("text_config")
    found = {**config, **text} if isinstance(text, dict) else config
    own = str(found.get("dtype") or found.get("torch_dtype") or "")
    return instead(own, device, family) if own in SWITCHES.values() and why_not(own, device, family) else own


def _settle_launch(values: Mapping[str, Any]) -> list[str]:
    """Let the recipe decide on mixed precision: without it, upstream would use that of the launch.

    Returns:
        A notice if the launch asks for something else.
    """
    wanted = next((key for key in SWITCHES if values.get(key)), "no")
    asked = os.environ.get(MIXED_PRECISION, "no").lower()
    if asked in ("no", wanted):
        return []
    os.environ[MIXED_PRECISION] = wanted
    text = _("launch: its mixed_precision {asked} is not used; the recipe's bf16 and fp16 decide: {wanted}")
    return [text.format(asked=asked, wanted=wanted)]


def why_not(dtype: str, device: str, family: str, card: Card | None = None) -> str | None:
    """Why a model should not compute in `dtype` on a device; None if it can.

    Args:
        dtype: `float32`, `float16` or `bfloat16`.
        device: see `device_type`.
        family: the `model_type` of the model's configuration; empty if it is not known.
        card: the GPU, if it is not that of this machine.
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
    """The dtype that replaces a 16-bit one which `why_not` refuses; arguments as there."""
    other = "float16" if dtype == "bfloat16" else "bfloat16"
    return "float32" if why_not(other, device, family, card) else other


def answering_dtype(stored: str, device: str, family: str, asked: str | None = None) -> tuple[str, str]:
    """In which dtype a model answers, and why.

    Args:
        stored: the dtype of its weights on the disk.
        device: see `device_type`.
        family: the model's `model_type`.
        asked: `float32`, `float16` or `bfloat16`; None or `auto` takes that of the weights if the device computes it
            fast.

    Returns:
        The dtype, and the reason in a few words.

    Raises:
        MachineError: the device does not support the dtype that is asked for.
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


def common_dtype(dtypes: Collection[str]) -> str:
    """The one of several dtypes that all the devices which have chosen them can compute in."""
    return next((dtype for dtype in FORMATS if dtype in dtypes), "float32")


def family_of(name: str) -> str:
    """The `model_type` of a model in a folder or one that was fetched; otherwise one of `OVERFLOWING` by the name.

    Returns:
        Empty if neither tells.
    """
    if family := _read_config(name).get("model_type"):
        return str(family)
    named = _OVERFLOWING_NAMES.search(name.rpartition("/")[2])
    return "" if named is None else "t5gemma" if named[1] else f"gemma{named[2]}"


def _read_config(name: str) -> dict[str, Any]:
    """The config.json of a model in a folder or one that was fetched; empty if there is none that can be read."""
    try:
        found = json.loads(_config_file(name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _config_file(name: str) -> Path:
    own = Path(name) / "config.json"
    if own.is_file() or name.count("/") != 1:
        return own
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        fetched = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        return own
    return Path(fetched) if isinstance(fetched, str) else own


def device_type(*, use_cpu: bool = False) -> str:
    """The type of device on which a run computes: `cpu`, `cuda`, `xpu`, `mps` …

    Args:
        use_cpu: stay on the CPU; `accelerate launch --cpu` asks for the same by an environment variable.
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
        return dtype == "float16" or _accelerator_has_bfloat16(device)
    if dtype == "float16":
        # torch does not vectorize float16 on x86, whatever the processor supports.
        return False
    # The oldest torch that lrc supports does not have this query.
    has: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(has.get(unit) for unit in ("avx512_bf16", "amx_bf16", "bf16"))


def _accelerator_has_bfloat16(device: str) -> bool:
    import torch

    # transformers' own check accepts GPUs that only emulate bfloat16.
    if device == "cuda":
        # torch says so of every AMD GPU.
        own = not is_rocm() or _amd_has_bfloat16(torch.cuda.current_device())
        return own and torch.cuda.is_bf16_supported(including_emulation=False) and _others_have_bfloat16()
    if device == "xpu":
        return bool(torch.xpu.is_bf16_supported(including_emulation=False))
    from transformers.utils import is_torch_bf16_gpu_available

    return bool(is_torch_bf16_gpu_available())


def _others_have_bfloat16() -> bool:
    """Whether all GPUs of this machine have bfloat16, as all processes of a launch compute in the same dtype."""
    import torch

    if os.environ.get("WORLD_SIZE", "1") == "1":
        return True
    gpus = range(torch.cuda.device_count())
    if is_rocm():
        return all(map(_amd_has_bfloat16, gpus))
    return all(torch.cuda.get_device_capability(index) >= AMPERE for index in gpus)


class MissingKernels(NamedTuple):
    """This build of torch cannot compute on a GPU."""

    what: str
    cure: str


def find_missing_kernels(index: int | None = None) -> MissingKernels | None:
    """What a GPU lacks to compute with this build of torch; None if nothing.

    torch would only warn, and fail at the first kernel.

    Args:
        index: of the GPU; None is the current one.
    """
    import torch

    built = torch.cuda.get_arch_list()
    if not built:  # nothing is known
        return None
    found = torch.cuda.get_device_properties(torch.cuda.current_device() if index is None else index)
    if is_rocm():
        chip = found.gcnArchName.partition(":")[0]
        if chip in [name.partition(":")[0] for name in built]:
            return None
        text = _("torch {version} has no kernels for {chip}").format(version=str(torch.__version__), chip=chip)
        return MissingKernels(text, _("install a build that has them: {page}").format(page=NEWER))
    own = 10 * found.major + found.minor
    if _serves(built, own):
        return None
    text = _("torch {version} has no kernels for compute capability {major}.{minor}")
    cure = _("install a build for an older CUDA: {page}").format(page=OLDER)
    if own > max(number for _kind, number in _kernels(built)):
        cure = _("install a newer torch: {page}").format(page=NEWER)
    return MissingKernels(text.format(version=str(torch.__version__), major=found.major, minor=found.minor), cure)


def require_kernels(device: str) -> None:
    """Refuse the current GPU if this build of torch cannot compute on it.

    Args:
        device: see `device_type`; others than `cuda` are not looked at.

    Raises:
        MachineError: it cannot.
    """
    if device == "cuda" and (missing := find_missing_kernels()) is not None:
        import torch

        text = _("{card}: {what}; {cure}, or hide the card to compute on the CPU: CUDA_VISIBLE_DEVICES=-1")
        raise MachineError(text.format(card=torch.cuda.get_device_name(), what=missing.what, cure=missing.cure))


def _serves(built: Collection[str], own: int) -> bool:
    """Whether a build has kernels for a compute capability, 75 for 7.5.

    Kernels serve later chips of the same generation, and PTX (compute_…) is compiled for any later one.
    """
    return any(made <= own and (kind == "compute" or made // 10 == own // 10) for kind, made in _kernels(built))


def _kernels(built: Collection[str]) -> list[tuple[str, int]]:
    """Kinds and compute capabilities of a build's kernels: `sm_90a` is (sm, 90)."""
    return [(kind, int(re.sub(r"\D", "", number))) for kind, number in (name.split("_", 1) for name in built)]


def is_rocm() -> bool:
    """Whether this torch computes on AMD GPUs, whose devices it calls `cuda`, too."""
    import torch

    return bool(torch.version.hip)


def _amd_has_bfloat16(index: int) -> bool:
    """Whether an AMD GPU has matrix instructions for bfloat16: CDNA, RDNA 3 and later; Vega and RDNA 1 and 2 have none.

    Their compute capability is no help: of RDNA 2 it is 10.3, as of an NVIDIA B300.
    """
    import torch

    name = getattr(torch.cuda.get_device_properties(index), "gcnArchName", "").partition(":")[0]
    return re.fullmatch(r"gfx(900|902|904|906|909|90c|10\w+)", name) is None
