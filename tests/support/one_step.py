"""One optimizer step two ways: by `TreeTrainer`, and by a plain forward of each sample by itself."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from oracle import Step, gradients, training_step
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, TrainerCallback
from trl import SFTConfig

from lrc.packing.tree import TokenSequence
from lrc.training.trainer import TreeTrainer


class KeepGradients(TrainerCallback):
    """Keeps the gradients that the first optimizer step is made of."""

    def __init__(self) -> None:
        self.gradients: dict[str, torch.Tensor] = {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.gradients = self.gradients or gradients(model)


def tokenizer() -> PreTrainedTokenizerFast:
    """What SFTTrainer wants to be given; nothing is tokenized with it."""
    words = {"<s>": 0, "</s>": 1, "<pad>": 2}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<pad>")),
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
    )


def dataset(sequences: Sequence[TokenSequence], passages: Sequence[int]) -> Dataset:
    """The rows of `lrc.tokenization.token_dataset.tokenize`."""
    return Dataset.from_dict(
        {
            "tokens": [s.tokens.tolist() for s in sequences],
            "prompt_length": [s.prompt_length for s in sequences],
            "passage": list(passages),
            "id": [f"q{i}" for i in range(len(sequences))],
        }
    )


def config(folder: Path, **settings: Any) -> SFTConfig:
    """One step over eight questions, in the order that they have."""
    defaults = {
        "output_dir": str(folder),
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "max_steps": 1,
        "max_grad_norm": 0.0,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "train_sampling_strategy": "sequential",
        "max_length": None,
        "completion_only_loss": True,
    }
    return SFTConfig(**{**defaults, **settings})


def tree_trainer(
    model: Any, sequences: Sequence[TokenSequence], passages: Sequence[int], args: SFTConfig, **settings: Any
) -> TreeTrainer:
    """A trainer of `model` on sequences that are the same in every epoch."""
    return TreeTrainer(
        model=model,
        args=args,
        processing_class=tokenizer(),
        train_dataset=dataset(sequences, passages),
        **{"source": lambda key: [sequences[key[0]]], "validation": None, **settings},
    )


def tree_step(trainer: TreeTrainer) -> Step:
    """Let the trainer train; its first step."""
    kept = KeepGradients()
    trainer.add_callback(kept)
    trainer.train()
    return trainer.state.log_history[0]["loss"], kept.gradients


def separate_step(
    model: Any, sequences: Sequence[TokenSequence], autocast: AbstractContextManager | None = None
) -> Step:
    """The same step by the oracle."""
    cut = [(s.tokens.tolist(), s.prompt_length) for s in sequences]
    return training_step(model, [(tokens[:end], tokens[end:]) for tokens, end in cut], autocast)


def assert_same(found: Step, wanted: Step, tolerance: float = 1e-5) -> None:
    """Loss and every gradient, each relative to its own size."""
    assert abs(found[0] - wanted[0]) <= tolerance * abs(wanted[0])
    assert found[1].keys() == wanted[1].keys()
    assert sum(bool(gradient.any()) for gradient in wanted[1].values()) > 3
    for name, gradient in wanted[1].items():
        error = (found[1][name] - gradient).norm() / gradient.norm().clamp(min=1e-12)
        assert error <= tolerance, f"{name}: {error:.1e}"
