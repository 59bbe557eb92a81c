"""Attention in a packed row: the mask, and implementations that skip most of what is masked.

This is the only place that decides what a token attends to. There are three implementations with the same result, up to
rounding:

- `dense`: the whole square of the row is computed, and then masked;
- `block`: block by block of the tree, over the keys on the block's path from the root (`attend_by_block`), so that the
  cost does not grow with the square of the row's length;
- `flex`: FlexAttention over the tiles of 128 by 128 that are not fully masked (`tile_mask`), one kernel per layer.
"""

from __future__ import annotations

import inspect
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.attention.flex_attention import BlockMask
from transformers import AttentionInterface
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from lrc.packing.equivalence import mismatch
from lrc.packing.lm_head import to_device
from lrc.packing.tree import Block, Ints, PackedRow
from lrc.runtime.devices import is_rocm
from lrc.runtime.exit_status import is_first
from lrc.runtime.progress import notify
from lrc.runtime.translation import _

TILE = 128  # FlexAttention's
# On a GPU, launching more kernels costs more time than skipping the masked part of a short row saves.
DENSE_BELOW_GPU = 1536
MIN_SPARED_GPU = 200_000
# Compute capabilities whose shared memory holds the tiles of wide heads: the datacenter GPUs of each generation. In
# float32, torch's tiles for heads of 128 need 145 KiB (8.9) or 113 KiB (12.0) of the 99 that others have.
WIDE_HEADS = {(8, 0), (9, 0), (10, 0), (10, 3)}
NARROW_HEADS = (8, 6)  # a capability that is not among them
_FORM, _DTYPE = "_lrc_attention", "_lrc_attention_dtype"
TREE_IMPLEMENTATIONS = ("sdpa", "eager")
LENGTH_DEPENDENT = ("dynamic", "longrope")
LAYERS = {"full_attention", "sliding_attention"}


def why_no_trees(model: Any) -> str | None:
    """Why `model` cannot run packed trees; None if it can.

    A tree needs attention that takes a 4-D mask, and positions that depend on `position_ids` alone.
    """
    config = model.config.get_text_config()
    implementation = config._attn_implementation
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    base = without_adapter(model)
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
    if wrong := mismatch(base, tree_mask):  # which the configuration does not tell
        return _("{family}: {reason}").format(family=config.model_type, reason=wrong)
    return None


def why_no_flex(model: Any, device: torch.device, dtype: torch.dtype | None = None) -> str | None:
    """Why `model` cannot use FlexAttention on `device`; None if it can.

    Args:
        model: a PEFT or transformers model.
        device: where it will run.
        dtype: what it computes in; None takes what `choose_attention` was told, or else the dtype of its weights.
    """
    if device.type != "cuda":
        return _("it has no backward pass on {device} devices").format(device=device.type)
    capability = torch.cuda.get_device_capability(device)
    # An MI250's is 9.0, as an H100's, but it has a third of the shared memory.
    capability = NARROW_HEADS if is_rocm() else capability
    base = without_adapter(model)
    dtype = dtype or getattr(base, _DTYPE, None) or base.dtype
    if reason := why_no_tiles(model.config.get_text_config(), capability, dtype):
        return reason
    return _why_no_triton()


@cache
def _why_no_triton() -> str | None:
    """Why triton, which makes FlexAttention's kernels, does not work here; None if it should.

    It builds an extension of Python for the driver before the first kernel, with the system's C compiler. On Windows,
    it comes with one.
    """
    if find_spec("triton") is None:
        return _("triton is not installed")
    if sys.platform == "win32":
        return None
    if not any(map(shutil.which, [os.environ["CC"]] if os.environ.get("CC") else ["gcc", "clang"])):
        return _("triton needs a C compiler, such as gcc")
    # Debian's Python installs packages in a place of its own, but has its headers where others have them.
    scheme = "posix_prefix" if sysconfig.get_default_scheme() == "posix_local" else sysconfig.get_default_scheme()
    header = Path(sysconfig.get_paths(scheme)["include"]) / "Python.h"
    if not header.is_file():
        return _("triton needs Python's headers, such as those in python3-dev ({header})").format(header=header)
    return None


