"""LoRA that repeats casts and dropout in the backward computes what PEFT's does, and autograd keeps an input once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from small_models import adapted, make_model
from torch import nn

from lrc.models.lora_dropout import recompute_dropout
from lrc.models.master_weights import to_float32
from lrc.preview.meta_device import MetaKernels, PeakMemoryTracker

WIDTH, TOKENS = 64, 1000
TOKENS_IN = torch.randint(0, 96, (1, 12), generator=torch.Generator().manual_seed(5))


class Projections(nn.Module):
    """Three projections of one input."""

    def __init__(self, kind: Callable[..., nn.Module] = nn.Linear, names: str = "qkv", **settings: Any) -> None:
        super().__init__()
        for name in names:
            setattr(self, name, kind(WIDTH, WIDTH, bias=False, **settings))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return sum((module(states) for module in self.children()), torch.zeros(()))


def lora(base: nn.Module, names: str = "qkv", **settings: Any) -> Any:
    """An adapter whose factors are random."""
    model = get_peft_model(base, LoraConfig(r=8, target_modules=list(names), **settings))
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_()
    return model.train()


def run(model: Any, states: torch.Tensor, mixed: torch.dtype | None = None) -> list[torch.Tensor]:
    """The output, the gradient of the input, and those of the weights."""
    states = states.clone().requires_grad_()
    context: AbstractContextManager[Any] = torch.autocast("cpu", mixed) if mixed else nullcontext()
    with context:
        output = model(states)
    (output.float() * torch.linspace(-1, 1, WIDTH)).sum().backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.requires_grad]
    return [output.detach(), states.grad, *gradients]


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}, {"lora_bias": True}, {"use_dora": True}])
@pytest.mark.parametrize(
    ("dtype", "mixed"),
    [(torch.float32, None), (torch.bfloat16, None), (torch.bfloat16, torch.bfloat16), (torch.float32, torch.float16)],
)
def test_without_dropout_it_is_pefts(dtype: torch.dtype, mixed: torch.dtype | None, settings: dict[str, Any]) -> None:
    model = lora(Projections().to(dtype), **settings)
    to_float32(model)
    own = copy.deepcopy(model)
    recompute_dropout(own)
    states = torch.randn(2, 7, WIDTH, dtype=dtype)
    for mine, theirs in zip(run(own, states, mixed), run(model, states, mixed), strict=True):
        assert mine.dtype == theirs.dtype
        # The gradient of an input in 16 bits is added up in another order.
        tolerance = 1e-5 if dtype == torch.float32 and mixed is None else 0.02
        assert (mine - theirs).float().norm() <= tolerance * theirs.float().norm()


def identity(p: float, dtype: torch.dtype = torch.float32) -> Any:
    """LoRA whose factors are identities, on a base of zeros: it shows what dropout does to its input."""
    base = Projections(names="q").to(dtype)
    nn.init.zeros_(base.q.weight)
    settings = LoraConfig(r=WIDTH, lora_alpha=WIDTH, lora_dropout=p, target_modules=["q"])
    model = get_peft_model(base, settings)
    to_float32(model)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            nn.init.eye_(parameter)
    recompute_dropout(model)
    return model.train()


@pytest.mark.parametrize("again", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.05, 0.3, 0.95])
def test_dropout(p: float, dtype: torch.dtype, again: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the mask drawn again, as on a CPU, and with the mask kept, as on a GPU."""
    monkeypatch.setattr("lrc.models.lora_dropout.draws_again", lambda states: again)
    model = identity(p, dtype)
    states = torch.randn(3, TOKENS, WIDTH).to(dtype).add(5).requires_grad_()  # none is zero
    output = model(states)
    kept = output != 0
    deviation = (p * (1 - p) / kept.numel()) ** 0.5
    assert abs((~kept).float().mean() - p) < 4 * deviation
    # As often in every place, and in each independently of its neighbours.
    for dim in (0, 1, 2):
        shares = (~kept).float().mean([d for d in range(3) if d != dim])
        assert (shares - p).abs().max() < 5 * deviation * shares.numel() ** 0.5, dim
    for distance in (1, 2, 3, 4, 5, 8, WIDTH):
        flat = (~kept).float().flatten() - p
        assert abs((flat[distance:] * flat[:-distance]).mean()) < 5 * p * (1 - p) / kept.numel() ** 0.5, distance
    rounding = 1e-4 if dtype == torch.float32 else 1e-2
    assert torch.allclose(output[kept].float(), states[kept].float() / (1 - p), rtol=rounding)

    (output.float() * 2).sum().backward()
    assert torch.equal(states.grad != 0, kept)  # the backward draws what the forward did
    assert torch.allclose(states.grad[kept].float(), torch.tensor(2 / (1 - p)), rtol=rounding)
    first = model.base_model.model.q.lora_A["default"].weight
    wanted = 2 * torch.where(kept, states.detach().float() / (1 - p), 0.0).sum((0, 1)).expand(WIDTH, WIDTH)
    assert torch.allclose(first.grad, wanted, rtol=rounding)


