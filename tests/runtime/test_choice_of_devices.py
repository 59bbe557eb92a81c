"""What lrc makes of the devices that a machine has, told by mocks of torch's answers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_models import save_base

from lrc.answering.load import _quantized_to_fit
from lrc.commands import train

CUDA = torch.device("cuda")


@pytest.mark.parametrize(("count", "wanted"), [(1, []), (2, ["--num_processes", "2"]), (8, ["--num_processes", "8"])])
def test_training_takes_all_gpus(count: int, wanted: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    monkeypatch.setattr("torch.accelerator.device_count", lambda: count)
    launched: list[list[str]] = []
    monkeypatch.setattr(train, "preflight", lambda *_: None)  # the data of the demo need not be there
    monkeypatch.setattr(train, "_launch", lambda words: launched.append(list(words)) or 0)
    train.train("tiny/lora", None, [])
    assert launched[0][2:-4] == wanted
    train.train("tiny/lora", "multi_gpu", [])
    assert "--num_processes" not in launched[1]


@pytest.mark.parametrize(("share", "quantized"), [(0.5, True), (1.05, True), (1.2, False), (10, False)])
def test_a_model_that_does_not_fit_is_asked_in_4_bits(
    share: float,
    quantized: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = save_base(tmp_path / "base")
    capsys.readouterr()
    stored = (folder / "model.safetensors").stat().st_size
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (int(stored * share), stored))
    monkeypatch.setattr("lrc.models.quantization.supported", lambda dtype, device: True)
    found = _quantized_to_fit(str(folder), CUDA)
    assert (found is not None) == quantized
    told = capsys.readouterr().err
    assert (not quantized and not told) or (found and found.load_in_4bit and "--no-load-in-4bit" in told)
