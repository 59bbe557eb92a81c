"""The number of OpenMP threads, and how they wait for each other.

By default, an idle thread of libgomp, which torch uses, spins 300,000 times before it sleeps. On a busy machine it
takes the core from the very thread for which it waits, and everything becomes many times slower. So threads sleep at
once here. Their number never depends on the load: sums would be taken in another order, and a run would not be
reproducible to the bit.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

from lrc.runtime.system import usable_cores

NUMBER, WAITING = "OMP_NUM_THREADS", "OMP_WAIT_POLICY"


def wait_asleep(environment: MutableMapping[str, str]) -> None:
    """Make OpenMP's threads sleep while they wait, unless the user has set it; to be called before importing torch."""
    environment.setdefault(WAITING, "PASSIVE")


def share_cores(environment: MutableMapping[str, str], processes: int = 1) -> None:
    """Give each process its share of the cores, unless the user has set OMP_NUM_THREADS.

    Args:
        environment: the environment of the processes, which is changed.
        processes: the number of processes.
    """
    environment[NUMBER] = os.environ.get(NUMBER, str(max(usable_cores() // max(processes, 1), 1)))
    wait_asleep(environment)
