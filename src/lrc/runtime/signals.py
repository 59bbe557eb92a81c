"""SIGINT and SIGTERM: they end the process at once, or after work that is worth finishing first.

Does not import torch: handlers have to be installed before imports that take seconds.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from lrc.runtime.exit_status import is_first, is_step, several_processes
from lrc.runtime.translation import _, localized

LAST_WORDS = {signal.SIGINT: _("lrc: interrupted"), signal.SIGTERM: _("lrc: terminated")}

CAN_HOLD = hasattr(signal, "pthread_sigmask")


@dataclass
class Request:
    """A request to stop, by a signal."""

    signal: int = 0  # the signal's number; 0 as long as none has arrived


def end_at_once(line: str = "") -> None:
    """From here on, a signal ends the process with a line, and the status 128 + its number.

    It does not raise: since outputs are atomic there is nothing to clean up, and an exception would surface in whatever
    import or C call is running.

    Args:
        line: printed before: what is safe, and how to resume.
    """
    for number in LAST_WORDS:
        signal.signal(number, _make_ending(line))


@contextmanager
def held() -> Iterator[None]:
    """In the block, signals wait; to a process that is started there they wait until it calls `release`.

    Until Python has started and lrc is imported, a signal would end that process in a traceback, or be lost in a
    callback of an import. Windows cannot hold signals.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, LAST_WORDS) if CAN_HOLD else set()
    try:
        yield
    finally:
        if CAN_HOLD:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def waiting_signals() -> set[int]:
    """Those that have arrived in a `held` block."""
    return set(signal.sigpending()) & set(LAST_WORDS) if CAN_HOLD else set()


def release() -> None:
    """Take the signals that were held while this process started; its handlers are to be there before."""
    if CAN_HOLD:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, LAST_WORDS)


@contextmanager
def ending_with(line: str) -> Iterator[None]:
    """In the block, print `line` before a signal or a `KeyboardInterrupt` ends the process.

    Args:
        line: what is safe, and how to resume.
    """
    try:
        with _handle_with(_make_ending(line)):
            yield
    except KeyboardInterrupt:
        _write_last(line)
        raise


@contextmanager
def deferred(*, insist: bool = True, line: str = "", then: Callable[[int], None] | None = None) -> Iterator[Request]:
    """While the block runs a signal is only noted.

    Args:
        line: what is said at once at the first signal: what is finished before the end.
        insist: whether a second signal ends the process at once. A launcher of several processes passes on what
            the terminal has sent to all of them already, so there it means nothing.
        then: called at each signal that is noted, with its number.
    """
    request = Request()

    def note(number: int, frame: FrameType | None) -> None:
        if request.signal and insist:
            _end(number, frame)
        if not request.signal:
            _write(line)
        request.signal = request.signal or number
        if then is not None:
            then(number)

    with _handle_with(note):
        yield request


@contextmanager
def _handle_with(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Install a handler for both signals in the block; outside the main thread, do nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in LAST_WORDS}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _make_ending(line: str) -> Callable[[int, FrameType | None], None]:
    def end(number: int, frame: FrameType | None) -> None:
        _write_last(line)
        _end(number, frame)

    return end


def _write_last(line: str) -> None:
    if not is_step():  # what runs it says how to go on
        _write(line)


def _write(line: str) -> None:
    # Not through a buffer, since the handler may have interrupted a write to it.
    if line and is_first():
        os.write(2, f"{localized(line)}\n".encode())


def _end(number: int, frame: FrameType | None) -> None:
    # A launcher of several ends them all where one has failed, and that one has said why.
    if not several_processes() and not is_step():
        os.write(2, f"{localized(LAST_WORDS[signal.Signals(number)])}\n".encode())
    os._exit(128 + number)
