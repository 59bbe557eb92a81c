"""What the tokens of a packed row attend to: the mask, and attention that leaves out most of what no token sees.

This is the one place that decides what a token may attend to. There are three ways to compute it, all equal:

- `dense`: a mask says what counts, and the whole square of the row is computed all the same;
- `block`: attention stretch by stretch of the tree, over the keys of the path that leads there (`attend_by_block`), so
  that the cost grows with the row's length and not with its square;
- `flex`: FlexAttention over the tiles of 128 by 128 that hold something to see (`tile_mask`), one kernel a layer.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.attention.flex_attention import BlockMask
from transformers import AttentionInterface
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from lrc.packing.equivalence import mismatch
from lrc.packing.tree import Block, Ints, PackedRow
from lrc.runtime.translation import _

TILE = 128  # FlexAttention's
# On a GPU a kernel's start costs more than what a short row's mask leaves to spare.
DENSE_BELOW_GPU = 1536
MIN_SPARED_GPU = 200_000
# Datacenter chips have the shared memory for wide heads' tiles; others of the same generation have not.
WIDE_HEADS = {(8, 0), (9, 0), (10, 0), (10, 3)}
_FORM = "_lrc_attention"
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
        return _("attention {implementation} does not support tree masks").format(implementation=implementation)
    if getattr(base, "_is_stateful", False) or kinds - LAYERS:
        return _("{family} has layers that are not plain attention").format(family=config.model_type)
    if (getattr(config, "rope_parameters", None) or {}).get("rope_type") in LENGTH_DEPENDENT:
        return _("{family}'s positions depend on the length of the whole row").format(family=config.model_type)
    if getattr(config, "alibi", False):
        return _("{family} computes positions itself (ALiBi)").format(family=config.model_type)
    if "position_ids" not in inspect.signature(base.forward).parameters:
        return _("{family} does not read position_ids").format(family=config.model_type)
    if wrong := mismatch(base, tree_mask):  # what the configuration does not say
        return _("{family}: {reason}").format(family=config.model_type, reason=wrong)
    return None


def why_no_flex(model: Any, device: torch.device) -> str | None:
    """Why `model` cannot attend by FlexAttention on `device`; None where it can."""
    if device.type != "cuda":
        return _("it has no backward pass on {device} devices").format(device=device.type)
    if reason := why_no_tiles(model.config.get_text_config(), torch.cuda.get_device_capability(device)):
        return reason
    return _("triton is not installed") if find_spec("triton") is None else None


def why_no_tiles(config: Any, capability: tuple[int, int]) -> str | None:
    """Why a model cannot attend by FlexAttention on GPUs of a compute capability; None where it can.

    Args:
        config: of the model, or of its text part.
    """
    if config._attn_implementation != "sdpa":
        return _("attn_implementation is {implementation}").format(implementation=config._attn_implementation)
    if getattr(config, "attention_dropout", 0.0):
        return _("the model has attention dropout")
    if capability < (8, 0):
        text = _("the GPU has compute capability {major}.{minor}, and it needs 8.0")
        return text.format(major=capability[0], minor=capability[1])
    if _head_width(config) > TILE and capability not in WIDE_HEADS:
        text = _("heads of width {width} do not fit the GPU's shared memory")
        return text.format(width=_head_width(config))
    return None


def choose_attention(model: Any, asked: str, device: torch.device) -> None:
    """Have `model` attend as asked; `auto` chooses by device and row.

    Args:
        asked: auto, flex, block or dense.

    Raises:
        ValueError: FlexAttention is asked for, and the model or the device has none.
    """
    if asked == "flex" and (reason := why_no_flex(model, device)):
        raise ValueError(_("attention is flex, but {reason}; set it to auto").format(reason=reason))
    attend_by(model, asked)


def attend_by(model: Any, form: str) -> None:
    """Have `model` attend in a form (auto, flex, block or dense), whether the device can or not."""
    setattr(_causal(model), _FORM, form)


def attention_form(model: Any, device: torch.device, tokens: int) -> str:
    """How a row of so many tokens is attended to: `flex`, `block` or `dense`."""
    asked: str = getattr(_causal(model), _FORM, "auto")
    return choose_form(tokens, device.type, lambda: why_no_flex(model, device) is None) if asked == "auto" else asked


def choose_form(tokens: int, device: str, flexible: Callable[[], bool]) -> str:
    """What `auto` chooses for a row.

    Args:
        device: `cpu`, `cuda` …
        flexible: whether FlexAttention can be had.
    """
    if device != "cuda":
        return "block"
    if tokens < DENSE_BELOW_GPU:
        return "dense"
    return "flex" if flexible() else "block"


def min_spared_pairs(device: torch.device) -> int | None:
    """How many pairs of query and key a cut of a row has to spare; None on a CPU, see `PackedRow.blocks`."""
    return MIN_SPARED_GPU if device.type == "cuda" else None


def head_mask(row: PackedRow, config: Any, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """The mask of the last layer, whose queries are the positions where the head runs.

    Returns:
        (1, 1, H, L), as `tree_mask` has it.
    """
    config = config.get_text_config()
    ends, positions, heads = (
        torch.from_numpy(array).to(device, non_blocking=True)
        for array in (row.subtree_end, row.position_ids, row.heads)
    )
    index = torch.arange(len(row), device=device)
    seen = (index[None, :] <= heads[:, None]) & (heads[:, None] < ends[None, :])
    if (window := _window(config, config.num_hidden_layers - 1)) is not None:
        seen &= positions[heads][:, None] - positions[None, :] < window
    return _form(seen, config, dtype)


def tile_mask(row: PackedRow, config: Any, device: torch.device) -> BlockMask | dict[str, BlockMask]:
    """FlexAttention's mask of a row whose length is a multiple of `TILE`; see `tree.PackedRow.padded`.

    What a tile of queries sees of a tile of keys follows from the least and the greatest `subtree_end` of the keys, and
    with a window from those of the positions: the square of the row is never made.

    Returns:
        One mask; one for each kind of layer where the model has both.
    """
    config = config.get_text_config()
    window = getattr(config, "sliding_window", None)
    with torch.inference_mode(mode=False):  # what is made in it could not be used by a training step
        if window is None:
            return _tiles(row, None, device)
        if not getattr(config, "layer_types", None):
            return _tiles(row, window, device)
        return {"full_attention": _tiles(row, None, device), "sliding_attention": _tiles(row, window, device)}


def _tiles(row: PackedRow, window: int | None, device: torch.device) -> BlockMask:
    ends, positions = row.subtree_end.reshape(-1, TILE), row.position_ids.reshape(-1, TILE)
    tile = np.arange(len(ends))
    first, last = tile * TILE, tile * TILE + TILE - 1
    some = (tile[None] <= tile[:, None]) & (first[:, None] < ends.max(1)[None])
    all_ = (tile[None] < tile[:, None]) & (last[:, None] < ends.min(1)[None])
    if window is not None:
        some &= positions.min(1)[:, None] - positions.max(1)[None] < window
        all_ &= positions.max(1)[:, None] - positions.min(1)[None] < window
    mask = BlockMask.from_kv_blocks(
        *_list_tiles(some & ~all_),
        *_list_tiles(all_),
        BLOCK_SIZE=TILE,
        mask_mod=_sees(row.subtree_end, row.position_ids, window, device),
        seq_lengths=(len(row), len(row)),
    )
    return mask.to(str(device))


def _list_tiles(tiles: NDArray[np.bool_]) -> tuple[torch.Tensor, torch.Tensor]:
    """How many tiles of keys each tile of queries has, and which, first of all."""
    counts, order = tiles.sum(1).astype(np.int32), np.argsort(~tiles, axis=1, kind="stable").astype(np.int32)
    return torch.from_numpy(counts)[None, None], torch.from_numpy(order)[None, None]


def _sees(subtree_end: Ints, position_ids: Ints, window: int | None, device: torch.device) -> Callable[..., Any]:
    ends = torch.from_numpy(subtree_end.astype(np.int32)).to(device)
    if window is None:
        return lambda batch, head, query, key: (key <= query) & (query < ends[key])
    places = torch.from_numpy(position_ids.astype(np.int32)).to(device)
    return lambda batch, head, query, key: (key <= query) & (query < ends[key]) & (places[query] - places[key] < window)


def tree_mask(
    subtree_end: torch.Tensor, position_ids: torch.Tensor, config: Any, dtype: torch.dtype
) -> torch.Tensor | dict[str, torch.Tensor]:
    """The mask of one packed row, built on the row's device.

    A sliding window counts positions along a root-to-leaf path, not places in the row: transformers would leave the
    window out without a word when it is given a 4-D mask.

    Args:
        subtree_end: (L,) see `tree.PackedRow`.
        position_ids: (L,) see `tree.PackedRow`.
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
        blocks: see `tree.PackedRow.blocks`.
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
    attention_mask: torch.Tensor | BlockMask | None,
    tree_blocks: Sequence[Block] | None = None,
    tree_seen: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' sdpa, which takes the blocks of a row where the model hands them down, or a mask of tiles."""
    if isinstance(attention_mask, BlockMask):
        query, key, value = _cast(query, key, value)
        return flex_attention_forward(module, query, key, value, attention_mask, **kwargs)[0], None
    if tree_blocks is None or attention_mask is None:
        plain: tuple[torch.Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
        return plain
    return attend_by_block(module, query, key, value, attention_mask, tree_blocks, **kwargs), None


# Under its own name, so that a model needs no setting for it and is saved as it was.
AttentionInterface.register("sdpa", _sdpa)
# cuDNN would be the first choice on Hopper and Blackwell, and with a mask it plans anew for every shape, half a second
# each, and has given gradients that are NaN.
torch.backends.cuda.enable_cudnn_sdp(False)


def _cast(*states: torch.Tensor) -> list[torch.Tensor]:
    """What autocast does for other attention: FlexAttention takes three of one format."""
    kind = states[0].device.type
    casts = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    dtype = torch.get_autocast_dtype(kind) if casts else states[-1].dtype
    return [state.to(dtype) for state in states]


def _causal(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _head_width(config: Any) -> int:
    return getattr(config, "head_dim", None) or int(config.hidden_size // config.num_attention_heads)


def _window(config: Any, layer: int) -> int | None:
    """How far back a layer's queries see; None for any distance."""
    kinds = getattr(config, "layer_types", None)
    window: int | None = getattr(config, "sliding_window", None)
    return window if not kinds or kinds[layer] == "sliding_attention" else None


def _form(seen: torch.Tensor, config: Any, dtype: torch.dtype) -> torch.Tensor:
    if config._attn_implementation == "eager":
        seen = torch.zeros_like(seen, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)
    return seen[None, None]
