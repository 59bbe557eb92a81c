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


def pytest_configure(config: pytest.Config) -> None:
    """Make room for the server that programs are forked from."""
    if not hasattr(config, "workerinput"):
        fork_server.begin()


def pytest_unconfigure(config: pytest.Config) -> None:
    """End it."""
    if not hasattr(config, "workerinput"):
        fork_server.end()
