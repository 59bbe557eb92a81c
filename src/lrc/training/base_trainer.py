"""The trainer's part in losing nothing: whole checkpoints, finite numbers, steps that fit, and none too many.

Upstream methods that this class and `trainer.TreeTrainer` override, tested with transformers 5.23 and TRL 1.16. Those
with an underscore are private there: read their code again before another version is allowed in setup.cfg.

- a step: `training_step`, `compute_loss`, `compute_loss_context_manager`, `_get_grad_norm`, `_get_num_items_in_batch`,
  `_track_num_input_tokens`, `floating_point_ops`
- an epoch: `get_train_dataloader`, `get_eval_dataloader`, `_run_epoch`, `_init_training_state`, `_finalize_training`
- optimizer: `create_optimizer`, `create_scheduler`
- evaluation and logs: `evaluation_loop`, `log`, `_maybe_log_save_evaluate`, `_determine_best_metric`
- checkpoints and models: `_save_checkpoint`, `_save`, `save_model`, `_get_output_dir`, `_load_from_checkpoint`,
  `_load_best_model`, `create_model_card`
- nothing leaves the machine unasked: `_send_telemetry`
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather, gather_object
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.trainer import TRAINER_STATE_NAME
from transformers.utils import logging
from trl import SFTTrainer

from lrc.config.run_record import RUN_FILE, Run
from lrc.models.master_weights import cast_state_dict, write_dtype
from lrc.models.pissa import Pissa
from lrc.packing.log_probs import RETRYING
from lrc.runtime.disk import convert_disk_errors
from lrc.runtime.errors import MachineError, RecipeError
from lrc.runtime.outputs import open_to_all
from lrc.runtime.progress import notify
from lrc.runtime.translation import _
from lrc.training.checkpoint import STAGE, close_stage, find_damage, open_stage, rotate, seal
from lrc.training.dataloader import StepBatch

ARGUMENTS_FILE = "training_args.bin"  # a pickle that nothing needs
# Steps in a row that overflow float16. A gradient scaler begins at 2^16 and halves with each, so that past 16 it scales
# nothing up any more.
OVERFLOWS = 30


class DurableTrainer(SFTTrainer):
    """An SFTTrainer whose checkpoints appear whole or not at all, and that stops before a number is lost.

    A subclass has a token budget of a row, `row_tokens`, says with `share` whether a row may hold several sequences,
    and runs the step.
    """

    row_tokens: int
    share: bool
    computed_in: torch.dtype | None = None  # the format of the base, where modules of it are trained, in float32
    write_card: Callable[..., None] | None = None  # puts a model card into a folder that was saved
    pissa: Pissa | None = None  # the start of an adapter that is saved as another one than it is trained
    run: Run | None = None  # which run it is, for its checkpoints to say
    _loss: torch.Tensor  # of the step in hand
    _halved = False  # whether the memory ran out under the budget that the loader packs for
    _staging = False
    _overflows = 0  # steps in a row that the gradient scaler skipped

    def start_with_pissa(self, method: str, checkpoint: str | None) -> None:
        """Have the adapter start with PiSSA, or as it did in the run that is resumed.

        Raises:
            RecipeError: the model or the launch does not permit it, or the checkpoint is of another kind of run.
        """
        if self.is_fsdp_enabled or is_deepspeed_zero3_enabled():
            raise RecipeError(
                _("init_lora_weights is {method}, which needs whole weights; use neither FSDP nor ZeRO-3").format(
                    method=method
                )
            )
        self.pissa = Pissa.begin(self.model, method, Path(checkpoint) if checkpoint else None)

    def run_step(
        self, model: torch.nn.Module, inputs: StepBatch, num_items_in_batch: torch.Tensor | int | None
    ) -> torch.Tensor:
        """Forward and backward of one step."""
        raise NotImplementedError

    def step_ids(self) -> list[str]:
        """The ids of this process's questions of the step in hand."""
        raise NotImplementedError

    def training_step(
        self, model: torch.nn.Module, inputs: StepBatch, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Run a step; with fewer tokens a row where the device's memory does not hold it.

        Raises:
            MachineError: it does not hold one question, or there are other processes that would wait for this one.
        """
        model.train()
        while True:
            random = _random_state(self.args.device)
            if self._halved:
                inputs = inputs.repacked(self.row_tokens, share=self.share)
            try:
                self._loss = self.run_step(model, inputs, num_items_in_batch)
                return self._loss
            except RuntimeError as error:
                if not isinstance(error, torch.OutOfMemoryError) and not should_reduce_batch_size(error):
                    raise
            # Outside of the handler, whose traceback keeps the tensors of the failed step alive.
            self._halve(inputs)
            model.zero_grad()
            _restore_random_state(random, self.args.device)

    def _halve(self, batch: StepBatch) -> None:
        """Halve the token budget of a row after the memory ran out."""
        clear_device_cache(garbage_collection=True)
        place = f"{self.args.device}, step {self.state.global_step + 1}"
        # DeepSpeed holds on to the gradients of the backward that failed.
        if self.args.world_size > 1 or self.is_deepspeed_enabled:
            raise MachineError(
                _("{place}: out of memory; set row_tokens below {row_tokens} and run again").format(
                    place=place, row_tokens=self.row_tokens
                )
            )
        longest = max(len(sequence.inputs) for sequence in batch.sequences)
        if not self.share or self.row_tokens <= longest:
            raise MachineError(
                _(
                    "{place}: its memory is too small for one question; lower max_length, or quantize the base model"
                ).format(place=place)
            )
        notify(RETRYING.format(place=place, row_tokens=self.row_tokens, fewer=self.row_tokens // 2))
        self.row_tokens //= 2
        self._halved = True

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model, provided that every trained weight is finite.

        Raises:
            MachineError: one is not.
        """
        self._refuse_non_finite_weights()
        super().save_model(output_dir, _internal_call)
        if self.write_card and self.is_world_process_zero():
            self.write_card(Path(output_dir or self.args.output_dir))  # PEFT has left a template there

    def _refuse_non_finite_weights(self) -> None:
        trained = [_here(parameter) for parameter in self.model.parameters() if parameter.requires_grad]
        if not self._everywhere(all(bool(parameter.isfinite().all()) for parameter in trained)):
            raise MachineError(
                _(
                    "step {global_step}: weights are not finite, so they are not saved; lower learning_rate "
                    "and train again, or resume from the last checkpoint"
                ).format(global_step=self.state.global_step)
            )

    def _send_telemetry(self) -> None:
        """Tell nobody: upstream would send the kind of run, model and machine to the Hub as the trainer is built."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write no card at every checkpoint: publishing writes one."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Save a checkpoint in the stage, then give it its name."""
        self._refuse_non_finite_weights()
        folder = Path(self.args.output_dir)
        target = folder / f"checkpoint-{self.state.global_step}"
        staged = folder / STAGE / target.name
        if self.is_world_process_zero():
            open_stage(folder)
        self.accelerator.wait_for_everyone()
        self._staging = True
        try:
            with convert_disk_errors(target, staged):
                super()._save_checkpoint(model, trial)
                self.accelerator.wait_for_everyone()
                self._name_best()  # upstream takes the stage for its place
                if self.is_world_process_zero():
                    self.state.save_to_json(str(staged / TRAINER_STATE_NAME))
                    if self.run is not None:
                        replace(self.run, step=self.state.global_step).write(staged / RUN_FILE)
                    seal(staged, target)
                    rotate(folder, self.args.save_total_limit, self.state.best_model_checkpoint)
                    close_stage(folder)
        except MachineError:
            if self.is_world_process_zero():
                close_stage(folder)
            raise
        finally:
            self._staging = False
        self.accelerator.wait_for_everyone()

    def _get_output_dir(self, trial: Any) -> str:
        folder: str = super()._get_output_dir(trial)
        return str(Path(folder) / STAGE) if self._staging else folder

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        for config in getattr(self.model, "peft_config", {}).values():
            for name in ("target_modules", "exclude_modules"):
                if isinstance(found := getattr(config, name, None), set):
                    setattr(config, name, sorted(found))  # PEFT would write the set in the order of the hash seed
        rounded = self.computed_in if not self._staging and not hasattr(self.model, "peft_config") else None
        if rounded is not None:  # a checkpoint keeps every bit, for the run that is resumed
            state_dict = cast_state_dict(state_dict or self.model.state_dict(), rounded)
        super()._save(output_dir, state_dict)
        if rounded is not None and output_dir is not None and self.args.should_save:
            write_dtype(Path(output_dir) / "config.json", rounded)
        if output_dir is not None and self.args.should_save:
            if self.pissa is not None:
                self.pissa.convert(Path(output_dir))
            (Path(output_dir) / ARGUMENTS_FILE).unlink(missing_ok=True)
            for file in Path(output_dir).glob("*.safetensors"):
                open_to_all(file)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.pissa is None:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            self.pissa.load(self.model, Path(resume_from_checkpoint))

    def load_best_checkpoint(self) -> None:
        """Take the weights of the best checkpoint, where `load_best_model_at_end` says so, in every process.

        Raises:
            MachineError: there is none, or it is missing or damaged; the weights of the last step do not replace it.
        """
        if not self.args.load_best_model_at_end:
            return
        self._name_best()
        best = self.state.best_model_checkpoint
        if best is None:
            reason: str | None = "no evaluation gave a number"
        else:
            reason = find_damage(Path(best)) if Path(best).is_dir() else "is missing"
        if not self._everywhere(reason is None):
            raise MachineError(
                _(
                    "{best}: {reason}, so there is no best checkpoint for load_best_model_at_end; put it "
                    "back and run again, or take another checkpoint as it is"
                ).format(best=best or self.args.output_dir, reason=reason or "is not whole")
            )
        assert best is not None
        if self.pissa is None:
            super()._load_best_model()
        else:
            self.pissa.load(self.model, Path(best))
        step = self.state.best_global_step or self.state.global_step
        epochs = [line["epoch"] for line in self.state.log_history if line["step"] == step and "epoch" in line]
        self.state.global_step, self.state.epoch = step, (epochs or [self.state.epoch])[-1]

    def load_trained(self, folder: Path, step: int, epoch: float | None) -> None:
        """Take the weights that an earlier process trained to the end and put into the folder of the run.

        Args:
            step, epoch: after which they were saved.
        """
        if self.pissa is None and hasattr(self.model, "peft_config"):
            # Upstream's way would take the checkpoints next to it for more adapters.
            self.model.load_adapter(str(folder), self.model.active_adapters[0], is_trainable=True)
        else:
            self._load_from_checkpoint(str(folder))
        self.state.global_step, self.state.epoch = step, epoch

    def round_as_saved(self) -> bool:
        """Take the weights as they were saved: a model that was trained whole is saved in the format of its base.

        Returns:
            Whether they are others now, so that what was found with them has to be found again.
        """
        if self.computed_in is None or hasattr(self.model, "peft_config"):
            return False
        with torch.no_grad():
            for part in (_here(parameter) for parameter in self.model.parameters() if parameter.requires_grad):
                part.copy_(part.to(self.computed_in))
        return True

    def _load_best_model(self) -> None:
        """Nothing: upstream would also where a signal ended the training; see `load_best_checkpoint`."""

    def _name_best(self) -> None:
        """Say where the best checkpoint is, by its step: wherever the run's folder lies now, in every process."""
        step = self.state.best_global_step
        place = Path(self.args.output_dir) / f"checkpoint-{step}"
        saved = step == self.state.global_step or place.is_dir() or self.args.load_best_model_at_end
        self.state.best_model_checkpoint = str(place) if step is not None and saved else None

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Save whatever is the best so far, where the best is to be the result."""
        best = bool(super()._determine_best_metric(metrics, trial))
        if best and self.args.load_best_model_at_end:
            self.control.should_save = True
        return best

    def _init_training_state(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        """Take the state of a checkpoint, but the steps between logs, evaluations and checkpoints as they are now."""
        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()  # of both, upstream warns as if something were wrong
        try:
            start: tuple[int, int] = super()._init_training_state(*args, **kwargs)
        finally:
            logging.set_verbosity(verbosity)
        self.state.compute_steps(self.args, self.state.max_steps)
        self._name_best()
        return start

    def _finalize_training(self, *args: Any, **kwargs: Any) -> Any:
        """End the training; upstream would remove the newest checkpoint where `save_total_limit` is 1."""
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            return super()._finalize_training(*args, **kwargs)
        finally:
            self.args.save_total_limit = limit

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Run no step after the last: upstream counts only after it, also when a finished run is resumed."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Look at loss and gradient before the optimizer makes weights of them."""
        self._refuse_endless_overflow()
        norm = super()._get_grad_norm(model, grad_norm)
        finite = self._loss.isfinite()
        # In fp16 a gradient scaler tries high scales, and skips the steps that overflow under them.
        if norm is not None and self.accelerator.mixed_precision != "fp16":
            finite = finite & torch.as_tensor(norm, device=finite.device).isfinite()
        self._require_finite(finite, "gradient" if self._loss.isfinite() else "loss")
        return norm

    def _require_finite(self, finite: torch.Tensor, what: str) -> None:
        """Stop where something of the step in hand is not finite in any process.

        Raises:
            MachineError: it is not.
        """
        if not self._everywhere(bool(finite)):
            ids = tuple(gather_object(self.step_ids()))
            raise MachineError(
                _(
                    "step {value}: its {what} is not finite, questions {ids}; lower learning_rate, or look "
                    "at these questions; the weights before this step are kept where a checkpoint holds them"
                ).format(value=self.state.global_step + 1, what=what, ids=ids)
            )

    def _refuse_endless_overflow(self) -> None:
        """Stop where steps are skipped for their overflow and nothing is learnt, whatever the scale of the gradient."""
        skipped = self.accelerator.mixed_precision == "fp16" and self.accelerator.optimizer_step_was_skipped
        self._overflows = self._overflows + 1 if skipped else 0
        if self._overflows >= OVERFLOWS:
            raise MachineError(
                _(
                    "step {global_step}: the last {overflows} steps overflowed float16 and changed no "
                    "weight; set fp16: false, or bf16: true where the device has it"
                ).format(global_step=self.state.global_step, overflows=OVERFLOWS)
            )

    def _everywhere(self, fine: bool) -> bool:
        """Whether all processes are fine."""
        if self.args.world_size == 1:
            return fine
        return bool(gather(torch.tensor([fine], device=self.args.device)).all())


def _here(parameter: torch.nn.Parameter) -> torch.Tensor:
    """What of a parameter is on this process: ZeRO-3 and FSDP divide it."""
    part: torch.Tensor = getattr(parameter, "ds_tensor", parameter)
    return part.to_local() if hasattr(part, "to_local") else part


def _random_state(device: torch.device) -> list[torch.Tensor]:
    """The state of the generators that dropout draws from."""
    return [generator.get_rng_state() for generator in _generators(device)]


def _restore_random_state(states: list[torch.Tensor], device: torch.device) -> None:
    for generator, state in zip(_generators(device), states, strict=True):
        generator.set_rng_state(state)


def _generators(device: torch.device) -> list[Any]:
    return [torch.random] if device.type == "cpu" else [torch.random, torch.get_device_module(device)]
