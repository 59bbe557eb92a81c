"""Returns freed memory to the system while a model is trained on a CPU.

A forward frees many tensors between those that autograd keeps. Torch asks for memory at multiples of 64, and until
2.41 glibc's malloc hardly ever takes for that what it freed before, so that a process can hold twice what it uses.
"""

from __future__ import annotations

from typing import Any

import torch

from lrc.packing.attention import without_adapter
from lrc.runtime.memory import return_freed_memory

# Of a layer's output. In smaller models and rows, the freed memory is little.
LEAST_BYTES = 2**20
# A layer's backward frees more than it takes, so that fewer calls do.
BACKWARD_EVERY = 4


def return_memory_by_layer(model: Any) -> None:
    """Return freed memory after each decoder layer's forward, and after every fourth one's backward.

    Args:
        model: a PEFT or transformers model on the CPU.
    """
    decoder = without_adapter(model).get_decoder()
    for number, layer in enumerate(getattr(decoder, "layers", ())):
        layer.register_forward_hook(_after_forward if number % BACKWARD_EVERY else _after_both)


def _after_forward(_layer: Any, _inputs: Any, output: Any) -> None:
    if _is_due(output):
        return_freed_memory()


def _after_both(_layer: Any, _inputs: Any, output: Any) -> None:
    if _is_due(output):
        return_freed_memory()
        output.register_hook(lambda _gradient: return_freed_memory())


def _is_due(output: Any) -> bool:
    """Whether a layer was run for a backward, and is large enough."""
    if torch.compiler.is_compiling():  # which knows neither sizes nor when memory is freed
        return False
    return isinstance(output, torch.Tensor) and output.requires_grad and output.nbytes >= LEAST_BYTES
