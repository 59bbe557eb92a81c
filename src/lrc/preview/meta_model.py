"""A model without its weights: its configuration on the meta device, quantized and adapted as a run would have it.

What it holds is counted, and one row is run forward and backward to see what that would hold. So every architecture
that transformers has is counted by its own code, and the adapter by PEFT's.
"""

from __future__ import annotations

import copy
import gc
import warnings
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from transformers.integrations import replace_with_bnb_linear
from transformers.quantizers.base import get_keys_to_not_convert

from lrc.models.master_weights import to_float32
from lrc.packing.attention import attend_by, choose_form, why_no_tiles, why_no_trees
from lrc.packing.last_layer import prune_last_layer
from lrc.packing.log_probs import target_log_probs
from lrc.packing.tree import PackedRow
from lrc.preview.meta_device import MetaKernels, PeakMemoryTracker, quantized_bytes, run_on_meta
from lrc.runtime.cards import AMPERE
from lrc.runtime.errors import ModelError
from lrc.runtime.translation import _

META = torch.device("meta")
# Every layer adds as much as the one before: two depths show how much, and the rest is on their line.
DEPTHS = (3, 5)
PERIOD = 8  # layers in which every kind that alternates has had its turn


@dataclass(frozen=True)
class ModelSpec:
    """All that decides what a model holds."""

    config: Any  # transformers' configuration of the base
    dtype: torch.dtype  # of what is not quantized
    adapter: Any = None  # PEFT's configuration; None trains every weight
    quantization: BitsAndBytesConfig | None = None
    attention: str | None = None  # attn_implementation
    checkpointing: bool = False
    autocast: torch.dtype | None = None  # mixed precision
    device: str = "cpu"  # the type of the device that is meant
    form: str = "auto"  # how rows are attended to: `attention` of a recipe
    capability: tuple[int, int] = AMPERE  # of the GPU that is meant

    @property
    def depth(self) -> int:
        """The number of decoder layers."""
        return int(self.config.get_text_config().num_hidden_layers)

    def of_depth(self, layers: int) -> ModelSpec:
        """The same with another number of layers."""
        config = copy.deepcopy(self.config)
        text = config.get_text_config()
        text.num_hidden_layers = layers
        if kinds := getattr(text, "layer_types", None):
            text.layer_types = [kinds[i % len(kinds)] for i in range(layers)]
        return replace(self, config=config)


@dataclass(frozen=True)
class StaticMemory:
    """What a model holds between steps, in bytes; counts are of numbers."""

    weights: int  # frozen ones
    adapter: int  # trained ones: the adapter, or every weight where there is none
    trained: int  # how many numbers are trained
    parameters: int  # of the base
    largest_layer: int  # bytes of the frozen weights of one decoder layer


def why_not_shared(build: ModelSpec) -> str | None:
    """Why rows of this model cannot be trees; None where they can."""
    return why_no_trees(_causal(build.of_depth(min(build.depth, PERIOD))))


def count_static_memory(build: ModelSpec) -> StaticMemory:
    """Count what the model holds.

    Raises:
        ModelError: the adapter does not fit the model.
    """
    base = _causal(build)
    parameters = sum(parameter.numel() for parameter in base.parameters())
    model = _add_adapter(base, build)
    to_float32(model)
    nested = bool(build.quantization and build.quantization.bnb_4bit_use_double_quant)
    packed = {id(m.weight): quantized_bytes(m, nested=nested) for m in model.modules() if _is_quantized(m)}
    named = [(name, p, packed.get(id(p), p.nbytes)) for name, p in model.named_parameters()]
    layers: dict[str, int] = {}
    for name, parameter, nbytes in named:
        if not parameter.requires_grad and ".layers." in name:
            layer = name.partition(".layers.")[2].partition(".")[0]
            layers[layer] = layers.get(layer, 0) + nbytes
    return StaticMemory(
        weights=sum(nbytes for _name, p, nbytes in named if not p.requires_grad),
        adapter=sum(nbytes for _name, p, nbytes in named if p.requires_grad),
        trained=sum(p.numel() for _name, p, _nbytes in named if p.requires_grad),
        parameters=parameters,
        largest_layer=max(layers.values(), default=0),
    )


def peak_of_row(build: ModelSpec, row: PackedRow) -> tuple[int, int]:
    """What forward and backward of a row hold at their peak beyond weights, gradients and optimizer state.

    Returns:
        bytes of activations, and bytes of logits at the same moment.

    Raises:
        ModelError: the adapter does not fit the model.
    """
    if build.depth <= DEPTHS[1]:
        return _run(build, row)
    few, more = (_run(build.of_depth(depth), row) for depth in DEPTHS)
    further = (build.depth - DEPTHS[1]) / (DEPTHS[1] - DEPTHS[0])
    activations, logits = (round(b + (b - a) * further) for a, b in zip(few, more, strict=True))
    return activations, logits


def _run(build: ModelSpec, row: PackedRow) -> tuple[int, int]:
    model = _add_adapter(_causal(build), build)
    compute_dtype = to_float32(model)
    autocast = build.autocast or compute_dtype
    prune_last_layer(model)
    attend_by(model, form_of(build, len(row)))
    why_no_trees(model)  # tries a small model, once: not among the stand-ins, which would make it wrong, nor counted
    model.train()
    if build.checkpointing:
        # A backward pass leaves the mode; what it computes again needs the stand-ins as well.
        again = lambda: (nullcontext(), MetaKernels(build.device, autocast))  # noqa: E731
        model.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": again})
        if build.adapter is not None:
            model.enable_input_require_grads()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)  # it is there from the first row on
    known = [*model.parameters(), *model.buffers()]
    known += [parameter.grad for parameter in known if parameter.grad is not None]
    # Collected now and not in between: what circular references keep alive would be counted.
    gc.collect()
    with PeakMemoryTracker(known, _vocabulary(build)) as ledger, MetaKernels(build.device, autocast):
        (-target_log_probs(model, row, META).sum()).backward()
    return ledger.peak["activations"], ledger.peak["logits"]


def form_of(build: ModelSpec, tokens: int) -> str:
    """How a row of so many tokens is attended to on the device that is meant."""
    if build.form != "auto":
        return build.form
    config = build.config.get_text_config()
    return choose_form(tokens, build.device, lambda: why_no_tiles(config, build.capability) is None)


def _causal(build: ModelSpec) -> Any:
    """The base on the meta device; its quantized layers are bitsandbytes' own, without their bits."""
    with warnings.catch_warnings(), META:
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_config(
            build.config, dtype=build.dtype, attn_implementation=build.attention or None
        )
        if build.quantization is not None:
            kept = get_keys_to_not_convert(model)
            model = replace_with_bnb_linear(model, modules_to_not_convert=kept, quantization_config=build.quantization)
    for module in model.modules():
        if _is_quantized(module):
            run_on_meta(module)
    model.requires_grad_(build.adapter is None)
    return model


def _add_adapter(model: Any, build: ModelSpec) -> Any:
    from peft import get_peft_model

    if build.adapter is None:
        return model
    try:
        with warnings.catch_warnings(), META:
            warnings.simplefilter("ignore")
            return get_peft_model(model, copy.deepcopy(build.adapter))
    except ValueError as error:
        raise ModelError(_("adapter: {reason}").format(reason=error)) from error


def _is_quantized(module: Any) -> bool:
    return type(module).__name__ in ("Linear4bit", "Linear8bitLt")


def _vocabulary(build: ModelSpec) -> int:
    return int(build.config.get_text_config().vocab_size)
