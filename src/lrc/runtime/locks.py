"""One writer at a time: while a process writes an output, it holds a lock on a part file next to it.

A part is a hidden file or folder, `.NAME.PID-RANDOM.part`. The operating system releases its lock when the process
ends, however it ends: a part with a lock is being written, one without was left behind and may be removed. If the file
system has no locks, nothing is refused, and nothing that was left behind is removed. Windows can neither lock a folder
nor rename an open file, so there it is checked whether the process in the part's name is alive.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

with warnings.catch_warnings():
    warnings.simplefilter("ignore", UserWarning)  # about missing support for locks, see LOCKS
    from filelock import FileLock, SoftFileLock, Timeout, lock_descriptor

from lrc.runtime.errors import OutputError
from lrc.runtime.system import WINDOWS
from lrc.runtime.translation import _

_PATIENCE, _PAUSE = 1.0, 0.01  # seconds
# Whether this system can lock files and folders, and rename them while they are locked.
LOCKS = not WINDOWS and FileLock is not SoftFileLock
_SLACK = 2.0  # seconds by which the clocks of processes and files may differ
_PART = re.compile(r"\.(?P<name>.+)\.(?P<pid>\d+)-[0-9a-f]{8}\.part", re.DOTALL)


@contextmanager
def locked(path: Path, *, folder: bool = False, output: Path | None = None) -> Iterator[Path]:
    """Yield an empty, locked part for `path`; if it still exists when the block ends, it is removed.

    Locks of the same process do not block each other.

    Args:
        path: the output; the folder that it is in exists.
        folder: whether the part is a folder.
        output: what to name in a refusal; `path` by default.

    Raises:
        OutputError: another process holds the lock of `path`.
        OSError: the file system refuses.
    """
    # Named before anything is created, so that a signal leaves nothing behind.
    part = path.parent / f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part"
    handle = None
    try:
        with _alone(path.parent):
            refuse_locked(path.parent, path.name, output or path)
            if folder:
                part.mkdir(mode=0o700)
            else:
                part.touch(mode=0o600, exist_ok=False)
            if LOCKS:
                handle = os.open(part, os.O_RDONLY if folder else os.O_RDWR)
                lock(handle)
        yield part
    finally:
        remove(part)
        if handle is not None:
            os.close(handle)


def refuse_locked(folder: Path, name: str | None, output: Path) -> None:
    """Refuse if another process is writing an output.

    Args:
        folder: where to look for parts.
        name: of the output; None is any.
        output: what to name in the refusal.

    Raises:
        OutputError: another process holds a part.
    """
    for part, pid in _parts(folder, name):
        if pid != os.getpid() and _is_held(part, pid):
            raise OutputError(
                _(
                    "{output}: process {pid} is writing it; wait for it to finish, stop it (kill {pid}), or choose "
                    "another name"
                ).format(output=output, pid=pid)
            )


def left_behind(folder: Path, name: str | None = None) -> list[Path]:
    """The parts in a folder that no process holds.

    Args:
        folder: where to look.
        name: of the output; None is any.
    """
    if not folder.is_dir():
        return []
    with _alone(folder):
        return [part for part, pid in _parts(folder, name) if _is_held(part, pid) is False]


def list_parts(folder: Path, name: str) -> list[Path]:
    """The parts of `name` in a folder, held or not."""
    return [part for part, _ in _parts(folder, name)]


def remove(path: Path) -> None:
    """Remove a file, a folder with everything in it, or a link (but not what it points to)."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _parts(folder: Path, name: str | None) -> list[tuple[Path, int]]:
    """The parts in a folder, and the processes that made them."""
    found = ((path, _PART.fullmatch(path.name)) for path in (folder.iterdir() if folder.is_dir() else ()))
    return [
        (path, int(match["pid"]))
        for path, match in found
        if match and name in (None, match["name"]) and not path.is_symlink()
    ]


def _is_held(part: Path, pid: int) -> bool | None:
    """Whether a process holds a part; None if that cannot be told."""
    if not LOCKS:
        return _is_alive(part, pid)
    try:
        # Some file systems do not lock files that are open for reading only.
        handle = os.open(part, os.O_RDONLY if part.is_dir() else os.O_RDWR)
    except OSError:
        return None  # it may just have been renamed
    try:
        locked = lock(handle)
        return None if locked is None else not locked
    finally:
        os.close(handle)


def _is_alive(part: Path, pid: int) -> bool | None:
    """Whether the process that made a part is alive; another one with the same id would have started after that."""
    import psutil

    try:
        return bool(psutil.Process(pid).create_time() <= part.stat().st_mtime + _SLACK)
    except psutil.NoSuchProcess:
        return False
    except (psutil.Error, OSError):
        return None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes from creating or checking parts in a folder, for at most `_PATIENCE`.

    The wait is limited because the folder may be locked by what started this process, such as `flock FOLDER lrc …`. A
    folder that is itself a part of this process is locked by it already, and needs no further lock.
    """
    part = _PART.fullmatch(folder.name)
    if not LOCKS or part and int(part["pid"]) == os.getpid():
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        end = time.monotonic() + _PATIENCE
        while lock(handle) is False and time.monotonic() < end:
            time.sleep(_PAUSE)
        yield
    finally:
        os.close(handle)


def lock(handle: int) -> bool | None:
    """Lock an open file or folder; false if another process has locked it, None if the file system has no locks."""
    try:
        return lock_descriptor(handle, blocking=False)
    except OSError:
        return None


@contextmanager
def cache_lock(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the lock of a cache entry while the block runs; the system releases it if the process dies.

    If the file system has no locks, nobody waits.

    Args:
        path: the lock's own file, which is not removed; its folder is created.
        wait: whether to wait for a process that holds it.

    Yields:
        False if another process holds it, and `wait` is false.

    Raises:
        OSError: the folder or the file cannot be created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(path, timeout=-1 if wait else 0)
    try:
        held.acquire()
        alone = True
    except Timeout:
        alone = False
    except NotImplementedError:
        alone = True
    try:
        yield alone
    finally:
        held.release()  # does nothing if it is not held
