"""What a container may use, read from the files that the kernel's documentation describes."""

from __future__ import annotations

from pathlib import Path

import pytest

from lrc.runtime import cgroups, memory, system

GIB = 2**30


def lay(root: Path, mine: str, **files: str) -> None:
    (root / "mine").write_text(mine)
    for name, text in files.items():
        path = root / "groups" / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cgroups, "ROOT", tmp_path / "groups")
    monkeypatch.setattr(cgroups, "MINE", tmp_path / "mine")
    (tmp_path / "groups").mkdir()
    return tmp_path


def test_without_control_groups_or_limits_there_is_no_limit(root: Path) -> None:
    assert cgroups.memory_left() is None and cgroups.usable_cores() is None  # as on macOS
    lay(root, "0::/\n", memory_dot_max="max\n", memory_dot_current="5\n", cpu_dot_max="max 100000\n")
    assert cgroups.memory_left() is None and cgroups.usable_cores() is None
    v1 = {"memory__memory_dot_limit_in_bytes": "9223372036854771712", "memory__memory_dot_usage_in_bytes": "77"}
    lay(
        root, "4:memory:/\n1:cpu,cpuacct:/\n", **v1, cpu__cpu_dot_cfs_quota_us="-1", cpu__cpu_dot_cfs_period_us="100000"
    )
    assert cgroups.memory_left() is None and cgroups.usable_cores() is None


def test_version_2_counts_every_level_and_the_cache_that_can_go(root: Path) -> None:
    files = {
        "memory_dot_max": f"{8 * GIB}",
        "memory_dot_current": f"{5 * GIB}",
        "memory_dot_stat": f"anon 9\ninactive_file {GIB}\nactive_file {GIB}\nslab_reclaimable 0\n",
    }
    lay(root, "0::/pod/box\n", **{f"pod__{name}": text for name, text in files.items()})
    assert cgroups.memory_left() == 5 * GIB
    lay(root, "0::/pod/box\n", pod__box__memory_dot_max=f"{2 * GIB}", pod__box__memory_dot_current=f"{GIB}")
    assert cgroups.memory_left() == GIB
    lay(root, "0::/pod/box\n", pod__box__memory_dot_current=f"{3 * GIB}")  # a limit that was lowered
    assert cgroups.memory_left() == 0
    lay(root, "0::/pod/box\n", pod__cpu_dot_max="250000 100000", pod__box__cpu_dot_max="max 100000")
    assert cgroups.usable_cores() == 3


def test_version_1_has_a_tree_for_each_controller_whose_root_a_container_may_have_as_its_own(root: Path) -> None:
    mine = "5:memory:/docker/0123\n4:cpuset:/\n3:cpu,cpuacct:/docker/0123\n0::/\n"
    lay(
        root,
        mine,
        memory__memory_dot_limit_in_bytes=f"{6 * GIB}",
        memory__memory_dot_usage_in_bytes=f"{4 * GIB}",
        memory__memory_dot_stat=f"inactive_file 1\nactive_file 1\ntotal_inactive_file {GIB}\ntotal_active_file {GIB}",
        cpu__cpu_dot_cfs_quota_us="50000",
        cpu__cpu_dot_cfs_period_us="100000",
    )
    assert cgroups.memory_left() == 4 * GIB and cgroups.usable_cores() == 1


def test_memory_and_cores_are_those_of_the_container(monkeypatch: pytest.MonkeyPatch) -> None:
    there, free = system.usable_cores(), memory.available_memory()
    monkeypatch.setattr(cgroups, "usable_cores", lambda: 1)
    monkeypatch.setattr(memory, "memory_left", lambda: 12345)
    assert system.usable_cores() == 1 and memory.available_memory() == 12345
    monkeypatch.setattr(cgroups, "usable_cores", lambda: 4096)
    monkeypatch.setattr(memory, "memory_left", lambda: 2**62)
    assert system.usable_cores() >= there and memory.available_memory() > 12345 < free
