"""The output layer in pieces gives what it gives in one, forward and backward, and holds less."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from small_models import adapted, make_model
from token_trees import questions, sequence

from lrc.packing.last_layer import prune_last_layer
from lrc.packing.lm_head import Picks, log_probs_of, picking, split_head
from lrc.packing.log_probs import target_log_probs
from lrc.packing.tree import pack
from lrc.preview.meta_device import MetaKernels, PeakMemoryTracker

CPU, META = torch.device("cpu"), torch.device("meta")
ROW = pack([*questions()[0], *(sequence([5, 6, 7], [8, 9 + k, 40]) for k in range(4))], 10_000)[0]


def found(model: Any, monkeypatch: pytest.MonkeyPatch, piece: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    monkeypatch.setattr("lrc.packing.lm_head.PIECE_BYTES", piece)
    log_probs = target_log_probs(model, ROW, CPU)
    weights = torch.linspace(0.1, 1.0, len(log_probs))  # every target counts otherwise
    (log_probs * weights).sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return log_probs.detach(), gradients


@pytest.mark.parametrize("rows", [1, 3, 7])
@pytest.mark.parametrize("family", ["llama", "llama-tied", "gemma3", "qwen3"])
@pytest.mark.parametrize("trained", ["all", "adapter", "adapter and head"])
def test_pieces_are_the_whole(family: str, trained: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(family)
    if trained != "all":
        model = adapted(model, modules_to_save=["lm_head"] if trained == "adapter and head" else None)
    whole, gradients = found(model, monkeypatch, 2**30)  # before: by transformers' own output layer
    prune_last_layer(model)
    log_probs, pieces = found(model, monkeypatch, rows * 4 * 96)
    assert torch.allclose(log_probs, whole, atol=1e-5)
    assert pieces.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert (pieces[name] - gradient).norm() <= 1e-4 * gradient.norm() + 1e-9, name


def head(dtype: torch.dtype, trained: bool) -> Any:
    """What `split_head` takes, with an output layer of 500 tokens."""
    torch.manual_seed(1)
    layer = torch.nn.Linear(64, 500, bias=False).to(dtype).requires_grad_(trained)
    settings = SimpleNamespace(final_logit_softcapping=None)
    return SimpleNamespace(lm_head=layer, config=SimpleNamespace(get_text_config=lambda: settings))


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("piece", [4 * 500 * 2, 2**27])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sharpness", [1.0, 20.0, 200.0])
def test_the_gradient_is_that_of_float64(
    sharpness: float, dtype: torch.dtype, piece: int, trained: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of targets that are nearly certain, of several from one position, and of two that are the same."""
    monkeypatch.setattr("lrc.packing.lm_head.PIECE_BYTES", piece)
    causal = head(dtype, trained)
    assert split_head(causal)
    states = (torch.randn(1, 5, 64) * sharpness).to(dtype).requires_grad_()
    likely = (states[0].detach().float() @ causal.lm_head.weight.detach().float().T).argmax(-1)
    sources = np.array([4, 0, 0, 1, 2, 2, 2, 3])
    targets = np.array([likely[4], 7, likely[0], 9, 3, 3, likely[2], likely[3]])
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0, 1.5, 0.25, -1.0, 2.0])
    picks = Picks.of(SimpleNamespace(sources=sources, targets=targets), CPU)
    with picking(causal, picks):
        found = causal.lm_head(states)[0]
    (found * weights).sum().backward()

    exact = states.detach().double().requires_grad_()
    weight = causal.lm_head.weight.detach().double().requires_grad_()
    wanted = (exact[0] @ weight.T).log_softmax(-1)[sources, targets]
    (wanted * weights).sum().backward()
    rounding = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}[dtype]
    assert (found - wanted).abs().max() <= rounding * (1 + wanted.abs().max())
    scale = exact.grad.norm(dim=-1) + (1e-6 if sharpness == 200 else 0)
    assert ((states.grad.double() - exact.grad).norm(dim=-1) <= 4 * rounding * sharpness**0.5 * scale).all()
    if trained:
        assert (causal.lm_head.weight.grad - weight.grad).norm() <= 4 * rounding * sharpness**0.5 * weight.grad.norm()


def test_a_head_in_4_bits_whose_weight_has_a_floating_dtype() -> None:
    from bitsandbytes.nn import Linear4bit

    causal = head(torch.float32, False)
    causal.lm_head = Linear4bit(64, 500, bias=False, compute_dtype=torch.float32, quant_storage=torch.bfloat16).to(CPU)
    states = torch.randn(1, 5, 64).requires_grad_()
    wanted = causal.lm_head(states)[0].float().log_softmax(-1)[[4, 0], [7, 9]]
    assert causal.lm_head.weight.is_floating_point() and split_head(causal)
    with picking(causal, Picks.of(SimpleNamespace(sources=np.array([4, 0]), targets=np.array([7, 9])), CPU)):
        assert torch.allclose(causal.lm_head(states)[0], wanted, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_log_probabilities_are_those_of_log_softmax(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    logits = (torch.randn(6, 500) * 8).to(dtype).requires_grad_()
    sources, targets = torch.tensor([0, 0, 0, 3, 5, 5, 2]), torch.tensor([1, 1, 499, 4, 9, 2, 0])  # rows 1 and 4: none
    weights = torch.linspace(-1, 2, len(sources))
    found = log_probs_of(logits, sources, targets)
    wanted = logits.float().log_softmax(-1)[sources, targets]
    assert found.dtype == torch.float32 and torch.allclose(found, wanted, atol=1e-5)
    (mine,) = torch.autograd.grad((found * weights).sum(), logits, retain_graph=True)
    (theirs,) = torch.autograd.grad((wanted * weights).sum(), logits)
    assert mine.dtype == dtype and torch.allclose(mine, theirs, atol=1e-5 if dtype == torch.float32 else 1e-2)
    assert not mine[[1, 4]].any()


def test_pieces_hold_less(monkeypatch: pytest.MonkeyPatch) -> None:
    def peak(piece: int) -> int:
        monkeypatch.setattr("lrc.packing.lm_head.PIECE_BYTES", piece)
        with META:
            model = adapted(make_model("llama", vocab_size=50_000)).train()  # no gradients of whole weights
        prune_last_layer(model)
        with PeakMemoryTracker([*model.parameters(), *model.buffers()], 50_000) as ledger, MetaKernels("cpu", None):
            (-target_log_probs(model, ROW, META).sum()).backward()
        return ledger.peak["logits"]

    assert peak(4 * 50_000 * 4) < peak(2**40) / 3


def test_answering_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("llama").eval()
    with torch.inference_mode():
        whole = target_log_probs(model, ROW, CPU)
        prune_last_layer(model)
        monkeypatch.setattr("lrc.packing.lm_head.PIECE_BYTES", 4 * 96 * 2)
        assert torch.allclose(target_log_probs(model, ROW, CPU), whole, atol=1e-5)
