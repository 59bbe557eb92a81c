"""The progress of long work: plain lines in a pipe, with a rate and the time left that what is done now gives."""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import Callable

import pytest

from lrc import cli
from lrc.commands import evaluate, generate
from lrc.runtime import progress
from lrc.runtime.progress import track, waiting


@pytest.fixture
def wait(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let seconds pass."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    def passes(seconds: float) -> None:
        now[0] += seconds

    return passes


def test_lines_tell_rate_and_time_left(wait: Callable[[float], None], capsys: pytest.CaptureFixture[str]) -> None:
    with track("answer", 100) as advance:
        wait(4)
        advance(10)  # too soon for a line
        wait(6)
        advance(10)
        wait(10)
    assert capsys.readouterr().err.splitlines() == [
        "answer: 20/100 questions, 2.0/s, 40 s left",
        "answer: 20/100 questions, 1.0/s, 80 s left",
    ]


def test_what_an_earlier_run_did_says_nothing_about_the_rate(
    wait: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with track("train", 800, "steps", before=400) as advance:
        wait(10)
        advance()
        wait(5)
        advance(399)
    assert capsys.readouterr().err.splitlines() == [
        "train: 401/800 steps, 0.1/s, 3990 s left",
        "train: 800/800 steps, 26.7/s",
    ]


def test_nothing_left_to_do_has_no_time_left(wait: Callable[[float], None], capsys: pytest.CaptureFixture[str]) -> None:
    with track("sweep", 4, "trials", before=4):
        wait(6)
    assert capsys.readouterr().err == "sweep: 4/4 trials, 0.0/s\n"


def test_a_pipe_hears_nothing_of_work_that_takes_no_time(
    wait: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with track("comparing", 5000, "passages") as advance:
        for _ in range(5000):
            wait(0.0005)
            advance()
    assert capsys.readouterr().err == ""


def test_a_bar_in_a_terminal_counts_what_was_done_before(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    with track("train", 800, "steps", before=400) as advance:
        advance(400)
    shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", capsys.readouterr().err)
    assert "800/800 steps" in shown
    rates = [float(rate) for rate in re.findall(r"([\d.]+)/s", shown)]
    assert rates and all(rate > 0 for rate in rates)


@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_only_a_long_stage_leaves_its_bar_in_a_terminal(
    seconds: float, wait: Callable[[float], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    with track("comparing", 33, "passages") as advance:
        wait(seconds)
        advance(33)
    *_, last = capsys.readouterr().err.rpartition("33/33 passages")
    assert ("\x1b[1A\x1b[2K" in last) == (not seconds)  # up a line, and erase it
    with track("comparing", 0, "batches"):
        pass
    assert capsys.readouterr().err == ""


def told_while_waiting(seconds: float, capsys: pytest.CaptureFixture[str]) -> list[str]:
    with waiting("loading the model a"):
        time.sleep(seconds)
    return capsys.readouterr().err.splitlines()


def test_what_takes_seconds_is_told_and_told_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SECONDS_UNTOLD", 0.01)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_WAITS", 0.2)
    first, *more = told_while_waiting(0.9, capsys)
    assert first == "loading the model a …"
    assert more and all(re.fullmatch(r"loading the model a: \d+ s so far", line) for line in more)
    time.sleep(0.3)
    assert capsys.readouterr().err == ""  # it ends with the block


def test_what_is_done_at_once_is_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert told_while_waiting(0, capsys) == []


@pytest.mark.parametrize("silent", ["--quiet", "second process"])
def test_who_is_not_to_speak_does_not(
    silent: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SECONDS_UNTOLD", 0.01)
    monkeypatch.setattr(progress, "_quiet", silent == "--quiet")
    monkeypatch.setenv("RANK", "0" if silent == "--quiet" else "1")
    assert told_while_waiting(0.2, capsys) == []


def test_the_imports_of_every_verb_that_needs_torch_are_told() -> None:
    source = inspect.getsource(cli)
    verbs = set(re.findall(r"with importing\(\):\n\s+from lrc\.commands\.(\w+) import", source))
    assert verbs >= {"preview", "merge", "publish", "app", "sweep"}
    for verb in (generate, evaluate):  # which read the questions before
        assert "with importing():" in inspect.getsource(verb)
