"""Trained weights are float32, so that no small update is lost, whatever the base is in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import oracle
import pytest
import torch
from one_step import config, tree_trainer
from safetensors.torch import load_file
from small_models import adapted, make_model
from token_trees import questions
from transformers import AutoModelForCausalLM

SEQUENCES, PASSAGES = questions()
STEP = SEQUENCES[:8]
SAMPLES = [(s.tokens[: s.prompt_length].tolist(), s.tokens[s.prompt_length :].tolist()) for s in STEP]
RATE = 1e-5  # in bfloat16 a step of this size changes nothing in weights above 0.003
ADAPTERS: dict[str, dict[str, Any] | None] = {
    "lora": {},
    "embeddings and head": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "norms": {"modules_to_save": ["input_layernorm", "norm"]},
    "all weights": None,
}


def model_of(kind: str, dtype: torch.dtype, seed: int = 0) -> Any:
    """The same numbers in either format: those that the half one has."""
    half = torch.bfloat16 if dtype == torch.float32 else dtype
    base = make_model("llama", seed=seed).to(half).to(dtype)
    settings = ADAPTERS[kind]
    if settings is None:
        return base
    model = adapted(base, **settings)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and ".lora_" not in name:
            parameter.data = parameter.data.to(half).to(dtype)
    return model


@pytest.mark.parametrize("kind", ADAPTERS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_step_is_that_of_float32(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """AdamW's first step moves every weight by the learning rate, against its gradient."""
    reference = model_of(kind, torch.float32)
    oracle.training_step(reference, SAMPLES)
    wanted = {name: p.grad for name, p in reference.named_parameters() if p.grad is not None}

    trainer = tree_trainer(model_of(kind, dtype), SEQUENCES, PASSAGES, config(tmp_path, learning_rate=RATE))
    trained = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert {p.dtype for p in trained.values()} == {torch.float32} and trained.keys() == wanted.keys()
    before = {name: p.detach().clone() for name, p in trained.items()}
    trainer.train()
    for name, p in trained.items():
        # Where the gradient stands clear of the rounding of the forward pass, its sign is certain.
        clear = wanted[name].abs() > 0.3 * wanted[name].abs().max()
        step = (p.detach() - before[name])[clear]
        torch.testing.assert_close(step, -RATE * wanted[name][clear].sign(), rtol=0.05, atol=1e-8)


def test_a_model_that_is_trained_whole_is_saved_as_its_base_is(tmp_path: Path) -> None:
    args = config(tmp_path / "run", learning_rate=RATE, save_strategy="steps", save_steps=1)
    trainer = tree_trainer(make_model("llama-tied").bfloat16(), SEQUENCES, PASSAGES, args)
    trainer.train()
    trained = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    kept = load_file(tmp_path / "run/checkpoint-1/model.safetensors")
    assert all(torch.equal(tensor, trained[name]) for name, tensor in kept.items()), "a checkpoint keeps every bit"
    old = os.umask(0o027)
    trainer.save_model(str(tmp_path / "final"))
    os.umask(old)
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "final").iterdir()} == {0o640}
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "final", dtype="auto")
    assert model.dtype == torch.bfloat16 and "lm_head.weight" not in load_file(tmp_path / "final/model.safetensors")
    assert all(torch.equal(tensor, trained[name].bfloat16()) for name, tensor in model.state_dict().items())
