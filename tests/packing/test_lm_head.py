"""The output layer in pieces gives what it gives in one, forward and backward, and holds less."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_models import adapted, make_model
from token_trees import questions, sequence

from lrc.packing.last_layer import prune_last_layer
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
@pytest.mark.parametrize("saved", [None, ["lm_head"]])
def test_pieces_are_the_whole(family: str, saved: list[str] | None, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(family)
    if saved:
        model = adapted(model, modules_to_save=saved)
    whole, gradients = found(model, monkeypatch, 2**30)  # before: by transformers' own output layer
    prune_last_layer(model)
    log_probs, pieces = found(model, monkeypatch, rows * 4 * 96)
    assert torch.allclose(log_probs, whole, atol=1e-5)
    assert pieces.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert (pieces[name] - gradient).norm() <= 1e-4 * gradient.norm() + 1e-9, name


def test_pieces_hold_less(monkeypatch: pytest.MonkeyPatch) -> None:
    def peak(piece: int) -> int:
        monkeypatch.setattr("lrc.packing.lm_head.PIECE_BYTES", piece)
        with META:
            model = make_model("llama", vocab_size=50_000).train()
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
