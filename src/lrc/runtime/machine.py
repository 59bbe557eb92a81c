"""Describes this machine: system, Python, torch and its device, memory, disk, and whether the Hub answers."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lrc.runtime.devices import device_type, supported
from lrc.runtime.hub_connection import hub_answers
from lrc.runtime.memory import available_memory
from lrc.runtime.system import usable_cores
from lrc.runtime.translation import _

TORCH = "https://pytorch.org/get-started/locally/"


@dataclass(frozen=True)
class Machine:
    """A machine as lrc sees it; sizes are in bytes.

    Args:
        system: operating system, its version, and the architecture.
        python: its version.
        torch: its version.
        device: `cpu`, `cuda`, `mps` …
        cards: the names of the accelerators.
        card_memory: of the smallest accelerator; 0 without one.
        dtype: the smallest dtype that the hardware computes fast: bfloat16, float16 or float32.
        cores: that this process may use.
        memory: available main memory.
        disk: free space in `cache`.
        cache: the folder to which models are downloaded.
        hub: whether the Hub answers; None if HF_HUB_OFFLINE is set.
    """

    system: str
    python: str
    torch: str
    device: str
    cards: tuple[str, ...]
    card_memory: int
    dtype: str
    cores: int
    memory: int
    disk: int
    cache: str
    hub: bool | None


def look_at_machine() -> Machine:
    """Describe this machine; takes seconds to import torch, and up to five for the Hub to answer."""
    import torch

    device = device_type()
    cards, memory = _cards(device)
    formats = (dtype for dtype in ("bfloat16", "float16") if supported(dtype, device))
    cache = hub_cache_folder()
    return Machine(
        system=f"{platform.system()} {platform.release()}, {platform.machine()}",
        python=platform.python_version(),
        torch=torch.__version__,
        device=device,
        cards=cards,
        card_memory=memory,
        dtype=next(formats, "float32"),
        cores=usable_cores(),
        memory=available_memory(),
        disk=free_disk(cache),
        cache=str(cache),
        hub=hub_answers(),
    )


def describe_hardware(device: str, processes: int) -> str:
    """The hardware in words: `2 x NVIDIA H100`, or `CPU (Intel Xeon Platinum 8481C), 4 cores, 2 processes`.

    Args:
        device: see `devices.device_type`.
        processes: the number of processes that train together.
    """
    names = _cards(device)[0]
    if not names:
        cores = usable_cores()
        several = f", {processes} processes" if processes > 1 else ""
        return f"{'CPU' if device == 'cpu' else device} ({_processor()}), {cores} core{'s' * (cores > 1)}{several}"
    used = max(1, min(processes, len(names)))
    several = f" in each of {processes // used} machines" if processes > len(names) else ""
    return f"{used} x {names[0]}{several}" if used > 1 or several else names[0]


def _processor() -> str:
    """The processor's name; its architecture if the system does not give one."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line for line in lines if line.startswith("model name")).partition(":")[2].strip()
    return platform.processor() or platform.machine()


def hub_cache_folder() -> Path:
    """Where huggingface_hub puts what it downloads."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def free_disk(folder: Path) -> int:
    """The free bytes on the disk where `folder` is, or would be created."""
    there = next((place for place in (folder, *folder.parents) if place.is_dir()), Path())
    return shutil.disk_usage(there).free


def why_card_unused() -> str | None:
    """The line for an NVIDIA card that this build of torch cannot use; None if there is none.

    Nor is there a line where the environment says which cards are visible.
    """
    import torch

    if torch.cuda.is_available() or "CUDA_VISIBLE_DEVICES" in os.environ or not _has_nvidia_card():
        return None
    text = _(
        "torch: {version} was built without CUDA, and there is an NVIDIA card; pip uninstall torch, then install "
        "a build with CUDA ({page})"
    )
    if torch.version.cuda is not None:
        text = _(
            "torch: {version} cannot use the NVIDIA card that is there; update its driver for CUDA {cuda}, or pip "
            "uninstall torch and install a build for the driver ({page})"
        )
    return text.format(version=torch.__version__, cuda=torch.version.cuda, page=TORCH)


def _has_nvidia_card() -> bool:
    """Whether the driver's own program lists a card."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return False
    try:
        listed = subprocess.run([program, "-L"], capture_output=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.startswith(b"GPU ")


def _cards(device: str) -> tuple[tuple[str, ...], int]:
    """The names of the accelerators, and the memory of the smallest."""
    import torch

    if device in ("cuda", "xpu"):
        module = getattr(torch, device)
        found = [module.get_device_properties(index) for index in range(module.device_count())]
        return tuple(str(one.name) for one in found), min(int(one.total_memory) for one in found)
    if device == "mps":
        return ("Apple GPU",), int(torch.mps.recommended_max_memory())
    return (), 0
