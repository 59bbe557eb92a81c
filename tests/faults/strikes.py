"""How often to strike: a little in the suite, long in `make faults`."""

from __future__ import annotations

import os

LONG = os.environ.get("LRC_FAULTS") == "long"
STEPS = 8  # of the run that is struck


def times(short: int, long: int) -> range:
    """How often to strike, in the suite and in `make faults`."""
    return range(long if LONG else short)
