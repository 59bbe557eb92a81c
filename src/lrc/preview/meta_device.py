"""Stand-ins for kernels that the meta device lacks: they allocate and save the same tensors as the real ones.

The meta device has no fused attention, no fused dropout, no autocast and no quantized weights, and grouped products of
a mixture of experts only in bfloat16. Without stand-ins, a computation there would hold a row's square for every
attention head, or weights that a quantized model never has, or fail.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lrc.models import lora_dropout
from lrc.packing import attention

FOUR_BIT_BLOCK = 64  # weights that share a scale: bitsandbytes' blocksize
NESTED_BLOCK = 256  # scales that share a scale of their own under double quantization

# The name changed with torch 2.10; on the meta device it supports only bfloat16.
GROUPED = [getattr(nn.functional, "grouped_mm", None), getattr(torch, "_grouped_mm", None)]


class _Attention(torch.autograd.Function):
    """Fused attention: saves its inputs, its output, a float32 log-sum per query, and the mask in additive form."""

    @staticmethod
    def forward(ctx: Any, query: Any, key: Any, value: Any, mask: Any) -> Any:
        bias = None if mask is None else mask if mask.dtype == query.dtype else mask.to(query.dtype)
        output = query.new_empty((*query.shape[:-1], value.shape[-1]))
        sums = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, output, sums, bias)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        query, key, value, *_ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value), None


class _Grouped(torch.autograd.Function):
    """The grouped product of a mixture of experts: saves its inputs."""

    @staticmethod
    def forward(ctx: Any, states: Any, weights: Any) -> Any:
        ctx.save_for_backward(states, weights)
        return states.new_empty((states.shape[0], weights.shape[-1]))

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        states, weights = ctx.saved_tensors
        return torch.empty_like(states), torch.empty_like(weights) if ctx.needs_input_grad[1] else None


class _Dropout(torch.autograd.Function):
    """An accelerator's dropout: saves one byte per element."""

    @staticmethod
    def forward(ctx: Any, states: Any) -> Any:
        ctx.save_for_backward(torch.empty_like(states, dtype=torch.bool))
        return torch.empty_like(states)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        return torch.empty_like(gradient)


class _Quantized(torch.autograd.Function):
    """bitsandbytes' product: the weight is dequantized during the product, in forward and backward."""

    @staticmethod
    def forward(ctx: Any, states: Any, shape: Any, keeps_input: bool) -> Any:
        ctx.shape = shape
        if keeps_input:
            ctx.save_for_backward(states)
        widened = states.new_empty(shape)
        output = states.new_empty((*states.shape[:-1], shape[0]))
        del widened
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        widened = gradient.new_empty(ctx.shape)
        result = gradient.new_empty((*gradient.shape[:-1], ctx.shape[1]))
        del widened
        return result, None, None


