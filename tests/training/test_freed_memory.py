"""While a large model is trained on a CPU, memory that it freed is returned to the system."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import pytest
import torch
from one_step import config, tree_trainer
from small_models import adapted, make_family, make_model
from token_trees import questions

from lrc.packing.log_probs import target_log_probs
from lrc.packing.tree import pack
from lrc.runtime.memory import return_freed_memory

SEQUENCES, PASSAGES = questions()
needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's malloc")


def resident() -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert found
    return int(found[1]) * 1024


@needs_glibc
def test_freed_memory_is_returned() -> None:
    size = 2**16  # less than what malloc takes from the system by itself, and returns by itself
    held = [torch.ones(size // 4) for _ in range(3000)]
    kept = held[::100]  # so that what is free is not the end of the heap, which malloc returns by itself
    del held[:]
    before = resident()
    return_freed_memory()
    assert before - resident() > 2000 * size
    assert len(kept) == 30


@pytest.mark.parametrize("least", [1, 2**40])
def test_after_each_layer_of_a_large_model(least: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[None] = []
    monkeypatch.setattr("lrc.training.freed_memory.LEAST_BYTES", least)
    monkeypatch.setattr("lrc.training.freed_memory.return_freed_memory", lambda: calls.append(None))
    trainer = tree_trainer(adapted(make_model("llama")), SEQUENCES[:8], PASSAGES[:8], config(tmp_path))
    row = pack(SEQUENCES[:2], 10_000)[0]
    with torch.no_grad():
        target_log_probs(trainer.model, row, torch.device("cpu"))
    assert not calls  # answering keeps nothing between layers
    target_log_probs(trainer.model, row, torch.device("cpu")).sum().backward()
    assert len(calls) == (0 if least > 1 else 3 + 1)  # three layers, and the backward of the first


@pytest.mark.parametrize(("family", "target"), [("gpt2", "c_attn"), ("bloom", "query_key_value"), ("opt", "q_proj")])
def test_families_that_name_their_layers_otherwise_are_trained(family: str, target: str, tmp_path: Path) -> None:
    model = adapted(make_family(family), target_modules=[target])
    tree_trainer(model, SEQUENCES[:8], PASSAGES[:8], config(tmp_path)).train()
