"""A model as it is asked: in the format of its device, where it fits, with its adapters on it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import BitsAndBytesConfig

from lrc.models.adapter import average_adapters
from lrc.models.loading import load_base, load_config, loading_errors, stored_dtype
from lrc.models.stored_quantization import StoredQuantization
from lrc.models.weights import ADAPTER_BIN, ADAPTER_WEIGHTS, unpickle_tensors
from lrc.packing.attention import attend_by
from lrc.packing.last_layer import prune_last_layer
from lrc.runtime.devices import answering_dtype


def load_for_answering(
    name: str,
    adapters: Sequence[Path],
    device: torch.device,
    quantization: BitsAndBytesConfig | None = None,
    dtype: str | None = None,
    places: dict[str, Any] | None = None,
    *,
    average: bool = False,
) -> tuple[Any, list[str]]:
    """Load a model with any number of adapters at once.

    Args:
        quantization: of the model; None loads it as it is on the disk.
        dtype: see `devices.answering_dtype`.
        places: where its parts go, see `placement`; None puts all of it on `device`.
        average: whether one adapter takes the place of all, whose change of each weight is the mean of theirs.

    Returns:
        The model on `device`, in evaluation mode, and the names of its adapters, to be set active one at a time.

    Raises:
        ModelError: the model or an adapter cannot be read, or they do not fit each other.
        MachineError: the format that is asked for is not there.
    """
    config = load_config(name)
    computed: torch.dtype = getattr(torch, choose_dtype(config, device, dtype))
    if quantization is not None and quantization.load_in_4bit:
        computed = quantization.bnb_4bit_compute_dtype
    # Straight to a GPU, so that the host's memory never holds the whole.
    quantized = quantization is not None or StoredQuantization.of(config) is not None
    device_map = places or ({"": device} if quantized or device.type == "cuda" else None)
    model = load_base(name, dtype=computed, quantization=quantization, device_map=device_map)
    if places:
        attend_by(model, "block")  # FlexAttention's mask reads tensors of one GPU
    names = [f"adapter_{k}" for k in range(len(adapters))]
    for adapter, path in zip(names, adapters, strict=True):
        if not (path / ADAPTER_WEIGHTS).is_file() and (path / ADAPTER_BIN).is_file():
            unpickle_tensors(path / ADAPTER_BIN)  # PEFT's refusal advises to switch the check off
        with loading_errors(str(path), "adapter"), warnings.catch_warnings():
            # PEFT's advice about merging, which `merged` and `graft` follow.
            warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True`")
            if isinstance(model, PeftModel):
                model.load_adapter(str(path), adapter)
            else:
                model = PeftModel.from_pretrained(model, str(path), adapter)
    if average:
        names = [average_adapters(model, names, adapters)]
    prune_last_layer(model)
    return (model if quantized or places else model.to(device)).eval(), names


def choose_dtype(config: Any, device: torch.device, asked: str | None = None) -> str:
    """In which format a model is asked; see `devices.answering_dtype`.

    Raises:
        MachineError: the format that is asked for is not there.
    """
    stored = stored_dtype(config) or "float32"
    return answering_dtype(stored, device.type, config.get_text_config().model_type, asked)[0]
