"""Steps that do not fit, numbers that are not finite, and checkpoints that keep their promise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from one_step import assert_same, config, separate_step, tokenizer, tree_step, tree_trainer
from safetensors.torch import load_file
from small_models import adapted, make_model
from token_trees import questions

from lrc.models.loading import check_vocabulary
from lrc.packing.tree import pack
from lrc.runtime.errors import MachineError, ModelError
from lrc.training.checkpoint import checkpoints, find_damage
from lrc.training.dataloader import StepBatch
from lrc.training.trainer import Packing

SEQUENCES, PASSAGES = questions()
LONGEST = max(len(sequence.inputs) for sequence in SEQUENCES)


def limited(model: Any, tokens: int) -> Any:
    """The model on a device whose memory holds rows of so many tokens, and that draws dropout before it fails."""

    def fail(module: Any, args: Any, kwargs: Any, output: Any) -> None:
        if kwargs["input_ids"].shape[1] > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    model.register_forward_hook(fail, with_kwargs=True)
    return model


def trained(folder: Path, model: Any, row_tokens: int, **settings: Any) -> Any:
    trainer = tree_trainer(
        model, SEQUENCES, PASSAGES, config(folder, max_steps=3, **settings), packing=Packing(row_tokens=row_tokens)
    )
    torch.manual_seed(5)
    trainer.train()
    return trainer


def model(dropout: float = 0.3) -> Any:
    return adapted(make_model("llama"), lora_dropout=dropout)


def test_out_of_memory_halves_the_rows_and_changes_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = trained(tmp_path / "a", limited(model(), 2 * LONGEST), 8 * LONGEST)
    told = [line for line in capsys.readouterr().err.splitlines() if "out of memory" in line]
    assert told == [
        f"cpu, step 1: out of memory with rows of {8 * LONGEST} tokens; retrying with {4 * LONGEST}",
        f"cpu, step 1: out of memory with rows of {4 * LONGEST} tokens; retrying with {2 * LONGEST}",
    ]
    wanted = trained(tmp_path / "b", model(), 2 * LONGEST)
    wide = trained(tmp_path / "c", model(), 8 * LONGEST)
    pairs = list(zip(found.model.parameters(), wanted.model.parameters(), wide.model.parameters(), strict=True))
    assert all(torch.equal(one, other) for one, other, _ in pairs)
    assert not all(torch.equal(one, other) for one, _, other in pairs)  # dropout masks depend on the rows


def test_gradients_of_rows_before_the_one_that_did_not_fit_are_not_counted_twice(tmp_path: Path) -> None:
    calls: list[int] = []

    def fail(*_: Any) -> None:
        calls.append(len(calls))
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    small = model(dropout=0.0)
    small.register_forward_hook(fail)
    trainer = tree_trainer(small, SEQUENCES, PASSAGES, config(tmp_path), packing=Packing(row_tokens=2 * LONGEST))
    assert_same(tree_step(trainer), separate_step(model(dropout=0.0), SEQUENCES[:8]))
    assert len(calls) > 4


def test_a_question_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="cpu, step 1: its memory is too small for one question; "):
        trained(tmp_path, limited(model(), LONGEST - 1), 8 * LONGEST)


def test_rows_of_one_sequence_cannot_be_halved(tmp_path: Path) -> None:
    trainer = tree_trainer(limited(model(), 3), SEQUENCES, PASSAGES, config(tmp_path), packing=Packing(trees=False))
    with pytest.raises(MachineError, match="its memory is too small for one question"):
        trainer.train()


class Poison:
    """Makes the gradient of one step infinite while its loss stays finite."""

    def __init__(self, parameter: torch.nn.Parameter, step: int) -> None:
        self.left = step
        parameter.register_hook(self.spoil)

    def spoil(self, gradient: torch.Tensor) -> torch.Tensor:
        self.left -= 1
        return gradient if self.left else gradient * float("inf")


@pytest.mark.parametrize("max_grad_norm", [0.0, 1.0])
def test_a_gradient_that_is_not_finite_stops_the_run(max_grad_norm: float, tmp_path: Path) -> None:
    spoilt = model(dropout=0.0)
    parameter = next(p for p in spoilt.parameters() if p.requires_grad)
    Poison(parameter, step=3)
    settings = {"save_strategy": "steps", "save_steps": 1, "max_grad_norm": max_grad_norm}
    # Of ten questions, the third step of four has the last two.
    with pytest.raises(MachineError, match="^step 3: its gradient is not finite, questions q8, q9; "):
        trained(tmp_path, spoilt, 8 * LONGEST, per_device_train_batch_size=4, **settings)
    assert parameter.isfinite().all()
    assert [checkpoint.name for checkpoint in checkpoints(tmp_path)] == ["checkpoint-1", "checkpoint-2"]


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    trainer = trained(tmp_path, model(), 8 * LONGEST)
    with torch.no_grad():
        next(p for p in trainer.model.parameters() if p.requires_grad)[0, 0] = float("nan")
    with pytest.raises(MachineError, match="^step 3: weights are not finite, so they are not saved; "):
        trainer.save_model(str(tmp_path / "final"))
    assert not (tmp_path / "final").exists()


def test_checkpoints_are_whole_and_hold_no_arguments(tmp_path: Path) -> None:
    trained(tmp_path, model(), 8 * LONGEST, save_strategy="steps", save_steps=1, save_total_limit=2)
    assert [checkpoint.name for checkpoint in checkpoints(tmp_path)] == ["checkpoint-2", "checkpoint-3"]
    for checkpoint in checkpoints(tmp_path):
        assert find_damage(checkpoint) is None
        names = {path.name for path in checkpoint.iterdir()}
        assert {"adapter_model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json"} <= names
        assert "training_args.bin" not in names


def test_a_run_resumed_at_its_last_step_runs_no_more(tmp_path: Path) -> None:
    # Three steps of a second epoch that would have more: upstream looks at max_steps only after a step.
    first = trained(tmp_path, model(), 8 * LONGEST, save_strategy="steps", per_device_train_batch_size=4)
    again = tree_trainer(
        model(), SEQUENCES, PASSAGES, config(tmp_path, max_steps=3, per_device_train_batch_size=4, save_strategy="no")
    )
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert again.state.global_step == 3
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), again.model.parameters(), strict=True))


def test_out_of_memory_under_deepspeed_stops_in_one_line(tmp_path: Path) -> None:
    """It keeps gradients of the backward that failed, so that the step cannot be run again."""
    trainer = tree_trainer(
        limited(model(), LONGEST), SEQUENCES, PASSAGES, config(tmp_path), packing=Packing(row_tokens=8 * LONGEST)
    )

    def fail(*_: Any) -> None:
        trainer.is_deepspeed_enabled = True  # it alone, since it is not installed here

    trainer.model.register_forward_pre_hook(fail)
    with pytest.raises(MachineError, match=f"^cpu, step 1: out of memory; set row_tokens below {8 * LONGEST} and run"):
        trainer.train()


def test_divided_weights_are_looked_at_where_they_are(tmp_path: Path) -> None:
    """ZeRO-3 leaves an empty tensor in a parameter's place."""
    trainer = tree_trainer(model(), SEQUENCES, PASSAGES, config(tmp_path))
    parameter = next(p for p in trainer.model.parameters() if p.requires_grad)
    parameter.ds_tensor = torch.full((3,), float("nan"))
    parameter.data = torch.empty(0)
    with pytest.raises(MachineError, match="weights are not finite, so they are not saved"):
        trainer.save_model(str(tmp_path / "final"))


