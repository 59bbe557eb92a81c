"""Records of outputs are kept where there is no home, and for names that are no text."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lrc.runtime.finished_outputs import Inputs, is_finished, records_folder, write_once


def test_without_a_home_a_folder_is_named_all_the_same() -> None:
    names = ("HOME", "HF_HOME", "XDG_CACHE_HOME", "HF_DATASETS_CACHE")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    code = """
import pwd
from pathlib import Path
def no_entry(user): raise KeyError(user)
pwd.getpwuid = no_entry
from lrc.runtime.finished_outputs import records_folder
print(records_folder(Path("a")).name)
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("lrc-finished\n", "")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take no such names")
def test_an_output_in_a_folder_whose_name_is_not_utf_8_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    output = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xa4\xe5")) / "a.csv"
    output.parent.mkdir()
    inputs = Inputs([])
    assert write_once(output, {"data": output}, inputs, lambda path: path.write_text("ID,Answer\n"))
    assert is_finished(output, {"data": output}, inputs.key) and len(list(records_folder(output).iterdir())) == 1
    assert not write_once(output, {"data": output}, inputs, lambda path: path.write_text("another"))
