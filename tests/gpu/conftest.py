"""On a GPU, or where LRC_TEST_DEVICE names another device: what is equal on a CPU has to be equal there.

LRC_GPU_RESULTS names a file that gets a JSON line a comparison, for the table of benchmarks/gpu.py.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

NAME = os.environ.get("LRC_TEST_DEVICE", "cuda")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what stands in this folder where the device is not there."""
    here = Path(__file__).parent
    if NAME == "cuda" and not torch.cuda.is_available():
        for item in items:
            if here in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="there is no GPU"))


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The device under test."""
    return torch.device(NAME)


@pytest.fixture(autouse=True)
def _every_form_everywhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forms of attention whatever auto would choose; on a CPU FlexAttention uncompiled, with its backward."""
    monkeypatch.setattr("lrc.packing.tree.MIN_SPARED", 1)
    monkeypatch.setattr("lrc.packing.attention.MIN_SPARED_GPU", 1)
    monkeypatch.setattr("lrc.packing.lm_head.PIECE_BYTES", 4 * 96 * 3)  # the output layer three positions at a time
    if NAME == "cuda":
        torch._dynamo.config.recompile_limit = 100
        yield
        return
    monkeypatch.setattr("lrc.packing.attention.why_no_flex", lambda model, device: None)
    monkeypatch.setattr("torch.nn.attention.flex_attention._validate_device", lambda *states: None)
    with torch.compiler.set_stance("force_eager"):
        yield


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Keep what was found."""

    def write(**found: Any) -> None:
        if path := os.environ.get("LRC_GPU_RESULTS"):
            line = json.dumps({"stage": "equality", "case": request.node.name, **found})
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    return write
