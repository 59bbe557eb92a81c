"""Settings of every test: nothing from the network, and one thread, with which tiny models are fastest."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

import fork_server
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tokens of one test session, shared with the processes that it starts, and gone with it.
os.environ["HF_DATASETS_CACHE"] = tempfile.mkdtemp(prefix="lrc-tokens-")
atexit.register(shutil.rmtree, os.environ["HF_DATASETS_CACHE"], ignore_errors=True)


MARKERS = {
    "process": "of a module that starts processes, which `make test-fast` leaves out",
    "training": "of a module that trains, which `make test-fast` leaves out",
}
STARTS = ("subprocess", "Command", "fork_server", "multiprocessing")  # by which a module starts processes
TRAINS = ("sft", "run", "train", "TreeTrainer", "tree_trainer")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by what their modules can do."""
    for item in items:
        names = vars(item.module) if isinstance(item, pytest.Function) else {}
        if any(name in names for name in STARTS):
            item.add_marker("process")
        if any(name in names for name in TRAINS):
            item.add_marker("training")


def pytest_configure(config: pytest.Config) -> None:
    """Make room for the server that programs are forked from."""
    for name, meaning in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")
    if not hasattr(config, "workerinput"):
        fork_server.begin()


def pytest_unconfigure(config: pytest.Config) -> None:
    """End it."""
    if not hasattr(config, "workerinput"):
        fork_server.end()
