"""Checkpoints as files: what seals one, what is wrong with one, which is taken, and which go."""

from __future__ import annotations

from pathlib import Path

import pytest

from lrc.training.checkpoint import MANIFEST, STAGE, checkpoints, find_damage, newest, open_stage, rotate, seal


def make(folder: Path, step: int) -> Path:
    staged = open_stage(folder) / f"checkpoint-{step}"
    (staged / "shards").mkdir(parents=True)
    (staged / "weights").write_bytes(bytes([step] * 1000))
    (staged / "shards" / "0").write_text("state")
    target = folder / staged.name
    seal(staged, target)
    return target


def test_a_sealed_checkpoint_is_whole(tmp_path: Path) -> None:
    checkpoint = make(tmp_path, 4)
    assert find_damage(checkpoint) is None
    assert {path.name for path in checkpoint.iterdir()} == {"weights", "shards", MANIFEST}
    assert not any((tmp_path / STAGE).iterdir())


def test_sealing_again_replaces_it(tmp_path: Path) -> None:
    make(tmp_path, 4)
    staged = open_stage(tmp_path) / "checkpoint-4"
    staged.mkdir()
    (staged / "weights").write_text("new")
    seal(staged, tmp_path / "checkpoint-4")
    assert find_damage(tmp_path / "checkpoint-4") is None
    assert (tmp_path / "checkpoint-4" / "weights").read_text() == "new"


def test_each_damage_is_named(tmp_path: Path) -> None:
    damaged = [make(tmp_path, step) for step in range(1, 6)]
    (damaged[0] / "weights").write_bytes(b"\1" * 999)
    (damaged[1] / "weights").write_bytes(bytes([2] * 999 + [0]))
    (damaged[2] / "shards" / "0").unlink()
    (damaged[3] / MANIFEST).unlink()
    (damaged[4] / MANIFEST).write_text("[1]")
    assert [find_damage(checkpoint) for checkpoint in damaged] == [
        "weights is not what was written",
        "weights is not what was written",
        "0 is missing",
        f"{MANIFEST} is missing",
        f"{MANIFEST} is damaged",
    ]
    assert find_damage(tmp_path / "checkpoint-9") == f"{MANIFEST} is missing"


def test_the_newest_whole_one_is_taken_and_newer_ones_set_aside(tmp_path: Path) -> None:
    two, nine, ten = (make(tmp_path, step) for step in (2, 9, 10))
    (ten / "weights").unlink()
    told: list[str] = []
    assert newest(tmp_path, told.append) == nine
    assert told == [f"{ten}: weights is missing; moved to checkpoint-10.damaged, resuming from the checkpoint before"]
    assert checkpoints(tmp_path) == [two, nine]
    (make(tmp_path, 10) / "weights").unlink()
    assert newest(tmp_path, told.append) == nine
    assert "checkpoint-10.damaged2" in told[1]


def test_nothing_to_take(tmp_path: Path) -> None:
    assert newest(tmp_path, pytest.fail) is None
    assert newest(tmp_path / "absent", pytest.fail) is None


@pytest.mark.parametrize(
    ("limit", "best", "left"),
    [
        (None, None, [2, 9, 10]),
        (0, None, [2, 9, 10]),
        (1, None, [10]),
        (2, 2, [2, 10]),
        (1, 2, [2, 10]),
        (3, 9, [2, 9, 10]),
    ],
)
def test_rotation_keeps_the_newest_and_the_best(
    limit: int | None, best: int | None, left: list[int], tmp_path: Path
) -> None:
    for step in (2, 9, 10):
        make(tmp_path, step)
    (tmp_path / "checkpoint-12.damaged").mkdir()
    rotate(tmp_path, limit, best and str(tmp_path / f"checkpoint-{best}"))
    assert [path.name for path in checkpoints(tmp_path)] == [f"checkpoint-{step}" for step in left]
    assert (tmp_path / "checkpoint-12.damaged").is_dir()
