"""Signals in a program's first moments: they wait until it can tell them in a line; imports nothing that takes time."""

import signal


def hold_signals() -> None:
    """Have SIGINT and SIGTERM wait from here on, until `signals.release`; Windows cannot hold them.

    They would end an import in a traceback, or be lost in a callback of one.
    """
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
