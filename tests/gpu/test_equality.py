"""A packed tree against separate samples: loss and every gradient, both against float64 on the CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import adapted, make_model
from token_trees import VOCABULARY, sequence
from transformers import BitsAndBytesConfig

from lrc.models.loading import load_base
from lrc.models.lora_dropout import recompute_dropout
from lrc.packing.attention import choose_attention
from lrc.packing.last_layer import prune_last_layer
from lrc.packing.log_probs import sequence_scores, target_log_probs
from lrc.packing.tree import TokenSequence, pack

SIZES = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4, "head_dim": 64}
SIZES |= {"max_position_embeddings": 2048, "initializer_range": 0.08}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# What chance may add to the largest of some dozens of errors: a few units in the last place.
CHANCE = {"float32": 1e-4, "bfloat16": 3e-2, "float16": 4e-3}
Found = tuple[torch.Tensor, dict[str, torch.Tensor]]


def samples() -> list[TokenSequence]:
    """Three passages of two or three questions, of 300 to 700 tokens; answers of one to four."""
    random = np.random.default_rng(3)

    def tokens(count: int) -> list[int]:
        return random.integers(3, VOCABULARY, count).tolist()

    system = tokens(30)
    passages = [system + tokens(count) for count in (420, 260, 350)]
    return [
        sequence(passage + tokens(int(random.integers(40, 120))), tokens(1 + k))
        for passage in passages
        for k in range(2 + len(passage) % 2)
    ]


def build(family: str, **settings: Any) -> Any:
    windowed = {"sliding_window": 200} if family in ("mistral", "gemma3", "qwen3-window") else {}
    return adapted(make_model(family, **SIZES, **windowed, **settings)).train()


def tree(model: Any, device: torch.device, form: str, row_tokens: int = 4096) -> Found:
    """Log-probabilities and gradients of packed rows."""
    recompute_dropout(model)
    prune_last_layer(model)
    choose_attention(model, form, device)
    found = []
    for row in pack(samples(), row_tokens):
        log_probs = target_log_probs(model, row, device)
        (-log_probs.sum()).backward()
        found += list(zip(row.owners.tolist(), log_probs.tolist(), strict=True))
    return torch.tensor([value for _, value in sorted(found, key=lambda one: one[0])]), gradients(model)


def separate(model: Any, device: torch.device) -> Found:
    """The same of each sample in a forward of its own."""
    found = []
    for one in samples():
        tokens = torch.from_numpy(one.tokens).to(device)
        logits = model(input_ids=tokens[None], use_cache=False).logits[0, one.prompt_length - 1 : -1]
        wide = logits if logits.dtype == torch.float64 else logits.float()
        log_probs = wide.log_softmax(-1).gather(1, tokens[one.prompt_length :, None])[:, 0]
        (-log_probs.sum()).backward()
        found += log_probs.tolist()
    return torch.tensor(found), gradients(model)


def gradients(model: Any) -> dict[str, torch.Tensor]:
    found = {name: p.grad.double().cpu() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def errors(found: Found, exact: Found) -> tuple[float, float]:
    """The largest error of a log-probability, and the largest of a gradient relative to its size."""
    largest = max(((found[1][name] - g).norm() / g.norm()).item() for name, g in exact[1].items())
    return (found[0] - exact[0]).abs().max().item(), largest


def assert_no_further(found: tuple[float, float], rounding: tuple[float, float], dtype: str) -> None:
    """Sums in another order: no further from the truth than separate samples of the same format, but for chance."""
    assert found[0] <= 1.5 * rounding[0] + CHANCE[dtype] and found[1] <= 1.5 * rounding[1] + CHANCE[dtype]


@pytest.mark.parametrize("form", ["flex", "block", "dense"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral", "gemma3"])
def test_loss_and_gradients(
    family: str, dtype: str, form: str, device: torch.device, record: Callable[..., None]
) -> None:
    if device.type == "cpu" and dtype == "float16":
        pytest.skip("torch computes float16 on a CPU one number at a time")
    if family == "gemma3" and dtype == "float16":
        pytest.skip("Gemma 3 overflows float16")
    model = build(family).to(DTYPES[dtype])
    exact = separate(copy.deepcopy(model).double(), torch.device("cpu"))
    rounding = errors(separate(copy.deepcopy(model).to(device), device), exact)
    found = errors(tree(model.to(device), device, form), exact)
    record(family=family, dtype=dtype, form=form, tree=found, separate=rounding)
    assert_no_further(found, rounding, dtype)


@pytest.mark.parametrize("form", ["flex", "block", "dense"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_nf4(
    dtype: str, checkpointing: bool, form: str, device: torch.device, record: Callable[..., None], tmp_path: Path
) -> None:
    make_model("llama", **SIZES).save_pretrained(tmp_path)
    quantization = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=DTYPES[dtype]
    )

    def quantized(compute: torch.dtype) -> Any:
        quantization.bnb_4bit_compute_dtype = compute
        base = load_base(str(tmp_path), dtype=compute, quantization=quantization, device_map={"": device})
        return adapted(base).float() if compute == torch.float32 else adapted(base)

    exact = separate(quantized(torch.float32), device)
    rounding = errors(separate(quantized(DTYPES[dtype]), device), exact)
    model = quantized(DTYPES[dtype])
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    found = errors(tree(model.train(), device, form), exact)
    record(family="llama nf4", dtype=dtype, form=form, checkpointing=checkpointing, tree=found, separate=rounding)
    assert_no_further(found, rounding, dtype)


@pytest.mark.parametrize("form", ["flex", "block", "dense"])
@pytest.mark.parametrize("autocast", ["bfloat16", "float16"])
def test_mixed_precision(autocast: str, form: str, device: torch.device, record: Callable[..., None]) -> None:
    if device.type == "cpu" and autocast == "float16":
        pytest.skip("torch computes float16 on a CPU one number at a time")
    model = build("qwen3")
    exact = separate(copy.deepcopy(model).double(), torch.device("cpu"))
    with torch.autocast(device.type, dtype=DTYPES[autocast]):
        rounding = errors(separate(copy.deepcopy(model).to(device), device), exact)
        found = errors(tree(model.to(device), device, form), exact)
    record(family="qwen3 autocast", dtype=autocast, form=form, tree=found, separate=rounding)
    assert_no_further(found, rounding, autocast)


@pytest.mark.parametrize("form", ["flex", "block", "dense"])
@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_answers(family: str, form: str, device: torch.device, record: Callable[..., None]) -> None:
    """Scoring under inference mode, of rows of several lengths."""
    model = build(family).eval()
    with torch.inference_mode():
        wanted = sums(samples(), separate_scores(copy.deepcopy(model).double()))
    model.to(device)
    prune_last_layer(model)
    choose_attention(model, form, device)
    worst = max(
        float(np.abs(sequence_scores(model, samples(), device, tokens) - wanted).max()) for tokens in (4096, 900, 1)
    )
    record(family=family, dtype="float32", form=form, answers=worst)
    assert worst < 1e-3


def separate_scores(model: Any) -> list[float]:
    found = []
    for one in samples():
        tokens = torch.from_numpy(one.tokens)
        log_probs = model(input_ids=tokens[None], use_cache=False).logits[0].log_softmax(-1)
        found.append(sum(log_probs[i - 1, tokens[i]].item() for i in range(one.prompt_length, len(tokens))))
    return found


def sums(sequences: Sequence[TokenSequence], scores: list[float]) -> np.ndarray:
    assert len(sequences) == len(scores)
    return np.array(scores)
