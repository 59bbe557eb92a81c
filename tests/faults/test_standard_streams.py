"""Standard streams that the caller has closed: no traceback, no lost result, and nothing written into another file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the shell that closes them is POSIX")


def lrc(words: str, closed: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = f"exec {sys.executable} -m lrc {words} {closed}"
    return subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    "words", ["schema", "--version", "check sample.xlsx --json", "convert sample.xlsx --output-dir data"]
)
def test_a_closed_stdout_is_refused_before_any_work(words: str, tmp_path: Path) -> None:
    (tmp_path / "sample.xlsx").write_bytes((ROOT / "examples" / "sample.xlsx").read_bytes())
    for closed in (">&-", "<&- >&-"):
        done = lrc(words, closed, tmp_path)
        said = "lrc: stdout is closed; send it to a file, or to /dev/null"
        assert (done.returncode, done.stdout, done.stderr.splitlines()) == (1, "", [said])
        assert lrc(words, f"{closed} 2>&-", tmp_path).returncode == 1
    assert [path.name for path in tmp_path.iterdir()] == ["sample.xlsx"]


@pytest.mark.parametrize("closed", ["2>&-", "<&-", "2>&- <&-"])
def test_files_are_whole_without_standard_streams(closed: str, tmp_path: Path) -> None:
    (tmp_path / "sample.xlsx").write_bytes((ROOT / "examples" / "sample.xlsx").read_bytes())
    usual = lrc("convert sample.xlsx --output-dir usual", "", tmp_path)
    done = lrc("convert sample.xlsx --output-dir data", closed, tmp_path)
    assert (usual.returncode, done.returncode) == (0, 0)
    assert "Traceback" not in done.stderr
    for path in (tmp_path / "usual").glob("*_[tv]*.json"):
        assert (tmp_path / "data" / path.name).read_bytes() == path.read_bytes()


def test_a_program_that_it_starts_takes_no_file_for_a_closed_stream(tmp_path: Path) -> None:
    child = "open('file', 'w').fileno() > 2 or exit(3)"
    start = f"import subprocess, sys; begin(); sys.exit(subprocess.call([sys.executable, '-c', {child!r}]))"
    script = tmp_path / "start.py"
    script.write_text(f"from lrc.runtime.startup import begin\n{start}\n", encoding="utf-8")
    command = f"exec {sys.executable} {script} <&- 2>&-"
    assert subprocess.run(["sh", "-c", command], cwd=tmp_path, timeout=120).returncode == 0
