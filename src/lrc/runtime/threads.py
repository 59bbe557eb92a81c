"""How many threads compute on a CPU, and how they wait for each other: the one place that settles both.

By default a thread of libgomp (what torch computes with) that has nothing to do counts to 300,000 before it sleeps. On
a busy machine it counts where another thread, which it waits for, could have computed, and everything becomes many
times slower. So threads sleep at once here. How many there are never follows from what else runs: sums would be
added up in another order, and the same run would not give the same bits twice.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

from lrc.runtime.system import usable_cores

NUMBER, WAITING = "OMP_NUM_THREADS", "OMP_WAIT_POLICY"


def wait_asleep(environment: MutableMapping[str, str]) -> None:
    """Have OpenMP's threads sleep while they wait, where the user has not said otherwise; before torch is imported."""
    environment.setdefault(WAITING, "PASSIVE")


def share_cores(environment: MutableMapping[str, str], processes: int = 1) -> None:
    """Give each of so many processes its part of the cores, where the user has not said otherwise.

    Args:
        environment: that the processes get.
    """
    environment[NUMBER] = os.environ.get(NUMBER, str(max(usable_cores() // max(processes, 1), 1)))
    wait_asleep(environment)
