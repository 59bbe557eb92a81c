"""A run says which code made it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src/lrc"
WHAT = "import json; from lrc.runtime.packages import versions; print(json.dumps(versions()))"


def told(source: Path, **more: str) -> dict[str, str]:
    run = subprocess.run(
        [sys.executable, "-c", WHAT],
        env={**os.environ, "PYTHONPATH": str(source), **more},
        cwd=source,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    found: dict[str, str] = json.loads(run.stdout)
    return found


def copied(folder: Path) -> Path:
    shutil.copytree(SOURCE / "runtime", folder / "lrc/runtime", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(SOURCE / "__init__.py", folder / "lrc")
    return folder


def git(folder: Path, *words: str) -> str:
    author = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    run = subprocess.run(["git", *author, *words], cwd=folder, check=True, capture_output=True, text=True)
    return run.stdout.strip()


def test_a_clone_has_its_commit_and_says_where_files_are_others(tmp_path: Path) -> None:
    source = copied(tmp_path / "src")
    git(tmp_path, "init", "-q")
    assert "lrc commit" not in told(source)  # nothing is committed yet
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "One")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert told(source)["lrc commit"] == commit
    (source / "lrc/more.py").touch()  # not of the clone
    assert told(source)["lrc commit"] == commit
    with (source / "lrc/runtime/packages.py").open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    assert told(source)["lrc commit"] == f"{commit}+changes"
    assert "lrc commit" not in told(source, PATH=str(tmp_path))  # no git


def test_what_pip_installed_from_a_repository_has_the_commit_that_pip_noted(tmp_path: Path) -> None:
    site = copied(tmp_path / "site")
    noted = site / "lora_reading_comprehension-9.0.dist-info"
    noted.mkdir()
    (noted / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: lora-reading-comprehension\nVersion: 9.0\n", encoding="utf-8"
    )
    assert "lrc commit" not in told(site)
    origin = {"url": "https://example.org/lrc.git", "vcs_info": {"vcs": "git", "commit_id": "0" * 40}}
    (noted / "direct_url.json").write_text(json.dumps(origin), encoding="utf-8")
    found = told(site)
    assert found["lrc"] == "9.0" and found["lrc commit"] == "0" * 40
