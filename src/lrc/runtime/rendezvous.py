"""The rendezvous of a launch's processes: reports which are missing, and lets signals end the wait.

torch waits for the others in a C++ call, during which Python's signal handlers do not run.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

from lrc.runtime.errors import MachineError
from lrc.runtime.exit_status import is_first, several_processes
from lrc.runtime.progress import notify
from lrc.runtime.signals import LAST_WORDS
from lrc.runtime.translation import _, localized

SILENCE = 5.0  # seconds of waiting before the first line
PAUSE = 0.5  # seconds between checks
BETWEEN_LINES = 60.0  # seconds


@contextmanager
def rendezvous() -> Iterator[None]:
    """While the block joins the processes, report how many are missing, and let SIGINT and SIGTERM end it.

    Raises:
        MachineError: MASTER_PORT is in use.
    """
    import torch.distributed as dist

    if not several_processes() or dist.is_initialized():
        yield
        return
    done = threading.Event()
    threading.Thread(target=_report_missing, args=(done,), daemon=True).start()
    try:
        with _listen_to_signals():
            yield
    except RuntimeError as error:
        if "address already in use" not in str(error).lower() and "EADDRINUSE" not in str(error):
            raise
        port = os.environ["MASTER_PORT"]
        raise MachineError(
            _("MASTER_PORT: {port} is in use by another program; give another number").format(port=port)
        ) from error
    finally:
        done.set()


def _report_missing(done: threading.Event) -> None:
    """Report which processes are missing, after a while and whenever that changes."""
    size, start, reported, at = int(os.environ["WORLD_SIZE"]), time.monotonic(), None, 0.0
    store: Any = None
    while not done.wait(PAUSE):
        store = store or _store(size)
        missing = None if store is None else size - store.add(_key(), 0)
        now = time.monotonic()
        if now - start < SILENCE or (missing == reported and now - at < BETWEEN_LINES):
            continue
        if missing is not None and (missing < 1 or not is_first()):
            continue
        reported, at = missing, now
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        who = _("process 0") if missing is None else _("{missing} of {size} processes")
        who = who.format(missing=missing, size=size)
        text = _("waiting for {who} at {place}; if no other was started, stop this one and unset WORLD_SIZE and RANK")
        notify(text.format(who=who, place=place))


def _store(size: int) -> Any:
    """The store in which processes are counted, this one included; None while it does not answer."""
    import torch.distributed as dist

    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    with suppress(OSError, RuntimeError):
        socket.create_connection((host, port), timeout=1).close()  # torch would warn of each failure
        store = dist.TCPStore(host, port, None, False, timedelta(seconds=5), wait_for_workers=False)
        store.add(_key(), 1)
        return store
    return None


def _key() -> str:
    return f"lrc/joined/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"


@contextmanager
def _listen_to_signals() -> Iterator[None]:
    """Let a thread end the process at a signal, which the main thread cannot handle while it is in C++."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    handler = signal.getsignal(signal.SIGTERM)
    if handler is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda number, frame: None)
    threading.Thread(target=_end_at_signal, args=(ours,), daemon=True).start()
    # Masked in this thread, so that another one takes them: torch would print a page about an interrupted connection.
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, LAST_WORDS) if hasattr(signal, "pthread_sigmask") else None
    try:
        yield
    finally:
        if masked is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        signal.set_wakeup_fd(before)
        if handler is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, handler)
        theirs.close()


def _end_at_signal(ours: socket.socket) -> None:
    with ours:
        while number := ours.recv(1):
            if number[0] in set(LAST_WORDS):
                if is_first():
                    os.write(2, f"{localized(LAST_WORDS[signal.Signals(number[0])])}\n".encode())
                os._exit(128 + number[0])
