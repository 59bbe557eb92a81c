"""Turns errors about a full or failing disk, which libraries raise in many ways, into one line."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lrc.runtime.errors import MachineError, system_message
from lrc.runtime.memory import format_size
from lrc.runtime.translation import _

# Libraries in Rust raise a plain Exception whose text ends with the errno.
_OS_ERROR = re.compile(r"os error (\d+)")
# Errors of writing; others may be about a file that is read.
_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
_TORCH_WRITER = re.compile(r"PytorchStreamWriter|inline_container")


@contextmanager
def convert_disk_errors(path: Path, stage: Path | None = None) -> Iterator[None]:
    """Turn whatever a library raises in the block when it cannot write into one line.

    Args:
        path: what is being written, for the message.
        stage: the folder in which it is being written, whose size is reported.

    Raises:
        MachineError: the file system refused.
    """
    try:
        yield
    except Exception as error:  # tokenizers raises the bare class
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
    """The file system's error message, if an exception is about writing; otherwise None."""
    if isinstance(error, OSError):
        return system_message(error.strerror or str(error)) if error.errno in _REFUSALS else None
    if found := _OS_ERROR.search(str(error)):
        return system_message(os.strerror(int(found[1])))
    if isinstance(error, RuntimeError) and _TORCH_WRITER.search(str(error)):
        return _("the disk did not take all of a file")
    return None


def _size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
