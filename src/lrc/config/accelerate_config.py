"""Reads accelerate configs: how many processes a launch has, on which devices, and what they shard."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrc.config.shipped import find_shipped, shipped_files
from lrc.config.yaml_reader import read_mapping
from lrc.runtime.errors import RecipeError
from lrc.runtime.translation import _

# The number of elements in a bucket of gradients under ZeRO. DeepSpeed's default, 5e8, takes 0.9 to 1.9 GiB of a GPU,
# however little is trained; this is still more than the weights of most recipes' adapters.
ZERO_BUCKET = 2**25
FOLDER = "accelerate_configs"
# The shipped ones for the GPUs of one machine, however many it has. `low_memory` is not among them: its processes share
# the memory of the host.
FOR_ALL_GPUS = ("multi_gpu", "deepspeed_zero2", "deepspeed_zero3", "fsdp", "fsdp_qlora")


@dataclass(frozen=True)
class Topology:
    """The processes of a run, each with a device of its own."""

    name: str  # of the accelerate config
    kind: str = "one process"  # or DDP, ZeRO-2, ZeRO-3, FSDP …
    processes: int = 1
    device: str = "cpu"  # a device type, such as cuda
    shards_optimizer: bool = False
    shards_gradients: bool = False
    shards_weights: bool = False
    offloads_optimizer: bool = False  # to the memory of the host or to NVMe
    offloads_weights: bool = False  # likewise


def find_accelerate_config(name: str) -> Path:
    """Find an accelerate config: a YAML file, or one that lrc ships, such as `cpu_2`.

    Raises:
        RecipeError: there is none of that name, or it is not a YAML mapping.
    """
    path = find_shipped(name, _("accelerate config"), FOLDER)
    read_mapping(path)  # accelerate would end in a traceback
    return path


def default_accelerate_config() -> str:
    """The name of the shipped accelerate config for the devices of this machine."""
    import torch

    count = torch.accelerator.device_count() if torch.accelerator.is_available() else 0
    return "cpu" if count == 0 else "single_gpu" if count == 1 else "multi_gpu"


def count_processes(path: Path, config: Any) -> int:
    """How many processes `lrc train` starts on this machine.

    Args:
        path: an accelerate config.
        config: what accelerate reads in it.

    Returns:
        As many as the config says; with one of `FOR_ALL_GPUS`, at least one for each GPU that CUDA_VISIBLE_DEVICES
        leaves. A file of the user's own, edited or not, is taken at its word.
    """
    import torch

    said = max(int(config.num_processes or 1), 1)
    shipped = shipped_files(FOLDER)
    if path not in [shipped[name] for name in FOR_ALL_GPUS] or not torch.accelerator.is_available():
        return said
    return max(said, torch.accelerator.device_count())


def use_small_buckets(deepspeed: dict[str, Any]) -> None:
    """Set ZeRO's bucket sizes to `ZERO_BUCKET`, unless the configuration has them.

    Args:
        deepspeed: DeepSpeed's configuration as accelerate made it; is changed in place.
    """
    zero = deepspeed.get("zero_optimization")
    if isinstance(zero, dict) and int(zero.get("stage", 0)) >= 1:
        for key in ("reduce_bucket_size", "allgather_bucket_size"):
            zero.setdefault(key, ZERO_BUCKET)


def read_topology(name: str | None, *, device: str, gpu_assumed: bool, gpus: int | None = None) -> Topology:
    """Read an accelerate config.

    Args:
        name: a YAML file, or the name of a shipped one; None chooses one for the devices.
        device: the device type of this machine.
        gpu_assumed: whether to plan for a GPU, even if this machine has none.
        gpus: the number of GPUs to plan for. With None, it is that of a training on this machine; with 1 and a
            `name`, the config decides.

    Raises:
        RecipeError: there is no such config, or accelerate cannot read it.
    """
    on_gpu = gpu_assumed or device != "cpu"
    path = find_accelerate_config(name or _choose_config(device, gpu_assumed, gpus))
    config = load_accelerate_config(path)
    said = max(int(config.num_processes or 1), 1)
    processes = (said if gpus == 1 else gpus) if gpus else count_processes(path, config)
    kind = getattr(config.distributed_type, "value", str(config.distributed_type))
    on_gpu = not config.use_cpu and (on_gpu or kind in ("DEEPSPEED", "FSDP"))
    where = (device if device != "cpu" else "cuda") if on_gpu else "cpu"
    if kind == "DEEPSPEED":
        return _read_deepspeed(path.stem, processes, where, config.deepspeed_config)
    if kind == "FSDP":
        return _read_fsdp(path.stem, processes, where, config.fsdp_config)
    return Topology(path.stem, "DDP" if processes > 1 else "one process", processes, where)


def _choose_config(device: str, gpu_assumed: bool, gpus: int | None) -> str:
    """The name of the shipped config for these devices."""
    if gpus:
        return "single_gpu" if gpus == 1 else "multi_gpu"
    return "single_gpu" if device == "cpu" and gpu_assumed else default_accelerate_config()


def load_accelerate_config(path: Path) -> Any:
    """Read an accelerate config with accelerate, which imports torch.

    Raises:
        RecipeError: accelerate cannot read it.
    """
    from accelerate.commands.config.config_args import load_config_from_file

    try:
        return load_config_from_file(str(path))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecipeError(
            _("{path}: accelerate cannot read it ({reason}); see `accelerate config`").format(path=path, reason=error)
        ) from error


def _read_deepspeed(name: str, processes: int, device: str, settings: dict[str, Any]) -> Topology:
    stage = int(settings.get("zero_stage", 2))
    return Topology(
        name,
        f"ZeRO-{stage}",
        processes,
        device,
        shards_optimizer=stage >= 1,
        shards_gradients=stage >= 2,
        shards_weights=stage >= 3,
        offloads_optimizer=_is_offloaded(settings.get("offload_optimizer_device")),
        offloads_weights=stage >= 3 and _is_offloaded(settings.get("offload_param_device")),
    )


def _read_fsdp(name: str, processes: int, device: str, settings: dict[str, Any]) -> Topology:
    # FSDP 1 has a sharding strategy, by name or number; FSDP 2 only says whether to reshard after the forward pass.
    strategy = str(settings.get("fsdp_sharding_strategy") or settings.get("fsdp_reshard_after_forward", True)).upper()
    offloads = str(settings.get("fsdp_offload_params", False)).lower() == "true"
    sharded = strategy not in ("NO_SHARD", "3")
    whole = strategy in ("NO_SHARD", "3", "SHARD_GRAD_OP", "2", "FALSE")
    return Topology(
        name,
        "FSDP",
        processes,
        device,
        shards_optimizer=sharded,
        shards_gradients=sharded,
        shards_weights=not whole,
        offloads_optimizer=offloads,
        offloads_weights=offloads and not whole,
    )


def _is_offloaded(device: Any) -> bool:
    return str(device or "none").lower() in ("cpu", "nvme")
