"""LoRA+ in a real step, and upstream's refusals as lines."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from one_step import config, tree_trainer
from small_models import adapted, make_model
from token_trees import questions
from transformers import SchedulerType, Trainer, get_scheduler, trainer_optimizer
from transformers.training_args import OptimizerNames

from lrc.config.ignored_keys import describe_ignored
from lrc.config.optimizers import IN_BACKWARD, SOURCES
from lrc.config.schema import shipped_schema
from lrc.runtime.errors import RecipeError
from lrc.training.optimizer import LoraPlus, check_optimizer, unread_arguments

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
    args = config(tmp_path, **settings)
    trainer = tree_trainer(adapted(make_model("llama")), SEQUENCES, PASSAGES, args)
    with pytest.raises(RecipeError) as refused:
        trainer.train()
    assert str(refused.value).startswith(told) and "\n" not in str(refused.value)
    if told.startswith(("optim", "lr_")):
        with pytest.raises(RecipeError, match=told):  # before there is a model
            check_optimizer(args)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"optim": "sgd", "optim_args": "momentum=much"}, "optim: could not convert string to float: 'much'"),
        ({"optim": "sgd", "optim_args": "momentum=-1"}, "optim: Invalid momentum value: -1.0"),
        ({"lr_scheduler_type": "cosine_with_min_lr"}, "lr_scheduler_type: "),
        # Only a step after the warmup would show it.
        ({"lr_scheduler_kwargs": {"num_cycles": "two"}, "warmup_steps": 3, "max_steps": 9}, "lr_scheduler_type: "),
    ],
)
def test_it_is_refused_before_a_model_is_there(tmp_path: Path, settings: dict[str, object], told: str) -> None:
    check_optimizer(config(tmp_path))
    with pytest.raises(RecipeError) as refused:
        check_optimizer(config(tmp_path, **{"lr_scheduler_type": "cosine", **settings}))
    assert str(refused.value).startswith(told) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "warmup", "told"), [("linear", 2, True), ("linear", 1, False), ("constant", 9, False), ("cosine", 9, True)]
)
def test_a_warmup_that_never_ends_is_told(
    kind: str, warmup: int, told: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = config(tmp_path, lr_scheduler_type=kind, warmup_steps=warmup, max_steps=2)
    trainer = tree_trainer(adapted(make_model("llama")), SEQUENCES, PASSAGES, args)
    schedule = trainer.create_scheduler(2, torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0))
    reached = max(rate(step) for rate in schedule.lr_lambdas for step in range(2)) == 1.0
    assert reached != told
    line = f"warmup_steps: the warmup has {warmup} steps, and the run 2; learning_rate is never reached"
    assert (line in capsys.readouterr().err) == told


def test_arguments_that_an_optimizer_does_not_read_are_found(tmp_path: Path) -> None:
    args = config(tmp_path, optim="sgd", optim_args="momentum=0.9, momentumm=0.8,nesterov=true,eps=1")
    assert unread_arguments(args) == ["momentumm", "eps"]
    assert unread_arguments(config(tmp_path, optim="adagrad", optim_args="lr_decay=0.1,eps=1")) == []
    assert unread_arguments(config(tmp_path, optim_args="eps=1")) == []  # AdamW's: the key itself is named


class Seen(dict[str, str]):
    """Arguments of an optimizer that keep whether anything was asked of them."""

    asked = False

    def get(self, *key: Any) -> Any:
        self.asked = True
        return super().get(*key)

    def pop(self, *key: Any) -> Any:
        self.asked = True
        return super().pop(*key)

    def __contains__(self, key: object) -> bool:
        self.asked = True
        return super().__contains__(key)


def upstream_settings(args: Any) -> str:
    """What upstream gives an optimizer, in words."""
    _, settings = Trainer.get_optimizer_cls_and_kwargs(args, torch.nn.Sequential(torch.nn.Linear(2, 2)))
    settings.pop("optimizer_dict", None)  # an optimizer for each weight, made of the same settings
    return json.dumps(settings, default=lambda value: type(value).__name__)


@pytest.mark.parametrize("installed", [False, True])
def test_the_packages_and_arguments_of_optimizers_are_upstreams(
    installed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Upstream itself, with every package and with none; the packages are made up."""
    for name in [name for name in vars(trainer_optimizer) if name.startswith("is_") and name.endswith("_available")]:
        monkeypatch.setattr(trainer_optimizer, name, lambda *version: installed)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "9.0")
    modules = [*(source.module for source in SOURCES), "bitsandbytes.optim", "torchdistx.optimizers", "torchao.optim"]
    for name in [*modules, "torch_xla.amp", "torch_xla.amp.syncfree", "torch_npu.optim"]:
        monkeypatch.setitem(sys.modules, name, MagicMock() if installed else None)
    defaults = {key: known.default for key, known in shipped_schema().items()}
    known = {one.value for one in OptimizerNames if one in trainer_optimizer._OPTIMIZER_HANDLERS}
    names = sorted(known - {*IN_BACKWARD})
    assert len(names) > 35
    for name in names:
        given = Seen(probe="1")
        monkeypatch.setattr(trainer_optimizer, "_parse_optim_args", lambda text, given=given: given)
        monkeypatch.setattr("transformers.trainer._parse_optim_args", lambda text, given=given: given)
        args = config(tmp_path, optim=name, optim_target_modules=["0"])
        source = next((source for source in SOURCES if source.names.fullmatch(name)), None)
        if not installed and source:
            with pytest.raises((ImportError, ValueError)) as refused:
                Trainer.get_optimizer_cls_and_kwargs(args, torch.nn.Sequential(torch.nn.Linear(2, 2)))
            assert source.module in str(refused.value) or str(source.package) in str(refused.value), name
            continue
        settings = upstream_settings(args)
        takes = given.asked or '"probe"' in settings
        assert bool(describe_ignored({"optim": name, "optim_args": "probe=1"}, defaults)) != takes, name
        for key, value in (("adam_beta1", 0.5), ("adam_beta2", 0.5), ("adam_epsilon", 0.5)):
            takes = settings != upstream_settings(
                config(tmp_path, **{"optim": name, "optim_target_modules": ["0"], key: value})
            )
            assert bool(describe_ignored({"optim": name, key: value}, defaults)) != takes, (name, key)


