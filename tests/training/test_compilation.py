"""Whether anything can be compiled is known before a base is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from small_runs import make_run, pairs, run
from torch._dynamo.utils import counters

from lrc.config.run_record import METRICS_FILE
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


def test_a_compiled_training_has_the_losses_of_an_ordinary_one(tmp_path: Path) -> None:
    """By the compiler's first half, which follows every line of a step; the other would translate it for minutes."""
    keys = {"template": "alpaca", "answer_style": "digit", "max_steps": 3, "logging_steps": 1, "save_strategy": "no"}
    keys |= {
        "per_device_train_batch_size": 2,
        "lora_dropout": 0.0,
        "lora_target_modules": ["v_proj"],
    }  # rows of several lengths
    folder = make_run(tmp_path, pairs(8, (3, 9, 5, 14)), pairs(4, (2, 7), name="v"), **keys, learning_rate=1e-2)
    losses = []
    for name, words in {"plain": [], "compiled": ["--torch_compile", "--torch_compile_backend", "eager"]}.items():
        before = counters["stats"]["unique_graphs"]
        assert run(folder, folder / name, "--use_cpu", "--eval_strategy", "no", *words) == 0
        assert (counters["stats"]["unique_graphs"] > before) == (name == "compiled")
        lines = (folder / name / METRICS_FILE).read_text(encoding="utf-8").splitlines()
        losses.append([line["loss"] for line in map(json.loads, lines) if "loss" in line])
    assert len(losses[0]) == 3 and losses[1] == pytest.approx(losses[0], rel=1e-5)
