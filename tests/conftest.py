"""Settings of every test: nothing from the network, and one thread, with which tiny models are fastest."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

import fork_server
import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A busy machine adds no lines about how long imports take to those that tests compare.
os.environ.setdefault("LRC_SECONDS_UNTOLD", "600")
os.environ["LRC_LANG"] = "en"  # whose messages the tests quote
# Tokens of one test session, shared with the processes that it starts, and gone with it.
os.environ["HF_DATASETS_CACHE"] = tempfile.mkdtemp(prefix="lrc-tokens-")
atexit.register(shutil.rmtree, os.environ["HF_DATASETS_CACHE"], ignore_errors=True)
# How fast a busy machine makes an example, or computes with it, says nothing about lrc.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


# By what a module imports it is seen that it starts processes, trains, or computes with a model.
SLOW = ("subprocess", "Command", "fork_server", "multiprocessing", "sft", "run", "make_run", "torch", "save_base")


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


def pytest_unconfigure(config: pytest.Config) -> None:
    """End it."""
    if not hasattr(config, "workerinput"):
        fork_server.end()
