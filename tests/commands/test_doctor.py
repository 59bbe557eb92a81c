"""`lrc doctor` says what is there, what fits, and what comes next."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from driver import make_driver
from hub_server import serve
from huggingface_hub import constants
from small_runs import lrc as run_lrc

import lrc
from lrc.commands import doctor as command
from lrc.runtime.machine import Machine

GIB = 1024**3
MACHINE = Machine(
    system="Linux 6.1, x86_64",
    python="3.12.1",
    torch="2.11.0+cu130",
    device="cuda",
    cards=("NVIDIA GeForce RTX 4070",),
    card_memory=round(11.6 * GIB),
    dtype="bfloat16",
    cores=8,
    memory=24 * GIB,
    disk=200 * GIB,
    cache="/home/me/.cache/huggingface/hub",
    hub=True,
)


def ask(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lrc", "doctor", *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def told(machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr(command, "look_at_machine", lambda: machine)
    monkeypatch.setattr(command, "is_fetched", lambda base: False)
    assert command.doctor()
    return capsys.readouterr().out


def test_this_machine_is_as_others_see_it() -> None:
    with serve() as hub:
        done = ask("--json", HF_ENDPOINT=hub.address, HF_HUB_OFFLINE="0")
    document = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    machine = document["machine"]
    assert machine["torch"] == torch.__version__ and machine["hub"] is True
    assert machine["python"] == ".".join(map(str, sys.version_info[:3]))
    assert 0 < machine["memory"] <= psutil.virtual_memory().total
    assert (machine["device"] == "cpu") == (not torch.accelerator.is_available())
    assert document["packages"]["lrc"]["installed"] == lrc.__version__
    assert document["next"].startswith("lrc run " if document["recipe"] else "lrc demo")


def test_without_the_hub_nothing_that_cannot_be_had_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert run_lrc("doctor", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["next"] == "lrc demo" and (document["recipe"] is None or document["recipe"]["download"] > 0)
    assert document["machine"]["hub"] is None and document["machine"]["cache"] == str(tmp_path)


def test_a_card_of_12_gb(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    text = told(MACHINE, monkeypatch, capsys)
    assert "recipe        qwen3-8b/qlora, base Qwen/Qwen3-8B-Base" in text
    assert "about 16.4 GB, computed" in text and "RTX 4070" in text
    assert text.splitlines()[-1] == (
        "next          lrc run TRAIN.xlsx TEST.xlsx --recipe qwen3-8b/qlora --output-dir out"
    )


def test_without_a_card_it_says_that_training_takes_hours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = told(replace(MACHINE, device="cpu", cards=(), card_memory=0), monkeypatch, capsys)
    assert "no GPU" in text and "takes hours" in text and "qwen2.5-1.5b/lora" in text


def test_a_hub_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    text = told(replace(MACHINE, hub=False), monkeypatch, capsys)
    assert "recipe        qwen3-8b/qlora, base Qwen/Qwen3-8B-Base" in text and "about 16.4 GB" in text
    assert "without the Hub that base cannot be had; name a folder that holds one" in " ".join(text.split())
    assert text.splitlines()[-1].split() == ["next", "lrc", "demo"]


@pytest.mark.parametrize(
    ("cuda", "told"), [(None, "was built without CUDA"), ("13.0", "update its driver for CUDA 13.0")]
)
def test_a_card_that_torch_cannot_use_is_a_problem(
    cuda: str | None, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "look_at_machine", lambda: replace(MACHINE, device="cpu", cards=(), card_memory=0))
    monkeypatch.setattr("torch.version.cuda", cuda)
    make_driver(tmp_path, monkeypatch)
    assert not command.doctor()
    printed = capsys.readouterr()
    assert told in printed.err and printed.out.splitlines()[-1].endswith("lrc doctor")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")  # hidden on purpose, perhaps
    assert command.doctor()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    make_driver(tmp_path, monkeypatch, says="No devices were found")
    assert command.doctor()


def test_a_card_that_torch_has_no_kernels_for_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of two, the old one is named."""
    cards = ("NVIDIA GeForce RTX 4070", "Tesla P100-PCIE-16GB")
    monkeypatch.setattr(command, "look_at_machine", lambda: replace(MACHINE, cards=cards))
    monkeypatch.setattr("torch.cuda.get_arch_list", lambda: ["sm_75", "sm_80"])
    monkeypatch.setattr(
        "torch.cuda.get_device_properties", lambda index: SimpleNamespace(major=(8, 6)[index], minor=(9, 0)[index])
    )
    assert not command.doctor()
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1].endswith("lrc doctor")
    wrong = [line for line in printed.err.splitlines() if "no kernels" in line]
    assert len(wrong) == 1 and wrong[0].startswith("Tesla P100-PCIE-16GB: torch ") and "https://" in wrong[0]


def test_an_old_package_does_not_keep_it_from_looking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "transformers-4.57.3.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: transformers\nVersion: 4.57.3\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert run_lrc("doctor") == 1
    told = capsys.readouterr()
    assert "transformers  4.57.3  (tested with " in told.out
    assert "transformers: 4.57.3 is installed, lrc needs " in told.err
