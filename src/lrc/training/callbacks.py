"""What a run tells while it trains: `metrics.jsonl` in its folder, and progress on stderr."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lrc.config.run_record import METRICS_FILE
from lrc.runtime.disk import disk_failures_told
from lrc.runtime.outputs import new_file
from lrc.runtime.progress import Advance, say, track


class History(TrainerCallback):
    """Writes every logged line to `metrics.jsonl` and shows steps and the figures that people wait for."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._advance: Advance | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the progress, and take back the lines of steps that will be done again."""
        if not state.is_world_process_zero:
            return
        _keep_until(_file(args), state.global_step)
        self._advance = self._stack.enter_context(track("train", state.max_steps, "steps", before=state.global_step))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Count a step."""
        if self._advance:
            self._advance()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Keep a line, and say the loss or the accuracy."""
        if not state.is_world_process_zero or logs is None:
            return
        line = {"step": state.global_step, **logs}
        path = _file(args)
        path.parent.mkdir(parents=True, exist_ok=True)
        with disk_failures_told(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
        told = {key: logs[key] for key in ("loss", "eval_loss", "eval_accuracy", "learning_rate") if key in logs}
        if told:
            say(f"step {state.global_step}: " + ", ".join(f"{key} {value:.4g}" for key, value in told.items()))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """End the progress."""
        self._stack.close()


def keep_training(folder: Path) -> None:
    """Keep the lines of a training that has ended; what was concluded from its evaluation will be again."""
    path = folder / METRICS_FILE
    if path.is_file():
        _keep(path, lambda told: "eval_temperature" not in told)


def epoch_at(folder: Path, step: int) -> float | None:
    """The epoch in which a step was logged; None where it was not."""
    path = folder / METRICS_FILE
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    epochs = [told.get("epoch") for told in map(_read, lines) if told.get("step") == step]
    return next(filter(None, epochs), None)


def _read(line: str) -> dict[str, Any]:
    """A line's object; an empty one where a kill has cut it short."""
    try:
        told = json.loads(line)
    except ValueError:
        told = None
    return told if isinstance(told, dict) else {}


def _file(args: TrainingArguments) -> Path:
    return Path(args.output_dir or ".") / METRICS_FILE


def _keep_until(path: Path, step: int) -> None:
    """Keep the lines of the steps that the checkpoint knows, but for the summaries, which will be written again."""
    if path.is_file():
        again = {"train_runtime", "eval_temperature"}
        _keep(path, lambda told: told.get("step", 0) <= step > 0 and not again & told.keys())


def _keep(path: Path, wanted: Callable[[dict[str, Any]], bool]) -> None:
    """Keep the lines that are wanted; one cut short by a kill goes, too."""
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if (told := _read(line)) and wanted(told)]
    with new_file(path, force=True) as file:
        file.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
