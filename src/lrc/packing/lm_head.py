"""The LM head in pieces: log-probabilities of targets without the logits of all positions in memory at once.

In text style a row has hundreds of positions whose logits are needed. With a vocabulary of 262,144, a thousand of them
take a gigabyte in float32, several times over with what softmax keeps for its backward. Here the positions pass through
the head in pieces. The backward of a frozen head needs none of them again (`_FrozenHead`); those of a trained one are
recomputed in it, as in gradient checkpointing.

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
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from lrc.packing.tree import PackedRow

# Bytes of a piece's float32 logits: enough rows for an efficient matrix product, and little compared with a model.
PIECE_BYTES = 2**27
UNDERFLOW = 1024.0  # by which probabilities are multiplied, as float16 has none below 6e-8
_PICKS = "_lrc_picks"


@dataclass(frozen=True)
class Picks:
    """Which of the (H, vocabulary) logits of a row are wanted: T of them, in the order of `PackedRow.targets`."""

    sources: torch.Tensor  # (T,) int64, the row among the H positions
    targets: torch.Tensor  # (T,) int64, the token
    order: torch.Tensor  # (T,) int64, the permutation that sorts `sources`
    inverse: torch.Tensor  # (T,) int64, the inverse of `order`
    shares: torch.Tensor  # (T,) float32, in the sorted order: one over the number of targets that are the same logit
    sorted_sources: np.ndarray  # (T,) int64, on the host, for cutting pieces

    @classmethod
    def of(cls, row: PackedRow, device: torch.device) -> Picks:
        """The picks for all targets of a row."""
        order, put = np.argsort(row.sources, kind="stable"), partial(to_device, device=device)
        inverse = np.argsort(order, kind="stable")
        pairs = np.stack([row.sources[order], row.targets[order]])
        _pairs, which, counts = np.unique(pairs, axis=1, return_inverse=True, return_counts=True)
        shares = (1 / counts[which.reshape(-1)]).astype(np.float32)
        return cls(put(row.sources), put(row.targets), put(order), put(inverse), put(shares), row.sources[order])

    def split(self, states: torch.Tensor, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Pieces of `size` of the H states, each with its sources within the piece and its targets, both sorted."""
        sources, targets = self.sources[self.order], self.targets[self.order]
        cuts = np.searchsorted(self.sorted_sources, np.arange(0, len(states) + size, size))
        for k, (some, first, last) in enumerate(zip(states.split(size), cuts, cuts[1:], strict=False)):
            yield some, sources[first:last] - k * size, targets[first:last]


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
    log_probs: torch.Tensor = _LogProbs.apply(logits, sources, targets)
    return log_probs


class _LogProbs(torch.autograd.Function):
    """Logits minus their log-sum-exp, whose backward needs one float32 tensor of the size of the logits, not four."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, sources: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        sums = logits.float().logsumexp(-1)
        ctx.save_for_backward(logits, sums, sources, targets)
        return logits[sources, targets].float() - sums[sources]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        # The derivative by a logit is what arrives at its own target, less its probability times what arrives at all.
        logits, sums, sources, targets = ctx.saved_tensors
        arriving = torch.zeros_like(sums).index_add_(0, sources, gradient)
        result = torch.sub(logits, sums[:, None]).exp_().mul_(-arriving[:, None])
        result.index_put_((sources, targets), gradient.to(result.dtype), accumulate=True)
        return result.to(logits.dtype), None, None


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
    if states.requires_grad and _is_frozen(layer):
        found: torch.Tensor = _FrozenHead.apply(states, layer.weight, whole, picks, size)
        return found[None]
    if len(states) <= size:
        return log_probs_of(whole(states), picks.sources, picks.targets)[None]

    def piece(some: torch.Tensor, sources: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return log_probs_of(whole(some), sources, targets)

    parts = [
        checkpoint(piece, *part, use_reentrant=False, determinism_check="none") for part in picks.split(states, size)
    ]
    return torch.cat(parts)[picks.inverse][None]


def _is_frozen(layer: Any) -> bool:
    """Whether a layer is linear, not trained and not quantized; a subclass may be FSDP's or a quantizer's."""
    if not isinstance(layer, torch.nn.Linear) or any(parameter.requires_grad for parameter in layer.parameters()):
        return False
    weight = layer.weight  # of 4 bits, it is packed, whatever its dtype
    whole = weight.shape == (layer.out_features, layer.in_features) and not hasattr(weight, "quant_state")
    return whole and weight.is_floating_point() and weight.itemsize > 1


class _FrozenHead(torch.autograd.Function):
    """Log-probabilities of picks by an LM head that is not trained, of which the backward computes nothing again.

    The derivative of log p(t) by the hidden state is w_t - Σ_v p(v)·w_v, with the head's rows w: it depends on what
    arrives in the backward by a factor alone, so the sum is made in the forward, where the probabilities are. The
    picked tokens are left out of it, and added in float32: where p(t) is nearly 1, little is left of the difference.
    """

    @staticmethod
    def forward(
        ctx: Any,
        states: torch.Tensor,
        weight: torch.Tensor,
        whole: Callable[[torch.Tensor], torch.Tensor],
        picks: Picks,
        size: int,
    ) -> torch.Tensor:
        parts, sums, cast = [], [], weight
        for some, sources, targets in picks.split(states, size):
            logits = whole(some)
            dtype, logits = logits.dtype, logits.float()
            picked, most = logits[sources, targets], logits.amax(-1, keepdim=True)
            others = logits.sub_(most).exp_()
            total = others.sum(-1, keepdim=True)
            parts.append(picked - (most + total.log())[sources, 0])
            others.mul_(UNDERFLOW / total)
            others[sources, targets] = 0.0
            cast = cast if cast.dtype == dtype else weight.to(dtype)  # once, where autocast casts the weight for each
            sums.append(others.to(dtype) @ cast)
            del logits, others
        log_probs = torch.cat(parts)
        rows = torch.nn.functional.embedding(picks.targets[picks.order], weight)
        ctx.save_for_backward(torch.cat(sums), rows, log_probs.exp() * picks.shares)
        ctx.picks, ctx.dtype = picks, states.dtype
        return log_probs[picks.inverse]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        others, rows, own = ctx.saved_tensors
        gradient, sources = gradient[ctx.picks.order], ctx.picks.sources[ctx.picks.order]
        arriving = gradient.new_zeros(len(others)).index_add_(0, sources, gradient)
        result = others.float() * (-arriving / UNDERFLOW)[:, None]
        result.index_add_(0, sources, (gradient - arriving[sources] * own)[:, None] * rows.float())
        return result.to(ctx.dtype), None, None, None, None