def test_a_divided_embedding_has_the_rows_that_it_has_in_all() -> None:
    divided = make_model("llama", vocab_size=260)
    weight = divided.get_input_embeddings().weight
    weight.ds_shape = weight.shape
    weight.data = torch.empty(0)
    check_vocabulary(tokenizer(), divided)
    weight.ds_shape = torch.Size((2, 32))
    with pytest.raises(ModelError, match="has 3 tokens, the model's embeddings have 2 rows"):
        check_vocabulary(tokenizer(), divided)


@pytest.mark.parametrize("optim", ["adamw_torch_fused", "adamw_torch"])
@pytest.mark.parametrize("well", [None, 20])
def test_overflows_of_float16_that_never_end_are_told(
    optim: str, well: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a real gradient scaler. A fused optimizer, the default, skips the step itself; accelerate does not know."""
    trainer = tree_trainer(model(), SEQUENCES, PASSAGES, config(tmp_path, max_steps=60, optim=optim))
    monkeypatch.setattr(Accelerator, "mixed_precision", "fp16")
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu")
    weight = next(parameter for parameter in trainer.model.parameters() if parameter.requires_grad)
    weight.register_hook(lambda grad: grad if trainer.state.global_step == well else grad * float("inf"))
    before = weight.detach().clone()
    last = 30 + (0 if well is None else well + 1)
    told = f"step {last}: the last 30 steps overflowed float16 and changed no weight; set fp16: false"
    with pytest.raises(MachineError, match=told):
        trainer.train()
    assert torch.equal(before, weight) == (well is None)


def test_an_optimizer_with_modes_has_that_of_the_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a schedule-free one: it trains at other weights than it is evaluated at."""
    trainer = tree_trainer(model(), SEQUENCES, PASSAGES, config(tmp_path, max_steps=3, torch_empty_cache_steps=2))
    modes, steps, cleared = [], [], []

    class TwoModes(torch.optim.SGD):
        def train(self) -> None:
            modes.append("train")

        def step(self, *args: Any, **kwargs: Any) -> Any:
            steps.append(modes[-1])
            return super().step(*args, **kwargs)

    trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    trainer.optimizer = TwoModes(trained, lr=0.1)
    monkeypatch.setattr(
        "lrc.training.base_trainer.clear_device_cache", lambda **kwargs: cleared.append(trainer.state.global_step)
    )
    trainer.train()
    assert steps == ["train"] * 3
    assert cleared == [0, 2]


def test_a_process_without_a_question_divides_by_no_zero(tmp_path: Path) -> None:
    trainer = tree_trainer(model(), SEQUENCES, PASSAGES, config(tmp_path, average_tokens_across_devices=False))
    idle = StepBatch(SEQUENCES[:1], pack(SEQUENCES[:1], 8 * LONGEST), idle=True)
    counted = trainer._get_num_items_in_batch([idle], torch.device("cpu"))
    assert trainer.run_step(trainer.model, idle, counted) == 0.0


class Averaging(torch.optim.SGD):
    """Trains other weights than those that it is for, as schedule-free optimizers do: here, all are larger by one."""

    shifted = False

    def _shift(self, by: int) -> None:
        self.shifted = by > 0
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter += by

    def train(self) -> None:
        if not self.shifted:
            self._shift(1)

    def eval(self) -> None:
        if self.shifted:
            self._shift(-1)


def test_what_is_saved_of_a_schedule_free_optimizer_are_the_weights_that_are_evaluated(tmp_path: Path) -> None:
    """Without an evaluation, too; and training goes on with the others."""
    network = model(dropout=0.0)
    initial = {name: value.detach().clone() for name, value in network.named_parameters() if value.requires_grad}
    optimizer = Averaging([value for value in network.parameters() if value.requires_grad], lr=0.0)
    settings = config(tmp_path, max_steps=2, save_strategy="steps", save_steps=1)
    made = tree_trainer(network, SEQUENCES, PASSAGES, settings, optimizers=(optimizer, None))
    seen: list[bool] = []
    step = made.run_step
    made.run_step = lambda *args: seen.append(optimizer.shifted) or step(*args)  # type: ignore[method-assign]
    made.train()
    made.save_model(str(tmp_path / "out"))
    assert seen == [True, True]
    for place in ("out", "checkpoint-1", "checkpoint-2"):
        saved = load_file(tmp_path / place / "adapter_model.safetensors")
        assert len(saved) == len(initial)
        for name, value in initial.items():
            assert torch.allclose(saved[name.replace(".default", "")], value, atol=1e-6), (place, name)
