"""How often to strike: a little in the suite, long in `make faults`."""

from __future__ import annotations

import os

LONG = os.environ.get("LRC_FAULTS") == "long"
TABLE = "LRC_FAULTS" in os.environ  # whether to print what was struck; LRC_FAULTS=short strikes as the suite does
STEPS = 8  # of the run that is struck


def times(short: int, long: int) -> range:
    """How often to strike, in the suite and in `make faults`."""
    return range(long if LONG else short)
