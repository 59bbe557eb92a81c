"""The kit for a machine with a GPU asks for nothing that such a machine lacks: what it cannot be tried with here."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
# What is there, or comes as a wheel; the other packages of the tests, such as hypothesis and selenium, do not.
THERE = {"lrc", "numpy", "peft", "pytest", "tokenizers", "torch", "transformers"}


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)  # for its dataclasses
    spec.loader.exec_module(module)
    return module


def imported(path: Path) -> set[str]:
    """The packages that a file imports, directly or by helpers of the tests."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            helper = ROOT / "tests" / "support" / f"{name}.py"
            found |= imported(helper) if helper.is_file() else {name.partition(".")[0]}
    return found - sys.stdlib_module_names


def test_the_tests_on_a_gpu_need_no_other_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (ROOT / "tests" / "gpu").glob("*.py"):
        assert imported(path) <= THERE, path
    assert "hypothesis" in imported(ROOT / "tests" / "conftest.py")  # so it must not be read there
    stages = load("gpu_stages", monkeypatch)
    for xdist in (None, object()):
        monkeypatch.setattr(stages, "find_spec", lambda name, found=xdist: found)
        words = stages.pytest_command(stages.Stage("equality", "cuda", ROOT))
        assert words[words.index("--confcutdir") + 1] == "tests/gpu" and ("-n" in words) == (xdist is not None)


def test_a_form_of_attention_that_cannot_run_does_not_end_its_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = load("gpu_stages", monkeypatch)

    def fail(stage: object, form: str, row: object, **settings: object) -> object:
        if form == "flex":
            raise RuntimeError("Failed to find C compiler")
        return lambda: None

    monkeypatch.setattr(stages, "_attend", fail)
    stages.stage_attention(stages.Stage("attention", "cpu", tmp_path))
    (line,) = (tmp_path / "findings.jsonl").read_text().splitlines()
    assert '"flex_ms": "RuntimeError: Failed to find C compiler"' in line and '"dense_ms": ' in line


def test_each_wheel_has_a_tested_version(monkeypatch: pytest.MonkeyPatch) -> None:
    wheels = load("gpu_wheels", monkeypatch)
    assert {wheels._plain(name) for name in wheels.MISSING} <= wheels.pins().keys()
    assert {"pytest", "pytest-xdist", "tokenizers"} <= set(wheels.MISSING)
