"""Differences between operating systems."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence

# There, a program cannot replace its process (exec), open files cannot be renamed, and folders cannot be opened.
WINDOWS = os.name == "nt"


def usable_cores() -> int:
    """The number of cores that this process may use; on Linux, its affinity may allow fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def command_line(words: Sequence[str]) -> str:
    """Quote words as a command that can be pasted into a terminal; cmd.exe does not know single quotes."""
    return subprocess.list2cmdline(words) if WINDOWS else shlex.join(words)
