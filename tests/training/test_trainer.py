"""A step on packed trees is the step on separate samples: same loss, same gradient of every parameter."""

from __future__ import annotations

import copy
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from one_step import assert_same, config, separate_step, tokenizer, tree_step, tree_trainer
from small_models import FAMILIES, NAMES, OTHERS, PROJECTIONS, WINDOW, WITHOUT_TREES, adapted, make_family, make_model
from token_trees import questions
from transformers import BitsAndBytesConfig, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint
from trl import SFTTrainer

from lrc.models.loading import load_base
from lrc.training.dataloader import Sampling
from lrc.training.trainer import Packing

SEQUENCES, PASSAGES = questions()
STEP = SEQUENCES[:8]
BFLOAT16 = 0.03  # relative: bfloat16 has 8 bits, and three layers of roundings


@pytest.fixture(autouse=True)
def _smallest_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut attention at every fork: these rows are too short to be worth it."""
    monkeypatch.setattr("lrc.packing.tree.MIN_SPARED", 1)


def test_the_questions_are_worth_testing_with() -> None:
    assert len(SEQUENCES) >= 8
    assert min(len(s.tokens) for s in SEQUENCES) > 2 * WINDOW


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_all_weights_of_a_family(family: str, attention: str, tmp_path: Path) -> None:
    wanted = separate_step(make_model(family, attention=attention), STEP)
    trainer = tree_trainer(make_model(family, attention=attention), SEQUENCES, PASSAGES, config(tmp_path))
    assert trainer.share
    assert_same(tree_step(trainer), wanted)


@pytest.mark.parametrize("family", [*FAMILIES, *OTHERS])
def test_lora_of_a_family(family: str, tmp_path: Path) -> None:
    linear, embedding, _ = NAMES.get(family, (PROJECTIONS, "embed_tokens", "lm_head"))
    settings = {"target_modules": [*linear, embedding], "fan_in_fan_out": family == "gpt2"}
    wanted = separate_step(adapted(make_family(family), **settings), STEP)
    trainer = tree_trainer(adapted(make_family(family), **settings), SEQUENCES, PASSAGES, config(tmp_path))
    assert trainer.share == (family not in WITHOUT_TREES)
    assert_same(tree_step(trainer), wanted)


@pytest.mark.parametrize(
    "settings",
    [
        {"use_dora": True},
        {"use_rslora": True},
        {"modules_to_save": ["embed_tokens", "lm_head"]},
        {"target_modules": "all-linear"},
        {"target_modules": ["embed_tokens", "q_proj"], "use_dora": True},
        {"layers_to_transform": [1], "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"down_proj": 32}},
        {"modules_to_save": ["embed_tokens", "lm_head"], "ensure_weight_tying": True},
    ],
    ids=["dora", "rslora", "modules_to_save", "all-linear", "embeddings", "patterns", "tied on purpose"],
)
@pytest.mark.parametrize("family", ["llama", "llama-tied"])
def test_kinds_of_adapter(family: str, settings: dict[str, Any], tmp_path: Path) -> None:
    wanted = separate_step(adapted(make_model(family), **copy.deepcopy(settings)), STEP)
    model = adapted(make_model(family), **copy.deepcopy(settings))
    assert_same(tree_step(tree_trainer(model, SEQUENCES, PASSAGES, config(tmp_path))), wanted)


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_gradient_checkpointing(family: str, tmp_path: Path) -> None:
    wanted = separate_step(adapted(make_model(family)), STEP)
    args = config(tmp_path, gradient_checkpointing=True)
    found = tree_step(tree_trainer(adapted(make_model(family)), SEQUENCES, PASSAGES, args))
    assert_same(found, wanted)


@pytest.mark.parametrize(("batch", "accumulation"), [(1, 8), (2, 4), (8, 1)])
def test_accumulation(batch: int, accumulation: int, tmp_path: Path) -> None:
    wanted = separate_step(adapted(make_model("llama")), STEP)
    args = config(tmp_path, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation)
    assert_same(tree_step(tree_trainer(adapted(make_model("llama")), SEQUENCES, PASSAGES, args)), wanted)


@pytest.mark.parametrize("packing", [Packing(row_tokens=45), Packing(trees=False)], ids=["rows", "one a row"])
def test_several_rows_a_step(packing: Packing, tmp_path: Path) -> None:
    wanted = separate_step(adapted(make_model("gemma3")), STEP)
    trainer = tree_trainer(adapted(make_model("gemma3")), SEQUENCES, PASSAGES, config(tmp_path), packing=packing)
    (batch, *_) = trainer.get_train_dataloader()
    assert len(batch.rows) > 2
    assert_same(tree_step(trainer), wanted)


NF4 = BitsAndBytesConfig(
    load_in_4bit=True,
    bnb_4bit_quant_type="nf4",
    bnb_4bit_use_double_quant=True,
    bnb_4bit_compute_dtype=torch.float32,
)


def quantized(folder: Path, attention: str = "sdpa") -> Any:
    """A model of 4-bit weights with an adapter; 64 is the least width that bitsandbytes computes with."""
    if not folder.exists():
        make_model("llama", hidden_size=64, intermediate_size=128).save_pretrained(folder)
    base = load_base(str(folder), dtype=torch.float32, quantization=NF4, attn_implementation=attention)
    model = adapted(base)
    for parameter in model.parameters():
        if parameter.requires_grad:  # TRL rounds what it is given to bfloat16, so both begin from there
            parameter.data = parameter.data.bfloat16().float()
    return model


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_nf4(attention: str, tmp_path: Path) -> None:
    wanted = separate_step(quantized(tmp_path / "base", attention), STEP)
    trainer = tree_trainer(quantized(tmp_path / "base", attention), SEQUENCES, PASSAGES, config(tmp_path))
    assert {p.dtype for p in trainer.model.parameters() if p.requires_grad} == {torch.float32}
    assert_same(tree_step(trainer), wanted)


def test_whole_modules_beside_a_quantized_base_begin_as_they_are_in_it(tmp_path: Path) -> None:
    """TRL rounds them to bfloat16, as it does a new adapter, and autocast would be to bfloat16 then."""
    make_model("llama", hidden_size=64, intermediate_size=128).save_pretrained(tmp_path / "base")
    base = load_base(str(tmp_path / "base"), dtype=torch.float32, quantization=NF4, attn_implementation="sdpa")
    exact = base.lm_head.weight.detach().clone()
    assert not torch.equal(exact, exact.bfloat16().float())
    trainer = tree_trainer(adapted(base, modules_to_save=["lm_head"]), SEQUENCES, PASSAGES, config(tmp_path / "a"))
    trained = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad and "lora" not in name}
    assert [torch.equal(weight, exact) for weight in trained.values()] == [True]
    assert trainer.compute_dtype is None


def test_operations_are_counted_alike_whether_or_not_weights_are_quantized(tmp_path: Path) -> None:
    wide = adapted(make_model("llama", hidden_size=64, intermediate_size=128))
    models = [wide, quantized(tmp_path / "base")]
    trainers = [tree_trainer(model, SEQUENCES, PASSAGES, config(tmp_path)) for model in models]
    (batch, *_) = trainers[0].get_train_dataloader()
    weights = sum(p.numel() for name, p in wide.named_parameters() if "embed_tokens" not in name)
    expected = 6 * weights * sum(len(row) for row in batch.rows)
    assert [trainer.floating_point_ops(batch) for trainer in trainers] == [expected, expected]


def test_nf4_after_an_evaluation(tmp_path: Path) -> None:
    evaluated = quantized(tmp_path / "base").eval()
    with torch.inference_mode():
        evaluated(input_ids=torch.from_numpy(STEP[0].tokens)[None])
    found = tree_step(tree_trainer(evaluated, SEQUENCES, PASSAGES, config(tmp_path)))
    assert_same(found, separate_step(quantized(tmp_path / "base"), STEP))


def test_bfloat16_autocast(tmp_path: Path) -> None:
    autocast = torch.autocast("cpu", dtype=torch.bfloat16)
    exact = separate_step(adapted(make_model("llama")), STEP)
    rounded = separate_step(adapted(make_model("llama")), STEP, autocast)
    trainer = tree_trainer(adapted(make_model("llama")), SEQUENCES, PASSAGES, config(tmp_path, bf16=True))
    found = tree_step(trainer)
    assert_same(found, rounded, BFLOAT16)
    assert abs(found[0] - exact[0]) > 1e-6  # bfloat16 it was


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_against_trl(family: str, tmp_path: Path) -> None:
    settings = {"max_steps": 3, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    settings |= {"lr_scheduler_type": "cosine", "weight_decay": 0.1}
    ours = tree_trainer(adapted(make_model(family)), SEQUENCES, PASSAGES, config(tmp_path / "tree", **settings))
    ours.train()
    labelled = ours.train_dataset.map(
        lambda row: {
            "input_ids": row["tokens"],
            "completion_mask": [int(i >= row["prompt_length"]) for i in range(len(row["tokens"]))],
        },
        remove_columns=ours.train_dataset.column_names,
    )
    theirs = SFTTrainer(
        model=adapted(make_model(family)),
        args=config(tmp_path / "trl", **settings),
        processing_class=tokenizer(),
        train_dataset=labelled,
    )
    theirs.train()
    assert [line["loss"] for line in ours.state.log_history[:3]] == pytest.approx(
        [line["loss"] for line in theirs.state.log_history[:3]], rel=1e-5
    )
    start = dict(adapted(make_model(family)).named_parameters())
    for (name, mine), (_, other) in zip(ours.model.named_parameters(), theirs.model.named_parameters(), strict=True):
        assert (mine - other).abs().max() <= 1e-5, name
        assert not mine.requires_grad or (mine - start[name]).abs().max() > 1e-3


def test_all_orders_of_a_question_count_as_one_of_the_batch(tmp_path: Path) -> None:
    args = config(tmp_path, per_device_train_batch_size=4)
    trainer = tree_trainer(adapted(make_model("llama")), SEQUENCES[:4], PASSAGES[:4], args)
    trainer.source = lambda key: [SEQUENCES[key[0]], SEQUENCES[key[0] + 4]]
    wanted = separate_step(adapted(make_model("llama")), STEP)
    assert len(trainer.get_train_dataloader()) == 1
    assert_same(tree_step(trainer), wanted)


class StopAt(TrainerCallback):
    """Ends a run the way that a power cut does, but for the checkpoint being whole."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = state.global_step == self.step