def why_no_tiles(config: Any, capability: tuple[int, int], dtype: torch.dtype) -> str | None:
    """Why a model cannot use FlexAttention on GPUs of a compute capability; None if it can.

    Args:
        config: the configuration of the model, or of its text part.
        capability: (major, minor), as `torch.cuda.get_device_capability` has it.
        dtype: of query, key and value.
    """
    if config._attn_implementation != "sdpa":
        return _("attn_implementation is {implementation}").format(implementation=config._attn_implementation)
    if getattr(config, "attention_dropout", 0.0):
        return _("the model has attention dropout")
    if capability < (8, 0):
        text = _("the GPU has compute capability {major}.{minor}, and it needs 8.0")
        return text.format(major=capability[0], minor=capability[1])
    width = _head_width(config)
    if width > TILE // (2 if dtype.itemsize > 2 else 1) and capability not in WIDE_HEADS:
        text = _("heads of width {width} do not fit the GPU's shared memory in {dtype}")
        return text.format(width=width, dtype=str(dtype).removeprefix("torch."))
    return None


def choose_attention(model: Any, asked: str, device: torch.device, dtype: torch.dtype | None = None) -> None:
    """Set the attention implementation of `model`.

    Args:
        model: a PEFT or transformers model.
        asked: flex, block or dense; auto chooses by device and length of the row, and says so if FlexAttention would
            be used but for something that is not installed.
        device: where it will run.
        dtype: what it computes in, with autocast; None is the dtype of its weights.

    Raises:
        ValueError: FlexAttention is asked for, and the model or the device does not support it.
    """
    setattr(without_adapter(model), _DTYPE, dtype)
    if asked == "flex" and (reason := why_no_flex(model, device)):
        raise ValueError(_("attention is flex, but {reason}; set it to auto").format(reason=reason))
    if asked == "auto" and device.type == "cuda" and is_first():
        lack = _why_no_triton()
        if lack and why_no_flex(model, device) == lack:
            notify(_("attention: FlexAttention, which is faster here, is not used: {reason}").format(reason=lack))
    attend_by(model, asked)


def attend_by(model: Any, form: str) -> None:
    """Set the attention implementation (auto, flex, block or dense) without a check of the device."""
    setattr(without_adapter(model), _FORM, form)


def attention_form(model: Any, device: torch.device, tokens: int) -> str:
    """The implementation for a row of `tokens` tokens: `flex`, `block` or `dense`."""
    asked: str = getattr(without_adapter(model), _FORM, "auto")
    return choose_form(tokens, device.type, lambda: why_no_flex(model, device) is None) if asked == "auto" else asked


def choose_form(tokens: int, device: str, flexible: Callable[[], bool]) -> str:
    """The implementation that `auto` chooses for a row: `flex`, `block` or `dense`.

    Args:
        tokens: the length of the row.
        device: `cpu`, `cuda` …
        flexible: returns whether FlexAttention is supported; called only if it matters.
    """
    if device != "cuda":
        return "block"
    if tokens < DENSE_BELOW_GPU:
        return "dense"
    return "flex" if flexible() else "block"


def min_spared_pairs(device: torch.device) -> int | None:
    """The least number of query-key pairs that a cut of a row must save; None on a CPU, see `PackedRow.blocks`."""
    return MIN_SPARED_GPU if device.type == "cuda" else None


