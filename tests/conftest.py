"""Settings of every test: nothing from the network, and one thread, with which tiny models are fastest."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator

import browser
import fork_server
import psutil
import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A busy machine adds no lines about how long imports take to those that tests compare.
os.environ.setdefault("LRC_SECONDS_UNTOLD", "600")
os.environ["LRC_LANG"] = "en"  # whose messages the tests quote
# Each of hundreds of processes, and each worker, would compile lrc and the tests again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# A shell has what it starts in the background ignore interrupts, and so would what the tests start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Until all that is imported is put aside, which `pytest_collection_finish` does.
gc.disable()
# Every file that lrc keeps is awaited from the disk, tens for each small training; memory has it at once.
MEMORY, ENOUGH = "/dev/shm", 8 << 30
if (
    sys.platform == "linux"
    and os.access(MEMORY, os.W_OK)
    and not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC  # some tests start programs that they wrote
    and min(shutil.disk_usage(MEMORY).free, psutil.virtual_memory().available) > ENOUGH
):
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", MEMORY)
# Tokens of one test session, shared with the processes that it starts, and gone with it.
os.environ["HF_DATASETS_CACHE"] = tempfile.mkdtemp(prefix="lrc-tokens-", dir=os.environ.get("PYTEST_DEBUG_TEMPROOT"))
atexit.register(shutil.rmtree, os.environ["HF_DATASETS_CACHE"], ignore_errors=True)
# How fast a busy machine makes an example, or computes with it, says nothing about lrc.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


# By what a module imports it is seen that it starts processes, trains, or computes with a model.
SLOW = (
    *("subprocess", "Command", "fork_server", "Forked", "multiprocessing", "chromium"),
    *("sft", "run", "make_run", "torch", "save_base"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make test-fast` leaves out."""
    for item in items:
        if isinstance(item, pytest.Function) and any(name in vars(item.module) for name in SLOW):
            item.add_marker("slow")


def pytest_configure(config: pytest.Config) -> None:
    """Make room for the server that programs are forked from."""
    config.addinivalue_line("markers", "slow: of a module that starts processes, trains, or computes with a model")
    if not hasattr(config, "workerinput"):
        fork_server.begin()
        if config.getoption("numprocesses", None):
            gc.enable()  # the workers collect the tests, this process none


def pytest_collection_finish() -> None:
    """Spare each collection of garbage the look at half a million objects of the imports: half of a small training."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_unconfigure(config: pytest.Config) -> None:
    """End it, and the browsers."""
    browser.quit_browsers()
    if not hasattr(config, "workerinput"):
        fork_server.end()


@pytest.fixture(autouse=True)
def same_environment() -> Iterator[None]:
    """Commands set variables that libraries read at import; with other ones, no program is forked from the server."""
    before = fork_server.at_import(os.environ)
    yield
    for name in fork_server.at_import(os.environ).keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)
