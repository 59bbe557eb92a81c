"""The SHA-256 of all weights of a model folder, which is cached until a file changes.

The cache is the folder `lrc-checksums` in `HF_DATASETS_CACHE`, and may be removed at any time. A file counts as
unchanged if its path, size, inode, mtime and ctime are the same; programs can set back mtime, but not ctime.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

from huggingface_hub.constants import HF_HOME

from lrc.models.weights import WeightFiles, as_bytes
from lrc.runtime.locks import cache_lock
from lrc.runtime.progress import Advance, track
from lrc.runtime.translation import _

SHOWN = 2 << 30  # show progress from this many bytes
UNSETTLED = 2.0  # seconds within which a file may change again without a change of its times


def contents_sum(weights: WeightFiles) -> str:
    """The SHA-256 over every byte of every tensor, with names, dtypes and shapes, in hexadecimal.

    It depends neither on how the tensors are distributed over files, nor on the files' format.
    """
    total = hashlib.sha256()
    with _progress(weights.nbytes) as advance:
        sums = {name: line for file in weights.files for name, line in _file_sums(weights, file, advance).items()}
    for name in sorted(sums):
        total.update(f"{name} {sums[name]}\n".encode())
    return total.hexdigest()


def _file_sums(weights: WeightFiles, file: str, advance: Advance | None) -> dict[str, str]:
    """Dtype, shape and SHA-256 of each tensor of a file."""
    path = (weights.folder / file).resolve()
    entry = _folder() / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.json"
    with _alone(entry):
        state = _state(path)
        sums = _recall(entry, state)
        if sums is None or sums.keys() != weights.files[file].keys():
            sums = {name: _tensor_sum(weights, name, advance) for name in weights.files[file]}
            if _state(path) == state and time.time_ns() - max(state[-2:]) > UNSETTLED * 1e9:
                _keep(entry, state, sums)
    return sums


def _progress(nbytes: int) -> AbstractContextManager[Advance | None]:
    return track(_("read the base model"), nbytes >> 20, "MiB") if nbytes > SHOWN else nullcontext()


def _tensor_sum(weights: WeightFiles, name: str, advance: Advance | None) -> str:
    digest = hashlib.sha256()
    for block in weights.blocks(name):
        digest.update(as_bytes(block).numpy().data)
    spec = weights.specs[name]
    if advance:
        advance(spec.nbytes >> 20)
    return f"{spec.dtype} {spec.shape} {digest.hexdigest()}"


def _folder() -> Path:
    return Path(os.environ.get("HF_DATASETS_CACHE") or Path(HF_HOME) / "datasets").expanduser() / "lrc-checksums"


def _state(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _recall(entry: Path, state: list[int]) -> dict[str, str] | None:
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        found = json.loads(entry.read_text(encoding="utf-8"))
        if found["state"] == state:
            return {str(name): str(line) for name, line in found["tensors"].items()}
    return None


def _keep(entry: Path, state: list[int], sums: dict[str, str]) -> None:
    """Cache the sums of a file; a cache that cannot be written only costs time."""
    with suppress(OSError):
        temporary = entry.with_name(f".{entry.name}.{os.getpid()}")
        temporary.write_text(json.dumps({"state": state, "tensors": sums}), encoding="utf-8")
        temporary.replace(entry)


@contextmanager
def _alone(entry: Path) -> Iterator[None]:
    """If locks are supported, let one process on a machine read a file while the others wait for its result."""
    with ExitStack() as held:
        with suppress(OSError):
            held.enter_context(cache_lock(entry.with_suffix(".lock"), wait=True))
        yield
