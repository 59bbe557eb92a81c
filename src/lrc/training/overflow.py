"""Counts the steps that a gradient scaler skips because gradients overflow float16.

The scaler (Micikevicius et al. 2018, section 3.2) begins with 2^16 and halves after each such step, so that a few of
them are part of every training in float16. After many in a row it no longer scales up at all, and nothing is learned.
"""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from lrc.runtime.errors import MachineError
from lrc.runtime.translation import _

IN_A_ROW = 30


class OverflowCallback(TrainerCallback):
    """Counts skipped steps for the logs, and stops a training after `IN_A_ROW` consecutive ones."""

    def __init__(self) -> None:
        self._scale = 0.0  # the scaler's, before the latest step
        self._recent = 0  # skipped steps since the last line of the log
        self._consecutive = 0

    def metrics(self, logs: dict[str, Any]) -> dict[str, int]:
        """What to add to a line with a loss, or the last one: `skipped_steps` since the last such line, if any."""
        if not {"loss", "train_runtime"} & logs.keys():
            return {}
        skipped, self._recent = self._recent, 0
        return {"skipped_steps": skipped} if skipped else {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        """Note the scale, which is smaller after a step that overflows."""
        scaler = getattr(optimizer, "scaler", None)
        self._scale = scaler.get_scale() if scaler is not None else 0.0

    def on_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        """Count the step if it was skipped.

        Raises:
            MachineError: it was one too many.
        """
        if self._scale:  # accelerate does not know it of fused optimizers, which skip the step themselves
            skipped = optimizer.scaler.get_scale() < self._scale
        else:  # of DeepSpeed, which has its own scaler
            skipped = bool(getattr(optimizer, "step_was_skipped", False))
        self._recent += skipped
        self._consecutive = self._consecutive + 1 if skipped else 0
        if self._consecutive >= IN_A_ROW:
            raise MachineError(
                _(
                    "step {global_step}: the last {overflows} steps overflowed float16 and changed no "
                    "weight; set fp16: false, or bf16: true where the device has it"
                ).format(global_step=state.global_step + 1, overflows=IN_A_ROW)
            )
