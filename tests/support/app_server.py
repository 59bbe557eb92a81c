"""The server of `lrc app` as a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fork_server

SECONDS = 90  # at most, for a machine with other work


@contextmanager
def serving(command: list[str], folder: Path, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a server; gives its process and its address, and ends it."""
    with (folder / "server.txt").open("w") as told:
        server = subprocess.Popen(
            [str(fork_server.python()), *command],
            cwd=folder,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=told,
            text=True,
        )
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            found = re.search(r"http://\S+", line)
            assert found, (folder / "server.txt").read_text()
            yield server, found[0]
        finally:
            server.terminate()
            server.wait(timeout=SECONDS)
