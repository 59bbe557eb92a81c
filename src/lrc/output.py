"""Outputs that appear whole or not at all, and never in the place of something that was there before."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lrc.errors import OutputError


def refuse_existing(path: Path, *, force: bool) -> None:
    """Refuse to go on where `path` exists, as a file, a folder with something in it, or a link of any kind.

    Raises:
        OutputError: it exists and `force` is false.
    """
    empty_folder = path.is_dir() and not path.is_symlink() and not any(path.iterdir())
    if os.path.lexists(path) and not empty_folder and not force:
        raise OutputError(f"{path}: exists already; choose another name, or overwrite it with --force")


@contextmanager
def new_file(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Give a temporary name beside `path`; flush it and rename it to `path` when the block ends well.

    A link at `path` is replaced, never written through.

    Raises:
        OutputError: `path` exists and `force` is false, or the file system refuses.
    """
    refuse_existing(path, force=force)
    with _named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _free_name(path)
        try:
            temporary.touch(mode=0o600, exist_ok=False)
            yield temporary
            temporary.chmod(0o666 & ~_umask())
            flush(temporary)
            temporary.replace(path)
            flush(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Give a temporary folder beside `path`; flush it and rename it to `path` when the block ends well.

    Raises:
        OutputError: `path` exists with something in it and `force` is false, or the file system refuses.
    """
    refuse_existing(path, force=force)
    with _named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _free_name(path)
        try:
            temporary.mkdir(mode=0o700)
            yield temporary
            temporary.chmod(0o777 & ~_umask())
            for file in sorted(temporary.rglob("*")):
                flush(file)
            _remove(path)
            temporary.replace(path)
            flush(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def flush(path: Path) -> None:
    """Have the operating system put a file's bytes, or a folder's names, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _free_name(path: Path) -> Path:
    """A hidden name beside `path`, drawn before anything is made, so that a signal leaves nothing behind."""
    return path.parent / f".{path.name}.{secrets.token_hex(4)}.part"


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{error.filename or path}: {error.strerror or error}; nothing was written to {path}"
        ) from error
