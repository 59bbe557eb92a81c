"""What Windows lacks, taken from this process; what it refuses, refused; `lrc.runtime.system.WINDOWS` is true.

Modules and functions of POSIX are missing; paths have at most 259 characters; an open or mapped file can neither be
renamed, replaced nor removed, and no folder that holds one; a folder cannot be opened; names have no colon; links are
not for everybody; text files have, unless they say otherwise, the encoding of a Taiwanese Windows and its line ends.

A `sitecustomize.py` that says `import like_windows` does it to a whole tree of processes.
"""

from __future__ import annotations

import builtins
import errno
import importlib.abc
import io
import os
import re
import shutil
import signal
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil  # whose way of asking Linux needs what is taken away; on Windows it asks otherwise

# Of those that Windows lacks, the ones that other packages do without wherever they are missing.
MODULES = {"fcntl", "grp", "pwd", "resource", "syslog"}
FUNCTIONS = {
    os: "fork forkpty killpg getpgid getpgrp setpgid setsid getsid sched_getaffinity sched_setaffinity getuid geteuid "
    "getgid getegid uname mkfifo statvfs fstatvfs getloadavg sync fdatasync pread pwrite nice wait3 wait4 chown lchown "
    "posix_fadvise posix_spawn sysconf",
    signal: "SIGKILL SIGHUP SIGUSR1 SIGUSR2 SIGALRM SIGCHLD SIGPIPE SIGQUIT SIGSTOP SIGCONT pthread_sigmask "
    "pthread_kill alarm setitimer getitimer sigwait siginterrupt",
}
HANDLED = {signal.SIGINT, signal.SIGTERM, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV}
CODE_PAGE = "cp950"
MAX_PATH = 260  # with the zero at its end
FORBIDDEN = re.compile(r'[<>:"|?*\x00-\x1f]|[ .]$')


class Hidden(importlib.abc.MetaPathFinder):
    """Finds nothing where Windows has nothing."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Refuse."""
        if name in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def in_use(path: Any) -> bool:
    """Whether this process has a file open or mapped, or one in a folder."""
    place = os.path.abspath(os.fspath(path))  # noqa: PTH100 - a link is itself
    files = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
    files += [line.split(maxsplit=5)[-1].strip() for line in Path("/proc/self/maps").read_bytes().decode().splitlines()]
    return any(file == place or file.startswith(place + os.sep) for file in files)


def refusing_what_is_in_use(function: Callable[..., Any]) -> Callable[..., Any]:
    """Rename, replace or remove as Windows does."""

    def refuse(*paths: Any, **options: Any) -> Any:
        for path in paths[:2]:
            if "dir_fd" not in options and not str(path).startswith("/proc") and in_use(path):
                raise PermissionError(errno.EACCES, "The process cannot access the file: it is in use", str(path))
        return function(*paths, **options)

    return refuse


def check_length(path: Any) -> None:
    """Refuse a path that is too long where long paths are not enabled, as they are not unless somebody enabled them."""
    if isinstance(path, str | os.PathLike) and len(os.path.abspath(path)) >= MAX_PATH:  # noqa: PTH100
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))


def check_name(path: Any) -> None:
    """Refuse a name that Windows has not."""
    check_length(path)
    if isinstance(path, str | os.PathLike) and FORBIDDEN.search(Path(os.fspath(path)).name):
        raise OSError(errno.EINVAL, "The filename, directory name, or volume label syntax is incorrect", str(path))


def open_as_text(file: Any, mode: str = "r", buffering: int = -1, encoding: Any = None, *rest: Any, **more: Any) -> Any:
    """`open` with the code page and the line ends of Windows where nothing else is asked for."""
    check_length(file)
    written = any(letter in mode for letter in "wax+")
    if written:
        check_name(file)
    if "b" not in mode and str(file)[:6] not in ("/proc/", "/sys/"):
        encoding = CODE_PAGE if encoding in (None, "locale") else encoding
        if written and len(rest) < 2 and more.get("newline") is None:
            more["newline"] = "\r\n"
    return OPEN(file, mode, buffering, encoding, *rest, **more)


def os_open(path: Any, flags: int, mode: int = 0o777, *, dir_fd: Any = None) -> int:
    """`os.open`, which opens no folder there."""
    if dir_fd is None and Path(path).is_dir():
        raise PermissionError(errno.EACCES, "Permission denied", str(path))
    check_length(path)
    if flags & os.O_CREAT:
        check_name(path)
    return OS_OPEN(path, flags, mode, dir_fd=dir_fd)


def no_link(source: Any, target: Any, *_: Any, **__: Any) -> None:
    """Links are not for everybody."""
    raise OSError(errno.EPERM, "A required privilege is not held by the client", str(source), None, str(target))


def stat(path: Any, **options: Any) -> os.stat_result:
    """`os.stat`, which finds nothing at the end of a long path."""
    check_length(path)
    return STAT(path, **options)


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a folder of a name that Windows has."""

    def make(path: Any, *rest: Any, **options: Any) -> Any:
        check_name(path)
        return function(path, *rest, **options)

    return make


def handle(number: int, handler: Any) -> Any:
    """`signal.signal`, which takes the signals of C."""
    if number not in HANDLED:
        raise ValueError("invalid signal value")
    return SIGNAL(number, handler)


def missing_for_lrc(module: types.ModuleType, names: list[str]) -> None:
    """Take functions away from lrc alone: other packages go by `sys.platform`, which stays Linux here."""
    aside = {name: vars(module).pop(name) for name in names if name in vars(module)}

    def find(name: str) -> Any:
        if name in aside and not sys._getframe(1).f_globals.get("__name__", "").startswith("lrc"):
            return aside[name]
        raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

    module.__getattr__ = find  # type: ignore[method-assign]


OPEN, OS_OPEN, SIGNAL, STAT = io.open, os.open, signal.signal, os.stat
ASIDE = {name: sys.modules.pop(name) for name in MODULES if name in sys.modules}  # kept: others may hold them
sys.meta_path.insert(0, Hidden())
psutil.virtual_memory()
for module, names in FUNCTIONS.items():
    missing_for_lrc(module, names.split())
for name in ("rename", "replace", "unlink", "remove", "rmdir"):
    setattr(os, name, refusing_what_is_in_use(getattr(os, name)))
os.mkdir = checked(os.mkdir)
os.symlink = os.link = no_link
os.open, os.stat = os_open, stat  # type: ignore[assignment]
shutil._use_fd_functions = False  # type: ignore[attr-defined]
signal.signal = handle  # type: ignore[assignment]
builtins.open = io.open = open_as_text  # type: ignore[assignment]

from lrc.runtime import system  # noqa: E402

system.WINDOWS = True
