"""Finds the source of every tensor of a merged model, and merges it, without loading the base model.

The base is built on torch's meta device, PEFT adds the adapter's modules, and each parameter of the merged model is
traced to its source: the base's file, the adapter's file, or a base tensor that a LoRA layer changes. Such a layer is
then loaded with its own tensors only, in float32, and PEFT's `merge` computes the result. So every method that PEFT
merges layer by layer (LoRA, rsLoRA, DoRA, rank and alpha patterns) gives the same values as with PEFT.

An adapter changes what one module computes, not other modules that share its weight: LoRA on tied embeddings leaves the
LM head as it was. So tied modules that the adapter makes different get tensors of their own, and the merged model is
not tied. PEFT's `merge_and_unload` would change the shared tensor, which gives another model.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

import torch
from peft import PeftModel
from peft.tuners.lora import Embedding, Linear, LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper, ModulesToSaveWrapper
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from lrc.models.adapter import (
    ADAPTER_NAME,
    empty_adapter,
    match_weights,
    read_adapter_config,
    read_adapter_weights,
    why_not_by_layer,
)
from lrc.models.loading import load_config
from lrc.models.weights import BLOCK_BYTES, TensorSpec, WeightFiles
from lrc.runtime.errors import ModelError
from lrc.runtime.translation import _

# LoRA layers whose `merge` needs no tensors but their own.
STREAMED = (Linear, Embedding)
UNNAMED = _("the base's files do not name {name}")


class NotStreamed(Exception):
    """The adapter cannot be merged tensor by tensor; the message says why."""


@dataclass(frozen=True)
class Made:
    """The source of a merged parameter."""

    parameter: nn.Parameter  # of the model with the adapter, on the meta device
    layer: LoraLayer | None  # which changes it
    attribute: str  # its name in the layer's base layer

    @property
    def key(self) -> tuple[int, int | None]:
        """Equal for merged parameters with the same values."""
        return id(self.parameter), id(self.layer) if self.layer is not None else None


class StreamingMerge:
    """The merge of an adapter into a base model, tensor by tensor.

    Args:
        adapter: the adapter's folder.
        base: the base model's folder.
        weights: the base's weights.

    Attributes:
        untied: whether the base's configuration ties tensors that differ in the merged model.

    Raises:
        ModelError: the adapter is damaged, does not fit the base, or makes tied tensors different that this kind of
            model cannot untie.
        NotStreamed: PEFT has to merge it, with the whole model in memory.
    """

    def __init__(self, adapter: Path, base: Path, weights: WeightFiles) -> None:
        self.weights = weights
        settings = read_adapter_config(adapter)
        if why := why_not_by_layer(settings):
            raise NotStreamed(why)
        model, ties = _empty_model(base, weights)
        self._in_file = _model_names(model, weights)
        self._in_model = {name: model_name for model_name, name in self._in_file.items()}
        before = dict(model.named_parameters(remove_duplicate=False))
        self._names = _names(before)
        peft_model = empty_adapter(model, settings, adapter)
        self._saved = match_weights(peft_model, read_adapter_weights(adapter), adapter)
        _refuse_layers(peft_model)
        self._final = dict(_walk_parameters(peft_model.get_base_model(), ""))
        self._alive = (peft_model, before)  # ids are valid only as long as the parameters exist
        shared = [names for names in self._names.values() if len(names) > 1]
        self.untied = ties and (not shared or any(map(self._differ, shared)))
        self._refuse_inseparable(model, base)
        self._added = dict(self._find_untied())

    def specs(self, dtype: torch.dtype | None) -> dict[str, dict[str, TensorSpec]]:
        """The tensors to write to each weight file: those of the base in their order, then the untied ones.

        Args:
            dtype: of all floating-point tensors; None keeps that of each base tensor.
        """
        files = {}
        for file, specs in self.weights.files.items():
            added = {name: specs[twin] for name, twin in self._added.items() if twin in specs}
            files[file] = {name: _cast(spec, dtype) for name, spec in {**specs, **added}.items()}
        return files

    @property
    def changed(self) -> int:
        """The number of tensors that the adapter changes or replaces."""
        return len({made.key for made in self._final.values() if made.layer or id(made.parameter) in self._saved})

    def blocks(self, name: str) -> Iterator[torch.Tensor]:
        """A merged tensor, by its name in the files: flat pieces, in the dtype in which it was computed."""
        made = self._final.get(self._in_model.get(name, name))
        if made is None:
            yield from self.weights.blocks(name)
        elif made.layer is not None:
            yield from _split(self._merge_layer(made.layer, made.attribute, self._origin(made.parameter)))
        elif id(made.parameter) in self._saved:
            yield from _split(self._saved[id(made.parameter)])
        else:
            yield from self.weights.blocks(self._file_name(made.parameter))

    def _merge_layer(self, layer: LoraLayer, attribute: str, value: torch.Tensor) -> torch.Tensor:
        working = copy.deepcopy(layer)  # takes no memory, on the meta device
        state = layer.state_dict(keep_vars=True)
        tensors = {
            name: value if name == f"base_layer.{attribute}" else self._origin(parameter)
            for name, parameter in state.items()
        }
        working.load_state_dict(tensors, assign=True)
        del tensors, value
        try:
            with torch.no_grad():
                working.merge()
        except (ValueError, NotImplementedError) as error:
            raise NotStreamed(str(error)) from error
        return getattr(working.get_base_layer(), attribute).data

    def _origin(self, parameter: nn.Parameter) -> torch.Tensor:
        saved = self._saved.get(id(parameter))
        if saved is None:
            return self.weights.read(self._file_name(parameter)).float()
        return saved.to(torch.float32, copy=True)  # PEFT merges in place, and the tensor may be shared

    def _file_name(self, parameter: nn.Parameter) -> str:
        names = self._names[id(parameter)]
        if present := [self._in_file[name] for name in names if name in self._in_file]:
            return present[0]
        raise NotStreamed(UNNAMED.format(name=names[0]))

    def _differ(self, names: list[str]) -> bool:
        """Whether modules that share a tensor in the base have different ones in the merged model."""
        return len({self._final[name].key for name in names}) > 1

    def _refuse_inseparable(self, model: PreTrainedModel, base: Path) -> None:
        """Refuse tied modules that have to differ, but that `tie_word_embeddings: false` does not untie."""
        differ = [names for names in self._names.values() if len(names) > 1 and self._differ(names)]
        if not differ:
            return
        config = load_config(str(base))
        config.tie_word_embeddings = False
        with torch.device("meta"):
            untied = dict(type(model)(config).named_parameters(remove_duplicate=False))
        for names in differ:
            if len({id(untied[name]) for name in names}) == 1:
                raise ModelError(
                    _(
                        "{base}: {names} and {names2} are one tensor, and the adapter changes one of them; this "
                        "cannot be merged: answer with --adapter instead"
                    ).format(base=base, names=names[0], names2=names[1])
                )

    def _find_untied(self) -> Iterator[tuple[str, str]]:
        """Tensors that the merged files need and the base's lack, being tied there; each with its twin in the files."""
        twins = {name: names for names in self._names.values() for name in names}
        for name, made in self._final.items():
            if name in self._in_file:
                continue
            if present := [self._in_file[twin] for twin in twins[name] if twin in self._in_file]:
                if self.untied:
                    yield name, present[0]
            elif made.layer or id(made.parameter) in self._saved:
                raise NotStreamed(UNNAMED.format(name=name))


