"""Writes the weights of a merged model into a folder: tensor by tensor, or merged by PEFT as a whole."""

from __future__ import annotations

import json
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import PreTrainedModel

from lrc.models.fingerprint import CONFIG
from lrc.models.loading import load_base
from lrc.models.merging.safetensors_writer import SafetensorsWriter
from lrc.models.merging.tensor_sources import StreamingMerge
from lrc.models.weights import INDEX, NAMED, SINGLE, TensorSpec, WeightFiles
from lrc.runtime.errors import MachineError, ModelError, first_line
from lrc.runtime.json_objects import read_json
from lrc.runtime.memory import available_memory, format_size
from lrc.runtime.progress import track
from lrc.runtime.translation import _

HEADROOM = 1.2  # times the model's size in float32: for PEFT's delta of one layer, and for loading


def write_streamed(merge: StreamingMerge, base: Path, folder: Path, dtype: torch.dtype | None) -> int:
    """Write weights, index and config.json of a merged model, with one tensor in memory at a time.

    Args:
        merge: the merge.
        base: the base model's folder.
        folder: where the files go.
        dtype: of the floating-point tensors; None keeps that of each base tensor.

    Returns:
        The number of tensors that the adapter changed.

    Raises:
        ModelError: a merged value is NaN or infinite.
        MachineError: what was read back differs from what was written.
    """
    _write_files(folder, merge.specs(dtype), merge.blocks, sharded=merge.weights.sharded)
    _write_config(base, folder, dtype, untied=merge.untied)
    return merge.changed


def write_whole(adapter: Path, base: Path, folder: Path, dtype: torch.dtype | None) -> int:
    """Have PEFT merge with the model in memory, in float32, then write it in the files and dtypes of the base.

    transformers first saves the merged model in a temporary folder beside the output. This maps the names of tensors in
    memory to those in the base's files, by which their file and dtype are found.

    Args:
        adapter: the adapter's folder.
        base: the base model's folder.
        folder: where the files go.
        dtype: of the floating-point tensors; None keeps that of each base tensor.

    Returns:
        The number of tensors that were written.

    Raises:
        ModelError: the adapter does not fit, cannot be merged, or a merged value is NaN or infinite.
        MachineError: there is not enough memory, or what was read back differs from what was written.
    """
    weights = WeightFiles(base)
    require_memory(weights, _("merging with the whole model in memory"))
    with TemporaryDirectory(dir=folder) as place:
        untied = _save_merged(load_base(str(base), dtype=torch.float32), adapter, Path(place))
        computed = WeightFiles(Path(place))
        files = _place_like(weights, computed, dtype)
        _write_files(folder, files, computed.blocks, sharded=weights.sharded)
    _write_config(base, folder, dtype, untied=untied)
    return len(computed.specs)


def require_memory(weights: WeightFiles, what: str) -> None:
    """Refuse to load a model in float32 if memory is too small.

    Args:
        weights: of the model.
        what: what the memory is needed for, for the message.

    Raises:
        MachineError: too little is available.
    """
    need, have = float32_bytes(weights), available_memory()
    if need > have:
        raise MachineError(
            _("{what} needs {need}, {have} of memory are free; use a larger machine").format(
                what=what, need=format_size(need), have=format_size(have)
            )
        )


def float32_bytes(weights: WeightFiles) -> int:
    """The bytes of memory that a model needs in float32, with headroom."""
    return int(HEADROOM * sum(spec.nbytes // spec.dtype.itemsize * 4 for spec in weights.specs.values()))


def _save_merged(model: PreTrainedModel, adapter: Path, folder: Path) -> bool:
    """Have PEFT merge and transformers save; return whether tied tensors differ afterwards."""
    tied = model.get_expanded_tied_weights_keys(all_submodels=True).items()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            adapted = PeftModel.from_pretrained(model, str(adapter))
            _separate(adapted)
            merged = adapted.merge_and_unload()
        state = merged.state_dict()
        untied = any(not torch.equal(state[one], state[other]) for one, other in tied)
        if untied:
            merged.config.tie_word_embeddings = False
        else:
            merged.tie_weights()
        merged.save_pretrained(folder)
    except (ValueError, RuntimeError, TypeError, KeyError, AttributeError, NotImplementedError) as error:
        reason = first_line(error)
        raise ModelError(
            _("{adapter}: PEFT cannot merge it ({reason}); answer with --adapter instead").format(
                adapter=adapter, reason=reason
            )
        ) from error
    return untied


def _separate(model: PeftModel) -> None:
    """Give each layer with an adapter tensors of its own, so that merging does not change layers tied to it."""
    users = Counter(id(p) for module in model.modules() for p in module.parameters(recurse=False))
    for layer in model.modules():
        if not isinstance(layer, BaseTunerLayer):
            continue
        module = layer.get_base_layer()
        for name, parameter in list(module.named_parameters(recurse=False)):
            if users[id(parameter)] > 1:
                setattr(module, name, nn.Parameter(parameter.detach().clone(), requires_grad=False))


def _place_like(
    weights: WeightFiles, computed: WeightFiles, dtype: torch.dtype | None
) -> dict[str, dict[str, TensorSpec]]:
    """Distribute merged tensors over files, with dtypes, as in the base; new ones go into its last file."""
    files: dict[str, dict[str, TensorSpec]] = {file: {} for file in weights.files}
    home = {name: file for file, specs in weights.files.items() for name in specs}
    for name, spec in computed.specs.items():
        own = weights.specs[name].dtype if name in weights.specs else main_dtype(weights)
        if spec.dtype.is_floating_point:
            spec = replace(spec, dtype=dtype or own)
        files[home.get(name, next(reversed(files)))][name] = spec
    return files


def _write_files(
    folder: Path,
    files: dict[str, dict[str, TensorSpec]],
    blocks: Callable[[str], Iterable[torch.Tensor]],
    *,
    sharded: bool,
) -> None:
    files = {_safetensors_name(file) if sharded else SINGLE: specs for file, specs in files.items() if specs}
    with track(_("merge"), sum(len(specs) for specs in files.values()), "tensors") as advance:
        for file, specs in files.items():
            with SafetensorsWriter(folder / file, specs) as shard:
                for name in specs:
                    shard.write(name, blocks(name))
                    advance()
    if sharded:
        _write_index(folder, files)


def main_dtype(weights: WeightFiles) -> torch.dtype:
    """The dtype of the largest tensor."""
    return max(weights.specs.values(), key=lambda spec: spec.nbytes).dtype


def _safetensors_name(file: str) -> str:
    if not file.endswith(".bin"):
        return file
    return f"model{file.removeprefix('pytorch_model')[:-4]}.safetensors"


def _write_index(folder: Path, files: dict[str, dict[str, TensorSpec]]) -> None:
    total = sum(spec.nbytes for specs in files.values() for spec in specs.values())
    weight_map = {name: file for file, specs in files.items() for name in specs}
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _write_config(base: Path, folder: Path, dtype: torch.dtype | None, *, untied: bool) -> None:
    config = read_json(base / CONFIG)
    if dtype is None and not untied and NAMED not in config:
        shutil.copyfile(base / CONFIG, folder / CONFIG)
        return
    config.pop(NAMED, None)
    if untied:
        config["tie_word_embeddings"] = False
    if dtype is not None:
        config.pop("torch_dtype", None)  # what transformers 4 called it
        config["dtype"] = str(dtype).removeprefix("torch.")
    (folder / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
