"""The steps of a verb that runs others: each is a process of its own, with the words that a user would give."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from lrc.runtime.progress import notify
from lrc.runtime.translation import _

STEP = "LRC_STEP"  # set for a step: what comes next is its verb's to say


def is_step() -> bool:
    """Whether this process is a step of another verb."""
    return os.environ.get(STEP) == "1"


def call(words: Sequence[str], verb: str) -> int:
    """Run a step's command as a process of its own, and give its exit status; a signal to this one ends it, too.

    Args:
        words: those of `lrc`, or `python` and what follows it.
        verb: whose step it is, for the line that is said when it is stopped.
    """
    own = [sys.executable, *words[1:]] if words[0] == "python" else [sys.executable, "-m", "lrc", *words]
    sys.stdout.flush()
    process = subprocess.Popen(own, env={**os.environ, STEP: "1"})
    try:
        status = process.wait()
    except (KeyboardInterrupt, SystemExit) as signalled:
        if isinstance(signalled, SystemExit):  # an interrupt has come from the terminal, to the step as well
            process.terminate()
        process.wait()
        notify(_("{verb}: stopped; what is done stays, and the same command goes on from there").format(verb=verb))
        raise
    return status if status >= 0 else 128 - status
