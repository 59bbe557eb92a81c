"""Recipes, launch configs and samples are found by name, from a wheel and from an editable install."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = (
    "lrc/recipes/tiny/lora.yaml",
    "lrc/accelerate_configs/cpu_2.yaml",
    "lrc/examples/sample.xlsx",
    "lrc/reporting/report.html",
    "lrc/py.typed",
)
FIND = """
from importlib.resources import files
from lrc.config.recipe import find_accelerate_config, find_recipe
print(find_recipe("tiny/lora")); print(find_accelerate_config("cpu")); print(files("lrc.examples") / "sample.xlsx")
"""


def find(folder: Path, **environment: str) -> list[Path]:
    """Where a fresh interpreter finds a recipe, a launch config and a sample."""
    command = [sys.executable, "-c", FIND]
    found = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return [Path(line) for line in found.stdout.split()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True)
    return next(folder.glob("lora_reading_comprehension-*.whl"))


def test_the_wheel_holds_what_lrc_ships(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert not set(SHIPPED) - set(names)
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]


def test_an_installed_wheel_finds_them_by_name(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    found = find(tmp_path, PYTHONPATH=str(tmp_path / "site"))
    assert all(path.is_file() and path.is_relative_to(tmp_path / "site") for path in found), found


def test_an_editable_install_finds_them_at_the_top_level(tmp_path: Path) -> None:
    found = find(tmp_path)
    assert [path.relative_to(ROOT).parts[0] for path in found] == ["recipes", "accelerate_configs", "examples"]
    assert all(path.is_file() for path in found)
