"""A program's first moments, before it can tell anything in a line; imports nothing that takes time."""

import io
import os
import signal
import sys


def begin() -> None:
    """Prepare the process: hold signals, and open the standard streams that its caller has closed."""
    hold_signals()
    open_closed_streams()


def hold_signals() -> None:
    """Have SIGINT and SIGTERM wait from here on, until `signals.release`; Windows cannot hold them.

    They would end an import in a traceback, or be lost in a callback of one.
    """
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})


def open_closed_streams() -> None:
    """Put something in the place of closed standard streams, or the next file to be opened would be taken for one.

    Reading from stdin finds its end, stderr goes nowhere, and writing to stdout fails: its result would be lost.
    """
    for name, mode, access in (("stdin", "r", os.O_RDONLY), ("stdout", "w", os.O_RDONLY), ("stderr", "w", os.O_WRONLY)):
        if getattr(sys, name) is None:
            handle = os.open(os.devnull, access)
            os.set_inheritable(handle, True)  # or the programs that it starts would take a file of theirs for one
            raw = io.FileIO(handle, mode, closefd=False)
            buffer = raw if mode == "w" else io.BufferedReader(raw)  # what cannot be written is not tried again at exit
            setattr(sys, name, io.TextIOWrapper(buffer, encoding="utf-8", write_through=True))
