"""Loads a model for answering: in a dtype of its device, on the devices where it fits, with its adapters."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import BitsAndBytesConfig

from lrc.models.adapter import average_adapters, read_adapter_config
from lrc.models.loading import load_base, load_config, loading_errors, stored_dtype
from lrc.models.stored_quantization import StoredQuantization
from lrc.models.weights import ADAPTER_BIN, ADAPTER_WEIGHTS, unpickle_tensors
from lrc.packing.attention import choose_attention
from lrc.packing.last_layer import prune_last_layer
from lrc.runtime.devices import SWITCHES, answering_dtype
from lrc.runtime.translation import _

SMALLER = _("use an adapter of a smaller base, or a machine with more memory")
FOUR_BITS = _(
    "give --load-in-4bit, in place of a merged model its base and adapter (`--model BASE --adapter DIR`), or use an "
    "adapter of a smaller base"
)


def load_for_answering(
    name: str,
    adapters: Sequence[Path],
    device: torch.device,
    quantization: BitsAndBytesConfig | None = None,
    dtype: str | None = None,
    places: dict[str, Any] | None = None,
    *,
    average: bool = False,
    trained: str | None = None,
) -> tuple[Any, list[str]]:
    """Load a model with any number of adapters.

    Args:
        name: the base model: a folder, or a name on the Hub.
        adapters: folders.
        device: where the model goes.
        quantization: how to quantize the model; None loads it as it is on the disk.
        dtype: see `devices.answering_dtype`.
        places: a device map, see `placement`; None puts the whole model on `device`.
        average: replace the adapters by one whose update of each weight is the mean of theirs.
        trained: see `choose_dtype`.

    Returns:
        The model, in evaluation mode, and the names of its adapters, to be set active one at a time.

    Raises:
        ModelError: the model or an adapter cannot be read, or they do not fit each other.
        MachineError: the device does not support the dtype, or memory ran out.
    """
    config = load_config(name)
    computed: torch.dtype = getattr(torch, choose_dtype(config, device, dtype, trained))
    if quantization is not None and quantization.load_in_4bit:
        computed = quantization.bnb_4bit_compute_dtype
    # Straight to a GPU, so that main memory never holds the whole model.
    quantized = quantization is not None or StoredQuantization.of(config) is not None
    device_map = places or ({"": device} if quantized or device.type == "cuda" else None)
    in_four = quantization is not None and quantization.load_in_4bit
    cure = SMALLER if in_four or StoredQuantization.of(config) is not None else FOUR_BITS
    model = load_base(name, dtype=computed, quantization=quantization, device_map=device_map, cure=cure)
    # FlexAttention's mask reads tensors of one GPU.
    choose_attention(model, "block" if places else "auto", device)
    names = [f"adapter_{k}" for k in range(len(adapters))]
    # PEFT cannot add an adapter to one that trains single tokens unless it does so, too.
    last = {path: bool(getattr(read_adapter_config(path), "trainable_token_indices", None)) for path in adapters}
    for adapter, path in sorted(zip(names, adapters, strict=True), key=lambda pair: last[pair[1]]):
        if not (path / ADAPTER_WEIGHTS).is_file() and (path / ADAPTER_BIN).is_file():
            unpickle_tensors(path / ADAPTER_BIN)  # PEFT's refusal advises to switch the check off
        with loading_errors(str(path), "adapter"), warnings.catch_warnings():
            # PEFT's advice about merging, which `lrc.models.merging` follows.
            warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True`")
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)  # PEFT's use
            if isinstance(model, PeftModel):
                model.load_adapter(str(path), adapter)
            else:
                model = PeftModel.from_pretrained(model, str(path), adapter)
    if average:
        names = [average_adapters(model, names, adapters)]
    prune_last_layer(model)
    return (model if quantized or places else model.to(device)).eval(), names


def choose_dtype(config: Any, device: torch.device, asked: str | None = None, trained: str | None = None) -> str:
    """The dtype in which a model answers, such as `bfloat16`; see `devices.answering_dtype`.

    Args:
        config: the model's configuration.
        device: where it runs.
        asked: the dtype that the user asks for; None or `auto` takes that of the files if the device supports it.
        trained: the `dtype` of the recipe. If it has 16 bits and the files are in float32, it counts as that of the
            files: the model answers as it was trained, and in the same memory.

    Raises:
        MachineError: the device does not support the dtype that is asked for.
    """
    stored = stored_dtype(config) or "float32"
    if stored == "float32" and trained is not None and trained in SWITCHES.values():
        stored = trained
    return answering_dtype(stored, device.type, config.get_text_config().model_type, asked)[0]
