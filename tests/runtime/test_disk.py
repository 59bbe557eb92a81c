"""What a run needs on the disk, and what is said of a disk that is full."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from one_step import config, tree_trainer
from safetensors.torch import save_file
from small_models import adapted, make_model
from token_trees import questions

from lrc.runtime.disk import convert_disk_errors, disk_failure
from lrc.runtime.errors import MachineError
from lrc.training.callbacks import DiskSpaceCallback

Usage = namedtuple("Usage", "total used free")
SEQUENCES, PASSAGES = questions()


WIDE = {"hidden_size": 256, "intermediate_size": 256}  # so that numbers, not names, fill the files


def need(folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> int:
    """The least free space, in bytes, with which a run of ten steps begins."""
    trainer = tree_trainer(
        adapted(make_model("llama", **WIDE)), SEQUENCES, PASSAGES, config(folder, max_steps=10, **settings)
    )
    trainer.state.compute_steps(trainer.args, 10)
    trainer.state.max_steps = 10

    def begins(free: int) -> bool:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, free))
        try:
            DiskSpaceCallback().on_train_begin(trainer.args, trainer.state, trainer.control, model=trainer.model)
        except MachineError:
            return False
        return True

    low, high = -1, 10**9
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if begins(middle) else (middle, high)
    return high


def test_the_estimate_is_what_the_files_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"save_strategy": "steps", "save_steps": 5}
    estimate = need(tmp_path / "a", monkeypatch, **settings)
    monkeypatch.undo()
    args = config(tmp_path / "b", max_steps=10, **settings)
    trainer = tree_trainer(adapted(make_model("llama", **WIDE)), SEQUENCES, PASSAGES, args)
    trainer.train()
    trainer.save_model(str(tmp_path / "b" / "final"))
    tensors = [*(tmp_path / "b").rglob("*.safetensors"), *(tmp_path / "b").rglob("optimizer.pt")]
    taken = sum(path.stat().st_size for path in tensors)
    assert 0.7 * taken < estimate < 1.1 * taken


def test_the_limit_bounds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = need(tmp_path / "none", monkeypatch, save_strategy="no")
    every = need(tmp_path / "all", monkeypatch, save_strategy="steps", save_steps=1)
    limited = need(tmp_path / "two", monkeypatch, save_strategy="steps", save_steps=1, save_total_limit=2)
    eight_bits = need(tmp_path / "8", monkeypatch, save_strategy="steps", save_steps=1, optim="adamw_bnb_8bit")
    assert (every - adapter, limited - adapter) == (10 * 3 * adapter, 3 * 3 * adapter)
    assert adapter < eight_bits < every / 1.9


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"save_strategy": "steps", "save_steps": 1}, 4),
        ({"save_strategy": "epoch", "per_device_train_batch_size": 10}, 4),  # not the three of num_train_epochs
        ({"save_strategy": "steps", "save_steps": 1, "save_total_limit": 1, "metric_for_best_model": "loss"}, 3),
    ],
    ids=["steps", "epochs of one step", "the newest, the best and the next"],
)
def test_what_is_said(settings: dict[str, Any], count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = config(tmp_path, max_steps=4, **settings)
    trainer = tree_trainer(adapted(make_model("llama")), SEQUENCES, PASSAGES, args)
    trainer.add_callback(DiskSpaceCallback())
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 2000))
    with pytest.raises(MachineError, match=f"^{tmp_path}: {count} checkpoints of .* need .* kB, 2.0 kB is free; f"):
        trainer.train()
    assert trainer.state.global_step == 0


def full(kind: str) -> None:
    """Write to a device that is always full."""
    if kind == "python":
        with Path("/dev/full").open("w") as file:
            file.write("x")
    elif kind == "torch":
        torch.save(torch.zeros(10**5), "/dev/full")
    else:
        save_file({"x": torch.zeros(4)}, "/nowhere/at/all.safetensors")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("kind", ["python", "torch", "safetensors"])
def test_whoever_writes_it_is_one_line(kind: str, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(bytes(1500))
    wanted = f"^{tmp_path}/checkpoint-2: .* after 1.5 kB; free some space and run again"
    with pytest.raises(MachineError, match=wanted), convert_disk_errors(tmp_path / "checkpoint-2", tmp_path):
        full(kind)


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    assert disk_failure(RuntimeError("shapes do not match")) is None
    with pytest.raises(RuntimeError, match="shapes"), convert_disk_errors(tmp_path):
        raise RuntimeError("shapes do not match")