def test_each_forward_draws_anew_and_none_in_answering() -> None:
    model, states = identity(0.5), torch.ones(1, TOKENS, WIDTH)
    torch.manual_seed(1)
    first, second = model(states), model(states)
    assert 0.45 < (first != second).float().mean() < 0.55
    torch.manual_seed(1)
    assert torch.equal(model(states), first)
    assert torch.equal(model.eval()(states), states)


def test_gradient_checkpointing_draws_the_same() -> None:
    def gradients(checkpointing: bool) -> dict[str, torch.Tensor]:
        model = adapted(make_model("llama"), lora_dropout=0.3)
        recompute_dropout(model)
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.enable_input_require_grads()
        torch.manual_seed(7)
        model.train()(input_ids=TOKENS_IN, labels=TOKENS_IN).loss.backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    plain, again = gradients(False), gradients(True)
    assert plain.keys() == again.keys() and plain
    for name, gradient in plain.items():
        assert torch.allclose(again[name], gradient, atol=1e-7), name


def kept_bytes(model: Any, states: torch.Tensor) -> int:
    """The bytes that autograd keeps for the backward, besides the weights."""
    storages = {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage.nbytes(), tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = model(states)
    assert output.requires_grad
    return sum(nbytes for nbytes, _tensor in storages.values())


def test_one_input_is_kept_once() -> None:
    model = lora(Projections().bfloat16(), lora_dropout=0.1)
    to_float32(model)
    states = torch.randn(1, TOKENS, WIDTH, dtype=torch.bfloat16)
    between = 3 * TOKENS * 8 * 4  # the inputs of the second factors
    before = kept_bytes(model, states.requires_grad_())
    recompute_dropout(model)
    assert kept_bytes(model, states) <= states.nbytes + between
    assert before > 5 * (states.nbytes + between)


def test_what_is_no_plain_lora_is_left_alone() -> None:
    for base, names, settings in (
        (Projections(), "qkv", {"use_dora": True}),
        (nn.Sequential(nn.Conv1d(WIDTH, WIDTH, 1)), "0", {}),
        (nn.Sequential(nn.Embedding(WIDTH, WIDTH)), "0", {}),
    ):
        model = lora(base, names, lora_dropout=0.1, **settings)
        kinds = [type(module) for module in model.modules()]
        recompute_dropout(model)
        assert [type(module) for module in model.modules()] == kinds, settings


def test_a_model_without_an_adapter_is_left_alone() -> None:
    model = make_model("llama")
    recompute_dropout(model)
    assert not any("Dropout" in type(module).__name__ for module in model.modules())


def test_four_bits() -> None:
    """bitsandbytes' layers have a forward of their own in PEFT."""
    from bitsandbytes.nn import Linear4bit

    base = Projections(Linear4bit, quant_type="nf4", compute_dtype=torch.float32).to("cpu")
    states = torch.randn(2, 7, WIDTH)
    base(states)  # quantizes
    base.is_loaded_in_4bit = True
    model = lora(base, lora_dropout=0.0)
    theirs = run(model, states)
    model.zero_grad()
    recompute_dropout(model)
    assert all(type(layer.lora_A["default"]) is not nn.Linear for layer in (model.base_model.model.q,))
    for mine, wanted in zip(run(model, states), theirs, strict=True):
        assert torch.allclose(mine, wanted, atol=1e-4)


def test_the_adapter_is_saved_as_before(tmp_path: Any) -> None:
    model = adapted(make_model("llama"), lora_dropout=0.25)
    before = model.eval()(input_ids=TOKENS_IN).logits
    names = set(model.state_dict())
    recompute_dropout(model)
    assert set(model.state_dict()) == names
    model.save_pretrained(tmp_path / "adapter")
    again = make_model("llama")
    again.load_adapter(str(tmp_path / "adapter"))
    assert torch.allclose(again.eval()(input_ids=TOKENS_IN).logits, before, atol=1e-6)
    assert '"lora_dropout": 0.25' in (tmp_path / "adapter" / "adapter_config.json").read_text(encoding="utf-8")


def test_the_preview_computes_it_in_the_dtype_of_autocast() -> None:
    """Forward and backward hold the input, two of its size in bfloat16, and masks of one byte."""
    with torch.device("meta"):
        model = lora(Projections(names="q").bfloat16(), "q", lora_dropout=0.05)
        to_float32(model)
        recompute_dropout(model)
        states = torch.empty(1, 50 * TOKENS, WIDTH, dtype=torch.bfloat16, requires_grad=True)
    known = [*model.parameters(), states]
    with PeakMemoryTracker(known, 10**9) as tracker, MetaKernels("cuda", torch.bfloat16):
        model(states).sum().backward()
    assert 3 * states.nbytes < tracker.peak.total() < 4 * states.nbytes  # 5.5 in float32
