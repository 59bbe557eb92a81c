"""What a recipe says is what its trainer is built with: no key is dropped, nor taken for another, on the way."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from small_runs import make_run, pairs, run, write_questions

from lrc.runtime.errors import MachineError
from lrc.training import run as run_module
from lrc.training.callbacks import Patience
from lrc.training.trainer import TreeTrainer

SCORES = [0.0, 1.0, 2.0, 4.0]


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[TreeTrainer]:
    """The trainers that runs build, none of which trains."""
    trainers: list[TreeTrainer] = []

    def train(self: TreeTrainer, **settings: Any) -> None:
        trainers.append(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(TreeTrainer, "train", train)
    return trainers


def test_no_key_is_lost_between_the_recipe_and_the_trainer(tmp_path: Path, built: list[TreeTrainer]) -> None:
    train = pairs(12)
    write_questions(tmp_path / "more.json", pairs(6, name="m"))
    lines = [{"id": one.id, "scores": SCORES} for one in (*train, *pairs(6, name="m"))]
    (tmp_path / "s.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    folder = make_run(
        tmp_path,
        train,
        pairs(8, name="v"),
        **{"template": "plain", "answer_style": "text", "list_options": True, "score_normalisation": "token"},
        **{"option_contrast": 0.25, "contrast_temperature": 0.125, "option_orders": 3, "seed": 11, "eval_questions": 4},
        **{"soft_labels": str(tmp_path / "s.jsonl"), "soft_label_weight": 0.75, "soft_label_temperature": 2.0},
        **{"group_passages": False, "train_shares": [0.8, 0.2], "row_tokens": 333, "attention": "dense"},
        **{"loraplus_lr_ratio": 8.0, "loraplus_lr_embedding": 0.5, "learning_rate": 0.01, "weight_decay": 0.3},
        **{"early_stopping_patience": 3, "early_stopping_threshold": 0.0625, "neftune_noise_alpha": 5.0},
        **{"lora_r": 6, "lora_alpha": 24, "lora_dropout": 0.35, "use_rslora": True, "rank_pattern": {"q_proj": 2}},
        **{"lora_target_modules": ["q_proj", "embed_tokens"], "alpha_pattern": {"q_proj": 10}, "use_cpu": True},
        **{"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "no"},
        **{"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
    )
    files = ["--train_file", str(tmp_path / "t_train.json"), str(tmp_path / "more.json")]
    assert run(folder, tmp_path / "a", *files) == 130
    (trainer,) = built
    assert (trainer.objective.option_contrast, trainer.objective.contrast_temperature) == (0.25, 0.125)
    # 12 questions are 0.8 of an epoch of 15.
    assert [tuple(portion) for portion in trainer.sampling.portions] == [(12, 12), (6, 3)]
    assert not trainer.sampling.group_passages and trainer.row_tokens == 333 and trainer.share
    steps = list(trainer.get_train_dataloader().batch_sampler)
    assert [len(step) for step in steps] == [8, 7]  # two questions four times

    sequences = trainer.source((0, 0))
    options = [one for one in sequences if hasattr(one, "question_key")]
    assert len(sequences) - len(options) == 3 and len(options) == 3 * 4  # orders of four options
    tokens = {len(one.tokens) - one.prompt_length for one in options}
    assert {one.length for one in options} == tokens  # by token
    chances = [math.exp(score / 2.0) for score in SCORES]
    wanted = [0.75 * one / sum(chances) + 0.25 * (place == 0) for place, one in enumerate(chances)]
    assert sorted(one.target for one in options) == pytest.approx(sorted(wanted * 3))
    assert trainer.source.seed == 11

    validation = trainer.validation
    assert validation is not None and validation.normalisation == "token" and len(validation.sampled) == 4
    (patience,) = [one for one in trainer.callback_handler.callbacks if isinstance(one, Patience)]
    assert (patience.early_stopping_patience, patience.early_stopping_threshold) == (3, 0.0625)
    assert trainer.noise is not None and trainer.noise.alpha == 5.0
    groups = {group["lr"]: group for group in trainer.create_optimizer().param_groups if group["params"]}
    assert groups.keys() == {0.01, 0.08, 0.5} and all(group["weight_decay"] == 0.3 for group in groups.values())

    layers = [module for name, module in trainer.model.named_modules() if name.endswith("q_proj")]
    assert all(layer.r["default"] == 2 for layer in layers)
    assert all(layer.scaling["default"] == pytest.approx(10 / math.sqrt(2)) for layer in layers)
    assert all(layer.lora_A["default"].p == pytest.approx(0.35, abs=1e-5) for layer in layers)
    (table,) = [module for name, module in trainer.model.named_modules() if name.endswith("embed_tokens")]
    assert table.r["default"] == 6 and table.scaling["default"] == pytest.approx(24 / math.sqrt(6))


def test_a_device_without_kernels_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(device: str) -> None:
        raise MachineError(f"{device}: has no kernels")

    monkeypatch.setattr(run_module, "require_kernels", refuse)
    folder = make_run(tmp_path, pairs(4), use_cpu=True)
    assert run(folder, tmp_path / "a", "--train_file", "missing.json") == 1
    assert capsys.readouterr().err.splitlines()[-1] == "cpu: has no kernels"
    assert not (tmp_path / "a").exists()
