"""What ends a run before its last step: a signal, once a checkpoint is saved, or evaluations that get no better."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather
from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from lrc.runtime.progress import say
from lrc.runtime.signals import Request


class Stopping(TrainerCallback):
    """Stops training once `request` has a signal, in all processes after the same step.

    The checkpoint is saved where the epoch loop ends, after what the step itself would have logged, evaluated and
    saved, so that the resumed run misses none of it.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.signal = 0  # what all processes agreed on

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Ask every process whether it has been signalled."""
        self.signal = self.request.signal
        if args.world_size > 1:
            # Signals reach the processes at different moments; all have to stop after the same step.
            self.signal = int(gather(torch.tensor([self.signal], device=args.device)).max())
        if self.signal:
            control.should_training_stop = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save; what belongs to an epoch's end is done where this is one."""
        if not self.signal:
            return
        if state.epoch is None or state.epoch % 1:
            control.should_log = control.should_evaluate = False
        control.should_save = not (Path(args.output_dir or ".") / f"checkpoint-{state.global_step}").is_dir()


class Patience(EarlyStoppingCallback):
    """Upstream's early stopping, which counts on where a run was stopped, and says that it ends one."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take up the count that the checkpoint has."""
        super().on_train_begin(args, state, control, **kwargs)
        saved: Any = state.stateful_callbacks.get(type(self).__name__)
        if saved:
            self.early_stopping_patience_counter = saved["attributes"]["early_stopping_patience_counter"]

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: Any, **kwargs: Any
    ) -> None:
        """Count an evaluation, but for those after the training."""
        if control.should_training_stop or state.global_step >= state.max_steps:
            return
        super().on_evaluate(args, state, control, metrics, **kwargs)
        count = self.early_stopping_patience_counter
        if control.should_training_stop and state.is_world_process_zero:
            say(f"step {state.global_step}: {count} evaluations in a row without improvement; stopping early")


def ended_at(checkpoint: Path) -> int | None:
    """The step after which early stopping had ended the training, by the checkpoint of that step; None elsewhere."""
    state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
    saved: Any = state.stateful_callbacks.get(Patience.__name__)
    if not saved or saved["attributes"]["early_stopping_patience_counter"] < saved["args"]["early_stopping_patience"]:
        return None
    return state.global_step
