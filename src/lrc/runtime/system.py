"""Differences between operating systems."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterable

from lrc.runtime import cgroups

# There, a program cannot replace its process (exec), open files cannot be renamed, and folders cannot be opened.
WINDOWS = os.name == "nt"
# For the environment of `python -m`: a click.py, or a clone called lrc, in the working folder is not to be imported.
SAFE_PATH = {"PYTHONSAFEPATH": "1"}
_SPECIAL = re.compile(r"[^\w./:\\+-]")  # to cmd.exe or PowerShell, which redirect at > and split words at a comma


def usable_cores() -> int:
    """The number of cores that this process may use; on Linux, affinity or a container may allow only some of them."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(there, cgroups.usable_cores() or there)


def expand_home(path: str) -> str:
    """A path with the home folder in place of a `~` alone; as it is without a home, where `Path.expanduser` raises.

    `~name` may be another user's home, and is a file's name more often, such as `~backup.xlsx`.
    """
    alone = path == "~" or path.startswith(("~/", "~\\") if WINDOWS else "~/")
    return os.path.expanduser(path) if alone else path  # noqa: PTH111


def command_line(words: Iterable[str]) -> str:
    """Quote words as a command that can be pasted into a terminal; cmd.exe does not know single quotes."""
    return " ".join(map(_quote_for_windows, words)) if WINDOWS else shlex.join(words)


def _quote_for_windows(word: str) -> str:
    quoted = subprocess.list2cmdline([word])
    if quoted.startswith('"') or not _SPECIAL.search(word):
        return quoted
    return '"' + re.sub(r"(\\+)$", r"\1\1", quoted) + '"'  # a backslash before the last quote would escape it
