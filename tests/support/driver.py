"""A program that stands for that of NVIDIA's driver."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

CARD = "GPU 0: Tesla T4 (UUID: GPU-0)"


def make_driver(folder: Path, monkeypatch: pytest.MonkeyPatch, says: str = CARD) -> None:
    """Put an `nvidia-smi` onto PATH that says this."""
    program = folder / ("nvidia-smi.bat" if sys.platform == "win32" else "nvidia-smi")
    echo = f"@echo {says}" if sys.platform == "win32" else f"#!/bin/sh\necho '{says}'"
    program.write_text(f"{echo}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
