"""What the tokens of a packed row attend to: the mask, and attention that leaves out most of what no token sees.

This is the one place that decides what a token may attend to; a FlexAttention block mask would be built here from the
same two vectors.

A mask alone says what counts, and the whole square of the row is computed all the same. `attend_by_block` computes
attention stretch by stretch of the tree, over the keys of the path that leads there: so the cost grows with the row's
length and not with its square, and rows can be long enough to share all that there is to share.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from lrc.equivalence import mismatch
from lrc.tree import Block

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
    if wrong := mismatch(base, tree_mask):  # what the configuration does not say
        return f"{config.model_type}: {wrong}"
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


def attend_by_block(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    blocks: Sequence[Block],
    **kwargs: Any,
) -> torch.Tensor:
    """Attention of every block over itself and the blocks above it, the only ones that it can see.

    Args:
        module: the attention layer.
        query: (1, heads, L, width); or (1, heads, H, width), of the tokens where the head runs.
        key, value: (1, heads or fewer, L, width).
        mask: (1, 1, L or H, L), true where a query sees a key.
        blocks: see `tree.Row.blocks`.
        kwargs: those of the model's call: dropout, scaling.

    Returns:
        (1, L or H, heads, width)
    """
    keys = [block.size for block in blocks]
    queries = keys if query.shape[2] == key.shape[2] else [block.heads for block in blocks]
    # `split` has one backward for all its parts, where slices would each fill a gradient of the whole row.
    parts = zip(blocks, query.split(queries, 2), key.split(keys, 2), value.split(keys, 2), strict=True)
    columns, rows = torch.arange(key.shape[2], device=mask.device).split(keys), mask.split(queries, 2)
    paths: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []  # all that a block sees: keys, values, places
    attended = []
    for (block, asking, *own), places, lines in zip(parts, columns, rows, strict=True):
        path = (*own, places)
        if block.parent is not None:
            key_path, value_path, place_path = paths[block.parent]
            path = torch.cat([key_path, own[0]], 2), torch.cat([value_path, own[1]], 2), torch.cat([place_path, places])
        paths.append(path)
        if asking.shape[2]:
            seen = lines[..., path[2]]
            attended.append(sdpa_attention_forward(module, asking, path[0], path[1], seen, **kwargs)[0])
    return torch.cat(attended, 1)


def _sdpa(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    tree_blocks: Sequence[Block] | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' sdpa, which takes the blocks of a row where the model hands them down."""
    if tree_blocks is None or attention_mask is None:
        plain: tuple[torch.Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
        return plain
    return attend_by_block(module, query, key, value, attention_mask, tree_blocks, **kwargs), None


# Under its own name, so that a model needs no setting for it and is saved as it was.
AttentionInterface.register("sdpa", _sdpa)


def _form(seen: torch.Tensor, config: Any, dtype: torch.dtype) -> torch.Tensor:
    if config._attn_implementation == "eager":
        seen = torch.zeros_like(seen, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)
    return seen[None, None]
