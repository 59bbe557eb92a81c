"""The trainer's part in losing nothing: whole checkpoints, finite numbers, steps that fit, and none too many."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather, gather_object
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from trl import SFTTrainer

from lrc.batches import StepBatch
from lrc.checkpoint import STAGE, close_stage, open_stage, rotate, seal
from lrc.errors import MachineError, RecipeError
from lrc.pissa import Pissa
from lrc.progress import say
from lrc.space import disk_failures_told

ARGUMENTS_FILE = "training_args.bin"  # a pickle that nothing needs


class DurableTrainer(SFTTrainer):
    """An SFTTrainer whose checkpoints appear whole or not at all, and that stops before a number is lost.

    A subclass has a token budget of a row, `row_tokens`, says with `share` whether a row may hold several sequences,
    and runs the step.
    """

    row_tokens: int
    share: bool
    write_card: Callable[..., None] | None = None  # puts a model card into a folder that was saved
    pissa: Pissa | None = None  # the start of an adapter that is saved as another one than it is trained
    _loss: torch.Tensor  # of the step in hand
    _halved = False  # whether the memory ran out under the budget that the loader packs for
    _staging = False

    def start_with_pissa(self, method: str, checkpoint: str | None) -> None:
        """Have the adapter start with PiSSA, or as it did in the run that goes on.

        Raises:
            RecipeError: the model or the launch does not permit it, or the checkpoint is of another kind of run.
        """
        if self.is_fsdp_enabled or is_deepspeed_zero3_enabled():
            raise RecipeError(f"init_lora_weights is {method}, which needs whole weights; use neither FSDP nor ZeRO-3")
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
        if self.args.world_size > 1:
            raise MachineError(f"{place}: out of memory; set row_tokens below {self.row_tokens} and run again")
        longest = max(len(sequence.inputs) for sequence in batch.sequences)
        if not self.share or self.row_tokens <= longest:
            raise MachineError(
                f"{place}: its memory does not hold one question; lower max_length, or quantize the base model"
            )
        say(f"{place}: out of memory with rows of {self.row_tokens} tokens; going on with {self.row_tokens // 2}")
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
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        if not self._everywhere(all(bool(parameter.isfinite().all()) for parameter in trained)):
            raise MachineError(
                f"step {self.state.global_step}: weights are not finite, so they are not saved; lower learning_rate "
                "and train again, or go on from the last checkpoint"
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
        best = self.state.best_global_step == self.state.global_step and str(target)
        if self.is_world_process_zero():
            open_stage(folder)
        self.accelerator.wait_for_everyone()
        self._staging = True
        try:
            with disk_failures_told(target, staged):
                super()._save_checkpoint(model, trial)
                self.accelerator.wait_for_everyone()
                if self.is_world_process_zero():
                    if best:  # upstream takes the stage for its place
                        self.state.best_model_checkpoint = best
                        self.state.save_to_json(str(staged / "trainer_state.json"))
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
        super()._save(output_dir, state_dict)
        if output_dir is not None and self.args.should_save:
            if self.pissa is not None:
                self.pissa.convert(Path(output_dir))
            (Path(output_dir) / ARGUMENTS_FILE).unlink(missing_ok=True)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.pissa is None:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            self.pissa.load(self.model, Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        if self.pissa is None or self.state.best_model_checkpoint is None:
            super()._load_best_model()
        else:
            self.pissa.load(self.model, Path(self.state.best_model_checkpoint))

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Run no step after the last: upstream counts only after it, also when a finished run is resumed."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Look at loss and gradient before the optimizer makes weights of them."""
        norm = super()._get_grad_norm(model, grad_norm)
        finite = self._loss.isfinite()
        # In fp16 a gradient scaler tries high scales, and skips the steps that overflow under them.
        if norm is not None and self.accelerator.mixed_precision != "fp16":
            finite = finite & torch.as_tensor(norm, device=finite.device).isfinite()
        if not self._everywhere(bool(finite)):
            what = "gradient" if self._loss.isfinite() else "loss"
            ids = ", ".join(gather_object(self.step_ids()))
            raise MachineError(
                f"step {self.state.global_step + 1}: its {what} is not finite, questions {ids}; lower learning_rate, "
                "or look at these questions; the weights before this step are kept where a checkpoint holds them"
            )
        return norm

    def _everywhere(self, fine: bool) -> bool:
        """Whether all processes are fine."""
        if self.args.world_size == 1:
            return fine
        return bool(gather(torch.tensor([fine], device=self.args.device)).all())


def _random_state(device: torch.device) -> list[torch.Tensor]:
    """The state of the generators that dropout draws from."""
    return [generator.get_rng_state() for generator in _generators(device)]


def _restore_random_state(states: list[torch.Tensor], device: torch.device) -> None:
    for generator, state in zip(_generators(device), states, strict=True):
        generator.set_rng_state(state)


def _generators(device: torch.device) -> list[Any]:
    return [torch.random] if device.type == "cpu" else [torch.random, torch.get_device_module(device)]
