"""The notebooks run from the first cell to the last, on the samples and the embedded base, or say why they do not."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import openpyxl
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


@pytest.fixture
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Notebook:
    monkeypatch.setattr(way, "call", _step)
    shown = types.ModuleType("IPython.display")
    shown.FileLink, shown.display = str, print  # type: ignore[attr-defined]
    ipython = types.ModuleType("IPython")
    ipython.version_info = (9, 0)  # type: ignore[attr-defined]  # matplotlib asks
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", shown)
    return Notebook(tmp_path)


class Notebook:
    """Runs the cells of a notebook as IPython does, with `folder` in the place of its machine's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ran: list[str] = []
        self.variables: dict[str, Any] = {"shell": self.shell}

    def shell(self, line: str) -> None:
        """A line with an exclamation mark, whose exit status is in a variable."""
        words = shlex.split(line)
        self.ran.append(" ".join(words[:2]))
        if words[0] == "pip":
            assert Requirement(words[-1]).name == package.DISTRIBUTION
            return
        more = ["--max_steps", "4"] if words[1] == "run" else []
        self.variables["_exit_code"] = lrc(*words[1:], *more)

    def run_all(self, name: str) -> None:
        """Run all cells."""
        for cell in cells(name):
            moved = cell.replace(FOLDERS[name], str(self.folder)).replace("/kaggle/working", str(self.folder))
            exec(compile(python_of(moved), name, "exec"), self.variables)


def put(book: str, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(ROOT / "examples" / book, path))


NAMES = {
    "kaggle": ("我的 資料集 (1)/訓練 題目.xlsx", "我的 資料集 (1)/測試's.xlsx"),
    "colab": ("sample.xlsx", "sample_test.xlsx"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_notebook_runs_to_its_end(name: str, notebook: Notebook) -> None:
    train, test = (notebook.folder / book for book in NAMES[name])
    put("sample.xlsx", train), put("sample_test.xlsx", test)
    put("sample.xlsx", train.with_name(f"~${train.name}"))  # what Excel leaves beside a workbook that is open
    notebook.run_all(name)
    assert notebook.ran == ["pip install", "lrc doctor", "lrc run"]
    assert (notebook.variables["TRAIN"], notebook.variables["TEST"]) == (train, test)
    assert (notebook.folder / "out" / "answer.csv").read_text(encoding="utf-8").startswith("ID,Answer\n")


@pytest.mark.parametrize("name", FOLDERS)
def test_a_notebook_says_what_is_missing(name: str, notebook: Notebook) -> None:
    put("sample.xlsx", notebook.folder / "sample.xlsx")
    with pytest.raises(SystemExit, match=r"1 workbook\(s\) here; upload two"):
        notebook.run_all(name)
    assert notebook.ran == ["pip install"]


@pytest.mark.parametrize("name", FOLDERS)
def test_a_notebook_shows_no_answers_of_an_earlier_run(
    name: str, notebook: Notebook, capsys: pytest.CaptureFixture[str]
) -> None:
    book = openpyxl.load_workbook(put("sample.xlsx", notebook.folder / "a.xlsx"))
    headers = [cell.value for cell in book.active[1]]
    book.active.cell(5, headers.index("正確答案") + 1).value = 9
    book.save(notebook.folder / "a.xlsx")
    openpyxl.load_workbook(put("sample_test.xlsx", notebook.folder / "b.xlsx")).save(notebook.folder / "b.xlsx")
    (notebook.folder / "out").mkdir()
    (notebook.folder / "out" / "answer.csv").write_text("ID,Answer\nearlier,1\n", encoding="utf-8")
    record = {"train": str(notebook.folder / "a.xlsx"), "test": str(notebook.folder / "b.xlsx"), "recipe": "tiny/lora"}
    (notebook.folder / "out" / way.RECORD).write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(SystemExit, match="did not finish"):
        notebook.run_all(name)
    told = capsys.readouterr()
    assert "a.xlsx, row 5: 正確答案 is 9" in told.out + told.err and "earlier" not in told.out
