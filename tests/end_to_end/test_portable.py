"""Where `fcntl` and `resource` are missing, as on Windows, the whole way goes through all the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lrc.runtime import locks as claim
from lrc.runtime.errors import OutputError
from lrc.runtime.locks import left_behind, locked

ROOT = Path(__file__).parents[2]
# In one process, in whose first moment the modules are hidden; each verb through its own door.
PROGRAM = """
import importlib.abc, sys
from pathlib import Path
import psutil  # whose way of asking Linux needs `resource`; on Windows it asks otherwise

class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in ("fcntl", "resource"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

for name in ("fcntl", "resource"):
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Hidden())
sys.path.insert(0, TESTS)

def run(main, words):
    try:
        main(words)
    except SystemExit as ended:
        if ended.code:
            raise

from lrc.cli import main
run(main, ["convert", SAMPLE, "--output-dir", "data"])
run(main, ["check", "data/sample_train.json", SAMPLE])
import small_models
from lrc import sft
base = small_models.save_base(Path("base"))
small_models.save_tokenizer(base)
run(sft.main, ["--model_name_or_path", "base", "--train_file", "data/sample_train.json", "--output_dir", "run",
    "--max_steps", "1", "--per_device_train_batch_size", "2", "--template", "plain", "--max_length", "4096"])
run(main, ["generate", "--model", "base", "--adapter", "run", "--data", "data/sample_validation.json",
    "--output", "answer.csv"])
run(main, ["merge", "--adapter", "run", "--base-model", "base", "--output-dir", "merged"])
assert not {"fcntl", "resource"} & set(sys.modules)
from lrc.runtime.memory import available_memory, peak_memory
assert available_memory() > 0 and peak_memory() > 0
"""


def test_the_whole_way_without_fcntl_and_resource(tmp_path: Path) -> None:
    sample = str(ROOT / "examples" / "sample.xlsx")
    program = f"SAMPLE = {sample!r}\nTESTS = {str(ROOT / 'tests/support')!r}\n{PROGRAM}"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    asked = json.loads((tmp_path / "data" / "sample_validation.json").read_text(encoding="utf-8"))
    assert len((tmp_path / "answer.csv").read_text().splitlines()) == 1 + len(asked)
    assert (tmp_path / "merged" / "config.json").is_file()
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".part")]


def test_without_locks_a_part_belongs_to_whom_its_name_tells_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim, "LOCKS", False)
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("opens a folder"))
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        part = tmp_path / f".a.{other.pid}-0123abcd.part"
        part.mkdir()
        assert left_behind(tmp_path, "a") == []
        with pytest.raises(OutputError, match=f"process {other.pid} is writing it"), locked(tmp_path / "a"):
            pass
        other.communicate(b"\n")
    assert left_behind(tmp_path, "a") == [part]
    with locked(tmp_path / "a", folder=True):
        assert left_behind(tmp_path, "a") == [part]


def test_a_part_is_not_that_of_a_later_process_with_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "LOCKS", False)
    part = tmp_path / f".a.{os.getppid()}-0123abcd.part"
    part.touch()
    assert left_behind(tmp_path) == []
    os.utime(part, (1, 1))  # written long before that process began
    assert left_behind(tmp_path) == [part]


@pytest.mark.parametrize("encoding", ["cp950", "ascii", "cp1252"])
def test_a_console_that_knows_not_all_characters(encoding: str, tmp_path: Path) -> None:
    from openpyxl import Workbook

    book = Workbook()
    book.active.append(["編號", "文章", "問題", "選項1", "選項2", "選項3", "選項4", "正確答案"])
    book.active.append([1, "简体🙂ß", "?", "a", "b", "c", "d", 9])
    book.save(tmp_path / "简🙂.xlsx")
    done = subprocess.run(
        [sys.executable, "-m", "lrc", "check", "简🙂.xlsx"],
        cwd=tmp_path,
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
    )
    told = done.stdout.decode(encoding) + done.stderr.decode(encoding)
    assert done.returncode == 1 and "Traceback" not in told and "9" in told
