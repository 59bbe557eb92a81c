"""What PyPI would get: an sdist and the wheel built from it, installed where there is no clone.

Recipes, launch configs and samples are found by name, from a wheel and from an editable install.
"""

from __future__ import annotations

import email
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

import lrc

ROOT = Path(__file__).resolve().parents[2]
NOT_SOURCE = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "build", "dist", "demo", "runs", "tests")
SHIPPED = [
    *sorted(path.relative_to(ROOT) for path in (ROOT / "recipes").rglob("*.yaml")),
    *sorted(path.relative_to(ROOT) for path in (ROOT / "accelerate_configs").glob("*.yaml")),
    *sorted(path.relative_to(ROOT) for path in (ROOT / "examples").glob("*.xlsx")),
    *sorted(path.relative_to(ROOT) for path in (ROOT / "examples/space").glob("*.*")),
    *sorted(path.relative_to(ROOT) for path in (ROOT / "examples/little_world").glob("*.*")),
    *sorted(path.relative_to(ROOT) for path in (ROOT / "examples/demo_base").glob("*.*")),
    *sorted(
        path.relative_to(ROOT)
        for path in (ROOT / "src/lrc").rglob("*")
        if path.suffix in (".py", ".css", ".html", ".js", ".json", ".md", ".typed")
    ),
]

