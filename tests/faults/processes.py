"""Real processes that start in a moment: forked from one that has done the imports, so that many can be killed."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lrc import cli
from lrc.runtime import signals

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["lrc.sft", "lrc.cli", "lrc.commands.convert", "lrc.commands.merge", "lrc.generate"])
PATIENCE = 120.0  # seconds; nothing here takes a tenth of it on an idle machine


class Command:
    """A running command of lrc: `train` takes the words of `python -m lrc.sft`, every other verb those of `lrc`.

    Args:
        log: where its stdout and stderr go.
        file_limit: the most bytes that it may write into one file, the way a full disk or a quota limits it.
        environment: variables that are set in it.
        prepare: called in it before the command; a function of a module.
    """

    def __init__(
        self,
        words: Sequence[str | Path],
        log: Path,
        *,
        file_limit: int | None = None,
        environment: Mapping[str, str] | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        self.log, self.started = log, time.monotonic()
        arguments = ([str(word) for word in words], log, file_limit, dict(environment or {}), prepare)
        self.process: Any = CONTEXT.Process(target=_run, args=arguments)
        self.process.start()

    def wait(self) -> int:
        """Its exit status; negative where a signal killed it."""
        self.process.join(PATIENCE)
        assert self.process.exitcode is not None, f"still running: {self.told}"
        return int(self.process.exitcode)

    def send(self, number: int) -> int:
        """Send a signal, and wait for the end."""
        if self.process.is_alive():
            os.kill(self.process.pid, number)
        return self.wait()

    def kill_when(self, moment: Callable[[], bool]) -> bool:
        """Kill it as soon as `moment` is there; whether it came before the end."""
        return self.signal_when(moment, signal.SIGKILL) == -signal.SIGKILL

    def signal_when(self, moment: Callable[[], bool], number: int) -> int:
        """Send a signal as soon as `moment` is there; the exit status."""
        self._reach(moment)
        return self.send(number)

    def pause_when(self, moment: Callable[[], bool]) -> int:
        """Stop it as soon as `moment` is there, until `resume`; its process id."""
        self._reach(moment)
        assert self.process.is_alive(), self.told
        os.kill(self.process.pid, signal.SIGSTOP)
        return int(self.process.pid)

    def resume(self) -> int:
        """Let it go on to its end; the exit status."""
        os.kill(self.process.pid, signal.SIGCONT)
        return self.wait()

    def _reach(self, moment: Callable[[], bool]) -> None:
        while self.process.is_alive() and not moment():
            assert time.monotonic() - self.started < PATIENCE
            time.sleep(0.0005)

    @property
    def told(self) -> list[str]:
        """The lines that it wrote."""
        return self.log.read_text(encoding="utf-8").splitlines()


def after(seconds: float) -> Callable[[], bool]:
    """A moment so many seconds from now."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


def _run(
    words: list[str],
    log: Path,
    file_limit: int | None,
    environment: dict[str, str],
    prepare: Callable[[], None] | None,
) -> None:
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    os.environ.update(environment)
    torch.set_num_threads(1)
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    try:
        if prepare is not None:
            prepare()
        if words[0] == "train":
            from lrc import sft

            signals.end_at_once()
            sft.main(words[1:])
        else:
            cli.main(words)
    finally:
        sys.stdout.flush()
