"""A launch on several GPUs, simulated on the CPU: everything of a run is real but the devices.

Processes get the environment that accelerate's own launcher makes of a file in `accelerate_configs/`. Then accelerate
is told that GPUs speak gloo, and lrc that the device has units for every format; FSDP, DeepSpeed, TRL and lrc run as
they are.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any
from unittest.mock import patch

from processes import Command  # of tests/faults

HERE = Path(__file__).resolve().parent
CONFIGS = Path(__file__).parents[2] / "accelerate_configs"
LAUNCHERS = ("deepspeed_launcher", "multi_gpu_launcher", "simple_launcher")


def launch(config: str, processes: int, words: list[str | Path], logs: Path, **failure: Any) -> list[Command]:
    """Start the processes that `accelerate launch --config_file CONFIG --num_processes N -m lrc.sft WORDS` starts.

    Args:
        config: a name in `accelerate_configs/`.
        logs: what the processes say goes beside it, with their ranks in the names.
        failure: the arguments of `be_gpus`.
    """
    environment = environment_of(config, processes)
    prepare = f"import sys\nsys.path[:0] = {[str(HERE), str(HERE.parent / 'faults')]!r}\n"
    prepare += f"from simulated_gpus import be_gpus\nbe_gpus(**{failure!r})"
    commands = []
    for rank in range(processes):
        place = {"RANK": rank, "LOCAL_RANK": rank} if "MASTER_PORT" in environment else {}
        own = {**environment, **{key: str(value) for key, value in place.items()}}
        log = logs.with_name(f"{logs.name}.log{rank}")
        commands.append(Command(["train", *words], log, environment=own, prepare=prepare))
    return commands


def environment_of(config: str, processes: int) -> dict[str, str]:
    """What accelerate's launcher adds to the environment of every process, without its rank."""
    from accelerate.commands import launch as launcher
    from accelerate.utils.launch import (
        prepare_deepspeed_cmd_env,
        prepare_multi_gpu_env,
        prepare_simple_launcher_cmd_env,
    )

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    words = ["--config_file", CONFIGS / f"{config}.yaml", "--num_processes", processes, "--main_process_port", port]
    seen: list[Any] = []
    with patch.multiple(launcher, **dict.fromkeys(LAUNCHERS, seen.append)):
        launcher.launch_command(launcher.launch_command_parser().parse_args([*map(str, words), "-m", "lrc.sft"]))
    (args,) = seen
    together = args.use_deepspeed or args.use_fsdp or args.multi_gpu
    if args.use_deepspeed:
        _, made = prepare_deepspeed_cmd_env(args)
    elif together:
        made = prepare_multi_gpu_env(args)
    else:
        _, made = prepare_simple_launcher_cmd_env(args)
    added = {key: value for key, value in made.items() if os.environ.get(key) != value and key != "PYTHONPATH"}
    added.pop("CUDA_VISIBLE_DEVICES", None)
    if together:  # what torchrun adds
        count = str(processes)
        added |= {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return {**added, "DS_ACCELERATOR": "cpu"}


def be_gpus(fail_at: int | None = None, rank: int = 0, during: str = "backward", scale: float = 2.0**16) -> None:
    """Have this process take the CPU for a GPU.

    Args:
        fail_at: the time that the memory runs out, from 1; None has enough of it.
        rank: in which process.
        during: `backward`, `forward` or `evaluation`.
        scale: what the gradient scaler of float16 begins with.
    """
    import torch
    import transformers.training_args
    from accelerate import Accelerator
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    import lrc.config.arguments
    import lrc.runtime.devices
    import lrc.runtime.processes

    def backend(self: Any, *args: Any, **kwargs: Any) -> tuple[str | None, Any]:
        if "LOCAL_RANK" not in os.environ:
            return None, DistributedType.NO
        # DDP asks tensors for the number of their GPU; FSDP and DeepSpeed do not.
        divided = "ACCELERATE_USE_FSDP" in os.environ or "ACCELERATE_USE_DEEPSPEED" in os.environ
        return "gloo", DistributedType.MULTI_GPU if divided else DistributedType.MULTI_CPU

    def set_device(self: Any) -> None:
        self.device = torch.device("cpu")

    begin = Accelerator.__init__

    def begin_with_scaler(self: Any, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        if self.mixed_precision == "fp16" and self.distributed_type != DistributedType.DEEPSPEED:
            self.native_amp, self.scaler = True, torch.amp.GradScaler("cpu", init_scale=scale)

    Accelerator.__init__ = begin_with_scaler  # type: ignore[method-assign]
    if "ACCELERATE_USE_DEEPSPEED" in os.environ:
        from deepspeed.accelerator.cpu_accelerator import CPU_Accelerator

        CPU_Accelerator.is_fp16_supported = lambda self: True
    patched: Any = PartialState
    patched._prepare_backend, patched.set_device = backend, set_device
    for module in (lrc.config.arguments, lrc.runtime.devices, lrc.runtime.processes):
        module.device_type = lambda use_cpu=False: "simulated"  # type: ignore[attr-defined]
    lrc.runtime.devices.supported = lambda dtype, device: True
    transformers.training_args.is_torch_bf16_gpu_available = lambda *args, **kwargs: True
    if fail_at is not None and os.environ.get("RANK", "0") == str(rank):
        if during == "backward":
            _run_out_of_memory(fail_at)
        else:
            _run_out_of_memory_between_layers(fail_at, training=during == "forward")


def _run_out_of_memory_between_layers(at: int, *, training: bool) -> None:
    """Fail in the midst of a forward, when the other processes gather the next layer."""
    import torch

    calls, begun = 0, False  # before the first step, a small model is asked whether it takes trees

    def fail(module: Any, _: Any) -> None:
        nonlocal calls, begun
        if not type(module).__name__.endswith("DecoderLayer") or module.self_attn.layer_idx != 1:
            return
        begun = begun or module.training
        calls += begun and module.training == training
        if calls == at:
            calls += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    torch.nn.modules.module.register_module_forward_pre_hook(fail)


def _run_out_of_memory(at: int) -> None:
    """Fail in the midst of a backward, when some gradients are there already."""
    import torch

    from lrc.training.trainer import TreeTrainer

    backward, calls = TreeTrainer._backward, 0

    def fail(gradients: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    def failing(self: TreeTrainer, loss: torch.Tensor) -> None:
        nonlocal calls
        calls += 1
        if calls != at:
            return backward(self, loss)
        # Of the graph and not of a parameter, which FSDP and ZeRO put others in the place of.
        nodes = _graph(loss)
        handle = nodes[len(nodes) // 2].register_prehook(fail)
        try:
            return backward(self, loss)
        finally:
            handle.remove()

    TreeTrainer._backward = failing  # type: ignore[method-assign]


def _graph(loss: Any) -> list[Any]:
    """The nodes that a backward of `loss` goes through, nearest first."""
    found, seen = [loss.grad_fn], {loss.grad_fn}
    for node in found:
        for further, _ in node.next_functions:
            if further is not None and further not in seen:
                seen.add(further)
                found.append(further)
    return found
