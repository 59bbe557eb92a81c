"""The processes of a launch: joining them, and a lock that the first one holds for all."""

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

# How long processes wait for each other, since some have more to do. A dead process is noticed at once, by its closed
# connection or by the launcher.
PATIENCE = timedelta(days=7)


def processes() -> PartialState:
    """Join the processes of this launch, and return accelerate's state.

    accelerate joins processes on the CPU only if it is told to stay there; otherwise each would be alone, and do
    everything.
    """
    with rendezvous():
        return PartialState(cpu=device_type() == "cpu", timeout=PATIENCE)


@contextmanager
def lock_together(path: Path, output: Path | None = None) -> Iterator[None]:
    """Lock an output while the block runs, and create the folder that it goes into; all processes call this.

    Args:
        path: what to lock.
        output: what to name in a refusal; `path` by default.

    Raises:
        OutputError: in the first process: another launch is writing the output, or the file system refuses.
        SystemExit: in the other processes, for the same reasons.
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
    """Create the parents of `path`; those that are empty when the block ends are removed again."""
    missing = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for parent in missing:
            with suppress(OSError):
                parent.rmdir()
