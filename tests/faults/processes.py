"""Real processes that start in a moment: forked from one that has done the imports, so that many can be killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fork_server import Forked

PATIENCE = 120.0  # seconds; nothing here takes a tenth of it on an idle machine


class Command:
    """A running command of lrc: `train` takes the words of `python -m lrc.sft`, every other verb those of `lrc`.

    Args:
        log: where its stdout and stderr go.
        file_limit: the most bytes that it may write into one file, the way a full disk or a quota limits it.
        environment: variables that are set in it.
        prepare: Python code that runs in it before a training.
    """

    def __init__(
        self,
        words: Sequence[str | Path],
        log: Path,
        *,
        file_limit: int | None = None,
        environment: Mapping[str, str] | None = None,
        prepare: str | None = None,
    ) -> None:
        self.log, self.started = log, time.monotonic()
        verb, *rest = map(str, words)
        door = ["-m", "lrc.sft"] if verb == "train" else ["-m", "lrc", verb]
        if prepare:
            assert verb == "train"
            door = ["-c", f"{prepare}\nimport sys\nfrom lrc import sft\nsft.main(sys.argv[1:])"]
        self.process = Forked([*door, *rest], log, environment or {}, file_limit)

    def wait(self, patience: float = PATIENCE) -> int:
        """Its exit status; negative where a signal killed it."""
        self.process.join(patience)
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
