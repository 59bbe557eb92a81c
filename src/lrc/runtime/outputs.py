"""Atomic outputs: they appear complete or not at all, and replace nothing unless asked to."""

from __future__ import annotations

import gc
import hashlib
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from unicodedata import normalize

from lrc.runtime.errors import OutputError, describe_os_error
from lrc.runtime.locks import left_behind, locked, refuse_locked, remove
from lrc.runtime.memory import format_size
from lrc.runtime.system import WINDOWS
from lrc.runtime.translation import _

_REPLACED = ".replaced"  # inside a part: the folder that is being replaced


def refuse_existing(path: Path, *, force: bool) -> None:
    """Refuse if `path` exists, as a file, a folder that is not empty, or a link.

    Raises:
        OutputError: it exists and `force` is false; or it is a pipe or a device, or leads to one.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OutputError(
            _("{path}: is a pipe or a device, which the output would replace; choose another name").format(path=path)
        )
    empty_folder = path.is_dir() and not path.is_symlink() and not any(path.iterdir())
    if os.path.lexists(path) and not empty_folder and not force:
        raise OutputError(
            _("{path}: already exists; choose another name, or overwrite it with --force").format(path=path)
        )


def is_file_of(path: Path, content: bytes) -> bool:
    """Whether `path` is a file, not a link, with this content."""
    try:
        return path.is_file() and not path.is_symlink() and path.read_bytes() == content
    except OSError:
        return False


def is_same(first: Path, second: Path) -> bool:
    """Whether two paths lead to one file or folder, there or not yet; macOS and Windows ignore case in names."""
    if first.exists() != second.exists():
        return False
    return first.samefile(second) if first.exists() else _spell(first) == _spell(second)


def is_in(path: Path, folder: Path) -> bool:
    """Whether a path leads to a folder, or to something in it."""
    return any(is_same(one, folder) for one in (path, *path.resolve().parents))


def _spell(path: Path) -> str:
    return normalize("NFC", str(path.resolve())).casefold()


def refuse_file(path: Path, *sources: Path, force: bool) -> None:
    """Refuse if a file cannot or may not be written to `path`; to be called before the work, not after it.

    Args:
        path: the output.
        sources: other files that the same command reads or writes, which may never be overwritten.
        force: whether an existing file may be overwritten.

    Raises:
        OutputError: it exists and `force` is false; or it is a folder, a pipe or a device, or one of the sources.
    """
    refuse_existing(path, force=force)
    if path.is_dir() and not path.is_symlink():
        raise OutputError(_("{path}: is a folder; name a file in it").format(path=path))
    if any(is_same(path, source) for source in sources):
        raise OutputError(_("{path}: is named twice in this command; choose another name").format(path=path))


@contextmanager
def new_file(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield a temporary file next to `path`; when the block succeeds, flush it and rename it to `path`.

    A link at `path` is replaced, not followed. What killed processes left of the file is removed afterwards.

    Raises:
        OutputError: `path` exists and `force` is false, another process is writing it, or the file system refuses.
    """
    refuse_existing(path, force=force)
    with _explain_before(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # To be removed last: the manifest of an unfinished set lists which files may be replaced.
        stale = left_behind(path.parent, path.name)
        with locked(path) as temporary, _explain_during(path, temporary):
            yield temporary
            open_to_all(temporary)
            flush(temporary)
            refuse_existing(path, force=force)  # it may have appeared meanwhile
            temporary.replace(path)
            flush(path.parent)
        for part in stale:
            remove(part)


@contextmanager
def new_folder(path: Path, *, force: bool = False, own: Collection[str] = ("*",)) -> Iterator[Path]:
    """Yield a temporary folder next to `path`; when the block succeeds, flush it and rename it to `path`.

    What killed processes left of it is removed first, since it may be as large as what is to be written.

    Args:
        path: the folder to write.
        force: replace a folder that exists, if it holds nothing but what is `own`.
        own: the names that such a folder may have in it, or patterns of them; by default any.

    Raises:
        OutputError: `path` is a file, or exists with something in it that may not be replaced; another process is
            writing it or in it; or the file system refuses.
    """
    with _explain_before(path):
        stale = left_behind(path.parent, path.name)
        _put_back(stale, path)
        refuse_existing(path, force=force)
        refuse_locked(path, None, path)
        _refuse_others(path, own)
        for part in stale:
            remove(part)
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path, folder=True) as temporary, _explain_during(path, temporary):
            yield temporary
            temporary.chmod(0o777 & ~_umask())
            for file in sorted(temporary.rglob("*")):
                flush(file)
            refuse_existing(path, force=force)
            _refuse_others(path, own)
            if WINDOWS:
                gc.collect()  # memory-mapped files in it would prevent renaming
            _take_place(temporary, path)
            flush(path.parent)


def _refuse_others(path: Path, own: Collection[str]) -> None:
    """Refuse to replace a file by a folder, or a folder that holds something else than what is `own`."""
    if path.is_file():
        raise OutputError(_("{path}: is a file; name a folder").format(path=path))
    if path.is_symlink() or not path.is_dir():
        return
    for name in sorted(file.name for file in path.iterdir()):
        if not any(fnmatchcase(name, one) for one in own):
            text = _("{output_dir}: holds {other}, which would be removed with it; choose another name")
            raise OutputError(text.format(output_dir=path, other=name))


def flush(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to the disk (fsync)."""
    if WINDOWS and path.is_dir():
        return  # Windows cannot open folders
    handle = os.open(path, os.O_RDWR if WINDOWS else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _take_place(temporary: Path, path: Path) -> None:
    """Rename a folder to `path`; what is there is moved aside, and moved back if the renaming fails."""
    if not os.path.lexists(path):
        temporary.replace(path)
        return
    with locked(path, folder=True) as aside:
        old = aside / _REPLACED
        path.rename(old)
        try:
            temporary.replace(path)
        except OSError:
            old.rename(path)
            raise


def _put_back(stale: list[Path], path: Path) -> None:
    """Undo a replacement that a kill interrupted."""
    for part in stale:
        if (part / _REPLACED).exists() and not os.path.lexists(path):
            (part / _REPLACED).rename(path)


def open_to_all(file: Path) -> None:
    """Give a file the default mode of new files; some libraries write files that only their owner may read."""
    file.chmod(0o666 & ~_umask())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def _explain_before(path: Path) -> Iterator[None]:
    """Turn the file system's errors before anything is written into one line."""
    try:
        yield
    except OSError as error:
        place = Path(error.filename or path)
        if place.name.startswith(f".{path.name}."):  # the temporary file, which nobody has asked for
            place = path
        text = _("{path}: {reason}; nothing was written to {output}; choose another place for it")
        raise OutputError(text.format(path=place, reason=describe_os_error(error), output=path)) from error


@contextmanager
def _explain_during(path: Path, part: Path) -> Iterator[None]:
    """Turn the file system's errors while writing into one line, with the final name and the size so far."""
    try:
        yield
    except OutputError as error:  # of a file in a folder
        raise OutputError(*(one.with_renamed(str(part), str(path)) for one in error.findings)) from error
    except OSError as error:
        place = str(error.filename or path).replace(str(part), str(path))
        text = _(
            "{place}: {reason} after {part}; nothing was written to {path}; free some space, or choose another place"
        )
        size = format_size(_count_bytes(part))
        raise OutputError(text.format(place=place, reason=describe_os_error(error), part=size, path=path)) from error


def _count_bytes(part: Path) -> int:
    files = part.rglob("*") if part.is_dir() else [part]
    return sum(file.stat().st_size for file in files if file.is_file())


def checksum(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