def test_schedules_without_warmup_or_arguments_are_upstreams() -> None:
    defaults = {key: known.default for key, known in shipped_schema().items()}

    def rates(kind: SchedulerType, warmup: int) -> list[float]:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        more = {"min_lr": 0.1} if "min_lr" in kind.value else {}
        schedule = get_scheduler(
            kind, optimizer, warmup, 9, more | ({"num_decay_steps": 2} if "decay" in kind.value else {})
        )
        return [rate(step) for rate in getattr(schedule, "lr_lambdas", ()) for step in range(9)]

    def takes_arguments(kind: SchedulerType) -> bool:
        try:
            get_scheduler(kind, torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0), 0, 9, {"strange": 1})
        except TypeError:
            return True
        return False

    for kind in SchedulerType:
        given = {"lr_scheduler_type": kind.value}
        assert bool(describe_ignored(given | {"warmup_steps": 3}, defaults)) == (rates(kind, 3) == rates(kind, 0)), kind
        ignored = describe_ignored(given | {"lr_scheduler_kwargs": {"strange": 1}}, defaults)
        assert bool(ignored) != takes_arguments(kind), kind


@pytest.mark.parametrize(
    ("optim", "divided"),
    [
        *[(name, True) for name in ("adamw_torch_fused", "adamw_torch", "rmsprop", "adagrad")],
        *[(name, False) for name in ("adamw_8bit", "paged_adamw_32bit", "lion_32bit", "adafactor", "sgd")],
    ],
)
def test_an_optimizer_that_fsdp_cannot_divide_is_refused(
    optim: str, divided: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what it does with a divided weight. Of `sgd`, which keeps no state, no state can be loaded."""
    args = config(tmp_path, optim=optim)
    check_optimizer(args)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        monkeypatch.setenv("FSDP_VERSION", "1")  # divides flattened weights, which look like ordinary ones
        check_optimizer(args)
        monkeypatch.setenv("FSDP_VERSION", "2")
        if divided:
            check_optimizer(args)
            return
        with pytest.raises(RecipeError) as refused:
            check_optimizer(args)
    finally:
        torch.distributed.destroy_process_group()
    (line,) = map(str, refused.value.findings)
    assert line.startswith(f"optim: {optim} cannot train or resume where FSDP divides the weights (")
    assert line.endswith("); take adamw_torch_fused, or launch with multi_gpu") and "\n" not in line


@pytest.mark.parametrize("device", ["cpu", "nvme", "none"])
def test_an_optimizer_that_deepspeed_would_replace_is_refused(device: str, tmp_path: Path) -> None:
    for optim in ("adamw_torch_fused", "adamw_torch", "sgd", "adamw_8bit", "adafactor", "adagrad"):
        args = config(tmp_path, optim=optim)
        zero = {"stage": 2, "offload_optimizer": {"device": device}}
        args.deepspeed_plugin = MagicMock(deepspeed_config={"zero_optimization": zero})
        if optim.startswith("adamw_torch") or device == "none" and optim != "adafactor":
            check_optimizer(args)
            continue
        told = (
            "DeepSpeed cannot keep the state of" if device != "none" else "this optimizer goes by the rows and columns"
        )
        with pytest.raises(RecipeError, match=f"optim: {optim}: {told} .*; take adamw_torch, or "):
            check_optimizer(args)
