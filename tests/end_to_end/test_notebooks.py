"""The notebooks run from the first cell to the last, on the samples and the embedded base, or say why they do not."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
import types
import zipfile
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
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
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
        self.installed: list[str] = []  # the words after `pip install`
        self.variables: dict[str, Any] = {"shell": self.shell}

    def shell(self, line: str) -> None:
        """A line with an exclamation mark, whose exit status is in a variable."""
        words = shlex.split(line)
        self.ran.append(" ".join(words[:2]))
        if words[0] == "pip":
            self.installed = words[2:]
            self.variables["_exit_code"] = 0
            return
        more = ["--recipe", "tiny/lora", "--max_steps", "4"] if words[1] == "run" else []
        self.variables["_exit_code"] = lrc(*words[1:], *more)

    def run(self, name: str, numbers: slice = slice(None), **edited: str) -> None:
        """Run cells, with texts in them replaced as a user edits them."""
        moved = {FOLDERS[name]: str(self.folder), "/kaggle/working": str(self.folder), **edited}
        for cell in cells(name)[numbers]:
            for text, other in moved.items():
                cell = cell.replace(text, other)
            exec(compile(python_of(cell), name, "exec"), self.variables)


def put(book: str, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(ROOT / "examples" / book, path))


def pad(book: Path, size: int) -> None:
    """Make a workbook larger than so many bytes, and read the same."""
    with zipfile.ZipFile(book, "a") as archive:
        archive.writestr("xl/media/image1.png", os.urandom(size))


NAMES = {
    "kaggle": ("我的 資料集 (1)/archive/訓練 $HOME 題目.xlsx", "我的 資料集 (1)/測試's `題`.xlsx"),
    "colab": ("sample.xlsx", "sample_test.xlsx"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_notebook_runs_to_its_end(name: str, notebook: Notebook) -> None:
    train, test = (notebook.folder / book for book in NAMES[name])
    put("sample.xlsx", train), put("sample_test.xlsx", test)
    pad(test, train.stat().st_size)  # the larger one is not the one to train on
    for left in ("~$", "._"):  # what Excel leaves beside a workbook that is open, and macOS in an archive
        train.with_name(f"{left}{train.name}").write_bytes(b"left")
    notebook.run(name)
    assert notebook.ran == ["pip install", "lrc doctor", "lrc run"]
    assert [Requirement(word).name for word in notebook.installed] == [package.DISTRIBUTION]
    assert (notebook.variables["TRAIN"], notebook.variables["TEST"]) == (train, test)
    assert (notebook.folder / "out" / "answer.csv").read_text(encoding="utf-8").startswith("ID,Answer\n")


def test_both_notebooks_have_the_same_cells() -> None:
    kaggle, colab = map(cells, FOLDERS)
    moved = {"/kaggle/working": "/content", "/kaggle/input": "/content", ".rglob(": ".glob("}
    for text, other in moved.items():
        kaggle = [cell.replace(text, other) for cell in kaggle]
    assert kaggle == colab


# What lies in the folder, by the sample that it is, and what is said of it.
WITHOUT_A_PAIR = {
    "nothing": ({}, "with answers: 0; without: 0", ""),
    "one": ({"a.xlsx": "sample.xlsx"}, "with answers: 1; without: 0", "a.xlsx\n  with answers 有答案\n"),
    "two to train on": (
        {"a.xlsx": "sample.xlsx", "b.xlsx": "sample.xlsx", "c.xlsx": "sample_test.xlsx"},
        "with answers: 2; without: 1",
        "c.xlsx\n  without answers 沒有答案\n",
    ),
    "an old format": ({"a.xlsx": "sample.xlsx", "b.xls": ""}, "with answers: 1; without: 0", "save it as .xlsx"),
}


@pytest.mark.parametrize("case", WITHOUT_A_PAIR)
def test_a_notebook_says_what_is_missing(case: str, notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    books, counts, told = WITHOUT_A_PAIR[case]
    for name, sample in books.items():
        if sample:
            put(sample, notebook.folder / name)
        else:
            (notebook.folder / name).write_bytes(bytes.fromhex("d0cf11e0a1b11ae1") + bytes(4096))
    with pytest.raises(SystemExit, match=counts):
        notebook.run("kaggle")
    assert notebook.ran == ["pip install"] and told in capsys.readouterr().out


def test_a_notebook_takes_the_paths_that_are_written_into_it(notebook: Notebook) -> None:
    for name in ("a.xlsx", "b.xlsx", "c.xlsx"):
        put("sample.xlsx", notebook.folder / name)
    paths = f"TRAIN, TEST = {str(notebook.folder / 'b.xlsx')!r}, {str(notebook.folder / 'c.xlsx')!r}"
    notebook.run("kaggle", slice(2), **{"TRAIN = TEST = None": paths})
    assert notebook.variables["TRAIN"].endswith("b.xlsx") and notebook.variables["TEST"].endswith("c.xlsx")


def test_a_notebook_installs_the_wheels_that_were_uploaded(notebook: Notebook) -> None:
    wheel = notebook.folder / "my wheels" / "lora_reading_comprehension-0.1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    wheel.touch()
    notebook.run("kaggle", slice(1))
    assert notebook.installed == [str(wheel)]
    other = notebook.folder / "another dataset" / "trl-1.16.0-py3-none-any.whl"
    other.parent.mkdir()
    other.touch()
    notebook.run("kaggle", slice(1))
    found = [word for place in (other.parent, wheel.parent) for word in ("--find-links", str(place))]
    assert notebook.installed == ["--no-index", *found, str(wheel)]


def test_a_notebook_ends_where_pip_did_not_install(notebook: Notebook) -> None:
    notebook.variables |= {"shell": lambda line: None, "_exit_code": 1}
    with pytest.raises(SystemExit, match="pip did not finish"):
        notebook.run("kaggle")


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
        notebook.run(name)
    told = capsys.readouterr()
    assert "a.xlsx, row 5: 正確答案 is 9" in told.out + told.err and "earlier" not in told.out


def test_a_saved_version_of_the_notebook_goes_on(notebook: Notebook) -> None:
    """Its output is an input of the next session, in a folder that cannot be written to."""
    put("sample.xlsx", notebook.folder / "a.xlsx"), put("sample_test.xlsx", notebook.folder / "b.xlsx")
    notebook.run("kaggle")
    answers = (notebook.folder / "out" / "answer.csv").read_bytes()
    saved = notebook.folder / "my-notebook" / "out"
    shutil.move(notebook.folder / "out", saved)
    (saved / "answer.csv").unlink(), (saved / "scores.jsonl").unlink()
    trained = (saved / "adapter" / "adapter_model.safetensors").stat().st_mtime_ns
    notebook.run("kaggle")
    assert (notebook.folder / "out" / "answer.csv").read_bytes() == answers
    assert (notebook.folder / "out" / "adapter" / "adapter_model.safetensors").stat().st_mtime_ns == trained
