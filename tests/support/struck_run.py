"""`lrc run` whose steps are forks of it instead of programs of their own, and one of which is killed.

Import it in a process of the fork server's, where it is `__main__`'s only task.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence

from lrc import cli, sft
from lrc.commands import run as way
from lrc.config.recipe import find_recipe
from lrc.runtime.steps import STEP


def main(command: Sequence[str], struck: str, delay: float) -> None:
    """Run it.

    Args:
        command: the words of `lrc`.
        struck: the step that is killed so many seconds after it began, and this process with it.
        delay: so many.
    """
    way.call = lambda step: _fork(list(step), struck, delay)
    cli.main(list(command))


def _fork(step: list[str], struck: str, delay: float) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.environ[STEP] = "1"
        status = 0
        try:
            _step(step)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 0
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            status = 99
        sys.stdout.flush()
        os._exit(status)
    if step[0] == struck:
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.kill(os.getpid(), signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _step(step: list[str]) -> None:
    """What the command of a step does, without the seconds of its imports."""
    if step[0] == "python":
        from lrc.models.tiny import main

        main(step[3:])
    elif step[0] == "train":
        os.environ["OMP_NUM_THREADS"] = "1"
        sft.main(["--config", str(find_recipe(step[1])), *step[2:]])
    else:
        cli.main(step)
