"""What a computation holds at its peak, counted on the meta device, where tensors have shapes and no contents."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakMemoryTracker(TorchDispatchMode):
    """Counts the bytes of every storage that an operation makes, until nothing refers to it any more.

    Autograd's saved tensors, recomputed ones and gradients on their way are storages like any other, so that the peak
    is the one that forward and backward really have, but for what a kernel takes and gives back inside.

    Args:
        known: tensors that are there before, and are counted elsewhere.
        logits_width: the last dimension of logits, which are counted apart.
    """

    def __init__(self, known: Iterable[torch.Tensor], logits_width: int) -> None:
        super().__init__()
        self.logits_width = logits_width
        self.live: Counter[str] = Counter()  # bytes now, by kind: activations and logits
        self.peak: Counter[str] = Counter()  # likewise at the moment when the sum was largest
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