class MetaKernels(TorchFunctionMode):
    """Replaces torch's functions by the stand-ins, and casts as autocast does.

    Args:
        device: the type of the simulated device, such as `cpu` or `cuda`.
        autocast: the dtype of mixed precision; None does not cast.
    """

    def __init__(self, device: str, autocast: torch.dtype | None) -> None:
        super().__init__()
        self.device, self.autocast = device, autocast

    def __enter__(self) -> Any:
        # PEFT does not cast if autocast is enabled.
        self._before = torch.is_autocast_enabled(self.device)
        self._flex = attention.flex_attention_forward
        attention.flex_attention_forward = self._attend_by_tiles  # not visible to a TorchFunctionMode
        self._autocast_dtype = lora_dropout.autocast_dtype
        lora_dropout.autocast_dtype = lambda kind: self.autocast
        torch.set_autocast_enabled(self.device, self.autocast is not None)
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        torch.set_autocast_enabled(self.device, self._before)
        attention.flex_attention_forward = self._flex
        lora_dropout.autocast_dtype = self._autocast_dtype
        super().__exit__(kind, error, trace)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is nn.functional.scaled_dot_product_attention:
            query, key, value = self._cast(args[:3])
            return _Attention.apply(query, key, value, kwargs.get("attn_mask", args[3] if len(args) > 3 else None))
        if func in GROUPED:
            return _Grouped.apply(*args[:2])
        if func is nn.functional.linear and self.autocast:
            return func(*self._cast(args), **kwargs)
        if func is torch.native_dropout and self.device == "cpu":
            # There, LoRA keeps no mask, but draws it again.
            return torch.empty_like(args[0]), torch.empty(1, dtype=torch.bool, device="meta").expand(args[0].shape)
        if func is nn.functional.dropout and self.device != "cpu" and _is_active_dropout(args, kwargs):
            return _Dropout.apply(args[0])
        return func(*args, **kwargs)

    def _attend_by_tiles(
        self, module: Any, query: Any, key: Any, value: Any, mask: Any, **kwargs: Any
    ) -> tuple[Any, None]:
        """FlexAttention, which saves no L × L mask."""
        states = self._cast((query, key, value))
        return _Attention.apply(*states, None).transpose(1, 2).contiguous(), None

    def _cast(self, tensors: Any) -> Any:
        if self.autocast is None:
            return tensors
        return [tensor if tensor is None else tensor.to(self.autocast) for tensor in tensors]


def _is_active_dropout(args: Any, kwargs: Any) -> bool:
    names = ("input", "p", "training")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    return bool(given.get("training", True)) and given.get("p", 0.5) > 0


def run_on_meta(module: Any) -> None:
    """Give a quantized linear layer on the meta device a forward."""
    shape, eight = (module.out_features, module.in_features), type(module).__name__ == "Linear8bitLt"

    def forward(states: torch.Tensor) -> torch.Tensor:
        # 4-bit layers compute in a dtype of their own, 8-bit ones in float16; both return the dtype of their input.
        inner = torch.float16 if eight else module.compute_dtype or states.dtype
        product: torch.Tensor = _Quantized.apply(states.to(inner), shape, eight)
        return product.to(states.dtype)

    module.forward = forward


def quantized_bytes(module: Any, *, nested: bool) -> int:
    """The bytes of a quantized layer's weight, with its scales.

    Args:
        module: bitsandbytes' Linear4bit or Linear8bitLt.
        nested: whether the scales of 4-bit weights are quantized, too (double quantization).
    """
    count: int = module.out_features * module.in_features
    if type(module).__name__ == "Linear8bitLt":
        return count + 4 * module.out_features  # one scale per row
    scales = -(-count // FOUR_BIT_BLOCK)
    return -(-count // 2) + (scales + 4 * -(-scales // NESTED_BLOCK) if nested else 4 * scales)


class PeakMemoryTracker(TorchDispatchMode):
    """Counts the bytes of every storage that an operation allocates, until it is freed.

    Autograd's saved tensors, recomputed ones and intermediate gradients are storages like any other, so that the peak
    is that of forward and backward, except for workspaces inside of kernels.

    Args:
        known: existing tensors, which are counted elsewhere.
        logits_width: the last dimension of logits, which are counted separately.
    """

    def __init__(self, known: Iterable[torch.Tensor], logits_width: int) -> None:
        super().__init__()
        self.logits_width = logits_width
        self.live: Counter[str] = Counter()  # bytes now, by kind: activations and logits
        self.peak: Counter[str] = Counter()  # likewise, when their sum was largest
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet(tensor.untyped_storage() for tensor in known)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage() not in self._seen:
                self._enter(tensor)
        return result

    def _enter(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        kind = "logits" if tensor.dim() and tensor.shape[-1] == self.logits_width else "activations"
        self._seen.add(storage)
        self.live[kind] += storage.nbytes()
        weakref.finalize(storage, self._leave, kind, storage.nbytes())
        if self.live.total() > self.peak.total():
            self.peak = self.live.copy()

    def _leave(self, kind: str, nbytes: int) -> None:
        self.live[kind] -= nbytes
