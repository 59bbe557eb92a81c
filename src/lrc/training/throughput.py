"""Throughput, the share of unique tokens, and peak memory, which are added to the trainer's logs.

Unique tokens are those that are computed: the tokens of packed rows, which have a shared prefix once. Total tokens are
those of the same sequences without packing; the share of unique tokens is unique / total. Time includes the loading of
data, but neither evaluations nor checkpoints.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import Any

import torch
from accelerate.utils import gather_object
from transformers import TrainerCallback

from lrc.runtime.memory import peak_memory
from lrc.training.dataloader import StepBatch

MEGABYTE = 1_000_000


@dataclass
class Work:
    """What was trained, and in how many seconds."""

    questions: int = 0
    unique_tokens: int = 0
    total_tokens: int = 0
    seconds: float = 0.0

    @classmethod
    def total(cls, every: Iterable[Work]) -> Work:
        """The sums of counts and seconds."""
        return cls(*map(sum, zip(*map(astuple, every), strict=True)))

    def figures(self, prefix: str = "") -> dict[str, float]:
        """Questions and unique tokens per second, and the share of unique tokens; empty before the first step."""
        if not self.seconds or not self.total_tokens:
            return {}
        return {
            f"{prefix}questions_per_second": round(self.questions / self.seconds, 4),
            f"{prefix}tokens_per_second": round(self.unique_tokens / self.seconds, 2),
            f"{prefix}unique_token_share": round(self.unique_tokens / self.total_tokens, 4),
        }


class ThroughputCallback(TrainerCallback):
    """Counts the work of this process, and adds up that of all processes for the logs."""

    def __init__(self) -> None:
        self._recent = Work()  # of this process, since the last line of the log
        self._whole = Work()  # of all processes, until that line
        self._since = time.monotonic()

    def count(self, batch: StepBatch) -> None:
        """Count the questions and tokens of a step."""
        if not batch.idle:
            self._recent.questions += batch.questions
            self._recent.unique_tokens += sum(len(row) for row in batch.rows)
            self._recent.total_tokens += sum(len(sequence.inputs) for sequence in batch.sequences)

    def metrics(self, logs: dict[str, Any], device: torch.device) -> dict[str, float]:
        """The figures to add to a line of the log; a collective.

        Args:
            logs: the line so far.
            device: the accelerator of this process.

        Returns:
            For a line with a loss, `questions_per_second`, `tokens_per_second` and `unique_token_share` of all
            processes since the last such line; for the summary, those of the whole training, with the prefix `train_`.
            In both cases also `peak_memory_mb` (a million bytes): the most that any process has taken, on the
            accelerator if it keeps count, otherwise in main memory. For an evaluation, nothing.
        """
        if not {"loss", "train_runtime"} & logs.keys():
            return {}
        every = gather_object([(self._recent, peak_device_memory(device))])
        total = Work.total(work for work, _ in every)
        total.seconds = max(work.seconds for work, _ in every)
        self._whole = Work.total([self._whole, total])
        self._recent = Work()
        figures = total.figures() if "loss" in logs else self._whole.figures("train_")
        return {**figures, "peak_memory_mb": round(max(peak for _, peak in every) / MEGABYTE, 1)}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add the time since the last step, evaluation or checkpoint."""
        now = time.monotonic()
        self._recent.seconds += now - self._since
        self._since = now

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Restart the clock."""
        self._since = time.monotonic()

    on_evaluate = on_save = on_train_begin


def peak_device_memory(device: torch.device) -> int:
    """The most bytes taken so far: on the accelerator if it keeps count, otherwise in main memory."""
    if device.type == "cpu":
        return peak_memory()
    count = getattr(torch.get_device_module(device), "max_memory_allocated", None)
    return int(count(device)) if count else peak_memory()
