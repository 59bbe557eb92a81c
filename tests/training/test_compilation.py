"""Whether anything can be compiled is known before a base is loaded."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from lrc.runtime.errors import MachineError
from lrc.training.compilation import check_compilation


def check(backend: str = "inductor", mode: str | None = None, asked: bool = True) -> None:
    keys = {"torch_compile": asked, "torch_compile_backend": backend, "torch_compile_mode": mode}
    torch.compiler.reset()
    check_compilation(SimpleNamespace(**keys, device=torch.device("cpu")))


def test_what_cannot_be_compiled_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    check("eager")
    check("nothing", asked=False)
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", ("no-such-c++",))
    monkeypatch.setattr(config, "force_disable_caches", True)
    for backend, mode, reason in (
        ("nothing", None, "Invalid backend"),
        ("inductor", "nothing", "Unrecognized mode=nothing"),
        ("inductor", None, "No working C"),
    ):
        with pytest.raises(MachineError) as refused:
            check(backend, mode)
        (line,) = refused.value.lines()
        assert line.startswith("torch_compile: nothing can be compiled here (") and reason in line, line
