"""Variables of a launch that outlived it: named in one line, or forgotten; and processes that wait say for whom."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lrc.cli import main
from lrc.runtime.errors import MachineError
from lrc.runtime.launch_variables import PLACES, check_launch, forget_launch, refuse_leftovers

TWO = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment of its own, without a launch in it."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    forget_launch()
    return monkeypatch


def put(**variables: str) -> None:
    os.environ |= variables


def refusal() -> str:
    with pytest.raises(MachineError) as refused:
        check_launch()
    (line,) = refused.value.lines()
    return line


@pytest.mark.parametrize(
    ("variables", "begin", "cure"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE: is two, expected a whole number", "unset WORLD_SIZE"),
        ({"WORLD_SIZE": "2"}, "RANK: is missing, but WORLD_SIZE is 2", "unset WORLD_SIZE"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE: is 0, expected 1 or more", "unset WORLD_SIZE"),
        ({"RANK": "1"}, "RANK: is 1, but WORLD_SIZE is not set", "unset RANK"),
        ({"LOCAL_RANK": "3"}, "LOCAL_RANK: is 3, but WORLD_SIZE is not set", "unset LOCAL_RANK"),
        ({**TWO, "RANK": "2"}, "RANK: is 2, expected 0 to 1", "unset WORLD_SIZE RANK LOCAL_RANK"),
        ({**TWO, "MASTER_ADDR": ""}, "MASTER_ADDR: is missing", "unset WORLD_SIZE RANK LOCAL_RANK"),
        ({**TWO, "MASTER_PORT": "http"}, "MASTER_PORT: is http", "unset MASTER_PORT"),
        ({**TWO, "MASTER_PORT": "0"}, "MASTER_PORT: is 0, expected 1 to 65535", "MASTER_PORT"),
        (
            {**TWO, "OMPI_COMM_WORLD_SIZE": "4"},
            "OMPI_COMM_WORLD_SIZE: OMPI_COMM_WORLD_SIZE is 4, and WORLD_SIZE is 2",
            "",
        ),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}, "MASTER_ADDR: is missing", "unset OMPI_"),
        ({"PMI_SIZE": "2", "PMI_RANK": "5"}, "PMI_RANK: is 5, expected 0 to 1", "unset PMI_SIZE PMI_RANK"),
        ({"ACCELERATE_USE_FSDP": "maybe"}, "ACCELERATE_USE_FSDP: is maybe", "unset ACCELERATE_USE_FSDP"),
        ({"ACCELERATE_MIXED_PRECISION": "fp17"}, "ACCELERATE_MIXED_PRECISION: is fp17", "unset ACCELERATE_MIXED"),
    ],
    ids=str,
)
def test_what_contradicts_itself_is_named(variables: dict[str, str], begin: str, cure: str) -> None:
    put(**variables)
    line = refusal()
    assert line.startswith(begin) and cure in line
    assert not any(os.environ.get(name) for name in PLACES)  # whoever tells it is alone


@pytest.mark.parametrize(
    "variables",
    [
        {"RANK": "0", "LOCAL_RANK": "0"},
        {"WORLD_SIZE": "1", "RANK": "0"},
        {"PMI_SIZE": "1", "PMI_RANK": "0"},
        {"LOCAL_RANK": "-1"},
    ],
    ids=str,
)
def test_variables_of_one_process_are_forgotten(variables: dict[str, str]) -> None:
    put(**variables)
    check_launch()
    assert not any(name in os.environ for name in PLACES)


def test_a_launch_is_left_alone_and_an_mpi_one_translated() -> None:
    put(**TWO)
    check_launch()
    assert {name: os.environ[name] for name in TWO} == TWO
    forget_launch()
    put(OMPI_COMM_WORLD_SIZE="2", OMPI_COMM_WORLD_RANK="1", MASTER_ADDR="a", MASTER_PORT="1")
    check_launch()
    assert (os.environ["WORLD_SIZE"], os.environ["RANK"]) == ("2", "1")


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        (TWO, "WORLD_SIZE"),
        ({"RANK": "1"}, "RANK"),
        ({"OMPI_COMM_WORLD_LOCAL_RANK": "1"}, "OMPI_COMM_WORLD_LOCAL_RANK"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "ACCELERATE_USE_DEEPSPEED"),
    ],
    ids=str,
)
def test_train_is_its_own_launcher(variables: dict[str, str], name: str, capsys: pytest.CaptureFixture[str]) -> None:
    put(**variables)
    with pytest.raises(SystemExit) as ended:
        main(["train", "tiny/lora"])
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 1
    assert line.startswith(f"{name}: is {variables[name]} in the environment") and f"unset {name}" in line


def test_train_forgets_what_means_one_process() -> None:
    put(WORLD_SIZE="1", RANK="0", LOCAL_RANK="0", MASTER_ADDR="here")
    refuse_leftovers()
    assert "WORLD_SIZE" not in os.environ and "MASTER_ADDR" not in os.environ


@pytest.mark.parametrize(
    "words", [["convert", "no.xlsx", "--output-dir", "o"], ["report", "no"], ["check", "--x", "a"]]
)
def test_a_verb_of_one_process_is_none_of_several(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """As process 1 of 2 it would leave it to process 0 to say what is wrong."""
    put(**TWO)
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code in (1, 2) and len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(("rank", "number"), [("0", signal.SIGTERM), ("1", signal.SIGINT)])
def test_who_is_missing_is_said_and_signals_end_the_waiting(rank: str, number: int, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = (
        "from lrc.runtime.signals import end_at_once; end_at_once()\n"
        "from lrc.runtime import rendezvous\nrendezvous.SILENCE = 0.5\n"
        "from lrc.runtime.processes import processes\nprocesses()\nprint('joined')\n"
    )
    variables = {**TWO, "RANK": rank, "LOCAL_RANK": rank, "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "1"}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", code], env=os.environ | variables, stdout=log, stderr=subprocess.STDOUT
        )
        end = time.monotonic() + 120
        while "waiting" not in (tmp_path / "log").read_text() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
        process.send_signal(number)
        assert process.wait(20) == 128 + number
    lines = (tmp_path / "log").read_text().splitlines()
    who = "1 of 2 processes" if rank == "0" else "process 0"
    assert lines[0].startswith(f"waiting for {who} at 127.0.0.1:{port}; ")
    assert lines[1:] == (["lrc: terminated"] if rank == "0" else [])