@pytest.mark.parametrize("grouped", [True, False])
def test_questions_of_a_passage_are_drawn_together_or_one_by_one(grouped: bool, tmp_path: Path) -> None:
    sequences, passages = questions(n_passages=12)
    args = config(tmp_path, train_sampling_strategy="random", per_device_train_batch_size=4)
    trainer = tree_trainer(make_model("llama"), sequences, passages, args, sampling=Sampling(grouped))
    drawn = [passages[place] for step in trainer.get_train_dataloader().batch_sampler for place, _ in step]
    changes = sum(a != b for a, b in pairwise(drawn))
    assert sorted(drawn) == sorted(passages)
    assert (changes == len(set(passages)) - 1) == grouped


def test_a_resumed_run_ends_where_the_whole_run_ends(tmp_path: Path) -> None:
    # Five steps of three epochs, dropout and shuffled passages: all that a resumed run could get wrong.
    settings = {
        "max_steps": 5,
        "per_device_train_batch_size": 5,
        "save_strategy": "steps",
        "save_steps": 1,
        "train_sampling_strategy": "random",
        "learning_rate": 1e-2,
        "lr_scheduler_type": "cosine",
    }

    def trainer(folder: str) -> Any:
        model = adapted(make_model("llama"), lora_dropout=0.3)
        torch.manual_seed(3)
        return tree_trainer(model, SEQUENCES, PASSAGES, config(tmp_path / folder, **settings))

    whole, stopped, resumed = trainer("whole"), trainer("cut"), trainer("cut")
    torch.manual_seed(3)
    whole.train()
    stopped.add_callback(StopAt(3))
    torch.manual_seed(3)
    stopped.train()
    assert stopped.state.global_step == 3
    resumed.train(resume_from_checkpoint=get_last_checkpoint(str(tmp_path / "cut")))
    assert resumed.state.global_step == 5
    for (name, one), (_, other) in zip(whole.model.named_parameters(), resumed.model.named_parameters(), strict=True):
        assert torch.equal(one, other), name
    assert not all(
        torch.equal(one, other)
        for one, other in zip(stopped.model.parameters(), resumed.model.parameters(), strict=True)
    )
