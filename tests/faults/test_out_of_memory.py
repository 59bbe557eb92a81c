"""Memory that runs out in one of two processes: all of them stop, and one line says why."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import fork_server
import pytest

# Before lrc's door, and outside it: no switch in lrc.
RUN_OUT = """
import os, runpy, sys

if os.environ.get("RANK") == "{rank}":
    import torch

    def hook(module, args):
        if type(module).__name__ == "LlamaForCausalLM" and module.training:
            hook.calls += 1
            if hook.calls == 4:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    hook.calls = 0
    torch.nn.modules.module.register_module_forward_pre_hook(hook)
runpy.run_module("lrc.sft", run_name="__main__", alter_sys=True)
"""


@pytest.mark.fault("train", "out of memory in one of two processes: all stop, one line")
@pytest.mark.parametrize("rank", [0, 1])
def test_all_processes_stop(rank: int, inputs: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    launch = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    program = [fork_server.python(), "-c", RUN_OUT.format(rank=rank)]
    command = [*program, "--config", inputs / "recipe.yaml", "--output_dir", tmp_path / "a"]
    processes = [
        subprocess.Popen(
            command,
            env=os.environ | launch | {"RANK": str(i), "LOCAL_RANK": str(i)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in (0, 1)
    ]
    told = [process.communicate(timeout=240)[1] for process in processes]
    assert [process.returncode for process in processes] == [1, 1], told
    assert "Traceback" not in "".join(told)
    assert [text.count("out of memory; set row_tokens below") for text in told] == [int(i == rank) for i in (0, 1)]
