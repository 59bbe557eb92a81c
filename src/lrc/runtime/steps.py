"""The steps of a verb that runs others: each is a process of its own, which ends with the verb, however that ends.

A step holds the reading end of a pipe whose other end only the verb holds: where the verb was killed, the system closes
it, and the step, which waits for that in a thread, ends as at SIGTERM: training saves a checkpoint first. The processes
of a launch, which inherit no pipe from torch's launcher, look once a second whether it is still their parent.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from lrc.runtime.exit_status import STEP
from lrc.runtime.signals import deferred, held, release, waiting_signals
from lrc.runtime.system import SAFE_PATH, WINDOWS

LAUNCHED = "TORCHELASTIC_RUN_ID"  # in the environment of processes whose parent is torch's launcher
PAUSE = 1.0  # seconds between looks at the parent


def call(words: Sequence[str]) -> int:
    """Run a step's command as a process of its own, and give its exit status; a signal to this one ends it first.

    The last words are this process's: a step has none of its own, nor does it say what to run next.

    Args:
        words: those of `lrc`, or `python` and what follows it.
    """
    command = [sys.executable, *words[1:]] if words[0] == "python" else [sys.executable, "-m", "lrc", *words]
    sys.stdout.flush()
    steps: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int) -> None:
        if number == signal.SIGTERM:  # an interrupt has come from the terminal, to the step as well
            for step in steps:
                step.terminate()

    with deferred(insist=False, then=pass_on) as request:
        with held():
            steps.append(_start(command))
            # What came before there was a step did not reach it; what did reach it waits there, and is the same.
            for number in waiting_signals() | ({request.signal} if request.signal else set()):
                steps[0].send_signal(number)
        status = steps[0].wait()
    if request.signal:
        signal.raise_signal(request.signal)
    return status if status >= 0 else 128 - status


def end_with_caller() -> None:
    """Where this process is a step of another, or one of a launch, end it as at SIGTERM once its caller has died.

    Signals that have come since it was started are taken now, so its handlers are to be there before.
    """
    release()
    if (pipe := _caller()) is not None:
        threading.Thread(target=_end_at_close, args=(pipe,), daemon=True).start()
    elif LAUNCHED in os.environ and not WINDOWS:  # where a process keeps the number of a parent that has died
        threading.Thread(target=_end_at_loss, args=(os.getppid(),), daemon=True).start()


def _start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    if WINDOWS:  # where a process is given no single handle
        return subprocess.Popen(command, env={**os.environ, **SAFE_PATH, STEP: "1"})
    theirs, ours = os.pipe()  # ours stays open until this process ends, and no other has it
    try:
        environment = {**os.environ, **SAFE_PATH, STEP: _name_pipe(theirs)}
        return subprocess.Popen(command, env=environment, pass_fds=(theirs,))
    finally:
        os.close(theirs)


def _name_pipe(handle: int) -> str:
    """The handle and what it is of: what inherits the variable and not the handle may have another under its number."""
    return f"{handle}:{os.fstat(handle).st_ino}"


def _caller() -> int | None:
    """The pipe whose end is the caller's, where this process has it."""
    number = os.environ.get(STEP, "").partition(":")[0]
    try:
        handle = int(number)
        held = stat.S_ISFIFO(os.fstat(handle).st_mode) and _name_pipe(handle) == os.environ[STEP]
    except (ValueError, OSError):
        return None
    return handle if held else None


def _end_at_close(pipe: int) -> None:
    while os.read(pipe, 1):  # nothing is ever written
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _end_at_loss(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(PAUSE)
    os.kill(os.getpid(), signal.SIGTERM)
