"""Builds a run's model on the meta device, quantized and with its adapter, and measures its memory there.

Its weights are counted, and one row is run forward and backward to measure activations. So any architecture of
transformers is measured with its own code, and the adapter with PEFT's.
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

from lrc.models.lora_dropout import recompute_dropout
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
# Every layer adds the same: two depths are measured, and other ones extrapolated from them.
DEPTHS = (3, 5)
PERIOD = 8  # enough layers to have all types of layers that alternate


@dataclass(frozen=True)
class ModelSpec:
    """Everything on which a model's memory depends, besides the row."""

    config: Any  # transformers' configuration of the base
    dtype: torch.dtype  # of weights that are not quantized
    adapter: Any = None  # PEFT's configuration; None is full fine-tuning
    quantization: BitsAndBytesConfig | None = None
    attention: str | None = None  # attn_implementation
    checkpointing: bool = False  # gradient checkpointing
    autocast: torch.dtype | None = None  # mixed precision
    device: str = "cpu"  # the type of the simulated device
    form: str = "auto"  # a recipe's `attention`
    capability: tuple[int, int] = AMPERE  # compute capability of the simulated GPU
    plain_lora: bool = False  # as PEFT computes it, with `torch_compile` or `activation_offloading`

    @property
    def depth(self) -> int:
        """The number of decoder layers."""
        return int(self.config.get_text_config().num_hidden_layers)

    def of_depth(self, layers: int) -> ModelSpec:
        """A copy with another number of layers."""
        config = copy.deepcopy(self.config)
        text = config.get_text_config()
        text.num_hidden_layers = layers
        if kinds := getattr(text, "layer_types", None):
            text.layer_types = [kinds[i % len(kinds)] for i in range(layers)]
        return replace(self, config=config)


@dataclass(frozen=True)
class StaticMemory:
    """What a model holds between steps."""

    weights: int  # bytes of frozen weights
    adapter: int  # bytes of trained weights: the adapter, or all weights in full fine-tuning
    trained: int  # the number of trained weights
    parameters: int  # the number of the base's weights
    largest_layer: int  # bytes of the frozen weights of the largest decoder layer
    head: int  # bytes of the weights of the output layer


def why_not_shared(build: ModelSpec) -> str | None:
    """Why this model cannot run packed trees; None if it can."""
    return why_no_trees(_causal(build.of_depth(min(build.depth, PERIOD))))


def count_static_memory(build: ModelSpec) -> StaticMemory:
    """Count the model's weights.

    Raises:
        ModelError: the adapter does not fit the model.
    """
    base = _causal(build)
    parameters = sum(parameter.numel() for parameter in base.parameters())
    head = base.get_output_embeddings()
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
        head=0 if head is None else head.weight.nbytes,
    )


def peak_of_row(build: ModelSpec, row: PackedRow) -> tuple[int, int]:
    """The peak memory of a row's forward and backward, beyond weights, gradients of weights and optimizer states.

    Returns:
        Bytes of activations, and bytes of logits at the same moment.

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
    why_no_trees(model)  # runs a small model once, which has to happen outside of the stand-ins and the tracker
    model.train()
    if build.checkpointing:
        # Autograd's backward runs outside the mode; recomputation needs the stand-ins, too.
        again = lambda: (nullcontext(), MetaKernels(build.device, autocast))  # noqa: E731
        model.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": again})
        if build.adapter is not None:
            model.enable_input_require_grads()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)  # gradients exist after the first row
    known = [*model.parameters(), *model.buffers()]
    known += [parameter.grad for parameter in known if parameter.grad is not None]
    gc.collect()  # now, so that garbage in reference cycles is not collected in between
    with PeakMemoryTracker(known, _vocabulary(build)) as tracker, MetaKernels(build.device, autocast):
        (-target_log_probs(model, row, META).sum()).backward()
    return tracker.peak["activations"], tracker.peak["logits"]


def form_of(build: ModelSpec, tokens: int) -> str:
    """The attention implementation for a row of `tokens` tokens on the simulated device."""
    if build.form != "auto":
        return build.form
    config = build.config.get_text_config()
    return choose_form(
        tokens, build.device, lambda: why_no_tiles(config, build.capability, build.autocast or build.dtype) is None
    )


def _causal(build: ModelSpec) -> Any:
    """The base on the meta device, with bitsandbytes' own layers if it is quantized."""
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
            model = get_peft_model(model, copy.deepcopy(build.adapter))
    except ValueError as error:
        raise ModelError(_("adapter: {reason}").format(reason=error)) from error
    if not build.plain_lora:
        recompute_dropout(model)
    return model


def _is_quantized(module: Any) -> bool:
    return type(module).__name__ in ("Linear4bit", "Linear8bitLt")


def _vocabulary(build: ModelSpec) -> int:
    return int(build.config.get_text_config().vocab_size)
