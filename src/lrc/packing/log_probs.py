"""Packed rows → log-probabilities of their targets, for training, evaluation and answering alike."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lrc.packing.attention import (
    TILE,
    attention_form,
    head_mask,
    min_spared_pairs,
    tile_mask,
    tree_mask,
    why_no_trees,
    without_adapter,
)
from lrc.packing.last_layer import is_pruned, takes_picks
from lrc.packing.lm_head import Picks, log_probs_of, picking, to_device
from lrc.packing.tree import PackedRow, TokenSequence, pack
from lrc.runtime.errors import MachineError
from lrc.runtime.memory import out_of_memory
from lrc.runtime.progress import notify
from lrc.runtime.translation import _

# Default token budgets of a row: the longer a row, the more is shared. Training keeps the activations of all layers for
# the backward pass, and on a CPU they take most of the memory.
ROW_TOKENS = 4096
ROW_TOKENS_TRAINING_CPU = 768
LOWER_ROW_TOKENS = _("{place}: out of memory; set row_tokens below {row_tokens} and run again")
RETRYING = _("{place}: out of memory with rows of {row_tokens} tokens; retrying with {fewer}")


def row_budget(device: torch.device, row_tokens: int | None, *, training: bool = False) -> int:
    """The token budget of a row: `row_tokens`, or if that is None a default for the device."""
    return row_tokens or (ROW_TOKENS_TRAINING_CPU if training and device.type == "cpu" else ROW_TOKENS)


def target_log_probs(model: Any, row: PackedRow, device: torch.device) -> torch.Tensor:
    """Run one row and return the log-probability of each of its targets; the LM head runs at their sources only.

    Args:
        model: a causal language model, as it is or wrapped by DDP, FSDP or DeepSpeed.
        row: the row.
        device: where the model's inputs go.

    Returns:
        (T,) float32, natural logarithm, in the order of `row.targets`.
    """
    inner = getattr(model, "module", model)
    heads = to_device(row.heads, device)
    seen: dict[str, Any] = {}  # a model that takes no trees gets one sequence, with its ordinary mask and positions
    form = attention_form(inner, device, len(row))
    if why_no_trees(inner) is None:
        row = row.padded(TILE) if form == "flex" else row
        positions = to_device(row.position_ids, device)
        seen = {"position_ids": positions[None]}
        if form == "flex":
            seen["attention_mask"] = tile_mask(row, inner.config, device)
        else:
            ends = to_device(row.subtree_end, device)
            seen["attention_mask"] = tree_mask(ends, positions, inner.config, inner.dtype)
    at_heads: dict[str, Any] = {"logits_to_keep": heads}
    if is_pruned(inner):  # these families pass further arguments on to their layers
        at_heads = {"tree_heads": heads, "tree_seen": head_mask(row, inner.config, device, inner.dtype)}
        if form == "block":
            at_heads["tree_blocks"] = row.blocks(min_spared_pairs(device))
    if _has_router_loss(inner):  # which does not support tree masks
        at_heads["output_router_logits"] = False
    picks = Picks.of(row, device)
    inputs = {"input_ids": to_device(row.input_ids, device)[None], "use_cache": False, **seen, **at_heads}
    if not takes_picks(inner):
        return log_probs_of(model(**inputs).logits[0], picks.sources, picks.targets)
    with picking(without_adapter(inner), picks):
        log_probs: torch.Tensor = model(**inputs).logits[0]
    return log_probs.float()


def _has_router_loss(model: Any) -> bool:
    """Whether the model is a mixture of experts with a load-balancing loss."""
    return "output_router_logits" in inspect.signature(without_adapter(model).forward).parameters


def _is_sharded(model: Any) -> bool:
    """Whether FSDP or ZeRO-3 shards weights of the model."""
    return any(hasattr(parameter, "to_local") or hasattr(parameter, "ds_id") for parameter in model.parameters())


def sequence_scores(
    model: Any,
    sequences: Sequence[TokenSequence],
    device: torch.device,
    row_tokens: int,
    see: Callable[[int], object] = int,
    lower: Callable[[int], object] = int,
) -> NDArray[np.float64]:
    """The sum of the log-probabilities of each sequence's completion tokens.

    If memory runs out, everything starts again with half the token budget, unless FSDP or ZeRO-3 shards the weights:
    the other processes are in the midst of the same forward, which gathers them.

    Args:
        model: a causal language model in eval mode.
        sequences: any number, in any order.
        device: where the model's inputs go.
        row_tokens: token budget of a row.
        see: is called after each row with the number of sequences in it.
        lower: is called with a token budget that is tried instead of one that took too much memory.

    Returns:
        (len(sequences),) natural logarithms.

    Raises:
        MachineError: memory does not suffice for the longest sequence, or, if weights are sharded, for a row.
    """
    totals = np.zeros(len(sequences))
    share = why_no_trees(model) is None
    try:
        for row in pack(sequences, row_tokens, share=share):
            with torch.no_grad():  # FSDP trains with the tensors into which a first evaluation has gathered weights
                np.add.at(totals, row.owners, target_log_probs(model, row, device).double().cpu().numpy())
            see(len(np.unique(row.owners)))
        return totals
    except (MemoryError, RuntimeError) as error:
        if out_of_memory(error) is None:
            raise
        if _is_sharded(model):
            raise MachineError(LOWER_ROW_TOKENS.format(place=device, row_tokens=row_tokens)) from None
        if row_tokens <= max(len(sequence.inputs) for sequence in sequences):
            text = _("{place}: its memory is too small for one question; use a smaller or a quantized model")
            raise MachineError(text.format(place=device)) from None
    # Outside the handler, whose traceback keeps the tensors of the failed forward alive.
    notify(RETRYING.format(place=device, row_tokens=row_tokens, fewer=row_tokens // 2))
    lower(row_tokens // 2)
    return sequence_scores(model, sequences, device, row_tokens // 2, see, lower)
