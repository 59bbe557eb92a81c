"""Threads of a CPU sleep while they wait, and how many there are follows from the machine and not from its load."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lrc.runtime.system import usable_cores
from lrc.runtime.threads import share_cores

PROGRAM = """
from lrc.cli import main
try:
    main(["--version"])
except SystemExit:
    pass
import torch
torch.ones(8) + 1
"""


@pytest.mark.parametrize(("given", "policy"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
@pytest.mark.skipif(sys.platform != "linux", reason="libgomp says what it was told")
def test_what_openmp_is_told(given: dict[str, str], policy: str) -> None:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_", "KMP_"))}
    environment = {**kept, **given, "OMP_DISPLAY_ENV": "TRUE", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and f"OMP_WAIT_POLICY = '{policy}'" in done.stderr


def test_processes_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(12)), raising=False)
    assert usable_cores() == 12
    for processes, each in ((1, "12"), (3, "4"), (5, "2"), (40, "1")):
        environment: dict[str, str] = {}
        share_cores(environment, processes)
        assert environment == {"OMP_NUM_THREADS": each, "OMP_WAIT_POLICY": "PASSIVE"}
    launched = {"OMP_NUM_THREADS": "1"}  # accelerate's own choice
    share_cores(launched)
    assert launched["OMP_NUM_THREADS"] == "12"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")  # the user's
    share_cores(launched)
    assert launched["OMP_NUM_THREADS"] == "3"
