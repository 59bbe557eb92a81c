"""The output layer in pieces: log-probabilities of targets without the logits of all positions at once.

In text style a row has hundreds of positions whose logits are needed, and a vocabulary of 262,144 makes a gigabyte of a
thousand of them, several times over with what the softmax's backward keeps. Here the positions go through the layer
some at a time, and what a piece needed in the forward is computed again in the backward, as in gradient checkpointing.

The layer is called as a module still: FSDP and ZeRO-3 gather its weight around it, forward and backward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from lrc.packing.tree import PackedRow

# The float32 logits of a piece: enough rows for a matrix product, and little compared with a model.
PIECE_BYTES = 2**27
_PICKS = "_lrc_picks"


@dataclass(frozen=True)
class Picks:
    """What is wanted of the logits of H positions: T of them, in the order of `PackedRow.targets`."""

    sources: torch.Tensor  # (T,)
    targets: torch.Tensor  # (T,)
    order: torch.Tensor  # (T,) places among the targets, by ascending source
    inverse: torch.Tensor  # (T,)
    sorted_sources: np.ndarray  # (T,) on the host, where pieces are cut

    @classmethod
    def of(cls, row: PackedRow, device: torch.device) -> Picks:
        """Those of a row."""
        order = np.argsort(row.sources, kind="stable")

        def put(array: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(array).to(device, non_blocking=True)

        inverse = np.argsort(order, kind="stable")
        return cls(put(row.sources), put(row.targets), put(order), put(inverse), row.sources[order])


def log_probs_of(logits: torch.Tensor, sources: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """(T,) natural logarithms in float32, of (H, vocabulary) logits."""
    logits = logits.float()
    return logits[sources, targets] - logits.logsumexp(-1)[sources]


def split_head(causal: Any) -> bool:
    """Have the output layer of `causal` answer `Picks` where `picking` sets them; false where it cannot.

    Args:
        causal: a model of a family whose logits are what its output layer gives.
    """
    if getattr(causal.config.get_text_config(), "final_logit_softcapping", None):
        return False
    layer = causal.lm_head
    layer.forward = partial(_forward, layer, layer.forward)
    return True


@contextmanager
def picking(causal: Any, picks: Picks) -> Iterator[None]:
    """Have the model's forward give (1, T) log-probabilities in the place of logits."""
    setattr(causal.lm_head, _PICKS, picks)
    try:
        yield
    finally:
        delattr(causal.lm_head, _PICKS)


def _forward(layer: Any, whole: Callable[[torch.Tensor], torch.Tensor], hidden: torch.Tensor) -> torch.Tensor:
    picks: Picks | None = getattr(layer, _PICKS, None)
    if picks is None:
        return whole(hidden)
    (states,) = hidden
    vocabulary = getattr(layer.weight, "ds_shape", layer.weight.shape)[0]  # ZeRO-3 leaves an empty tensor
    size = max(PIECE_BYTES // (4 * vocabulary), 1)
    if len(states) <= size:
        return log_probs_of(whole(states), picks.sources, picks.targets)[None]

    def piece(some: torch.Tensor, sources: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return log_probs_of(whole(some), sources, targets)

    sources, targets = picks.sources[picks.order], picks.targets[picks.order]
    cuts = np.searchsorted(picks.sorted_sources, np.arange(0, len(states) + size, size))
    found = [
        checkpoint(
            piece,
            some,
            sources[first:last] - k * size,
            targets[first:last],
            use_reentrant=False,
            determinism_check="none",
        )
        for k, (some, first, last) in enumerate(zip(states.split(size), cuts, cuts[1:], strict=False))
    ]
    return torch.cat(found)[picks.inverse][None]
