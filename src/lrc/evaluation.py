"""`accelerate launch … -m lrc.evaluation`: `lrc evaluate` in several processes, with the same flags."""

from __future__ import annotations

import sys

from lrc.runtime.startup import begin

if __name__ == "__main__":
    begin()  # until the handlers of the command line are there
    from lrc.runtime.packages import check_installed_or_exit

    check_installed_or_exit()  # before the imports, which would end in a traceback with an old package
    from lrc.cli import main

    main(["evaluate", *sys.argv[1:]])