def head_mask(row: PackedRow, config: Any, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """The mask of the last layer, in which only the positions whose logits are needed are queries.

    Returns:
        (1, 1, H, L), boolean or additive as that of `tree_mask`.
    """
    config = config.get_text_config()
    ends, positions, heads = (to_device(array, device) for array in (row.subtree_end, row.position_ids, row.heads))
    index = torch.arange(len(row), device=device)
    seen = (index[None, :] <= heads[:, None]) & (heads[:, None] < ends[None, :])
    if (window := _window(config, config.num_hidden_layers - 1)) is not None:
        seen &= _within(window, positions[heads], positions)
    return _to_mask(seen, config, dtype)


def tile_mask(row: PackedRow, config: Any, device: torch.device) -> BlockMask | dict[str, BlockMask]:
    """FlexAttention's mask of a row whose length is a multiple of `TILE`; see `tree.PackedRow.padded`.

    Whether a tile is masked fully, partly or not at all follows from the least and the greatest `subtree_end` of its
    keys, and with a sliding window from those of the positions. The L × L mask is never materialized.

    Returns:
        One mask; if the model has layers with and without a window, a dictionary with one for each type of layer.
    """
    config = config.get_text_config()
    window = getattr(config, "sliding_window", None)
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
    """`kv_num_blocks` and `kv_indices` of a `BlockMask`: for each query tile, how many key tiles it has, and which."""
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
    """The mask of one packed row, on the device of its arguments.

    A sliding window is measured in positions along a root-to-leaf path, not in places of the row. It has to be part of
    the mask, because transformers silently ignores the window if it is given a 4-D mask.

    Args:
        subtree_end: (L,) see `tree.PackedRow`.
        position_ids: (L,) see `tree.PackedRow`.
        config: the model's configuration.
        dtype: the dtype of the hidden states; eager attention adds its mask to the scores in it.

    Returns:
        (1, 1, L, L), boolean (true is visible) for sdpa and additive for eager; if the model has layers with and
        without a window, a dictionary with one for each type of layer.
    """
    config = config.get_text_config()
    index = torch.arange(len(subtree_end), device=subtree_end.device)
    seen = (index[None, :] <= index[:, None]) & (index[:, None] < subtree_end[None, :])
    window = getattr(config, "sliding_window", None)
    if window is None:
        return _to_mask(seen, config, dtype)
    near = seen & _within(window, position_ids, position_ids)
    kinds = getattr(config, "layer_types", None)
    if not kinds:
        return _to_mask(near, config, dtype)
    return {"full_attention": _to_mask(seen, config, dtype), "sliding_attention": _to_mask(near, config, dtype)}


def _within(window: int, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Which keys are less than `window` positions before each query, or after it: boolean, of a line for each query.

    The difference of the positions is never made: of a row of 16,384 tokens it would take 2.1 GB.
    """
    return keys[None, :] > (queries - window)[:, None]


def attend_by_block(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    blocks: Sequence[Block],
    **kwargs: Any,
) -> torch.Tensor:
    """Attention of each block over itself and its ancestors, the only blocks whose keys it can see.

    Args:
        module: the attention layer.
        query: (1, attention heads, L, width), or with H in place of L if only the tokens in `PackedRow.heads` are
            queries.
        key: (1, key heads, L, width).
        value: as `key`.
        mask: (1, 1, L or H, L), true where a query sees a key.
        blocks: see `tree.PackedRow.blocks`.
        kwargs: for sdpa: dropout, scaling.

    Returns:
        (1, L or H, attention heads, width)
    """
    keys = [block.size for block in blocks]
    queries = keys if query.shape[2] == key.shape[2] else [block.heads for block in blocks]
    # `split` has one backward for all parts; each slice would allocate a gradient of the whole row.
    parts = zip(blocks, query.split(queries, 2), key.split(keys, 2), value.split(keys, 2), strict=True)
    columns, rows = torch.arange(key.shape[2], device=mask.device).split(keys), mask.split(queries, 2)
    paths: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []  # of each block: its keys, values and columns
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
    """transformers' sdpa; by block if the model passes the row's blocks, FlexAttention if the mask is a `BlockMask`."""
    if isinstance(attention_mask, BlockMask):
        query, key, value = _cast(query, key, value)
        return flex_attention_forward(module, query, key, value, attention_mask, **kwargs)[0], None
    if tree_blocks is None or attention_mask is None:
        plain: tuple[torch.Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
        return plain
    return attend_by_block(module, query, key, value, attention_mask, tree_blocks, **kwargs), None


# In place of "sdpa", so that models need no other setting, and are saved with the one that they had.
AttentionInterface.register("sdpa", _sdpa)
# torch prefers cuDNN on Hopper and Blackwell. With a mask, it makes a plan for every shape, which takes half a second
# each, and it has returned NaN gradients.
torch.backends.cuda.enable_cudnn_sdp(False)


def _cast(*states: torch.Tensor) -> list[torch.Tensor]:
    """Cast to one dtype, as autocast does for sdpa: FlexAttention needs query, key and value in the same one."""
    kind = states[0].device.type
    casts = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    dtype = torch.get_autocast_dtype(kind) if casts else states[-1].dtype
    return [state.to(dtype) for state in states]


def without_adapter(model: Any) -> Any:
    """The transformers model inside a PEFT model; any other model as it is."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _head_width(config: Any) -> int:
    return getattr(config, "head_dim", None) or int(config.hidden_size // config.num_attention_heads)


def _window(config: Any, layer: int) -> int | None:
    """A layer's sliding window, in positions; None if it has none."""
    kinds = getattr(config, "layer_types", None)
    window: int | None = getattr(config, "sliding_window", None)
    return window if not kinds or kinds[layer] == "sliding_attention" else None


def _to_mask(seen: torch.Tensor, config: Any, dtype: torch.dtype) -> torch.Tensor:
    if config._attn_implementation == "eager":
        seen = torch.zeros_like(seen, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)
    return seen[None, None]
