"""The weights of a merged model, written into a folder: tensor by tensor, or by PEFT in one piece."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from lrc.errors import MachineError, ModelError
from lrc.fingerprint import CONFIG, read_json
from lrc.graft import Graft
from lrc.memory import available_memory, size
from lrc.models import load_base
from lrc.progress import track
from lrc.shard import Shard
from lrc.weights import INDEX, SINGLE, Checkpoint, Spec

HEADROOM = 1.2  # of a model's size in float32: PEFT's delta of one layer, and what loading needs


def write_streamed(graft: Graft, base: Path, folder: Path, dtype: torch.dtype | None) -> int:
    """Write weights, index and config.json of a merged model, one tensor in memory at a time.

    Args:
        graft: the adapter on the base.
        base: the base model's folder.
        folder: where the files go.
        dtype: of the floating-point tensors; None keeps each base tensor's own.

    Returns:
        the number of tensors that the adapter changed.

    Raises:
        ModelError: a merged value is NaN or infinite.
        MachineError: what was read back differs from what was written.
    """
    files = {_safetensors_name(file): specs for file, specs in graft.specs(dtype).items()}
    with track("merge", sum(len(specs) for specs in files.values()), "tensors") as advance:
        for file, specs in files.items():
            with Shard(folder / file, specs) as shard:
                for name in specs:
                    shard.write(name, graft.blocks(name))
                    advance()
    if graft.weights.sharded:
        _write_index(folder, files)
    _write_config(base, folder, dtype, untied=graft.untied)
    return graft.changed


def write_whole(adapter: Path, base: Path, folder: Path, dtype: torch.dtype | None) -> int:
    """Have PEFT merge with the model in memory, in float32, then write it and read it back.

    Args:
        adapter: the adapter's folder.
        base: the base model's folder.
        folder: where the files go.
        dtype: of the floating-point tensors; None takes the base's.

    Returns:
        the number of tensors that were written.

    Raises:
        ModelError: the adapter does not fit, cannot be merged, or a merged value is NaN or infinite.
        MachineError: there is not enough memory, or what was read back differs from what was written.
    """
    weights = Checkpoint(base)
    require_memory(weights, "merging with the whole model in memory")
    model = load_base(str(base), dtype=torch.float32)
    merged = _merge_with_peft(model, adapter).to(dtype or main_dtype(weights))
    for name, tensor in merged.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"{name}: holds NaN or infinity after merging; the base or the adapter is broken")
    merged.save_pretrained(folder)
    written = Checkpoint(folder)
    for name, tensor in merged.state_dict().items():
        if name in written.specs and not torch.equal(written.read(name), tensor):
            raise MachineError(f"{name}: read back differs from what was written; check the disk")
    return len(written.specs)


def require_memory(weights: Checkpoint, what: str) -> None:
    """Refuse what would not fit: the model in float32 and some more.

    Raises:
        MachineError: less memory is available.
    """
    need, have = float32_bytes(weights), available_memory()
    if need > have:
        raise MachineError(f"{what} needs {size(need)}, {size(have)} of memory are free; use a larger machine")


def float32_bytes(weights: Checkpoint) -> int:
    """The memory that a model needs in float32, with headroom."""
    return int(HEADROOM * sum(spec.nbytes // spec.dtype.itemsize * 4 for spec in weights.specs.values()))


def _merge_with_peft(model: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return PeftModel.from_pretrained(model, str(adapter)).merge_and_unload(safe_merge=True)
    except (ValueError, RuntimeError, TypeError, KeyError, AttributeError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{adapter}: PEFT cannot merge it ({reason}); answer with --adapter instead") from error


def main_dtype(weights: Checkpoint) -> torch.dtype:
    """The dtype of the largest tensor."""
    return max(weights.specs.values(), key=lambda spec: spec.nbytes).dtype


def _safetensors_name(file: str) -> str:
    if not file.endswith(".bin"):
        return file
    return SINGLE if file == "pytorch_model.bin" else f"model{file.removeprefix('pytorch_model')[:-4]}.safetensors"


def _write_index(folder: Path, files: dict[str, dict[str, Spec]]) -> None:
    total = sum(spec.nbytes for specs in files.values() for spec in specs.values())
    weight_map = {name: file for file, specs in files.items() for name in specs}
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _write_config(base: Path, folder: Path, dtype: torch.dtype | None, *, untied: bool) -> None:
    if dtype is None and not untied:
        shutil.copyfile(base / CONFIG, folder / CONFIG)
        return
    config = read_json(base / CONFIG)
    if untied:
        config["tie_word_embeddings"] = False
    if dtype is not None:
        config.pop("torch_dtype", None)  # what transformers 4 called it
        config["dtype"] = str(dtype).removeprefix("torch.")
    (folder / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