FIND = """
from importlib.resources import files
from lrc.config.accelerate_config import find_accelerate_config
from lrc.config.recipe import find_recipe
print(find_recipe("tiny/lora")); print(find_accelerate_config("cpu")); print(files("lrc.examples") / "sample.xlsx")
"""
# Where the packages of an extra are not installed, what needs them cannot be imported.
IMPORT_ALL = """
import importlib, pkgutil, lrc
for module in pkgutil.walk_packages(lrc.__path__, "lrc."):
    if module.name == "lrc.__main__":
        continue
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("gradio", "optuna"):
            raise
    print(module.name)
"""


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the sdist and the wheel, built from a copy of the source without the network."""
    for name in ("build", "setuptools"):
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed: pip install '.[dev]' setuptools")
    source = tmp_path_factory.mktemp("source") / "lrc"
    shutil.copytree(ROOT, source, ignore=NOT_SOURCE)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", source / "dist", folder=source)
    return source / "dist"


@pytest.fixture(scope="module")
def program(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`lrc` of an environment with the wheel in it; all but lrc itself comes from the environment of the tests."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin/python"
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "install"]
    run(*pip, "--quiet", "--no-deps", "--no-index", only(dist, "*.whl"), folder=folder)
    # A folder that a .pth file names is searched, but the .pth files in it, the editable lrc's too, are not read.
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=folder).strip()
    others = [path for path in sys.path if Path(path).name == "site-packages"]
    (Path(site) / "others.pth").write_text("\n".join(others), encoding="utf-8")
    place = run(python, "-c", "import lrc; print(lrc.__file__)", folder=folder).strip()
    assert Path(place).is_relative_to(folder)
    return folder / "bin/lrc"


def run(*words: str | Path, folder: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(list(map(str, words)), cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, (words, done.stdout[-1000:], done.stderr[-2000:])
    return done.stdout


def only(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


def test_the_sdist_holds_what_ships(dist: Path) -> None:
    with tarfile.open(only(dist, "lora_reading_comprehension-*.tar.gz")) as archive:
        names = {Path(*Path(name).parts[1:]).as_posix() for name in archive.getnames()}
    assert not {path.as_posix() for path in SHIPPED} - names
    assert {
        "LICENSE",
        "README.md",
        "README.zh-TW.md",
        "setup.cfg",
        "setup.py",
        "constraints.txt",
        "docs/tutorial.md",
    } <= names


def test_the_wheel_holds_what_ships(dist: Path) -> None:
    names = zipfile.ZipFile(only(dist, "lora_reading_comprehension-*.whl")).namelist()
    expected = {path.as_posix().replace("src/lrc/", "", 1) for path in SHIPPED}
    assert not {f"lrc/{name}" for name in expected} - set(names)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert "lrc/constraints.txt" in names
    (commands,) = (name for name in names if name.endswith(".dist-info/entry_points.txt"))
    told = zipfile.ZipFile(only(dist, "lora_reading_comprehension-*.whl")).read(commands).decode()
    assert "lrc = lrc.__main__:main" in told.splitlines()
    assert all(name.startswith(("lrc/", "lora_reading_comprehension-")) for name in names), (
        "a wheel with a top-level folder of another name"
    )


def test_the_wheel_holds_what_is_read_at_run_time(dist: Path) -> None:
    names = set(zipfile.ZipFile(only(dist, "lora_reading_comprehension-*.whl")).namelist())
    assert {
        "lrc/recipes/tiny/lora.yaml",
        "lrc/accelerate_configs/cpu_2.yaml",
        "lrc/examples/sample.xlsx",
        "lrc/examples/outings.py",
        "lrc/examples/demo_base/model.safetensors",
        "lrc/config/recipe_schema.json",
        "lrc/config/recipe_meanings.json",
        "lrc/reporting/card.md",
        "lrc/reporting/report.html",
        "lrc/answering/app/app.css",
        "lrc/py.typed",
    } <= names


def test_the_wheel_says_what_pypi_shows(dist: Path) -> None:
    wheel = zipfile.ZipFile(only(dist, "lora_reading_comprehension-*.whl"))
    metadata = wheel.read(next(name for name in wheel.namelist() if name.endswith("/METADATA"))).decode()
    lines = metadata.splitlines()
    assert {
        f"Name: {lrc.DISTRIBUTION}",
        "Description-Content-Type: text/markdown",
        "Provides-Extra: app",
    } <= set(lines)
    assert any(line in lines for line in ("License: Apache-2.0", "License-Expression: Apache-2.0"))
    assert any(line.startswith("Requires-Dist: torch") for line in lines)


def test_the_description_on_pypi_has_no_link_that_leads_nowhere(dist: Path) -> None:
    wheel = zipfile.ZipFile(only(dist, "*.whl"))
    metadata = wheel.read(next(name for name in wheel.namelist() if name.endswith("/METADATA"))).decode()
    shown = email.message_from_string(metadata).get_payload()
    targets = re.findall(r"\]\(([^)]*)\)", shown)
    assert not [target for target in targets if not target.startswith(("https://", "#"))]
    assert "docs/results.md" not in targets and "lora-reading-comprehension" in shown
    assert len(shown.splitlines()) == len((ROOT / "README.md").read_text(encoding="utf-8").splitlines())


def test_the_installed_program_works_without_the_clone(program: Path, tmp_path: Path) -> None:
    assert run(program, "--help", folder=tmp_path).startswith("Usage: lrc ")
    assert "wrote recipes/tiny/lora.yaml" in run(program, "init", folder=tmp_path)
    assert (tmp_path / "constraints.txt").read_bytes() == (ROOT / "constraints.txt").read_bytes()
    checked = run(program, "check", "examples/sample.xlsx", "recipes/tiny/lora.yaml", "--json", folder=tmp_path)
    workbook, recipe = json.loads(checked)["files"]
    assert workbook["accepted"] and workbook["questions"] == 80 and recipe["accepted"]


def test_every_module_of_the_wheel_can_be_imported(program: Path, tmp_path: Path) -> None:
    imported = run(program.with_name("python"), "-c", IMPORT_ALL, folder=tmp_path).split()
    source = ROOT / "src"
    files = {path.relative_to(source).with_suffix("") for path in source.glob("lrc/**/*.py") if path.name[0] != "_"}
    assert {".".join(path.parts) for path in files} <= set(imported)


def find(folder: Path, **environment: str) -> list[Path]:
    """Where a fresh interpreter finds a recipe, a launch config and a sample."""
    command = [sys.executable, "-c", FIND]
    found = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return [Path(line) for line in found.stdout.split()]


def test_an_unpacked_wheel_finds_them_by_name(dist: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(only(dist, "lora_reading_comprehension-*.whl")).extractall(tmp_path / "site")
    found = find(tmp_path, PYTHONPATH=str(tmp_path / "site"))
    assert all(path.is_file() and path.is_relative_to(tmp_path / "site") for path in found), found


def test_an_editable_install_finds_them_at_the_top_level(tmp_path: Path) -> None:
    found = find(tmp_path)
    assert [path.relative_to(ROOT).parts[0] for path in found] == ["recipes", "accelerate_configs", "examples"]
    assert all(path.is_file() for path in found)
