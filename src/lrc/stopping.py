"""A run that is asked to stop saves a checkpoint after the step in hand, in all processes at the same step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lrc.signals import Request


class Stopping(TrainerCallback):
    """Stops training once `request` has a signal.

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