def _empty_model(base: Path, weights: WeightFiles) -> tuple[PreTrainedModel, bool]:
    """The base model on the meta device, and whether its configuration ties embeddings."""
    config = load_config(str(base))
    ties = bool(getattr(config, "tie_word_embeddings", False))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        # transformers does not tie embeddings that are stored twice, with different values.
        for names in _names(dict(model.named_parameters(remove_duplicate=False))).values():
            present = [name for name in names if name in weights.specs]
            if any(not _equal(weights, present[0], other) for other in present[1:]):
                config.tie_word_embeddings = False
                return AutoModelForCausalLM.from_config(config, trust_remote_code=False), ties
    return model, ties


def _equal(weights: WeightFiles, one: str, other: str) -> bool:
    pairs = zip_longest(weights.blocks(one), weights.blocks(other))
    return all(a is not None and b is not None and torch.equal(a, b) for a, b in pairs)


def _names(parameters: dict[str, nn.Parameter]) -> dict[int, list[str]]:
    names = defaultdict(list)
    for name, parameter in parameters.items():
        names[id(parameter)].append(name)
    return dict(names)


def _model_names(model: PreTrainedModel, weights: WeightFiles) -> dict[str, str]:
    """From names in the model to names in the files, which lack the prefix if they are those of a bare decoder."""
    known, prefix = set(model.state_dict()), model.base_model_prefix
    return {
        name if name in known or f"{prefix}.{name}" not in known else f"{prefix}.{name}": name for name in weights.specs
    }


def _refuse_layers(model: PeftModel) -> None:
    for module in model.modules():
        whole = isinstance(module, AuxiliaryTrainingWrapper) and not isinstance(module, ModulesToSaveWrapper)
        if whole or (isinstance(module, BaseTunerLayer) and not isinstance(module, STREAMED)):
            raise NotStreamed(_("it has a layer of the kind {kind}").format(kind=type(module).__name__))
        if isinstance(module, ModulesToSaveWrapper) and next(module.buffers(), None) is not None:
            raise NotStreamed(_("modules_to_save names a module with buffers"))


def _walk_parameters(module: nn.Module, prefix: str) -> Iterator[tuple[str, Made]]:
    """The parameters of the merged model, by name."""
    layer = module if isinstance(module, STREAMED) else None
    if isinstance(module, ModulesToSaveWrapper):
        module = module.modules_to_save[ADAPTER_NAME]
    elif layer is not None:
        module = layer.get_base_layer()
    for name, parameter in module.named_parameters(recurse=False):
        changes = layer is not None and (name == "weight" or layer.lora_bias[ADAPTER_NAME])
        yield prefix + name, Made(parameter, layer if changes else None, name)
    for name, child in module.named_children():
        yield from _walk_parameters(child, f"{prefix}{name}.")


def _cast(spec: TensorSpec, dtype: torch.dtype | None) -> TensorSpec:
    return replace(spec, dtype=dtype) if dtype and spec.dtype.is_floating_point else spec


def _split(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    yield from tensor.reshape(-1).split(BLOCK_BYTES // tensor.dtype.itemsize)
