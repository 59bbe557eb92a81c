"""Maps a function over many items in several processes, in order, with few items in memory at once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from lrc.runtime.errors import MachineError
from lrc.runtime.translation import _

Item = TypeVar("Item")
Result = TypeVar("Result")
_work: Callable[[Any], Any]  # the function, set once in each worker


def in_order(work: Callable[[Item], Result], items: Iterable[Item], processes: int) -> Iterator[Result]:
    """The results of `work` for each item, in the order of the items.

    Args:
        work: must not use a device; what it raises is raised here.
        items: its arguments.
        processes: the number of workers; with 1, this process does the work.

    Raises:
        MachineError: a worker was killed.
    """
    if processes == 1:
        yield from map(work, items)
        return
    # Set before the fork: otherwise tokenizers warns that it disables its own threads.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Forked workers start at once, and have the tokenizer already; on other systems forking is not safe.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(processes, context, _begin, (work,)) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(_run, item))
                if len(waiting) > 2 * processes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise MachineError(
                _("a worker process was killed, perhaps because memory ran out; lower dataset_num_proc and run again")
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _begin(work: Callable[[Any], Any]) -> None:
    """Initialize a worker, which ends with its parent, and leaves SIGINT to it."""
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # Without this, the workers of a killed parent would wait for work forever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run(item: Any) -> Any:
    return _work(item)
