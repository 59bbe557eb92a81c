"""Runs the steps of a command that consists of other commands, each as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from lrc.runtime.progress import notify
from lrc.runtime.translation import _


def call(words: Sequence[str], verb: str) -> int:
    """Run a step in a process of its own, which a signal to this one also ends.

    Args:
        words: the arguments of `lrc`, or `python` and its arguments.
        verb: the command whose step it is, for the line that is printed when it is stopped.

    Returns:
        The exit status; 128 + the signal's number if a signal ended the step.
    """
    own = [sys.executable, *words[1:]] if words[0] == "python" else [sys.executable, "-m", "lrc", *words]
    sys.stdout.flush()
    process = subprocess.Popen(own, env=os.environ)
    try:
        status = process.wait()
    except (KeyboardInterrupt, SystemExit) as signalled:
        if isinstance(signalled, SystemExit):  # the terminal sends an interrupt to the step as well
            process.terminate()
        process.wait()
        notify(_("{verb}: stopped; what is done stays, and the same command goes on from there").format(verb=verb))
        raise
    return status if status >= 0 else 128 - status
