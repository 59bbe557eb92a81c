"""Reads the weights of a model folder piece by piece.

Safetensors files are read at their offsets, without memory mapping, so that what was read does not stay in memory.
`.bin` files are read with torch's weights-only unpickler.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from math import prod
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from lrc.runtime.errors import ModelError
from lrc.runtime.library_errors import describe_error
from lrc.runtime.progress import notify
from lrc.runtime.translation import _

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ADAPTER_BIN = "adapter_model.bin"
BIN_INDEX, BIN_SINGLE = "pytorch_model.bin.index.json", "pytorch_model.bin"
NAMED = "transformers_weights"  # the key of config.json that may name the weight file
BLOCK_BYTES = 4 << 20  # how much of a tensor is in memory at once when it is only copied

# The dtype codes of the safetensors format: https://github.com/huggingface/safetensors#format
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class TensorSpec:
    """A tensor's dtype, shape and place, from the header of its file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int = 0  # the offset of its bytes in a safetensors file

    @property
    def nbytes(self) -> int:
        """The size of its data in bytes."""
        return prod(self.shape) * self.dtype.itemsize


class WeightFiles:
    """The weight files that transformers would load from a model folder; headers are read at once, tensors on demand.

    Args:
        folder: has `model.safetensors` or its index, or else `pytorch_model.bin` or its index.

    Attributes:
        files: the weight files, sorted by name, each with its tensors in the order of the file.
        sharded: whether the weights have an index.

    Raises:
        ModelError: there are no weights, a file is damaged, or a pickle holds more than tensors.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sharded, self.files = _files(folder)
        self._file = {name: file for file, specs in self.files.items() for name in specs}
        self._unpickled: tuple[str, dict[str, torch.Tensor]] | None = None

    @cached_property
    def specs(self) -> dict[str, TensorSpec]:
        """The specs of all tensors, by name."""
        return {name: spec for specs in self.files.values() for name, spec in specs.items()}

    @property
    def nbytes(self) -> int:
        """The size of all tensors in bytes."""
        return sum(spec.nbytes for spec in self.specs.values())

    def raw(self, name: str, start: int, length: int) -> torch.Tensor:
        """Bytes `start` to `start + length` of a tensor's contiguous data: uint8 of shape (length,)."""
        file = self._file[name]
        if file.endswith(".bin"):
            return as_bytes(self._load_bin(file)[name])[start : start + length]
        data = bytearray(length)
        with (self.folder / file).open("rb", buffering=0) as handle:
            handle.seek(self.specs[name].start + start)
            read, rest = 1, memoryview(data)
            while read and rest:  # Linux reads at most 2 GiB at once, and other systems less
                rest = rest[(read := handle.readinto(rest) or 0) :]
            if rest:
                raise ModelError(
                    _("{value}: ends inside {name}; download the file again").format(
                        value=self.folder / file, name=name
                    )
                )
        return torch.frombuffer(data, dtype=torch.uint8) if length else torch.empty(0, dtype=torch.uint8)

    def blocks(self, name: str, block_bytes: int = BLOCK_BYTES) -> Iterator[torch.Tensor]:
        """A tensor's data in its own dtype, flat, at most `block_bytes` at a time."""
        spec = self.specs[name]
        for start in range(0, spec.nbytes, block_bytes):
            yield self.raw(name, start, min(block_bytes, spec.nbytes - start)).view(spec.dtype)

    def read(self, name: str) -> torch.Tensor:
        """A whole tensor, in its own dtype and shape."""
        spec = self.specs[name]
        return self.raw(name, 0, spec.nbytes).view(spec.dtype).reshape(spec.shape)

    def _load_bin(self, file: str) -> dict[str, torch.Tensor]:
        if self._unpickled is None or self._unpickled[0] != file:
            self._unpickled = None  # free the last file before reading the next one
            self._unpickled = file, unpickle_tensors(self.folder / file)
        return self._unpickled[1]


