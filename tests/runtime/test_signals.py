"""What a signal does: ends at once with a line, or is noted while something is finished."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lrc.runtime.signals import deferred


@pytest.mark.parametrize(("number", "word"), [(signal.SIGTERM, "terminated"), (signal.SIGINT, "interrupted")])
def test_ending_at_once(number: int, word: str) -> None:
    code = (
        "import time; from lrc.runtime.signals import end_at_once; end_at_once(); print(1, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "1\n"
    process.send_signal(number)
    assert process.communicate(timeout=20)[1] == f"lrc: {word}\n"
    assert process.returncode == 128 + number


def test_a_signal_is_noted_and_the_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with deferred(insist=False) as request:
        assert request.signal == 0
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert request.signal == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def test_insisting_ends_it() -> None:
    code = (
        "import os, signal\nfrom lrc.runtime.signals import deferred\n"
        "with deferred():\n    [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)]\n    print('still here')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "lrc: interrupted\n")


def test_importing_it_brings_no_torch() -> None:
    code = "import sys, lrc.runtime.signals; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=20).returncode == 0


# Sends a signal to its own process at the moment when a module is looked for.
STRIKE = """
import importlib.abc, os, sys
class Strike(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["STRIKE_AT"]:
            os.kill(os.getpid(), int(os.environ["STRIKE_WITH"]))
sys.meta_path.insert(0, Strike())
"""
SCRIPT = ("-c", "import sys; from lrc.__main__ import main; sys.argv = ['lrc', 'check', 'a.xlsx']; main()")
DOORS = [
    (SCRIPT, "lrc.cli", "run the same command again"),
    (("-m", "lrc", "convert", "a.xlsx", "--output-dir", "b"), "click", "nothing half-written"),
    (("-m", "lrc", "check", "a.xlsx"), "lrc.commands.check", "run the same command again"),
    (("-m", "lrc.generate", "--model", "m", "--data", "a"), "lrc.runtime.packages", "the scores so far"),
    (("-m", "lrc.evaluation", "--model", "m", "--data", "a"), "lrc.commands.options", "with --output the scores"),
    (("-m", "lrc.sft", "--config", "a.yaml"), "lrc.runtime.progress", ""),
]


@pytest.mark.skipif(sys.platform == "win32", reason="signals cannot be held")
@pytest.mark.parametrize(("number", "word"), [(signal.SIGTERM, "terminated"), (signal.SIGINT, "interrupted")])
@pytest.mark.parametrize(("words", "moment", "safe"), DOORS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_signal_while_a_program_is_imported(
    words: tuple[str, ...], moment: str, safe: str, number: int, word: str, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(STRIKE, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "STRIKE_AT": moment, "STRIKE_WITH": str(int(number))}
    done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, env=environment)
    *before, last = filter(None, done.stderr.splitlines())  # click ends the line of a terminal
    assert last.startswith(f"lrc: {word}") and done.returncode == 128 + number, done.stderr
    if safe:
        assert not before and safe in last
    else:
        assert "checkpoints of before stay" in before[0] and len(before) == 1


def test_importing_lrc_holds_no_signals() -> None:
    code = "import signal, lrc.cli; import sys; sys.exit(bool(signal.pthread_sigmask(signal.SIG_BLOCK, ())))"
    assert subprocess.run([sys.executable, "-c", code], timeout=20).returncode == 0
