"""The SFTTrainer subclass that trains on packed trees.

One optimizer step is one batch of questions (`dataloader.StepBatch`), run row by row. Its loss is the sum over
supervised tokens divided by their number in the whole step and all processes, so that loss and gradients are those of
separate samples with the same batch size and accumulation, whatever rows the questions fill. With `option_contrast`, a
part of the loss is the mean over the step's questions of the loss over options (`contrastive_loss`).
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
from lrc.config.optimizers import WITHOUT_WARMUP
from lrc.config.run_record import METRICS_FILE
from lrc.data.questions import Question
from lrc.metrics.option_scores import OptionScores
from lrc.metrics.training_log import read_curves
from lrc.models.lora_dropout import recompute_dropout
from lrc.models.master_weights import restore_modules_to_save, to_float32, use_float32_gradients
from lrc.packing.attention import choose_attention, why_no_trees
from lrc.packing.last_layer import prune_last_layer
from lrc.packing.log_probs import row_budget, target_log_probs
from lrc.packing.tree import PackedRow, TokenSequence
from lrc.runtime.progress import notify, track
from lrc.runtime.translation import _
from lrc.training.base_trainer import HALVES, DurableTrainer, local_part
from lrc.training.contrastive_loss import Objective, OptionContrast
from lrc.training.dataloader import SampleKey, Sampling, StepBatch, StepLoader, StepSampler
from lrc.training.freed_memory import return_memory_by_layer
from lrc.training.neftune import NeftuneNoise
from lrc.training.optimizer import LoraPlus, create_loraplus, explain_refusal
from lrc.training.overflow import OverflowCallback
from lrc.training.throughput import ThroughputCallback
from lrc.training.validation import InLockstep, Validation, combine

ALL = "eval_all"  # the prefix of the metrics of all validation questions, where others are of a sample


@dataclass(frozen=True)
class Packing:
    """How sequences are packed into rows, and how attention over a row is computed.

    Args:
        trees: false gives every sequence a row of its own.
        row_tokens: token budget of a row; None chooses one for the device.
        attention: auto, flex, block or dense; see `attention.choose_attention`.
    """

    trees: bool = True
    row_tokens: int | None = None
    attention: str = "auto"


class TreeTrainer(DurableTrainer):
    """An SFTTrainer for packed trees; see the module's docstring.

    Args:
        args: an SFTConfig, which is changed: accumulation becomes part of the batch size.
        train_dataset: columns `id` and `passage`, one row for each question.
        source: returns the sequences of one question in one epoch: the supervised ones, then the compared options.
        validation: the questions to evaluate on; None evaluates nothing.
        sampling: how the questions of a step are drawn.
        packing: how their sequences are packed.
        objective: what the loss consists of.
        loraplus: learning rates of LoRA+; None is plain LoRA.
        kwargs: further arguments of SFTTrainer.

    Raises:
        ValueError: the model cannot be packed, and the objective needs packing; or `attention` is not available.
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
        _adapt(args)
        super().__init__(
            args=args,
            train_dataset=train_dataset,
            eval_dataset=train_dataset if validation else None,  # not read: `evaluation_loop` has its own questions
            data_collator=lambda batch: batch,
            **kwargs,
        )
        if self.is_deepspeed_enabled:
            configured = self.accelerator.state.deepspeed_plugin.deepspeed_config
            use_small_buckets(configured)
            use_float32_gradients(configured)
        self.remove_callback(PrinterCallback)
        self.throughput, self.overflow = ThroughputCallback(), OverflowCallback()
        for callback in (self.throughput, self.overflow):
            self.add_callback(callback)
        restore_modules_to_save(self.model)
        self.compute_dtype = to_float32(self.model)
        # Offloading leaves on the GPU what several layers keep; the compiler decides itself what to compute again.
        if not (self.args.activation_offloading or self.args.torch_compile):
            recompute_dropout(self.model)
        if self.args.device.type == "cpu" and not self.args.torch_compile:
            return_memory_by_layer(self.model)
        self.neftune_noise_alpha = None  # upstream's hook would take a row for one sample
        self.noise = NeftuneNoise(self.model, args.neftune_noise_alpha) if args.neftune_noise_alpha else None
        reason = why_no_trees(self.model) if packing.trees else _("tree_packing is false")
        self.share = reason is None
        if reason and self.is_world_process_zero():
            notify(_("each question is a row of its own: {reason}").format(reason=reason))
        if reason and objective.option_contrast:
            text = _("option_contrast compares the options in one packed row, but {reason}; set it to 0")
            raise ValueError(text.format(reason=reason))
        mixed = HALVES.get(self.accelerator.mixed_precision, self.compute_dtype)
        choose_attention(self.model, packing.attention, self.args.device, mixed)
        not_pruned = prune_last_layer(self.model)
        if not_pruned and self.is_world_process_zero():
            notify(not_pruned)
        self.row_tokens = row_budget(self.args.device, packing.row_tokens, training=True)
        self._evaluation_row_tokens = row_budget(self.args.device, packing.row_tokens)
        self.evaluated: dict[int, list[tuple[Question, OptionScores]]] = {}  # the results of evaluation, by step
        self._evaluates_all = False  # rather than the sample; set after the training
        self._step_rows = 0  # the most rows that a process has in this step
        self._step_contrasts: torch.Tensor | int = 1  # questions with compared options in this step
        # As upstream counts them: of 4-bit weights, two or more are packed into one value.
        self._weights = self.model.num_parameters(exclude_embeddings=True)

    def get_train_dataloader(self) -> DataLoader:
        """The batches of this process. They are not sharded by accelerate, which knows nothing of questions."""
        args, size = self.args, self.args.per_device_train_batch_size
        passages = self.train_dataset["passage"][:]
        sampler = StepSampler.of(args, passages, size, args.process_index, args.world_size, self.sampling)
        return StepLoader(
            self.source, sampler, self.row_tokens, share=self.share, num_workers=args.dataloader_num_workers
        )

    def compute_loss_context_manager(self) -> contextlib.ExitStack:
        """Upstream's context, and autocast to the dtype of a 16-bit base whose trained weights are in float32.

        With mixed precision, accelerate adds autocast to the model when training begins, so that a model that is only
        evaluated needs it here.
        """
        stack = super().compute_loss_context_manager()
        mixed, dtype = self.accelerator.mixed_precision, self.compute_dtype
        if mixed != "no":
            dtype = None if self.accelerator._models else HALVES.get(mixed)
        if dtype is not None:
            stack.enter_context(torch.autocast(self.args.device.type, dtype=dtype))
        return stack

    def run_step(
        self, model: torch.nn.Module, inputs: StepBatch, num_items_in_batch: torch.Tensor | int | None
    ) -> torch.Tensor:
        """Run forward and backward of one step, row by row; gradients are synchronized with the last row only."""
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
                if last and self.is_deepspeed_enabled:  # its last backward updates the weights, too
                    self._require_finite(total.isfinite(), "loss")
                self._backward(loss)
        self.throughput.count(inputs)
        return total

    def step_ids(self) -> list[str]:
        """The ids of the questions that this process has in the current step."""
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
        """One row's part of the loss of its step.

        Args:
            model: the model, as it was wrapped for training.
            inputs: the row.
            return_outputs: return (loss, (T,) log-probabilities of the row's targets).
            num_items_in_batch: the number of supervised tokens in the step; None normalizes by those of the row.
            contrast: the row's options to compare, if any.

        Returns:
            A scalar: the negative log-likelihood of supervised tokens over their number in the step, weighted with
            1 - `option_contrast`, plus the loss over options divided by their questions in the step, weighted with
            `option_contrast`.
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
            loss = loss * self.accelerator.num_processes  # DDP will average over processes
        return (loss, log_probs) if return_outputs else loss

    def log(self, logs: dict[str, Any], start_time: float | None = None) -> None:
        """Log what upstream does, with throughput, peak memory, and steps that overflowed float16."""
        for name in ("train_samples_per_second", "train_steps_per_second"):
            logs.pop(name, None)  # their time includes evaluations and checkpoints
        logs |= self.throughput.metrics(logs, self.args.device) | self.overflow.metrics(logs)
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
        """Compute loss and accuracy on the validation questions, in one pass of the scorer that `lrc generate` uses.

        The loss is that of the objective, as in `compute_loss`; see `validation.combine`.
        """
        validation = self._validation
        self.model.eval()
        if hasattr(self.optimizer, "eval"):  # of schedule-free optimizers
            self.optimizer.eval()
        asked = np.arange(len(validation.records)) if self._evaluates_all else np.array(validation.sampled)
        places = np.array_split(asked, self.args.world_size)[self.args.process_index]
        pace = InLockstep(self.model, self._everywhere) if self.lockstep else contextlib.nullcontext()
        with self.compute_loss_context_manager(), track(_("evaluate"), len(places)) as advance, pace:
            budget = self._evaluation_row_tokens
            mine = validation.evaluate(places.tolist(), self.model, self.args.device, budget, advance)
        tallies = gather_object([mine])
        kept = (self.state.best_global_step, self.state.global_step)
        self.evaluated = {step: scores for step, scores in self.evaluated.items() if step in kept}
        self.evaluated[self.state.global_step] = [pair for tally in tallies for pair in tally.scores]
        metrics = combine(tallies, metric_key_prefix, self.objective)
        return EvalLoopOutput(None, None, metrics, num_samples=len(asked))

    def final_scores(self) -> list[tuple[Question, OptionScores]]:
        """The trained model's scores of all validation questions; empty without validation.

        They are evaluated unless this was done at the last step, and logged unless the log has that step already. After
        a training that evaluated a sample, the figures of all are logged as `eval_all_…`, since they are of others.
        """
        step = self.state.global_step
        if self.validation is None:
            return []
        if len(self.validation.sampled) < len(self.validation.records):
            self._evaluates_all = True
            self.evaluate(metric_key_prefix=ALL)
        elif step not in self.evaluated:
            known = read_curves(Path(self.args.output_dir) / METRICS_FILE)["eval_loss"]
            if any(point.step == step for point in known):
                self.evaluation_loop(self.get_eval_dataloader(), "Evaluation")
            else:
                self.evaluate()
        return self.evaluated[step]

    def round_as_saved(self) -> None:
        """Round the trained weights as `save_model` did: a fully fine-tuned model is saved in the dtype of its base."""
        if self.compute_dtype is None or hasattr(self.model, "peft_config"):
            return
        with torch.no_grad():
            for part in (local_part(parameter) for parameter in self.model.parameters() if parameter.requires_grad):
                part.copy_(part.to(self.compute_dtype))
        self.evaluated.clear()  # earlier evaluations no longer hold

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Create upstream's optimizer, or that of LoRA+.

        Raises:
            RecipeError: `optim` or its arguments are wrong, or need a package that is missing.
        """
        with explain_refusal("optim"):
            if self.loraplus is None or getattr(self, "optimizer", None) is not None:
                return super().create_optimizer(model)
            self.optimizer = create_loraplus(self, self.loraplus)
            return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Create upstream's scheduler, and say so if its warmup is longer than the run.

        Raises:
            RecipeError: `lr_scheduler_type` or its arguments are wrong.
        """
        warmup, kind = self.args.get_warmup_steps(num_training_steps), self.args.lr_scheduler_type
        if warmup >= num_training_steps and kind not in WITHOUT_WARMUP and self.is_world_process_zero():
            text = _("warmup_steps: the warmup has {warmup} steps, and the run {steps}; learning_rate is never reached")
            notify(text.format(warmup=warmup, steps=num_training_steps))
        with explain_refusal("lr_scheduler_type"):
            return super().create_scheduler(num_training_steps, optimizer)

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        """Do what is due, but evaluate a step only once: upstream may do so after the step and after its epoch."""
        if self.state.global_step in self.evaluated:
            self.control.should_evaluate = False
        elif self.args.load_best_model_at_end and self.state.global_step >= self.state.max_steps:
            self.control.should_evaluate = self.validation is not None  # the last step may be the best
        super()._maybe_log_save_evaluate(*args, **kwargs)

    @property
    def _validation(self) -> Validation:
        if self.validation is None:
            raise ValueError("this trainer was given no validation questions")
        return self.validation

    def _backward(self, loss: torch.Tensor) -> None:
        deepspeed = self.accelerator.distributed_type == DistributedType.DEEPSPEED
        self.accelerator.backward(loss, **({"scale_wrt_gas": False} if deepspeed else {}))

    def _equalize(self, rows: list[PackedRow]) -> list[PackedRow]:
        """Repeat the last row until this process has as many as any other, if forwards are collectives."""
        return rows + rows[-1:] * max(self._step_rows - len(rows), 0)

    def _get_num_items_in_batch(self, batch_samples: list[StepBatch], device: torch.device) -> torch.Tensor:
        """A scalar, at least 1: the step's supervised tokens, summed over processes if averaged across devices."""
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
        # There may be none: if `option_contrast` is 1, or the process is idle.
        return counts[0].clamp(min=1)

    def floating_point_ops(self, inputs: StepBatch) -> float:
        """Six operations per weight (without embeddings) and token (Kaplan et al. 2020, section 2.1)."""
        return 6.0 * self._weights * sum(len(row) for row in inputs.rows)

    def _track_num_input_tokens(self, inputs: StepBatch) -> None:
        if self.args.include_num_input_tokens_seen != "no":
            mine = torch.tensor(0 if inputs.idle else sum(len(row) for row in inputs.rows), device=self.args.device)
            self.state.num_input_tokens_seen += int(self.accelerator.gather(mine).sum())


def _adapt(args: Any) -> None:
    """Change an SFTConfig to what this trainer needs."""
    # Rows replace micro-batches: for the upstream loop, a step is one batch with all of its questions.
    args.per_device_train_batch_size *= args.gradient_accumulation_steps
    args.gradient_accumulation_steps = 1
    args.dataset_kwargs = {**(args.dataset_kwargs or {}), "skip_prepare_dataset": True}
    args.router_aux_loss_coef = 0.0  # upstream would have a mixture of experts balance tokens, not trees
    args.disable_tqdm = True  # `callbacks.MetricsCallback` shows the progress
    args.logging_nan_inf_filter = False  # would log an earlier loss in place of NaN
    if args.ddp_broadcast_buffers is None:
        # A broadcast in each forward would hang: processes may have different numbers of rows.
        args.ddp_broadcast_buffers = False
    if args.ddp_find_unused_parameters is None:
        args.ddp_find_unused_parameters = False
