"""LoRA whose backward repeats casts and dropout, against float64 on the CPU with the same elements dropped."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from small_models import adapted, make_model
from torch import nn

from lrc.models.lora_dropout import DropoutLinear, recompute_dropout

P, WIDTH, ROWS, RANK = 0.2, 128, 300, 8
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# Units in the last place of a number near one.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2**-7, torch.float16: 2**-9}


def run(states: torch.Tensor, weight: torch.Tensor, gradient: torch.Tensor, mixed: torch.dtype | None) -> Any:
    """The output, and the gradients of states and weight."""
    factor = nn.Linear(*weight.T.shape, bias=False, device=states.device)
    factor.weight.data = weight
    context: AbstractContextManager[Any] = torch.autocast(states.device.type, mixed) if mixed else nullcontext()
    torch.manual_seed(11)
    with context:
        output = DropoutLinear(factor, P)(states)
    return output, *torch.autograd.grad(output, (states, factor.weight), gradient.to(output.dtype))


@pytest.mark.parametrize("mixed", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dtype", DTYPES)
def test_products_and_gradients(dtype: torch.dtype, mixed: torch.dtype | None, device: torch.device) -> None:
    if device.type == "cpu" and torch.float16 in (dtype, mixed):
        pytest.skip("torch computes float16 on a CPU one number at a time")
    torch.manual_seed(2)
    states = torch.randn(2, ROWS, WIDTH, device=device).add(8).to(dtype).requires_grad_()  # none is zero
    weight, gradient = torch.randn(RANK, WIDTH, device=device), torch.randn(2, ROWS, RANK, device=device)
    kept = run(states, torch.eye(WIDTH, device=device), torch.ones(2, ROWS, WIDTH, device=device), mixed)[0] != 0
    assert abs(float((~kept).float().mean()) - P) < 5 * (P * (1 - P) / kept.numel()) ** 0.5

    found = run(states, weight, gradient, mixed)
    mask = kept.double().cpu() / (1 - P)
    x, w, g = (tensor.detach().double().cpu() for tensor in (states, weight, gradient))
    exact = (mask * x) @ w.T, mask * (g @ w), torch.einsum("bto,bti->oi", g, mask * x)
    computed = mixed or torch.float32
    assert found[0].dtype == computed and found[1].dtype == dtype and found[2].dtype == torch.float32
    for one, other in zip(found, exact, strict=True):
        error = (one.detach().double().cpu() - other).norm() / other.norm()
        assert error <= max(TOLERANCE[computed], TOLERANCE[dtype])


@pytest.mark.parametrize("mixed", [None, torch.bfloat16])
def test_gradient_checkpointing_drops_the_same(mixed: torch.dtype | None, device: torch.device) -> None:
    tokens = torch.arange(3, 90, device=device)[None]

    def gradients(checkpointing: bool) -> dict[str, torch.Tensor]:
        model = adapted(make_model("qwen3"), lora_dropout=P).to(device).train()
        recompute_dropout(model)
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.enable_input_require_grads()
        torch.manual_seed(5)
        with torch.autocast(device.type, mixed) if mixed else nullcontext():
            model(input_ids=tokens, labels=tokens).loss.backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    plain, again = gradients(False), gradients(True)
    assert plain and plain.keys() == again.keys()
    for name, gradient in plain.items():
        assert (again[name] - gradient).norm() <= 1e-4 * gradient.norm(), name
