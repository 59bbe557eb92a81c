"""How much memory is there for a model that has to be held whole, and how much was taken."""

from __future__ import annotations

import os
import re
import resource
import sys
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
STATUS = Path("/proc/self/status")


def available_memory() -> int:
    """The bytes that can be taken without swapping: Linux's own estimate, elsewhere the free pages."""
    if MEMINFO.is_file() and (found := re.search(r"MemAvailable:\s+(\d+) kB", MEMINFO.read_text())):
        return int(found.group(1)) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def peak_memory() -> int:
    """The most bytes that this process has had in memory so far."""
    # Linux's getrusage would count what ran in this process before it became this program (`execve`).
    if STATUS.is_file() and (found := re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())):
        return int(found.group(1)) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def out_of_memory(error: BaseException) -> str | None:
    """What is lacking, where an exception is about memory; None where it is about something else."""
    if isinstance(error, MemoryError):
        return "out of memory"
    found = re.search(r"CPUAllocator: can't allocate memory: you tried to allocate (\d+) bytes", str(error))
    if found:
        return f"out of memory: {size(int(found[1]))} were asked for at once"
    return "out of memory" if "out of memory" in str(error) else None


def size(nbytes: int) -> str:
    """A number of bytes for people: `1.3 GB`, `512 kB`."""
    amount, units = float(nbytes), ["bytes", "kB", "MB", "GB"]
    while amount >= 1000 and len(units) > 1:
        amount /= 1000
        units.pop(0)
    return f"{amount:.0f} {units[0]}" if amount >= 10 or units[0] == "bytes" else f"{amount:.1f} {units[0]}"