def unpickle_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a `.bin` file with torch's weights-only unpickler, memory-mapped if its format allows.

    Raises:
        ModelError: it is damaged, or is anything but a dictionary of tensors.
    """
    try:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # the format before torch 1.6 cannot be mapped
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, AttributeError) as error:
        raise ModelError(
            _("{path}: damaged, or a pickle that holds more than tensors; use safetensors weights").format(path=path)
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ModelError(_("{path}: holds more than tensors by name; use safetensors weights").format(path=path))
    return state


def _files(folder: Path) -> tuple[bool, dict[str, dict[str, TensorSpec]]]:
    # The order in which transformers looks for them (modeling_utils._get_resolved_checkpoint_files).
    if named := _read_weight_file(folder):
        if named.endswith(".index.json"):
            return True, _read_index(folder, named)
        return False, {named: _safetensors_specs(folder / named)}
    if (folder / SINGLE).is_file():
        return False, {SINGLE: _safetensors_specs(folder / SINGLE)}
    if (folder / INDEX).is_file():
        return True, _read_index(folder, INDEX)
    if (folder / BIN_SINGLE).is_file():
        _announce_unpickling(folder)
        return False, {BIN_SINGLE: _bin_specs(folder / BIN_SINGLE)}
    if (folder / BIN_INDEX).is_file():
        return True, _read_index(folder, BIN_INDEX)
    raise ModelError(
        _("{folder}: no {single} and no {bin_single}; name a folder that holds a model's weights").format(
            folder=folder, single=SINGLE, bin_single=BIN_SINGLE
        )
    )


def _read_weight_file(folder: Path) -> str | None:
    """The weight file or index that config.json names; None if it names none."""
    try:
        named = json.loads((folder / "config.json").read_text(encoding="utf-8")).get(NAMED)
    except (OSError, ValueError, AttributeError, RecursionError):
        return None  # a damaged configuration is reported where it is needed
    if named is None:
        return None
    if not isinstance(named, str) or Path(named).name != named or not (folder / named).is_file():
        raise ModelError(
            _("{value}: {named} is {named2}, which is not in the folder; download the folder again").format(
                value=folder / "config.json", named=NAMED, named2=repr(named)
            )
        )
    return named


@cache
def _announce_unpickling(folder: Path) -> None:
    text = _("{folder}: has no safetensors, only .bin files; reading them with torch's weights-only unpickler")
    notify(text.format(folder=folder))


def _read_index(folder: Path, index: str) -> dict[str, dict[str, TensorSpec]]:
    try:
        weight_map: dict[str, str] = json.loads((folder / index).read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(weight_map.values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(
            _("{value}: not an index of weights; download the file again").format(value=folder / index)
        ) from error
    if index == BIN_INDEX:
        _announce_unpickling(folder)
    files = {}
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise ModelError(
                _("{value}: names {name}, which is not in the folder; download the file again").format(
                    value=folder / index, name=name
                )
            )
        specs = _bin_specs(folder / name) if index == BIN_INDEX else _safetensors_specs(folder / name)
        files[name] = {key: spec for key, spec in specs.items() if weight_map.get(key) == name}
    found = {key for specs in files.values() for key in specs}
    if lost := sorted(set(weight_map) - found):
        raise ModelError(
            _("{value}: {lost} is not in {weight_map}; download the files again").format(
                value=folder / index, lost=lost[0], weight_map=weight_map[lost[0]]
            )
        )
    return files


def _safetensors_specs(path: Path) -> dict[str, TensorSpec]:
    try:
        with safe_open(path, framework="pt"):  # the library checks the header against the file's length
            pass
        with path.open("rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
            header = json.loads(handle.read(length))
        header.pop("__metadata__", None)
        entries = sorted(header.items(), key=lambda item: item[1]["data_offsets"][0])
        return {
            name: TensorSpec(DTYPES[entry["dtype"]], tuple(entry["shape"]), 8 + length + entry["data_offsets"][0])
            for name, entry in entries
        }
    except KeyError as error:
        raise ModelError(
            _("{path}: dtype {reason} is unknown; use the unquantized model").format(path=path, reason=error)
        ) from error
    except (SafetensorError, ValueError) as error:
        raise ModelError(
            _("{path}: damaged ({reason}); download the file again").format(path=path, reason=describe_error(error))
        ) from error


def _bin_specs(path: Path) -> dict[str, TensorSpec]:
    return {name: TensorSpec(tensor.dtype, tuple(tensor.shape)) for name, tensor in unpickle_tensors(path).items()}


def as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor's data in row-major order: uint8, flat."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)
