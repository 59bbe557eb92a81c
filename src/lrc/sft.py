"""Train an adapter: `accelerate launch … -m lrc.sft --config recipe.yaml [--key value …]`."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack

from lrc.runtime.startup import begin

if __name__ == "__main__":
    begin()  # until `end_with_caller` below

from lrc.runtime.packages import check_installed_or_exit
from lrc.runtime.progress import IMPORTS, waiting
from lrc.runtime.signals import end_at_once
from lrc.runtime.steps import end_with_caller
from lrc.runtime.threads import wait_asleep
from lrc.runtime.translation import _

if __name__ == "__main__":
    # Before the imports, which take seconds: a signal, or an old package, would end them in a traceback.
    end_at_once(_("no step was trained; checkpoints of before stay, and the same command goes on from there"))
    end_with_caller()
    wait_asleep(os.environ)
    check_installed_or_exit()
    from lrc.training.preflight import preflight_or_exit

    preflight_or_exit(sys.argv[1:])
    importing = ExitStack()
    importing.enter_context(waiting(IMPORTS))

from lrc.training.run import main

__all__ = ["main"]

if __name__ == "__main__":
    importing.close()
    main()
