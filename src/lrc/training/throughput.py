"""How fast a run trains, how much of its tokens is shared, and the memory that it takes; told with every logged line.

Tokens are counted as they are computed: those of packed rows, in which a shared prefix is there once (unique tokens).
The same sequences by themselves would have the total of their own tokens; the share of unique tokens is unique / total.
Time is that of steps with their loading, without evaluation and checkpoints between them.
"""

from __future__ import annotations

import time
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
    """What was trained, and in what time."""

    questions: int = 0
    unique_tokens: int = 0
    total_tokens: int = 0
    seconds: float = 0.0

    def add(self, other: Work) -> None:
        """Count the other's work as done here after this."""
        mine, others = astuple(self), astuple(other)
        self.questions, self.unique_tokens, self.total_tokens, self.seconds = (
            one + more for one, more in zip(mine, others, strict=True)
        )

    def figures(self, prefix: str = "") -> dict[str, float]:
        """Questions and unique tokens a second, and the share of unique tokens; nothing before the first step."""
        if not self.seconds or not self.total_tokens:
            return {}
        return {
            f"{prefix}questions_per_second": round(self.questions / self.seconds, 4),
            f"{prefix}tokens_per_second": round(self.unique_tokens / self.seconds, 2),
            f"{prefix}unique_token_share": round(self.unique_tokens / self.total_tokens, 4),
        }


class ThroughputCallback(TrainerCallback):
    """Counts the steps of this process, and adds up those of all."""

    def __init__(self) -> None:
        self._lately, self._whole = Work(), Work()  # since the last line, of this process; until then, of all
        self._since = time.monotonic()

    def count(self, batch: StepBatch) -> None:
        """Count the tokens of a step."""
        if not batch.idle:
            self._lately.questions += batch.questions
            self._lately.unique_tokens += sum(len(row) for row in batch.rows)
            self._lately.total_tokens += sum(len(sequence.inputs) for sequence in batch.sequences)

    def metrics(self, logs: dict[str, Any], device: torch.device) -> dict[str, float]:
        """The figures to add to a line of the log; all processes ask together.

        Returns:
            `questions_per_second`, `tokens_per_second` and `unique_token_share` since the last such line, over all
            processes, beside a loss; with the prefix `train_` those of the whole training, beside its summary; and
            `peak_memory_mb` (MB of a million bytes): the most that any process took so far, of its device where that
            keeps count, otherwise of the machine's memory. Nothing beside an evaluation.
        """
        if not {"loss", "train_runtime"} & logs.keys():
            return {}
        every = gather_object([(self._lately, peak_device_memory(device))])
        lately = Work()
        for work, _ in every:
            lately.add(work)
        lately.seconds = max(work.seconds for work, _ in every)
        self._whole.add(lately)
        self._lately = Work()
        figures = lately.figures() if "loss" in logs else self._whole.figures("train_")
        return {**figures, "peak_memory_mb": round(max(peak for _, peak in every) / MEGABYTE, 1)}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count the time since the last step, or since what came between the two."""
        now = time.monotonic()
        self._lately.seconds += now - self._since
        self._since = now

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin to count the time."""
        self._since = time.monotonic()

    on_evaluate = on_save = on_train_begin


def peak_device_memory(device: torch.device) -> int:
    """The most bytes taken so far: of an accelerator where it keeps count, otherwise of the machine's memory."""
    if device.type == "cpu":
        return peak_memory()
    count = getattr(torch.get_device_module(device), "max_memory_allocated", None)
    return int(count(device)) if count else peak_memory()
