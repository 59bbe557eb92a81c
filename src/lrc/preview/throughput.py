"""How many unique tokens a second a training would run on a card that is not here: computed, from a measured share.

lrc's optimizer steps on an H100 reached a part of the dense matrix rate that its maker states: docs/results.md, "On a
GPU". The same part is supposed of every card. Cards whose products are slower wait less for all else, so that most will
do better; none but the H100 has been measured.
"""

from __future__ import annotations

import numpy as np

from lrc.config.accelerate_config import Topology
from lrc.preview.meta_model import ModelSpec, StaticMemory
from lrc.runtime.cards import Card

# The least share of the stated rate by tokens of a row: Llama 7B in NF4 without checkpointing at 1,280, in bfloat16 at
# 4,096.
ROWS, SHARES = (1280, 4096), (0.12, 0.26)


def operations_a_token(build: ModelSpec, model: StaticMemory) -> int | None:
    """Operations of a training step for each unique token: 2 a weight forward, 2 for the gradients of activations.

    With gradient checkpointing the forward counts twice; where all weights are trained, their gradients are 2 more.
    Embeddings and head are left out, which few tokens need; so is attention.

    Returns:
        None for a mixture of experts, where only some weights take part.
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
    """Unique tokens a second of all processes; None where nothing is known that it could be computed from.

    Args:
        row_tokens: of the rows.
    """
    half = (build.autocast or build.dtype).itemsize == 2
    operations = operations_a_token(build, model)
    # Weights that are gathered layer by layer make it slower by what the link between the cards takes.
    if not half or operations is None or topology.shards_weights or not card.rate:
        return None
    share = float(np.interp(row_tokens, ROWS, SHARES))
    return topology.processes * share * card.rate * 1e12 / operations
