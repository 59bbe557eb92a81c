"""The attention mask of a packed row, in the form that the model's attention takes.

This is the one place that decides what a token may attend to; a FlexAttention block mask would be built here from the
same two vectors.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch

TREE_IMPLEMENTATIONS = ("sdpa", "eager")
LENGTH_DEPENDENT = ("dynamic", "longrope")
LAYERS = {"full_attention", "sliding_attention"}


def why_no_trees(model: Any) -> str | None:
    """Why `model` cannot be given packed trees; None where it can.

    A tree needs attention that takes a 4-D mask, and positions that come from `position_ids` alone.
    """
    config = model.config.get_text_config()
    implementation = config._attn_implementation
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if implementation not in TREE_IMPLEMENTATIONS:
        return f"attention {implementation} takes no tree mask"
    if getattr(base, "_is_stateful", False) or kinds - LAYERS:
        return f"{config.model_type} has layers that are not plain attention"
    if (getattr(config, "rope_parameters", None) or {}).get("rope_type") in LENGTH_DEPENDENT:
        return f"{config.model_type}'s positions depend on the length of the whole row"
    if getattr(config, "alibi", False):
        return f"{config.model_type} counts positions by itself (ALiBi)"
    if "position_ids" not in inspect.signature(base.forward).parameters:
        return f"{config.model_type} does not read position_ids"
    return None


def tree_mask(
    subtree_end: torch.Tensor, position_ids: torch.Tensor, config: Any, dtype: torch.dtype
) -> torch.Tensor | dict[str, torch.Tensor]:
    """The mask of one packed row, built on the row's device.

    A sliding window counts positions along a root-to-leaf path, not places in the row: transformers would leave the
    window out without a word when it is given a 4-D mask.

    Args:
        subtree_end: (L,) see `tree.Row`.
        position_ids: (L,) see `tree.Row`.
        config: the model's configuration.
        dtype: the dtype of the hidden states, for eager attention, which adds its mask.

    Returns:
        (1, 1, L, L), boolean for sdpa and additive for eager; one for each kind of layer where the model has both.
    """
    config = config.get_text_config()
    index = torch.arange(len(subtree_end), device=subtree_end.device)
    seen = (index[None, :] <= index[:, None]) & (index[:, None] < subtree_end[None, :])
    window = getattr(config, "sliding_window", None)
    if window is None:
        return _form(seen, config, dtype)
    near = seen & (position_ids[:, None] - position_ids[None, :] < window)
    kinds = getattr(config, "layer_types", None)
    if not kinds:
        return _form(near, config, dtype)
    return {"full_attention": _form(seen, config, dtype), "sliding_attention": _form(near, config, dtype)}


def _form(seen: torch.Tensor, config: Any, dtype: torch.dtype) -> torch.Tensor:
    if config._attn_implementation == "eager":
        seen = torch.zeros_like(seen, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)
    return seen[None, None]
