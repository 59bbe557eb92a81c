"""LoRA+ in a real step, and upstream's refusals as lines."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from one_step import config, tree_trainer
from small_models import adapted, make_model
from token_trees import questions

from lrc.runtime.errors import RecipeError
from lrc.training.optimizer import LoraPlus

SEQUENCES, PASSAGES = questions()


TARGETS = ["embed_tokens", "q_proj", "up_proj"]


def moved(folder: Path, plus: LoraPlus | None = None) -> dict[str, torch.Tensor]:
    """How far AdamW's first step, with a weight decay that shows, moves each parameter of an adapter."""
    args = config(folder, learning_rate=1e-4, weight_decay=50.0)
    model = adapted(make_model("llama"), target_modules=TARGETS)
    trainer = tree_trainer(model, SEQUENCES, PASSAGES, args, loraplus=plus)
    trained = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in trained.items()}
    trainer.train()
    return {name: p.detach() - before[name] for name, p in trained.items()}


@pytest.mark.parametrize(("embedding", "times_embedding"), [(None, 1.0), (3e-4, 3.0)])
def test_with_loraplus_b_moves_further_by_the_ratio_and_all_else_as_before(
    embedding: float | None, times_embedding: float, tmp_path: Path
) -> None:
    plain = moved(tmp_path / "plain")
    plus = moved(tmp_path / "plus", LoraPlus(16.0, embedding))
    assert plain.keys() == plus.keys() and sum("lora_embedding" in name for name in plain) == 2
    for name, step in plain.items():
        assert step.abs().max() > 0, name
        times = times_embedding if "lora_embedding" in name else 16.0 if "lora_B" in name else 1.0
        torch.testing.assert_close(plus[name], times * step, rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"optim": "grokadamw"}, "optim: "),
        ({"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"turns": 2}}, "lr_scheduler_type: "),
        (
            {"dataloader_drop_last": True, "per_device_train_batch_size": 99},
            "dataloader_drop_last: leaves no step, with ",
        ),
    ],
)
def test_what_upstream_does_not_take_is_a_line(tmp_path: Path, settings: dict[str, object], told: str) -> None:
    trainer = tree_trainer(adapted(make_model("llama")), SEQUENCES, PASSAGES, config(tmp_path, **settings))
    with pytest.raises(RecipeError) as refused:
        trainer.train()
    assert str(refused.value).startswith(told) and "\n" not in str(refused.value)
