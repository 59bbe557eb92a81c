"""Train an adapter: `accelerate launch … -m lrc.sft --config recipe.yaml [--key value …]`."""

from __future__ import annotations

import os
import sys

from lrc.runtime.packages import check_installed_or_exit
from lrc.runtime.signals import end_at_once
from lrc.runtime.threads import wait_asleep

if __name__ == "__main__":
    # First of all: the imports take seconds, a signal would end them in a traceback, and so would an old package.
    end_at_once()
    wait_asleep(os.environ)
    check_installed_or_exit()
    from lrc.training.preflight import preflight_or_exit

    preflight_or_exit(sys.argv[1:])

import warnings
from collections.abc import Sequence

from lrc.config.recipe import load_recipe
from lrc.runtime.exit_status import errors_told
from lrc.runtime.progress import escape_what_is_not_encodable
from lrc.runtime.rendezvous import rendezvous
from lrc.training.preflight import split
from lrc.training.run import train


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `--config RECIPE [--key value …]`; exit 1 with a line a finding where something is refused."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    escape_what_is_not_encodable()
    warnings.simplefilter("ignore", FutureWarning)  # of what upstream will rename
    try:
        with errors_told("lower lora_r or max_length, or quantize the base model"):
            path, overrides = split(words)
            with rendezvous():  # which the training arguments bring about as they are built
                recipe = load_recipe(path, overrides)
            train(recipe)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
