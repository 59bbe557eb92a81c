"""What a signal does: ends at once with a line, or is noted while something is finished."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

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
