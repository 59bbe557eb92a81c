"""Ends a process on an error, with lines on stderr, only once for all processes of a launch, and exit status 1."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NoReturn

from lrc.runtime.errors import LrcError, describe_os_error
from lrc.runtime.findings import wrap_line
from lrc.runtime.memory import out_of_memory
from lrc.runtime.translation import _, localized

STEP = "LRC_STEP"  # in the environment of a process that another verb of lrc runs as a step, see `steps`
PATIENCE = timedelta(seconds=20)  # for the launcher's store, which is there before any process is


@contextmanager
def exit_on_error(cure: str) -> Iterator[None]:
    """End the process with a message if the block raises an error that a user can fix, or if another process ended.

    Args:
        cure: what to do if memory runs out.

    Raises:
        SystemExit: there was such an error; it has been printed on stderr.
    """
    try:
        yield
    except LrcError as error:
        _end(*error.lines())
    except OSError as error:
        text = _("{filename}: {reason}").format(filename=error.filename or "lrc", reason=describe_os_error(error))
        _end(localized(text))
    except (MemoryError, RuntimeError) as error:
        if lack := out_of_memory(error):
            _end(localized(_("lrc: {lack}; {cure}").format(lack=lack, cure=cure)))
        if not _is_loss_of_another(error):
            raise
        _end(localized(_("lrc: another process of the launch has ended; run the same command again to resume")))


def several_processes() -> bool:
    """Whether a launcher started this process as one of several."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def is_first() -> bool:
    """Whether this is the only process of a launch, or the first of several."""
    return os.environ.get("RANK", "0") == "0"


def is_step() -> bool:
    """Whether this process is a step of another verb, which says itself how it ended and what comes next."""
    return bool(os.environ.get(STEP))


def _end(*lines: str) -> NoReturn:
    if not several_processes() or _speaks_for_all():
        wrapped = [piece for line in lines for piece in wrap_line(line, stream=sys.stderr)]
        print(*wrapped, sep="\n", file=sys.stderr, flush=True)
    sys.exit(1)


def _speaks_for_all() -> bool:
    """Whether this is the first of the processes to fail; the others fail for the same reason, or because of it."""
    try:
        store = _store()
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        # Without a store, the first process reports: most errors occur in all of them.
        return is_first() if store is None else store.add(f"lrc/refused/{attempt}", 1) == 1
    except (RuntimeError, ValueError, KeyError):  # the process with the store has ended, and has reported
        return is_first()


def _store() -> Any:
    """The store that the processes share: the launcher's, or torch's default store once they have joined."""
    import torch.distributed as dist

    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        return dist.TCPStore(address, port, is_master=False, timeout=PATIENCE)
    return dist.distributed_c10d._get_default_store() if dist.is_initialized() else None


def _is_loss_of_another(error: BaseException) -> bool:
    if not several_processes():
        return False
    from torch.distributed import DistError

    return isinstance(error, DistError) or "gloo" in str(error)
