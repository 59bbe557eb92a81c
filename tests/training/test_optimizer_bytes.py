"""What an optimizer keeps of each weight: the table against the optimizers themselves."""

from __future__ import annotations

import pytest
import torch
from transformers import Adafactor

from lrc.training.optimizer import optimizer_bytes

KINDS = {
    "adamw_torch": torch.optim.AdamW,
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
    "adafactor": Adafactor,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", KINDS)
def test_bytes_are_those_of_a_step(name: str, dtype: torch.dtype) -> None:
    weight = torch.nn.Parameter(torch.ones(64, 64, dtype=dtype))
    optimizer = KINDS[name]([weight])
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    states = [value for value in optimizer.state[weight].values() if torch.is_tensor(value)]
    held = sum(state.numel() * state.element_size() for state in states) / weight.numel()
    assert held == pytest.approx(optimizer_bytes(name, dtype.itemsize), abs=0.2)


def test_the_disk_holds_paged_states_and_states_of_one_byte() -> None:
    """bitsandbytes' optimizers need a GPU to make a step; their states have a moment as torch's or Lion's have."""
    names = ("paged_adamw_32bit", "paged_adamw_8bit", "lion_32bit", "lion_8bit")
    assert [optimizer_bytes(name) for name in names] == [8, 2, 4, 1]
