"""What a container may use: the limits of a process's control groups (Linux), versions 1 and 2.

The system's own figures for memory and cores are those of the whole machine. The files are described in the kernel's
documentation, cgroup-v1/memory.rst, scheduler/sched-bwc.rst and cgroup-v2.rst.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

ROOT, MINE = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
UNLIMITED = 2**60  # version 1 writes a number near 2^63 where there is no limit


def memory_left() -> int | None:
    """The bytes that the process may still take, with the cache of files that can be dropped; None without a limit."""
    left = []
    for folder in _groups("memory"):
        for limit, usage, cached in (
            ("memory.max", "memory.current", ("inactive_file", "active_file", "slab_reclaimable")),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
        ):
            most, used = _number(folder / limit), _number(folder / usage)
            if most is not None and used is not None and most < UNLIMITED:
                dropped = sum(_entry(folder / "memory.stat", name) for name in cached)
                left.append(min(max(most - used + dropped, 0), most))
    return min(left, default=None)


def usable_cores() -> int | None:
    """The number of cores whose time the process may use, rounded up; None without a limit."""
    shares = []
    for folder in _groups("cpu"):
        quota, _space, period = _read(folder / "cpu.max").partition(" ")
        if not quota:
            quota, period = (_read(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
        if quota.isdecimal() and period.isdecimal() and int(period):  # neither `max` nor -1
            shares.append(int(quota) / int(period))
    return max(math.ceil(min(shares)), 1) if shares else None


def _groups(controller: str) -> Iterator[Path]:
    """The folders of the process's group and those above it, of both versions, as far as they can be seen here."""
    for line in _read(MINE).splitlines():
        _number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and controller not in controllers.split(","):
            continue
        root = ROOT / controller if controllers else ROOT
        place = root / path.lstrip("/")
        # In a container, its own group may be what is mounted as the root.
        yield from dict.fromkeys(one for one in (place, *place.parents) if one == root or root in one.parents)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _read(path)
    return int(text) if text.isdecimal() else None


def _entry(path: Path, name: str) -> int:
    """A number in a file with a name and a number in each line; 0 if it is not there."""
    found = (line.split() for line in _read(path).splitlines())
    return next((int(words[1]) for words in found if len(words) == 2 and words[0] == name), 0)
