"""Memory that runs out in one of two processes: all of them stop, and one line says why."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

# Loaded by Python itself in each process, as any site may have one: no switch in lrc.
RUN_OUT = """
import os, sys

if os.environ.get("RANK") == "{rank}":
    import torch

    def hook(module, args):
        if type(module).__name__ == "LlamaForCausalLM" and module.training:
            hook.calls += 1
            if hook.calls == 4:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    hook.calls = 0
    torch.nn.modules.module.register_module_forward_pre_hook(hook)
"""


@pytest.mark.fault("train", "out of memory in one of two processes: all stop, one line")
@pytest.mark.parametrize("rank", [0, 1])
def test_all_processes_stop(rank: int, inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(RUN_OUT.format(rank=rank))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    launch = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "lrc.sft", "--config", inputs / "recipe.yaml", "--output_dir", tmp_path / "a"]
    processes = [
        subprocess.Popen(
            command,
            env=os.environ | launch | {"RANK": str(i), "LOCAL_RANK": str(i), "PYTHONPATH": path},
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in (0, 1)
    ]
    told = [process.communicate(timeout=240)[1] for process in processes]
    assert [process.returncode for process in processes] == [1, 1], told
    assert "Traceback" not in "".join(told)
    assert [text.count("out of memory; set row_tokens below") for text in told] == [int(i == rank) for i in (0, 1)]
