"""The notebooks run from the first cell to the last, on the samples and the embedded base."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from small_runs import lrc

import lrc as package
from lrc import sft
from lrc.commands import run as way
from lrc.config.recipe import find_recipe

ROOT = Path(__file__).parents[2]
FOLDERS = {"kaggle": "/kaggle/input", "colab": "/content"}


def cells(name: str) -> list[str]:
    notebook = json.loads((ROOT / f"examples/notebooks/{name}.ipynb").read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def python_of(cell: str) -> str:
    """A cell with its shell lines as calls; {NAME} stands for a variable there, as IPython has it."""
    return re.sub(r"^!(.+)$", lambda line: f"shell(f'''{line[1]}''')", cell, flags=re.MULTILINE)


def _step(words: list[str]) -> int:
    if words[0] == "python":
        from lrc.models.tiny import main

        main(words[3:])
        return 0
    if words[0] == "train":
        sft.main(["--config", str(find_recipe(words[1])), *words[2:]])
        return 0
    return lrc(*words)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_notebook_runs_to_its_end(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr(way, "call", _step)
    for sample in ("sample.xlsx", "sample_test.xlsx"):
        shutil.copy(ROOT / "examples" / sample, tmp_path)
    shown = types.ModuleType("IPython.display")
    shown.FileLink, shown.display = str, print  # type: ignore[attr-defined]
    ipython = types.ModuleType("IPython")
    ipython.version_info = (9, 0)  # type: ignore[attr-defined]  # matplotlib asks
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", shown)

    def shell(line: str) -> None:
        words = shlex.split(line)
        ran.append(" ".join(words[:2]))
        if words[0] == "pip":
            assert Requirement(words[-1]).name == package.DISTRIBUTION
            return
        more = ["--max_steps", "4"] if words[1] == "run" else []
        assert lrc(*words[1:], *more) == 0

    variables: dict[str, Callable[[str], None] | Any] = {"shell": shell}
    for cell in cells(name):
        moved = cell.replace(FOLDERS[name], str(tmp_path)).replace("/kaggle/working", str(tmp_path))
        exec(compile(python_of(moved), name, "exec"), variables)
    assert ran == ["pip install", "lrc doctor", "lrc run"]
    assert variables["TRAIN"].name == "sample.xlsx" and variables["TEST"].name == "sample_test.xlsx"
    assert (tmp_path / "out" / "answer.csv").read_text(encoding="utf-8").startswith("ID,Answer\n")
