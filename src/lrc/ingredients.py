"""What a recipe trains: its base model, and the configuration of the adapter on it."""

from __future__ import annotations

import os
from typing import Any

from peft import LoraConfig
from trl.trainer.utils import get_peft_config, get_quantization_config

from lrc.models import load_base
from lrc.recipe import Recipe


def base_of(recipe: Recipe) -> Any:
    """Load the base model, quantized where the recipe says so.

    Raises:
        ModelError: there is no such model, or its files cannot be read.
    """
    model, args = recipe.model, recipe.training
    quantization = get_quantization_config(model)
    if quantization and quantization.load_in_4bit and model.bnb_4bit_quant_storage is None and _divided_by_fsdp():
        # FSDP divides and gathers floating-point parameters only, and in one format.
        quantization.bnb_4bit_quant_storage = quantization.bnb_4bit_compute_dtype
    return load_base(
        model.model_name_or_path,
        dtype=model.dtype or "auto",
        revision=model.model_revision,
        quantization=quantization,
        attn_implementation=model.attn_implementation,
        # A quantized model is put on its device as it is loaded; the trainer moves any other.
        device_map={"": args.device} if quantization else None,
        trust_remote_code=args.trust_remote_code,
    )


def _divided_by_fsdp() -> bool:
    """Whether `accelerate launch` was given an FSDP config."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def adapter_of(recipe: Recipe) -> LoraConfig | None:
    """The adapter's configuration; None where all weights are trained.

    PiSSA is not in it: `pissa.Pissa` makes it of an ordinary adapter, once that is in the model.
    """
    config = get_peft_config(recipe.model)
    if config is None:
        return None
    extra = recipe.adapter
    for key in ("rank_pattern", "alpha_pattern", "ensure_weight_tying"):
        if getattr(extra, key):
            setattr(config, key, getattr(extra, key))
    if extra.init_lora_weights is not None and extra.pissa is None:
        config.init_lora_weights = extra.init_lora_weights
    return config
