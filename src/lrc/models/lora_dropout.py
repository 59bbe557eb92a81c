"""Trains LoRA without keeping a copy of each layer's input for its backward.

For every projection, PEFT casts the input to the dtype of the adapter, which is float32, and drops a part of it.
Autograd then keeps what is left and the mask. With a 16-bit base, dropout and seven adapted projections a layer, this
is half of all activations.

Here the first factor of LoRA keeps its input as it came, which the projections of a layer share. The backward casts it
and drops the same elements again, as gradient checkpointing (Chen et al. 2016) does for layers. The mask is drawn again
on a CPU, and kept in one byte for each element elsewhere, where a launch costs more than the memory.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from torch.autograd.function import once_differentiable

CHANCES = 2**16  # probabilities are multiples of 1 / CHANCES


def recompute_dropout(model: nn.Module) -> None:
    """Have the LoRA layers of `model` repeat the casts and dropout of their inputs in the backward.

    What they compute stays the same, but for which of the inputs are dropped. Variants of LoRA with a forward of their
    own, such as DoRA, are left alone.

    Args:
        model: a PEFT model with all its adapters; other models have no LoRA layers.
    """
    for layer in model.modules():
        if not isinstance(layer, LoraLayer) or not layer.lora_A or layer.lora_variant:
            continue
        factors = dict(layer.lora_A.items())
        if any(type(factor) is not nn.Linear for factor in factors.values()):
            continue  # of a convolution
        layer.cast_input_dtype_enabled = False  # PEFT's switch
        for name, factor in factors.items():
            dropout = layer.lora_dropout[name]
            p = dropout.p if isinstance(dropout, nn.Dropout) else 0.0  # PEFT has an identity for none
            layer.lora_A[name], layer.lora_dropout[name] = DropoutLinear(factor, p), nn.Identity()


class DropoutLinear(nn.Linear):
    """A linear layer without bias after dropout, for which autograd keeps only the layer's own input.

    Args:
        linear: the layer whose weight it takes over.
        p: the probability with which an element of the input is dropped in training; rounded to 1 / `CHANCES`.
    """

    def __init__(self, linear: nn.Linear, p: float) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.weight, self.training = linear.weight, linear.training
        self.p = min(round(p * CHANCES), CHANCES - 1) / CHANCES

    @torch.compiler.disable
    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(…, in_features) in, (…, out_features) out, in the dtype of autocast, or else of the weight."""
        dtype = autocast_dtype(states.device.type) or self.weight.dtype
        product: torch.Tensor = _Product.apply(states, self.weight, dtype, self.p if self.training else 0.0)
        return product


def autocast_dtype(kind: str) -> torch.dtype | None:
    """The dtype to which autocast casts on a type of device; None if it does not."""
    casts = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if casts else None


def draws_again(states: torch.Tensor) -> bool:
    """Whether the backward draws the mask of these states again, so that it is not kept."""
    return states.device.type == "cpu"


class _Product(torch.autograd.Function):
    """dropout(states)·Wᵀ."""

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, weight: torch.Tensor, dtype: torch.dtype, p: float) -> torch.Tensor:
        kept, mask, ctx.seed = states.to(dtype), None, None
        if p and draws_again(states):
            # From the state of torch's random numbers, which gradient checkpointing restores.
            ctx.seed = int(torch.randint(2**63 - 1, ()))
            kept = _keep(kept, _draw(states, p, ctx.seed), p)
        elif p:
            kept, mask = torch.native_dropout(kept, p, True)
        ctx.save_for_backward(states, weight, mask)
        ctx.dtype, ctx.p = dtype, p
        return nn.functional.linear(kept, weight.to(dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        states, weight, mask = ctx.saved_tensors
        mask = mask if ctx.seed is None else _draw(states, ctx.p, ctx.seed)
        gradient = gradient.to(ctx.dtype)
        of_states = of_weight = None
        if ctx.needs_input_grad[1]:
            kept = _keep(states.to(ctx.dtype), mask, ctx.p)
            of_weight = (gradient.flatten(0, -2).mT @ kept.flatten(0, -2)).to(weight.dtype)
            del kept
        if ctx.needs_input_grad[0]:
            of_states = _keep(gradient @ weight.to(ctx.dtype), mask, ctx.p).to(states.dtype)
        return of_states, of_weight, None, None


def _keep(states: torch.Tensor, mask: torch.Tensor | None, p: float) -> torch.Tensor:
    """What dropout leaves of the states: where the mask is true, divided by 1 - p."""
    if mask is None:
        return states
    if states.device.type == "cpu":  # where a product with a boolean mask takes several times as long
        return torch.where(mask, states, 0.0).mul_(1 / (1 - p))
    kept: torch.Tensor = torch.ops.aten.native_dropout_backward(states, mask, 1 / (1 - p))
    return kept


def _draw(states: torch.Tensor, p: float, seed: int) -> torch.Tensor:
    """A boolean tensor of the shape of `states`, false with probability p, a multiple of 1 / `CHANCES`.

    It takes a quarter of the time of `bernoulli_`, which draws 64 bits for each element.
    """
    bits = torch.empty(-(-states.numel() // 4), dtype=torch.int64)
    bits.random_(-(2**63), None, generator=torch.Generator().manual_seed(seed))
    return (bits.view(torch.int16)[: states.numel()] >= round(p * CHANCES) - CHANCES // 2).view(states.shape)
