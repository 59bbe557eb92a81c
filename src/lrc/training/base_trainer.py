"""An SFTTrainer that loses no work: atomic checkpoints, a stop at the first NaN, smaller rows when memory runs out.

`OVERRIDDEN` lists the upstream methods that this class and `trainer.TreeTrainer` override, tested with transformers
5.23 and TRL 1.16. Those with an underscore are private there: read their code again before you allow another version in
setup.cfg.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
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
from lrc.models.master_weights import cast_state_dict, masters_of, rounded_by, set_masters, write_dtype
from lrc.models.pissa import Pissa
from lrc.packing.log_probs import LOWER_ROW_TOKENS, RETRYING
from lrc.runtime.disk import convert_disk_errors
from lrc.runtime.errors import MachineError, RecipeError
from lrc.runtime.outputs import open_to_all
from lrc.runtime.progress import notify
from lrc.runtime.translation import _
from lrc.training.checkpoint import STAGE, close_stage, find_damage, open_stage, rotate, seal
from lrc.training.dataloader import StepBatch

OVERRIDDEN = (
    # a step
    *("training_step", "compute_loss", "compute_loss_context_manager", "_get_grad_norm", "_get_num_items_in_batch"),
    *("_track_num_input_tokens", "floating_point_ops"),
    # an epoch
    *("get_train_dataloader", "get_eval_dataloader", "_run_epoch", "_init_training_state", "_finalize_training"),
    # optimizer
    *("create_optimizer", "create_scheduler", "_prepare_for_training"),
    # evaluation and logs
    *("evaluation_loop", "log", "_maybe_log_save_evaluate", "_determine_best_metric"),
    # checkpoints and models
    *("_save_checkpoint", "_save", "save_model", "_get_output_dir", "_load_from_checkpoint", "_load_best_model"),
    *("_load_optimizer_and_scheduler", "_save_optimizer_and_scheduler", "create_model_card"),
    # the launch
    "create_accelerator_and_postprocess",
    # telemetry, which is off
    "_send_telemetry",
)
ARGUMENTS_FILE = "training_args.bin"  # a pickle that nothing needs
HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}  # by the name of mixed precision


def refuse_other_upstream() -> None:
    """Refuse versions of TRL and transformers that lack a method of `OVERRIDDEN`, whose override would never be called.

    Raises:
        MachineError: they do.
    """
    missing = [name for name in OVERRIDDEN if not callable(getattr(SFTTrainer, name, None))]
    if missing:
        text = _(
            "trl {trl}, transformers {transformers}: SFTTrainer has no {missing}, on which lrc relies; install the "
            "tested versions: pip install --constraint constraints.txt lora-reading-comprehension"
        )
        found = {name: version(name) for name in ("trl", "transformers")}
        raise MachineError(text.format(**found, missing=tuple(missing)))


class DurableTrainer(SFTTrainer):
    """An SFTTrainer whose checkpoints are written completely or not at all, and which stops at the first NaN or inf.

    A subclass implements `run_step` and `step_ids`, and sets `row_tokens` and `share`.
    """

    row_tokens: int  # token budget of a packed row
    share: bool  # whether a row may hold several sequences
    compute_dtype: torch.dtype | None = None  # dtype of the base, if weights of it are trained (in float32)
    write_card: Callable[..., None] | None = None  # writes a model card into a folder of saved weights
    pissa: Pissa | None = None  # converts between the adapter that is trained and the one that is saved
    run: Run | None = None  # recorded in each checkpoint
    _loss: torch.Tensor  # of the current step
    _halved = False  # whether row_tokens is smaller now than the dataloader assumes
    _staging = False  # whether a checkpoint is being written

    def create_accelerator_and_postprocess(self) -> None:
        """Have FSDP compute the model in 16 bits, and not what comes out of it, nor the sums of gradients.

        accelerate takes one format for all: log-probabilities of -6 would be rounded to multiples of 1/32 before they
        are compared. (PyTorch's tutorial on FSDP2 adds up gradients in float32, too.)
        """
        super().create_accelerator_and_postprocess()
        plugin = getattr(self.accelerator.state, "fsdp_plugin", None)
        if plugin is not None and plugin.fsdp_version == 2 and plugin.mixed_precision_policy is not None:
            policy = plugin.mixed_precision_policy
            plugin.mixed_precision_policy = replace(policy, output_dtype=None, reduce_dtype=torch.float32)

    def start_with_pissa(self, method: str, checkpoint: str | None) -> None:
        """Initialize the adapter with PiSSA, or as in the run that is resumed.

        Args:
            method: the recipe's `init_lora_weights`, such as `pissa_niter_16`.
            checkpoint: the folder to resume from; None for a new run.

        Raises:
            RecipeError: the model or the launch does not allow it, or the checkpoint was not trained with it.
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
        """Run forward and backward of one step.

        Returns:
            The step's loss of this process: a detached scalar.
        """
        raise NotImplementedError

    def step_ids(self) -> list[str]:
        """The ids of the questions that this process has in the current step."""
        raise NotImplementedError

    def training_step(
        self, model: torch.nn.Module, inputs: StepBatch, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Run a step. When memory runs out, halve `row_tokens` and run it again with the same random numbers.

        Raises:
            MachineError: the memory does not suffice for a single question, or there are several processes, of which
                the others could not follow.
        """
        model.train()
        if hasattr(self.optimizer, "train"):  # of schedule-free optimizers
            self.optimizer.train()
        interval = self.args.torch_empty_cache_steps
        if interval is not None and self.state.global_step % interval == 0:
            clear_device_cache()
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
            # Outside the handler, whose traceback keeps the tensors of the failed step alive.
            self._halve(inputs)
            model.zero_grad()
            _restore_random_state(random, self.args.device)

    def _halve(self, batch: StepBatch) -> None:
        """Halve the token budget of a row after running out of memory."""
        clear_device_cache(garbage_collection=True)
        place = f"{self.args.device}, step {self.state.global_step + 1}"
        # DeepSpeed and FSDP hold on to the gradients of the backward that failed.
        if self.args.world_size > 1 or self.lockstep:
            raise MachineError(LOWER_ROW_TOKENS.format(place=place, row_tokens=self.row_tokens))
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
        """Save the model and its card; of a schedule-free optimizer, the averaged weights, which are evaluated.

        Raises:
            MachineError: a trained weight is not finite.
        """
        if hasattr(self.optimizer, "eval"):
            self.optimizer.eval()
        self._refuse_non_finite_weights()
        super().save_model(output_dir, _internal_call)
        if self.write_card and self.is_world_process_zero():
            self.write_card(Path(output_dir or self.args.output_dir))  # replaces PEFT's template

    def _refuse_non_finite_weights(self) -> None:
        trained = [local_part(parameter) for parameter in self.model.parameters() if parameter.requires_grad]
        if not self._everywhere(all(bool(parameter.isfinite().all()) for parameter in trained)):
            raise MachineError(
                _(
                    "step {global_step}: weights are not finite, so they are not saved; lower learning_rate "
                    "and train again, or resume from the last checkpoint"
                ).format(global_step=self.state.global_step)
            )

    def _send_telemetry(self) -> None:
        """Send nothing: upstream would tell the Hub the kind of run, model and machine when the trainer is built."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write no card: upstream would add one to every checkpoint; `save_model` writes lrc's own."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint into the staging folder, then rename it."""
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
                self._name_best()  # upstream has recorded a path in the staging folder
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

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: Any) -> Any:
        """Wrap the model; under DeepSpeed, which copies it in 16 bits, begin with the initial weights in float32.

        A checkpoint has master weights of its own.
        """
        half = HALVES.get(self.accelerator.mixed_precision) if self.is_deepspeed_enabled else None
        if half is None or resume_from_checkpoint is not None:
            return super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        initial = rounded_by(half, self.model)
        prepared = super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        set_masters(self.model, initial)
        return prepared

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        for config in getattr(self.model, "peft_config", {}).values():
            for name in ("target_modules", "exclude_modules"):
                if isinstance(found := getattr(config, name, None), set):
                    setattr(config, name, sorted(found))  # PEFT would write a set in the order of the hash seed
        if self.is_deepspeed_enabled:
            masters = masters_of(self.model)  # a collective; only the first process has a state_dict under ZeRO-3
            state_dict = None if state_dict is None else {**state_dict, **masters}
        # The result gets the dtype of the base; a checkpoint stays in float32, so that resuming is exact.
        dtype = self.compute_dtype if not self._staging and not hasattr(self.model, "peft_config") else None
        if dtype is not None:
            state_dict = cast_state_dict(state_dict or self.model.state_dict(), dtype)
        super()._save(output_dir, state_dict)
        if dtype is not None and output_dir is not None and self.args.should_save:
            write_dtype(Path(output_dir) / "config.json", dtype)
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

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with self._without_scaler():
            super()._load_optimizer_and_scheduler(checkpoint)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        with self._without_scaler():
            super()._save_optimizer_and_scheduler(output_dir)

    @contextmanager
    def _without_scaler(self) -> Iterator[None]:
        """Let FSDP have an optimizer without states make a step of zeros, as it does to load or save them.

        A gradient scaler that has scaled nothing yet would refuse it, and another would count it.
        """
        optimizer: Any = self.optimizer
        scaler = getattr(optimizer, "scaler", None)
        if scaler is None:
            yield
            return
        optimizer.scaler = None
        try:
            yield
        finally:
            optimizer.scaler = scaler

    def load_best_checkpoint(self) -> None:
        """Load the weights of the best checkpoint if `load_best_model_at_end` is set; all processes call this.

        Raises:
            MachineError: there is none, or it is missing or damaged. The last step's weights are no substitute.
        """
        if not self.args.load_best_model_at_end:
            return
        self._name_best()
        best = self.state.best_model_checkpoint
        if best is None:
            reason: str | None = _("no evaluation gave a number")
        else:
            reason = find_damage(Path(best)) if Path(best).is_dir() else _("is missing")
        if not self._everywhere(reason is None):
            raise MachineError(
                _(
                    "{best}: {reason}, so there is no best checkpoint for load_best_model_at_end; put it "
                    "back and run again, or take another checkpoint as it is"
                ).format(best=best or self.args.output_dir, reason=reason or _("is not whole"))
            )
        assert best is not None
        if self.pissa is None or self.is_deepspeed_enabled:  # whose own files have the weights as they were trained
            super()._load_best_model()
        else:
            self.pissa.load(self.model, Path(best))
        step = self.state.best_global_step or self.state.global_step
        epochs = [line["epoch"] for line in self.state.log_history if line["step"] == step and "epoch" in line]
        self.state.global_step, self.state.epoch = step, (epochs or [self.state.epoch])[-1]

    def load_trained(self, folder: Path, step: int, epoch: float | None) -> None:
        """Load the final weights that an earlier process saved to the run's folder before it ended.

        Args:
            folder: the run's `output_dir`.
            step: the global step after which they were saved.
            epoch: the epoch at that step, if known.
        """
        if self.pissa is None and hasattr(self.model, "peft_config"):
            # Upstream's _load_from_checkpoint would take the checkpoints next to it for more adapters.
            self.model.load_adapter(str(folder), self.model.active_adapters[0], is_trainable=True)
        else:
            self._load_from_checkpoint(str(folder))
        self.state.global_step, self.state.epoch = step, epoch

    def _load_best_model(self) -> None:
        """Do nothing: upstream would load it even after a signal stopped the training; see `load_best_checkpoint`."""

    def _name_best(self) -> None:
        """Set the path of the best checkpoint from its step, since the run's folder may have been moved."""
        step = self.state.best_global_step
        place = Path(self.args.output_dir) / f"checkpoint-{step}"
        saved = step == self.state.global_step or place.is_dir() or self.args.load_best_model_at_end
        self.state.best_model_checkpoint = str(place) if step is not None and saved else None

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """With `load_best_model_at_end`, save a checkpoint whenever a step is the best so far."""
        best = bool(super()._determine_best_metric(metrics, trial))
        if best and self.args.load_best_model_at_end:
            self.control.should_save = True
        return best

    def _init_training_state(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        """Restore a checkpoint's state, with logging, evaluation and save intervals as they are in the recipe now."""
        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()  # upstream warns that the intervals differ
        try:
            start: tuple[int, int] = super()._init_training_state(*args, **kwargs)
        finally:
            logging.set_verbosity(verbosity)
        self.state.compute_steps(self.args, self.state.max_steps)
        self._name_best()
        if self.state.global_step:  # upstream would evaluate it once more, and early stopping would count that
            self.args.eval_on_start = False
        return start

    def _finalize_training(self, *args: Any, **kwargs: Any) -> Any:
        """Skip upstream's clean-up at the end: with `save_total_limit` 1 it would remove the newest checkpoint."""
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            return super()._finalize_training(*args, **kwargs)
        finally:
            self.args.save_total_limit = limit

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Run no step beyond `max_steps`: upstream looks only after a step, even when a finished run is resumed."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Stop before the optimizer step if loss or gradient is not finite."""
        norm = super()._get_grad_norm(model, grad_norm)
        finite = self._loss.isfinite()
        # In fp16, gradients that overflow are part of the gradient scaler's search for a scale.
        if norm is not None and self.accelerator.mixed_precision != "fp16":
            finite = finite & torch.as_tensor(norm, device=finite.device).isfinite()
        self._require_finite(finite, "gradient" if self._loss.isfinite() else "loss")
        return norm

    def _require_finite(self, finite: torch.Tensor, what: str) -> None:
        """Stop all processes if `what` of the current step, loss or gradient, is not finite in one of them.

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

    @property
    def lockstep(self) -> bool:
        """Whether forward and backward are collectives, so that all processes must run equally many."""
        return self.is_fsdp_enabled or self.is_deepspeed_enabled

    def _everywhere(self, holds: bool) -> bool:
        """Whether something holds in every process; a collective."""
        if self.args.world_size == 1:
            return holds
        return bool(gather(torch.tensor([holds], device=self.args.device)).all())


def local_part(parameter: torch.nn.Parameter) -> torch.Tensor:
    """The shard of a parameter that this process has under ZeRO-3 or FSDP; otherwise all of it."""
    part: torch.Tensor = getattr(parameter, "ds_tensor", parameter)
    return part.to_local() if hasattr(part, "to_local") else part


def _random_state(device: torch.device) -> list[torch.Tensor]:
    """The states of the generators that dropout draws from."""
    return [generator.get_rng_state() for generator in _generators(device)]


def _restore_random_state(states: list[torch.Tensor], device: torch.device) -> None:
    for generator, state in zip(_generators(device), states, strict=True):
        generator.set_rng_state(state)


def _generators(device: torch.device) -> list[Any]:
    return [torch.random] if device.type == "cpu" else [torch.random, torch.get_device_module(device)]
