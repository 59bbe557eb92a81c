"""What sets one operating system apart from another, asked in one place."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence

# A program cannot take another's place there, an open file keeps its name, and folders cannot be opened.
WINDOWS = os.name == "nt"


def usable_cores() -> int:
    """The cores that this process may use, which Linux may have given fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def command_line(words: Sequence[str]) -> str:
    """Words as a command that can be pasted into a terminal: cmd.exe knows no single quotes."""
    return subprocess.list2cmdline(words) if WINDOWS else shlex.join(words)
