"""Estimates the throughput of training on a GPU that is not here, from the utilization measured on another one.

On an H100, lrc's optimizer steps reached a share of the peak rate of dense products in its datasheet: docs/results.md,
"On a GPU". The same share is assumed for every GPU. Slower GPUs wait less for everything else, so most should do
better; only the H100 has been measured.
"""

from __future__ import annotations

import numpy as np

from lrc.config.accelerate_config import Topology
from lrc.preview.meta_model import ModelSpec, StaticMemory
from lrc.runtime.cards import Card

# The least measured share of the peak rate by tokens of a row: Llama 7B in NF4 without checkpointing at 1,280, in
# bfloat16 at 4,096. Between them it is interpolated.
ROWS, SHARES = (1280, 4096), (0.12, 0.26)


def operations_a_token(build: ModelSpec, model: StaticMemory) -> int | None:
    """Floating-point operations of a training step per unique token.

    They are 2 per weight for the forward and 2 for the gradients of activations; 2 more for the forward that gradient
    checkpointing repeats, and 2 more for the gradients of weights in full fine-tuning. Embeddings and LM head, which
    few tokens need, are left out, and so is attention.

    Returns:
        None for a mixture of experts, in which only some weights take part.
    """
    text = build.config.get_text_config()
    if getattr(text, "num_experts", None) or getattr(text, "num_local_experts", None):
        return None
    tables = 1 if build.config.tie_word_embeddings else 2
    weights = model.parameters - tables * text.vocab_size * text.hidden_size
    return weights * (4 + 2 * build.checkpointing + 2 * (build.adapter is None))


def tokens_a_second(
    build: ModelSpec, model: StaticMemory, card: Card, topology: Topology, row_tokens: int
) -> float | None:
    """Unique tokens per second of all processes.

    Args:
        build: the model.
        model: its weights.
        card: the GPU.
        topology: the launch.
        row_tokens: the length of rows.

    Returns:
        None if it cannot be estimated: in float32, for a mixture of experts, sharded weights, or an unknown GPU.
    """
    half = (build.autocast or build.dtype).itemsize == 2
    operations = operations_a_token(build, model)
    # Sharded weights are gathered layer by layer, at the unknown speed of the link between the GPUs.
    if not half or operations is None or topology.shards_weights or not card.rate:
        return None
    share = float(np.interp(row_tokens, ROWS, SHARES))
    return topology.processes * share * card.rate * 1e12 / operations
