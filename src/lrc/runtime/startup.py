"""A program's first moments, before it can tell anything in a line; imports nothing that takes time."""

import io
import os
import signal
import sys


def begin() -> None:
    """Prepare the process: hold signals, and open standard streams that its caller has closed.

    A closed stdout is refused, before hours of work whose result could not be printed: one line, exit status 1.
    """
    hold_signals()
    open_closed_streams()
    if sys.stdout is None:
        from lrc.runtime.progress import notify
        from lrc.runtime.translation import _

        notify(_("lrc: stdout is closed; send it to a file, or to {nowhere}").format(nowhere=os.devnull))
        sys.exit(1)


def hold_signals() -> None:
    """Have SIGINT and SIGTERM wait from here on, until `signals.release`; Windows cannot hold them.

    They would end an import in a traceback, or be lost in a callback of one.
    """
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})


def open_closed_streams() -> None:
    """Have a closed stdin read as empty, and a closed stderr go nowhere: the next file would be taken for one."""
    for name, mode, access in (("stdin", "r", os.O_RDONLY), ("stderr", "w", os.O_WRONLY)):
        if getattr(sys, name) is None:
            handle = os.open(os.devnull, access)
            os.set_inheritable(handle, True)  # or the programs that it starts would take a file of theirs for one
            raw = io.FileIO(handle, mode, closefd=False)
            buffer = raw if mode == "w" else io.BufferedReader(raw)  # what cannot be written is not tried again at exit
            setattr(sys, name, io.TextIOWrapper(buffer, encoding="utf-8", write_through=True))
