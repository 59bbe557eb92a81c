"""Packages outside the ranges of setup.cfg are refused in a line each, before any of them is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest

import lrc
from lrc.runtime import packages
from lrc.runtime.errors import MachineError


def pretend(folder: Path, name: str, version: str) -> Path:
    """Put what says that a package is installed into a folder, and the package itself, which cannot be imported."""
    (folder / f"{name}-{version}.dist-info").mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (folder / f"{name}-{version}.dist-info" / "METADATA").write_text(metadata)
    (folder / f"{name}.py").write_text("raise ImportError('too old')\n")
    return folder


def run(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", *words]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path, **environment}, cwd=folder
    )


def assert_refused(done: subprocess.CompletedProcess[str]) -> None:
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    (line,) = done.stderr.splitlines()
    needed = next(text for text in requires(lrc.DISTRIBUTION) or [] if text.startswith("transformers")).removeprefix(
        "transformers"
    )
    assert line.startswith("transformers: 4.57.3 is installed, lrc needs ")
    assert all(limit in line for limit in needed.removeprefix("transformers").split(","))
    assert line.partition("run: ")[2].startswith("pip install 'transformers")


@pytest.mark.parametrize(
    "words",
    [
        ["lrc", "train", "tiny/lora"],
        ["lrc", "convert", "a.xlsx", "--output-dir", "out"],
        ["lrc.sft", "--config", "a.yaml"],
        ["lrc.generate", "--model", "m", "--data", "d.json", "--output", "o.csv"],
        ["lrc.evaluation", "--model", "m", "--data", "d.json"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_an_old_package_is_one_line(words: list[str], tmp_path: Path) -> None:
    assert_refused(run(pretend(tmp_path, "transformers", "4.57.3"), *words))


def test_of_several_processes_the_first_says_it(tmp_path: Path) -> None:
    folder = pretend(tmp_path, "transformers", "4.57.3")
    assert_refused(run(folder, "lrc.generate", WORLD_SIZE="2", RANK="0", LOCAL_RANK="0"))
    second = run(folder, "lrc.generate", WORLD_SIZE="2", RANK="1", LOCAL_RANK="1")
    assert (second.returncode, second.stderr) == (1, "")


def test_help_comes_without_looking(tmp_path: Path) -> None:
    done = run(pretend(tmp_path, "transformers", "4.57.3"), "lrc", "generate", "--help")
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("Usage: ")


@pytest.mark.parametrize("version", ["5.20.0.dev0", "5.21.0+local.1"])
def test_a_build_of_one_s_own_in_the_range_is_taken(version: str, tmp_path: Path) -> None:
    done = run(pretend(tmp_path, "transformers", version), "lrc", "convert", "missing.csv", "--output-dir", "out")
    assert done.returncode == 1 and done.stderr.startswith("missing.csv: ")


def test_what_a_verb_does_not_need_may_be_missing(tmp_path: Path) -> None:
    done = run(pretend(tmp_path, "gradio", "1.0"), "lrc", "convert", "missing.csv", "--output-dir", "out")
    assert done.returncode == 1 and done.stderr.startswith("missing.csv: ")


def test_where_many_are_missing_one_command_for_all_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = {"torch", "trl", "peft"}
    real = packages.installed_version
    monkeypatch.setattr(packages, "installed_version", lambda name: None if name in missing else real(name))
    with pytest.raises(MachineError) as refused:
        packages.check_installed()
    *each, together = refused.value.lines()
    assert {line.partition(":")[0] for line in each} == missing
    assert together.endswith(f"pip install --upgrade {lrc.DISTRIBUTION}")
    missing.remove("torch")
    with pytest.raises(MachineError) as refused:
        packages.check_installed()
    assert len(refused.value.lines()) == 2


# As where PyTorch was never installed, in one process: neither the packages are there nor what is said of them.
WITHOUT_MODELS = """
import importlib.abc, importlib.metadata, sys
from lrc.cli import main

GONE = {"torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes"}

class Gone(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in GONE:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Gone())
real = importlib.metadata.Distribution.from_name

def from_name(name):
    if name in GONE:
        raise importlib.metadata.PackageNotFoundError(name)
    return real(name)

importlib.metadata.Distribution.from_name = from_name

def run(*words):
    try:
        main(list(words))
    except SystemExit as ended:
        return ended.code or 0
    return 0

assert run("init") == 0
assert run("check", "examples/sample.xlsx", "examples/sample_test.xlsx") == 0
assert run("convert", "examples/sample.xlsx", "--output-dir", "data") == 0
assert run("check", "data/sample_train.json") == 0
assert run("schema", "--output", "schema.json") == 0
assert run("completion", "bash") == 0
assert run("check", "recipes/tiny/lora.yaml") == 0
print("what needs models", file=sys.stderr)
assert run("train", "recipes/tiny/lora.yaml") == 1
assert run("preview", "recipes/tiny/lora.yaml") == 1
"""


def test_workbooks_are_read_without_pytorch(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_MODELS], capture_output=True, text=True, env=os.environ, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    refusals = done.stderr.partition("what needs models\n")[2].splitlines()
    assert len(refusals) == 2 * 7, done.stderr  # a line for each package, and one for all of them
    assert "torch: is not installed" in " ".join(refusals) and "Traceback" not in done.stderr
    assert (tmp_path / "data" / "sample_train.json").is_file() and (tmp_path / "schema.json").is_file()


@pytest.mark.parametrize(
    ("wanted", "torch", "fits"),
    [("2.9.0", "2.13.0", False), ("2.13.0", "2.13.0", True), ("2.13.0", "2.13.1+cu130", True), (None, "2.13.0", True)],
)
def test_a_torchvision_of_another_torch_is_told_before_transformers_cannot_be_imported(
    wanted: str | None, torch: str, fits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pretend(tmp_path, "torchvision", "0.24.0")
    if wanted:
        with (folder / "torchvision-0.24.0.dist-info" / "METADATA").open("a") as metadata:
            metadata.write(f"Requires-Dist: numpy\nRequires-Dist: torch=={wanted}\n")
    monkeypatch.syspath_prepend(str(folder))
    real = packages.version
    monkeypatch.setattr(packages, "version", lambda name: torch if name == "torch" else real(name))
    if fits:
        packages.check_installed()
        return
    with pytest.raises(MachineError) as refused:
        packages.check_installed()
    (line,) = refused.value.lines()
    assert line.startswith(
        "torchvision: 0.24.0 is installed, which was built for torch 2.9.0, and torch is 2.13.0; pip "
    )
    packages.check_installed(dispensable=packages.FOR_MODELS)
