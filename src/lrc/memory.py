"""How much memory is there for a model that has to be held whole."""

from __future__ import annotations

import os
import re
from pathlib import Path

MEMINFO = Path("/proc/meminfo")


def available_memory() -> int:
    """The bytes that can be taken without swapping: Linux's own estimate, elsewhere the free pages."""
    if MEMINFO.is_file() and (found := re.search(r"MemAvailable:\s+(\d+) kB", MEMINFO.read_text())):
        return int(found.group(1)) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def size(nbytes: int) -> str:
    """A number of bytes for people: `1.3 GB`, `512 kB`."""
    amount, units = float(nbytes), ["bytes", "kB", "MB", "GB"]
    while amount >= 1000 and len(units) > 1:
        amount /= 1000
        units.pop(0)
    return f"{amount:.0f} {units[0]}" if amount >= 10 or units[0] == "bytes" else f"{amount:.1f} {units[0]}"
