"""Weights are read a piece at a time, and written and read back tensor by tensor."""

from __future__ import annotations

import json
import shutil
from io import FileIO
from pathlib import Path
from typing import Any

import pytest
import torch
from oracle import difference
from safetensors.torch import load_file, save_file
from small_models import save_adapter, save_base
from transformers import LlamaForCausalLM

from lrc.commands.merge import merge
from lrc.models.merging.safetensors_writer import SafetensorsWriter
from lrc.models.weights import TensorSpec, WeightFiles
from lrc.runtime.errors import MachineError, ModelError

TENSORS = {
    "half": torch.randn(5, 7).half(),
    "wide": torch.randn(300, 11),
    "brain": torch.randn(3).bfloat16(),
    "scalar": torch.tensor(4.5),
    "counts": torch.arange(6).reshape(2, 3),
    "none": torch.empty(0, 4),
    "漢字": torch.tensor([True, False]),
}


def specs() -> dict[str, TensorSpec]:
    return {name: TensorSpec(tensor.dtype, tuple(tensor.shape)) for name, tensor in TENSORS.items()}


def test_what_the_library_wrote_is_read(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "model.safetensors")
    checkpoint = WeightFiles(tmp_path)
    assert set(checkpoint.specs) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert torch.equal(checkpoint.read(name), tensor) and checkpoint.read(name).dtype == tensor.dtype
        pieces = list(checkpoint.blocks(name, block_bytes=64))
        assert all(piece.nbytes <= 64 for piece in pieces)
        assert torch.equal(torch.cat([*pieces, tensor.reshape(-1)[:0]]), tensor.reshape(-1))


def test_a_system_that_reads_less_than_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Linux does above 2 GiB: a tensor of 3 GiB comes in two reads."""

    class Short(FileIO):
        def readinto(self, buffer: Any) -> int:
            return super().readinto(memoryview(buffer)[:100]) or 0

    save_file(TENSORS, tmp_path / "model.safetensors")
    checkpoint = WeightFiles(tmp_path)
    content = (tmp_path / "model.safetensors").read_bytes()
    monkeypatch.setattr(Path, "open", lambda path, *args, **kwargs: Short(path))
    assert torch.equal(checkpoint.read("wide"), TENSORS["wide"])
    monkeypatch.undo()
    (tmp_path / "model.safetensors").write_bytes(content[:-64])
    monkeypatch.setattr(Path, "open", lambda path, *args, **kwargs: Short(path))
    with pytest.raises(ModelError, match="ends inside"):
        list(map(checkpoint.read, TENSORS))


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("other", ["model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"])
def test_of_several_sets_of_weights_transformers_own_choice_is_read(other: str, sharded: bool, tmp_path: Path) -> None:
    """The model that the library loads is the one that is merged and recognised."""
    first = save_base(tmp_path / "base", max_shard_size="60KB" if sharded and "bin" in other else "5GB")
    second = save_base(tmp_path / "second", seed=1, max_shard_size="60KB" if other.endswith("index.json") else "5GB")
    for path in second.glob("model*"):
        if "bin" not in other:
            shutil.copy(path, first)
        elif path.suffix == ".safetensors":
            torch.save(load_file(path), first / f"pytorch_{path.stem}.bin")
        else:
            text = path.read_text().replace("model-", "pytorch_model-").replace(".safetensors", ".bin")
            (first / other).write_text(text)
    assert (first / other).is_file()
    loaded = LlamaForCausalLM.from_pretrained(first).state_dict()
    checkpoint = WeightFiles(first)
    assert checkpoint.specs.keys() == loaded.keys()
    assert all(torch.equal(checkpoint.read(name), tensor) for name, tensor in loaded.items())


def test_weights_that_the_configuration_names(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    save_base(tmp_path / "second", seed=1)
    shutil.copy(tmp_path / "second/model.safetensors", base / "chosen.safetensors")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "transformers_weights": "chosen.safetensors"}))
    loaded, checkpoint = LlamaForCausalLM.from_pretrained(base).state_dict(), WeightFiles(base)
    assert all(torch.equal(checkpoint.read(name), tensor) for name, tensor in loaded.items())
    merge(save_adapter(tmp_path / "adapter", base), tmp_path / "merged", verify=False)
    assert difference(base, tmp_path / "adapter", tmp_path / "merged") <= 2e-6
    (base / "chosen.safetensors").unlink()
    with pytest.raises(ModelError, match=r"transformers_weights is 'chosen\.safetensors', which is not in the folder"):
        WeightFiles(base)


def test_what_a_shard_wrote_the_library_reads(tmp_path: Path) -> None:
    with SafetensorsWriter(tmp_path / "model.safetensors", specs()) as shard:
        for name, tensor in TENSORS.items():
            shard.write(name, tensor.reshape(-1).split(4) if tensor.numel() else [])
    found = load_file(tmp_path / "model.safetensors")
    assert list(WeightFiles(tmp_path).specs)[0] == "half"
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())


def test_what_reads_back_otherwise_is_refused(tmp_path: Path) -> None:
    class Wrong(SafetensorsWriter):
        def _put(self, data: memoryview) -> None:
            super()._put(memoryview(bytes(data[:-1]) + bytes([data[-1] ^ 1])))

    with (
        Wrong(tmp_path / "model.safetensors", specs()) as shard,
        pytest.raises(MachineError, match="half read back differs"),
    ):
        shard.write("half", [TENSORS["half"].reshape(-1)])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_refused(value: float, tmp_path: Path) -> None:
    with (
        SafetensorsWriter(tmp_path / "x", {"x": TensorSpec(torch.float32, (2,))}) as shard,
        pytest.raises(ModelError, match="x: holds NaN or infinity in float32"),
    ):
        shard.write("x", [torch.tensor([1.0, value])])


def _index(folder: Path, weight_map: object) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"half": "../part.safetensors"}, "which is not in the folder"),
        ({"half": "model-00002-of-00002.safetensors"}, "which is not in the folder"),
        ({"half": "part.safetensors", "lost": "part.safetensors"}, "lost is not in part.safetensors"),
        (["half"], "not an index of weights"),
        (7, "not an index of weights"),
    ],
)
def test_a_wrong_index_is_refused(weight_map: object, message: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for place in (tmp_path, folder):
        save_file(TENSORS, place / "part.safetensors")
    _index(folder, weight_map)
    with pytest.raises(ModelError, match=message):
        WeightFiles(folder)


@pytest.mark.parametrize("length", [0, 7, 100, -1])
def test_a_cut_file_is_refused(length: int, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ModelError, match="model.safetensors: damaged"):
        WeightFiles(tmp_path)


@pytest.mark.parametrize("legacy", [False, True])
def test_bin_files_of_both_formats_are_read(legacy: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    torch.save(TENSORS, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=not legacy)
    checkpoint = WeightFiles(tmp_path)
    assert all(torch.equal(checkpoint.read(name), tensor) for name, tensor in TENSORS.items())
    assert capfd.readouterr().err.count("weights-only unpickler") == 1


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"PK\x03\x04cut"])
def test_a_damaged_bin_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(ModelError, match=r"pytorch_model\.bin: damaged"):
        WeightFiles(tmp_path)


@pytest.mark.parametrize("value", [[torch.ones(2)], {"x": 1}, {"x": {"y": torch.ones(1)}}])
def test_a_bin_file_of_more_than_tensors_is_refused(value: object, tmp_path: Path) -> None:
    torch.save(value, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="holds more than tensors"):
        WeightFiles(tmp_path)
