"""The LM head in pieces: log-probabilities of targets without the logits of all positions in memory at once.

In text style a row has hundreds of positions whose logits are needed. With a vocabulary of 262,144, a thousand of them
take a gigabyte in float32, several times over with what softmax keeps for its backward. Here the positions pass through
the head in pieces, which are recomputed in the backward, as in gradient checkpointing.

The head is still called as a module, so that FSDP and ZeRO-3 gather its weight in forward and backward.
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

# Bytes of a piece's float32 logits: enough rows for an efficient matrix product, and little compared with a model.
PIECE_BYTES = 2**27
_PICKS = "_lrc_picks"


@dataclass(frozen=True)
class Picks:
    """Which of the (H, vocabulary) logits of a row are wanted: T of them, in the order of `PackedRow.targets`."""

    sources: torch.Tensor  # (T,) int64, the row among the H positions
    targets: torch.Tensor  # (T,) int64, the token
    order: torch.Tensor  # (T,) int64, the permutation that sorts `sources`
    inverse: torch.Tensor  # (T,) int64, the inverse of `order`
    sorted_sources: np.ndarray  # (T,) int64, on the host, for cutting pieces

    @classmethod
    def of(cls, row: PackedRow, device: torch.device) -> Picks:
        """The picks for all targets of a row."""
        order, put = np.argsort(row.sources, kind="stable"), partial(to_device, device=device)
        inverse = np.argsort(order, kind="stable")
        return cls(put(row.sources), put(row.targets), put(order), put(inverse), row.sources[order])


def to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """Copy an array to a device, without waiting for it."""
    return torch.from_numpy(array).to(device, non_blocking=True)


def log_probs_of(logits: torch.Tensor, sources: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Log-probabilities (natural logarithm, float32) of targets.

    Args:
        logits: (H, vocabulary).
        sources: (T,) the row of `logits` for each target.
        targets: (T,) tokens.

    Returns:
        (T,)
    """
    logits = logits.float()
    return logits[sources, targets] - logits.logsumexp(-1)[sources]


def split_head(causal: Any) -> bool:
    """Make the LM head of `causal` work in pieces inside `picking`; false if it cannot.

    Args:
        causal: a causal language model whose logits are the output of its LM head.
    """
    if getattr(causal.config.get_text_config(), "final_logit_softcapping", None):
        return False
    layer = causal.lm_head
    layer.forward = partial(_forward, layer, layer.forward)
    return True


@contextmanager
def picking(causal: Any, picks: Picks) -> Iterator[None]:
    """In the block, the `logits` of the model's output are (1, T) log-probabilities of the picks."""
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
