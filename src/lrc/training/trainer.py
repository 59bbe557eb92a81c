"""The SFTTrainer subclass that trains on packed trees.

One optimizer step is one batch of questions (`dataloader.StepBatch`), run row by row. Its loss is the sum over
supervised tokens divided by their number over the whole step and all processes, so that loss and gradients are those of
separate samples with the same batch size and accumulation, whatever rows the questions fill. With `option_contrast`, a
part of the loss is the mean of the step's contrast (`contrastive_loss`) instead.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import DistributedType, gather_object
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import PrinterCallback
from transformers.trainer_utils import EvalLoopOutput

from lrc.config.accelerate_config import use_small_buckets
from lrc.config.run_record import METRICS_FILE
from lrc.data.questions import Question
from lrc.metrics.option_scores import OptionScores
from lrc.metrics.training_log import read_curves
from lrc.models.master_weights import to_float32
from lrc.packing.attention import choose_attention, why_no_trees
from lrc.packing.last_layer import prune_last_layer
from lrc.packing.log_probs import row_budget, target_log_probs
from lrc.packing.tree import PackedRow, TokenSequence
from lrc.runtime.progress import notify, track
from lrc.runtime.translation import _
from lrc.training.base_trainer import DurableTrainer
from lrc.training.contrastive_loss import Objective, OptionContrast
from lrc.training.dataloader import SampleKey, Sampling, StepBatch, StepLoader, StepSampler
from lrc.training.neftune import Noise
from lrc.training.optimizer import LoraPlus, create_loraplus, explain_refusal
from lrc.training.throughput import ThroughputCallback
from lrc.training.validation import InLockstep, Validation, combine


@dataclass(frozen=True)
class Packing:
    """How sequences fill rows, and how a row is attended to.

    Args:
        trees: false gives every sequence a row of its own.
        row_tokens: the token budget of a row; None takes what suits the device.
        attention: see `attention.choose_attention`.
    """

    trees: bool = True
    row_tokens: int | None = None
    attention: str = "auto"


class TreeTrainer(DurableTrainer):
    """Trains on packed trees; see the module.

    Args:
        train_dataset: columns `tokens`, `prompt_length` and `passage`, a row a question.
        source: gives the sequences of one question in one epoch: what is supervised and, where the objective has a
            contrast, the options that are compared.
        validation: the questions of evaluation; None evaluates nothing.
        sampling: which questions meet in a step.
        packing: how their sequences fill rows.
        objective: what the loss is made of.
        loraplus: learning rates of LoRA+; None has A and B learn alike.

    The remaining arguments are SFTTrainer's.
    """

    # `compute_loss` normalises by the tokens of the whole step.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        *,
        args: Any,
        train_dataset: Dataset,
        source: Callable[[SampleKey], list[TokenSequence]],
        validation: Validation | None,
        sampling: Sampling = Sampling(),
        packing: Packing = Packing(),
        objective: Objective = Objective(),
        loraplus: LoraPlus | None = None,
        **kwargs: Any,
    ) -> None:
        self.source, self.validation = source, validation
        self.sampling, self.objective, self.loraplus = sampling, objective, loraplus
        # Rows take the place of micro-batches: to the upstream loop a step is one batch of all its questions.
        args.per_device_train_batch_size *= args.gradient_accumulation_steps
        args.gradient_accumulation_steps = 1
        args.dataset_kwargs = {**(args.dataset_kwargs or {}), "skip_prepare_dataset": True}
        args.router_aux_loss_coef = 0.0  # upstream would have a mixture of experts balance tokens, not trees
        args.disable_tqdm = True  # `callbacks.History` shows the progress
        args.logging_nan_inf_filter = False  # which would put an earlier loss in the place of one that is not finite
        if args.ddp_broadcast_buffers is None:
            # Processes may have unequal numbers of rows, and a broadcast in each forward would wait for all.
            args.ddp_broadcast_buffers = False
        if args.ddp_find_unused_parameters is None:
            args.ddp_find_unused_parameters = False
        super().__init__(
            args=args,
            train_dataset=train_dataset,
            eval_dataset=train_dataset if validation else None,  # stands in: `evaluation_loop` has its own
            data_collator=lambda batch: batch,
            **kwargs,
        )
        if self.is_deepspeed_enabled:
            use_small_buckets(self.accelerator.state.deepspeed_plugin.deepspeed_config)
        self.remove_callback(PrinterCallback)
        self.throughput = ThroughputCallback()
        self.add_callback(self.throughput)
        self.computed_in = to_float32(self.model)
        self.neftune_noise_alpha = None  # upstream's hook takes a row for one sample
        self.noise = Noise(self.model, args.neftune_noise_alpha) if args.neftune_noise_alpha else None
        reason = why_no_trees(self.model) if packing.trees else _("tree_packing is false")
        self.share = reason is None
        if reason and self.is_world_process_zero():
            notify(_("each question is a row of its own: {reason}").format(reason=reason))
        if reason and objective.option_contrast:
            text = _("option_contrast compares the options in one packed row, but {reason}; set it to 0")
            raise ValueError(text.format(reason=reason))
        choose_attention(self.model, packing.attention, self.args.device)
        whole = prune_last_layer(self.model)
        if whole and self.is_world_process_zero():
            notify(whole)
        self.row_tokens = row_budget(self.args.device, packing.row_tokens, training=True)
        self._evaluation_row_tokens = row_budget(self.args.device, packing.row_tokens)
        self.evaluated: dict[int, list[tuple[Question, OptionScores]]] = {}  # what was found, by the step of it
        self._all_asked = False  # once all is trained
        self._step_rows = 0
        self._step_contrasts: torch.Tensor | int = 1
        self._weights = sum(parameter.numel() for parameter in self.model.parameters())

    def get_train_dataloader(self) -> DataLoader:
        """The steps of this process; dealt out here and not by accelerate, which would count rows."""
        args, size = self.args, self.args.per_device_train_batch_size
        passages = self.train_dataset["passage"][:]
        sampler = StepSampler.of(args, passages, size, args.process_index, args.world_size, self.sampling)
        return StepLoader(
            self.source, sampler, self.row_tokens, share=self.share, num_workers=args.dataloader_num_workers
        )

    def compute_loss_context_manager(self) -> contextlib.ExitStack:
        """Upstream's, with mixed precision also where a base in 16 bits has modules that are trained whole."""
        stack = super().compute_loss_context_manager()
        if self.computed_in is not None and self.accelerator.mixed_precision == "no":
            stack.enter_context(torch.autocast(self.args.device.type, dtype=self.computed_in))
        return stack

    def run_step(
        self, model: torch.nn.Module, inputs: StepBatch, num_items_in_batch: torch.Tensor | int | None
    ) -> torch.Tensor:
        """Forward and backward of one step, row by row; gradients are exchanged with the last row only."""
        total = torch.zeros((), device=self.args.device)
        rows = self._equalize(inputs.rows)
        for i, row in enumerate(rows):
            last = i == len(rows) - 1
            self.accelerator.gradient_state._set_sync_gradients(last)
            with contextlib.nullcontext() if last else self.accelerator.no_sync(model):
                with self.compute_loss_context_manager(), self.maybe_activation_offload_context:
                    contrast = OptionContrast.of(row, inputs.sequences) if self.objective.option_contrast else None
                    loss = self.compute_loss(model, row, num_items_in_batch=num_items_in_batch, contrast=contrast)
                    if inputs.idle or i >= len(inputs.rows):
                        loss = loss * 0.0
                total += loss.detach()
                if last and self.is_deepspeed_enabled:  # whose last backward updates the weights, too
                    self._require_finite(total.isfinite(), "loss")
                self._backward(loss)
        self.throughput.count(inputs)
        return total

    def step_ids(self) -> list[str]:
        """The ids of this process's questions of the step in hand."""
        steps: StepSampler = self.callback_handler.train_dataloader.steps
        draws = list(steps)[self.state.global_step % len(steps)]
        return [str(identifier) for identifier in self.train_dataset.select([place for place, _ in draws])["id"]]

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: PackedRow,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
        contrast: OptionContrast | None = None,
    ) -> Any:
        """The negative log-likelihood of a row's targets, summed and divided by the targets of the whole step.

        With `contrast`, likewise their losses, divided by the contrast of the whole step; see the class for the parts.
        """
        if self.noise is not None:
            self.noise.set_row(inputs, self.args.device)
        log_probs = target_log_probs(model, inputs, self.args.device)
        supervised = log_probs if contrast is None else contrast.supervised_log_probs(log_probs)
        loss = -supervised.sum() / (len(inputs.targets) if num_items_in_batch is None else num_items_in_batch)
        part = self.objective.option_contrast
        if part:
            loss = loss * (1.0 - part)
        if contrast is not None:
            compared = contrast.loss(log_probs, self.objective.contrast_temperature) / self._step_contrasts
            loss = loss + part * compared
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # which DDP divides by again
        return (loss, log_probs) if return_outputs else loss

    def log(self, logs: dict[str, Any], start_time: float | None = None) -> None:
        """Tell callbacks and trackers what upstream logs, and how fast the training is."""
        for name in ("train_samples_per_second", "train_steps_per_second"):
            logs.pop(name, None)  # which count evaluations and checkpoints, too
        logs.update(self.throughput.metrics(logs, self.args.device))
        super().log(logs, start_time)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """An empty loader: `evaluation_loop` takes its questions from `validation`."""
        return DataLoader(self.train_dataset.select([]))

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Loss and answer accuracy on the validation questions, in one pass of the scorer that answers later."""
        validation = self._validation
        self.model.eval()
        asked = np.arange(len(validation.records)) if self._all_asked else np.array(validation.sampled)
        places = np.array_split(asked, self.args.world_size)[self.args.process_index]
        pace = InLockstep(self.model, self._everywhere) if self.lockstep else contextlib.nullcontext()
        with self.compute_loss_context_manager(), track(_("evaluate"), len(places)) as advance, pace:
            budget = self._evaluation_row_tokens
            mine = validation.evaluate(places.tolist(), self.model, self.args.device, budget, advance)
        tallies = gather_object([mine])
        kept = (self.state.best_global_step, self.state.global_step)
        self.evaluated = {step: scores for step, scores in self.evaluated.items() if step in kept}
        self.evaluated[self.state.global_step] = [pair for tally in tallies for pair in tally.scores]
        metrics = combine(tallies, metric_key_prefix)
        return EvalLoopOutput(None, None, metrics, num_samples=len(asked))

    def final_scores(self) -> list[tuple[Question, OptionScores]]:
        """All validation questions as the trained model answers them; evaluated unless that was done at its step.

        What the log of the run has already is not logged again.
        """
        step = self.state.global_step
        if self.validation is None:
            return []
        if len(self.validation.sampled) < len(self.validation.records):
            self._all_asked = True
            self.evaluate()  # what the log has is of the sample
        elif step not in self.evaluated:
            known = read_curves(Path(self.args.output_dir) / METRICS_FILE)["eval_loss"]
            if any(point.step == step for point in known):
                self.evaluation_loop(self.get_eval_dataloader(), "Evaluation")
            else:
                self.evaluate()
        return self.evaluated[step]

    def round_as_saved(self) -> bool:
        """Likewise, and forget what was evaluated before."""
        if rounded := super().round_as_saved():
            self.evaluated.clear()
        return rounded

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Upstream's optimizer; with `loraplus`, B learns faster than A."""
        with explain_refusal("optim"):
            if self.loraplus is None or getattr(self, "optimizer", None) is not None:
                return super().create_optimizer(model)
            self.optimizer = create_loraplus(self, self.loraplus)
            return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Upstream's scheduler."""
        with explain_refusal("lr_scheduler_type"):
            return super().create_scheduler(num_training_steps, optimizer)

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        """Log, evaluate and save what is due, but evaluate a step once: upstream does at its end and at its epoch's."""
        if self.state.global_step in self.evaluated:
            self.control.should_evaluate = False
        elif self.args.load_best_model_at_end and self.state.global_step >= self.state.max_steps:
            self.control.should_evaluate = self.validation is not None  # the last may be the best
        super()._maybe_log_save_evaluate(*args, **kwargs)

    @property
    def lockstep(self) -> bool:
        """Whether a forward or a backward is a collective of all processes, so that they must run equally many."""
        return self.is_fsdp_enabled or self.is_deepspeed_enabled

    @property
    def _validation(self) -> Validation:
        if self.validation is None:
            raise ValueError("this trainer was given no validation questions")
        return self.validation

    def _backward(self, loss: torch.Tensor) -> None:
        deepspeed = self.accelerator.distributed_type == DistributedType.DEEPSPEED
        self.accelerator.backward(loss, **({"scale_wrt_gas": False} if deepspeed else {}))

    def _equalize(self, rows: list[PackedRow]) -> list[PackedRow]:
        """Repeat a row until this process has as many as every other one, where each forward is a collective."""
        return rows + rows[-1:] * max(self._step_rows - len(rows), 0)

    def _get_num_items_in_batch(self, batch_samples: list[StepBatch], device: torch.device) -> torch.Tensor:
        """The supervised tokens of a step, over all processes."""
        (batch,) = batch_samples
        counts = torch.tensor([batch.target_count, len(batch.rows), batch.contrast_count], device=device)
        self._step_contrasts = counts[2].clamp(min=1)
        if self.args.world_size > 1:
            every = self.accelerator.gather(counts[None])
            if self.lockstep:
                self._step_rows = int(every[:, 1].max())
            if self.args.average_tokens_across_devices:
                self._step_contrasts = every[:, 2].sum().clamp(min=1)
                return every[:, 0].sum().clamp(min=1)
        # There is nothing to imitate where the contrast is all of the loss, or where a process is idle.
        return counts[0].clamp(min=1)

    def floating_point_ops(self, inputs: StepBatch) -> float:
        """Six operations a weight and token, forward and backward (Kaplan et al. 2020, section 2.1)."""
        return 6.0 * self._weights * sum(len(row) for row in inputs.rows)

    def _track_num_input_tokens(self, inputs: StepBatch) -> None:
        if self.args.include_num_input_tokens_seen != "no":
            mine = torch.tensor(0 if inputs.idle else sum(len(row) for row in inputs.rows), device=self.args.device)
            self.state.num_input_tokens_seen += int(self.accelerator.gather(mine).sum())
