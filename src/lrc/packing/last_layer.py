"""Runs the last decoder layer only for the positions whose logits are needed.

The last layer needs keys and values of all positions, but queries, output projection and MLP only where the LM head
runs. If an answer is one digit and EOS, this saves nearly a whole layer.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from lrc.packing.attention import why_no_trees, without_adapter
from lrc.packing.lm_head import split_head
from lrc.packing.tree import Block
from lrc.runtime.translation import _

# Families whose decoder layer is what `_forward` computes; others run their last layer at all positions.
FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "gemma3_text")
_MARK = "_lrc_needs_heads"
_SPLIT = "_lrc_head_in_pieces"


def prune_last_layer(model: Any) -> str | None:
    """Make `model` take `tree_heads`, a tensor of H positions, and return logits for these only.

    Returns:
        None; or, if the model's family is not supported, a line that says so.
    """
    causal = without_adapter(model)
    kind = causal.config.get_text_config().model_type
    if kind not in FAMILIES or causal.config.model_type != kind or why_no_trees(model):
        text = _("the last layer of {family} is computed at every position")
        return text.format(family=causal.config.model_type)
    layer = causal.get_decoder().layers[-1]
    layer.forward = partial(_forward, layer)
    setattr(causal, _MARK, True)
    setattr(causal, _SPLIT, split_head(causal))
    return None


def is_pruned(model: Any) -> bool:
    """Whether `prune_last_layer` took effect on `model`."""
    return getattr(without_adapter(model), _MARK, False)


def takes_picks(model: Any) -> bool:
    """Whether the LM head of `model` returns log-probabilities inside `lm_head.picking`."""
    return getattr(without_adapter(model), _SPLIT, False)


def _forward(
    layer: Any,
    hidden_states: torch.Tensor,
    attention_mask: Any,
    position_embeddings: tuple[torch.Tensor, torch.Tensor],
    tree_heads: torch.Tensor,
    tree_seen: torch.Tensor,
    tree_blocks: Sequence[Block] | None = None,
    **kwargs: Any,
) -> torch.Tensor:
    """A decoder layer's forward: (1, L, hidden) in, (1, H, hidden) out; the mask `tree_seen` is (1, 1, H, L)."""
    # The layer before it may be on another GPU.
    hidden_states = hidden_states.to(tree_heads.device)
    normed = layer.input_layernorm(hidden_states)
    attended = _attend(layer.self_attn, normed, tree_seen, position_embeddings, tree_heads, tree_blocks)
    hidden = hidden_states[:, tree_heads]
    if hasattr(layer, "pre_feedforward_layernorm"):  # Gemma also normalizes before it adds to the residual
        hidden = hidden + layer.post_attention_layernorm(attended)
        return hidden + layer.post_feedforward_layernorm(layer.mlp(layer.pre_feedforward_layernorm(hidden)))
    hidden = hidden + attended
    return hidden + layer.mlp(layer.post_attention_layernorm(hidden))


def _attend(
    attention: Any,
    hidden: torch.Tensor,
    mask: torch.Tensor,
    position_embeddings: tuple[torch.Tensor, torch.Tensor],
    heads: torch.Tensor,
    blocks: Sequence[Block] | None,
) -> torch.Tensor:
    module = sys.modules[type(attention).__module__]
    query = _split(attention.q_proj(hidden[:, heads]), attention.head_dim)
    key = _split(attention.k_proj(hidden), attention.head_dim)
    value = _split(attention.v_proj(hidden), attention.head_dim)
    if hasattr(attention, "q_norm"):
        query, key = attention.q_norm(query), attention.k_norm(key)
    cos, sin = position_embeddings
    query = module.apply_rotary_pos_emb(query, query, cos[:, heads], sin[:, heads])[0]
    key = module.apply_rotary_pos_emb(key, key, cos, sin)[1]
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(
        attention.config._attn_implementation, module.eager_attention_forward
    )
    dropout = attention.attention_dropout if attention.training else 0.0
    settings = {"dropout": dropout, "scaling": attention.scaling, "tree_blocks": blocks}
    output, _ = attend(attention, query, key, value, mask, **settings)
    return attention.o_proj(output.reshape(1, len(heads), -1))


def _split(states: torch.Tensor, head_dim: int) -> torch.Tensor:
    """(1, n, heads × head_dim) → (1, heads, n, head_dim)."""
    return states.view(1, states.shape[1], -1, head_dim).transpose(1, 2)
