"""What a machine lacks becomes float32, and it is said."""

from __future__ import annotations

import pytest

from lrc import dtypes

on_cpu = pytest.mark.skipif(dtypes.device_type() != "cpu", reason="asks what a CPU does")


@on_cpu
def test_half_precision_becomes_float32_on_a_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    settled = dtypes.settle({"fp16": True, "dtype": "float16", "lora_r": 4})
    assert settled == {"fp16": False, "dtype": "float32", "lora_r": 4, "use_cpu": True}
    assert [line.partition(":")[0] for line in capsys.readouterr().err.splitlines()] == ["fp16", "dtype"]


@on_cpu
def test_bfloat16_stays_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    for has, kept in ((True, True), (False, False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=has: {"avx512_bf16": has}, raising=False)
        assert dtypes.settle({"bf16": True})["bf16"] is kept


def test_only_the_first_process_speaks(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    assert dtypes.settle({"fp16": True, "use_cpu": True})["fp16"] is False
    assert capsys.readouterr().err == ""


def test_the_launcher_can_ask_for_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert dtypes.settle({})["use_cpu"] is True


def test_float32_needs_no_units() -> None:
    assert dtypes.supported("float32", "cpu") and dtypes.settle({"dtype": "auto"})["dtype"] == "auto"
