"""What a machine lacks becomes what it has, and it is said; training and answering obey one rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lrc.runtime import devices as dtypes
from lrc.runtime.errors import MachineError

on_cpu = pytest.mark.skipif(dtypes.device_type() != "cpu", reason="asks what a CPU does")


@on_cpu
def test_half_precision_becomes_float32_on_a_cpu() -> None:
    settled, notices = dtypes.apply_device_support({"fp16": True, "dtype": "float16", "lora_r": 4})
    assert settled == {"fp16": False, "dtype": "float32", "lora_r": 4, "use_cpu": True}
    assert [line.partition(":")[0] for line in notices] == ["fp16", "dtype"]


@on_cpu
def test_bfloat16_stays_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for has, kept in ((True, True), (False, False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=has: {"avx512_bf16": has}, raising=False)
        assert dtypes.apply_device_support({"bf16": True}).values["bf16"] is kept


def test_the_launcher_can_ask_for_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert dtypes.apply_device_support({}).values["use_cpu"] is True


def test_float32_needs_no_units() -> None:
    assert (
        dtypes.supported("float32", "cpu") and dtypes.apply_device_support({"dtype": "auto"}).values["dtype"] == "auto"
    )


@pytest.fixture
def _turing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a T4, as torch describes one: bfloat16 is there, but emulated."""
    monkeypatch.setattr("torch.accelerator.current_accelerator", lambda check_available=False: torch.device("cuda"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation=True: including_emulation)


def base(folder: Path, family: str) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": family}))
    return str(folder)


@pytest.mark.usefixtures("_turing")
@pytest.mark.parametrize(
    ("family", "asked", "settled"),
    [
        ("llama", {"bf16": True, "dtype": "bfloat16"}, (False, True, "float16")),
        ("qwen3", {"fp16": True, "dtype": "float16"}, (None, True, "float16")),
        ("gemma3_text", {"bf16": True, "dtype": "bfloat16"}, (False, None, "float32")),
        ("gemma3_text", {"fp16": True, "dtype": "float16"}, (None, False, "float32")),
        ("llama", {"dtype": "float32"}, (None, None, "float32")),
    ],
)
def test_a_turing_gpu_computes_in_float16(
    family: str, asked: dict[str, Any], settled: tuple[Any, ...], tmp_path: Path
) -> None:
    found, notices = dtypes.apply_device_support({**asked, "model_name_or_path": base(tmp_path, family)})
    assert (found.get("bf16"), found.get("fp16"), found["dtype"]) == settled
    changed = {key for key, value in asked.items() if found[key] != value}
    assert {line.partition(":")[0] for line in notices} == changed
    assert all(line.endswith(f"; {settled[2]} is used") for line in notices)


@pytest.fixture
def _ampere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.accelerator.current_accelerator", lambda check_available=False: torch.device("cuda"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation=True: True)


@pytest.mark.usefixtures("_ampere")
@pytest.mark.parametrize("family", ["gemma2", "gemma3_text", "t5gemma"])
def test_what_overflows_float16_is_mixed_with_bfloat16_where_there_are_units(family: str, tmp_path: Path) -> None:
    asked = {"fp16": True, "dtype": "float16", "model_name_or_path": base(tmp_path, family)}
    found, notices = dtypes.apply_device_support(asked)
    assert (found["fp16"], found["bf16"], found["dtype"]) == (False, True, "bfloat16")
    assert all(line.endswith(f"{family} overflows float16; bfloat16 is used") for line in notices) and len(notices) == 2


@pytest.mark.usefixtures("_ampere")
@pytest.mark.parametrize(
    ("processes", "capabilities", "settled"),
    [
        ("1", [(8, 0), (7, 5)], "bfloat16"),
        ("2", [(8, 0), (7, 5)], "float16"),
        ("2", [(8, 0), (9, 0)], "bfloat16"),
    ],
)
def test_gpus_of_several_kinds_compute_in_what_all_of_a_launch_have(
    processes: str, capabilities: list[tuple[int, int]], settled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", processes)
    monkeypatch.setattr("torch.cuda.device_count", lambda: len(capabilities))
    monkeypatch.setattr("torch.cuda.get_device_capability", capabilities.__getitem__)
    asked = {"bf16": True, "dtype": "bfloat16", "model_name_or_path": base(tmp_path, "llama")}
    found, _notices = dtypes.apply_device_support(asked)
    assert (found["bf16"], found.get("fp16", False)) == (settled == "bfloat16", settled == "float16")
    assert found["dtype"] == settled


@pytest.mark.usefixtures("_turing")
@pytest.mark.parametrize(
    ("stored", "family", "taken"),
    [
        ("bfloat16", "llama", "float16"),
        ("float16", "llama", "float16"),
        ("bfloat16", "gemma3_text", "float32"),
        ("float16", "gemma3_text", "float32"),
        ("float32", "llama", "float32"),
    ],
)
def test_a_turing_gpu_answers_in_the_format_that_it_trains_in(stored: str, family: str, taken: str) -> None:
    assert dtypes.answering_dtype(stored, "cuda", family)[0] == taken


@pytest.mark.parametrize("units", [True, False])
@pytest.mark.parametrize("stored", ["float32", "float16", "bfloat16"])
def test_a_cpu_answers_in_bfloat16_where_it_has_units(
    stored: str, units: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": units}, raising=False)
    fast = units and stored != "float32"
    assert dtypes.answering_dtype(stored, "cpu", "llama")[0] == ("bfloat16" if fast else "float32")
    assert dtypes.answering_dtype(stored, "cpu", "llama", "float32")[0] == "float32"
    with pytest.raises(MachineError, match=r"--dtype: float16, but this machine does not support float16 \(cpu\)"):
        dtypes.answering_dtype(stored, "cpu", "llama", "float16")


def test_a_name_on_the_hub_tells_its_family() -> None:
    assert dtypes.family_of("google/gemma-3-1b-it") == "gemma3"
    assert dtypes.family_of("hfl/chinese-alpaca-2-7b") == ""
