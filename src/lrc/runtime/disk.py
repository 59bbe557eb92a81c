"""Disk space: what a run will need is compared with what is free, and a full disk is reported in one line."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lrc.runtime.errors import MachineError
from lrc.runtime.memory import format_size
from lrc.runtime.translation import _

# Writers in Rust raise a plain Exception whose text ends in the operating system's number.
_OS_ERROR = re.compile(r"os error (\d+)")
# What a file system says when it takes no more; another number may be about a file that is read.
_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
_TORCH_WRITER = re.compile(r"PytorchStreamWriter|inline_container")


@contextmanager
def convert_disk_errors(path: Path, stage: Path | None = None) -> Iterator[None]:
    """Make one line of whatever a library raises when it cannot write.

    Args:
        path: what is being written, for people.
        stage: the folder that holds what of it was written so far.

    Raises:
        MachineError: the file system refused.
    """
    try:
        yield
    except Exception as error:  # tokenizers raise nothing narrower
        reason = disk_failure(error)
        if reason is None:
            raise
        text = _("{path}: {reason}; free some space and run again, what was complete before is kept")
        if stage:
            text = _(
                "{path}: {reason} after {written}; free some space and run again, what was complete before is kept"
            )
        raise MachineError(
            text.format(path=path, reason=reason, written=format_size(_size_of(stage)) if stage else "")
        ) from error


def disk_failure(error: Exception) -> str | None:
    """What the file system said, where that is what an exception is about."""
    if isinstance(error, OSError):
        return error.strerror if error.errno in _REFUSALS else None
    if found := _OS_ERROR.search(str(error)):
        return os.strerror(int(found[1]))
    if isinstance(error, RuntimeError) and _TORCH_WRITER.search(str(error)):
        return "the disk did not take all of a file"
    return None


def _size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
