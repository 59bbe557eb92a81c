"""Train an adapter: `accelerate launch … -m lrc.sft --config recipe.yaml [--key value …]`."""

from __future__ import annotations

import sys

from lrc.runtime.packages import check_installed_or_exit
from lrc.runtime.signals import end_at_once

if __name__ == "__main__":
    # First of all: the imports take seconds, a signal would end them in a traceback, and so would an old package.
    end_at_once()
    check_installed_or_exit()
    from lrc.training.preflight import preflight_or_exit

    preflight_or_exit(sys.argv[1:])

from lrc.training.run import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
