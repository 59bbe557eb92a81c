"""The processes of a launch, and what the first of them decides for all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from lrc.runtime.devices import device_type
from lrc.runtime.errors import LrcError, OutputError
from lrc.runtime.locks import locked
from lrc.runtime.rendezvous import rendezvous
from lrc.runtime.translation import _

# How long a process waits for the others: those with less to answer for those with more. One that died is noticed at
# once, by its closed connection or by the launcher.
PATIENCE = timedelta(days=7)


def processes() -> PartialState:
    """The processes of this launch, joined.

    accelerate joins several on the CPU only where it is told that they are to stay there; without it each of them
    would be alone and do everything.
    """
    with rendezvous():
        return PartialState(cpu=device_type() == "cpu", timeout=PATIENCE)


@contextmanager
def lock_together(path: Path, output: Path | None = None) -> Iterator[None]:
    """Lock an output while the block runs; the folder that it goes into is made.

    Args:
        output: what to name in a refusal; `path` by default.

    Raises:
        OutputError: another process is writing it, or the file system refuses; in the first process of a launch.
        SystemExit: the same, in the others, which have nothing to add.
    """
    refusal: LrcError | None = None
    with ExitStack() as stack:
        if processes().is_main_process:
            try:
                stack.enter_context(_parents_of(path))
                stack.enter_context(locked(path, output=output))
            except OutputError as error:
                refusal = error
            except OSError as error:
                place = error.filename or path
                refusal = OutputError(
                    _("{place}: {reason}; nothing was written to {path}").format(
                        place=place, reason=error.strerror or error, path=path
                    )
                )
        if broadcast_object_list([refusal is not None])[0]:
            raise refusal or SystemExit(1)
        yield


@contextmanager
def _parents_of(path: Path) -> Iterator[None]:
    """Make the folders above `path`; those that are empty in the end go again."""
    missing = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for parent in missing:
            with suppress(OSError):
                parent.rmdir()
