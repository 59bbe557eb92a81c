"""Writes a safetensors file tensor by tensor, and verifies it by reading back.

Unlike `safetensors.torch.save_file`, this never needs the whole file in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import torch

from lrc.models.weights import BLOCK_BYTES, DTYPES, TensorSpec, as_bytes
from lrc.runtime.errors import MachineError, ModelError
from lrc.runtime.translation import _

CODES = {dtype: code for code, dtype in DTYPES.items()}


class SafetensorsWriter:
    """A safetensors file to be written, as a context manager; every byte is read back and compared.

    Args:
        path: the file to write.
        specs: dtype and shape of each tensor, in the order in which they will be written; `start` is ignored.
    """

    def __init__(self, path: Path, specs: dict[str, TensorSpec]) -> None:
        self.path = path
        self._specs = specs
        self._pending = list(specs)

    def __enter__(self) -> SafetensorsWriter:
        self._out: IO[bytes] = self.path.open("wb", buffering=0)
        self._back: IO[bytes] = self.path.open("rb", buffering=0)
        self._put(memoryview(_header(self._specs)))
        return self

    def __exit__(self, *error: object) -> None:
        self._out.close()
        self._back.close()

    def write(self, name: str, blocks: Iterable[torch.Tensor]) -> None:
        """Write the next tensor of `specs`.

        Args:
            name: the tensor's name, the next in `specs`.
            blocks: its values, flat and in pieces, in any dtype; they are cast to that of its spec.

        Raises:
            ModelError: a value is NaN or infinite in the tensor's dtype.
            MachineError: what was read back differs from what was written.
        """
        assert name == self._pending.pop(0), f"{name} is written out of order"
        dtype = self._specs[name].dtype
        for block in blocks:
            piece = block.to(dtype).contiguous()
            if piece.is_floating_point() and not bool(_comparable(piece).isfinite().all()):
                raise ModelError(_explain_not_finite(name, block, dtype))
            self._write_back(name, as_bytes(piece).numpy().data)

    def _write_back(self, name: str, data: memoryview) -> None:
        self._back.seek(self._out.tell())
        self._put(data)
        for offset in range(0, len(data), BLOCK_BYTES):
            piece = data[offset : offset + BLOCK_BYTES]
            if self._back.read(len(piece)) != piece:
                raise MachineError(
                    _("{file}: {name} read back differs from what was written; check the disk").format(
                        file=self.path.name, name=name
                    )
                )

    def _put(self, data: memoryview) -> None:
        while len(data):  # an unbuffered write may take less than it was given
            data = data[self._out.write(data[:BLOCK_BYTES]) :]


def _header(specs: dict[str, TensorSpec]) -> bytes:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}  # without it transformers refuses the file
    end = 0
    for name, spec in specs.items():
        header[name] = {
            "dtype": CODES[spec.dtype],
            "shape": list(spec.shape),
            "data_offsets": [end, end + spec.nbytes],
        }
        end += spec.nbytes
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data starts at a multiple of 8
    return len(text).to_bytes(8, "little") + text


def _explain_not_finite(name: str, block: torch.Tensor, dtype: torch.dtype) -> str:
    kind = str(dtype).removeprefix("torch.")
    if bool(_comparable(block).isfinite().all()):
        return _("{name}: too large for {kind}; merge with --dtype bfloat16 or float32").format(name=name, kind=kind)
    text = _("{name}: holds NaN or infinity in {kind}; the base model or the adapter is broken")
    return text.format(name=name, kind=kind)


def _comparable(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.dtype.itemsize == 1 else tensor  # torch has no isfinite for 8-bit floats
