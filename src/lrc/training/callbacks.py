"""Callbacks: `metrics.jsonl` and progress, the check for disk space, stopping on a signal, and early stopping."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather
from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import SaveStrategy

from lrc.config.run_record import METRICS_FILE
from lrc.models.fingerprint import TOKENIZER_FILES
from lrc.runtime.disk import convert_disk_errors
from lrc.runtime.errors import MachineError
from lrc.runtime.memory import format_size
from lrc.runtime.outputs import new_file
from lrc.runtime.progress import Advance, notify, track
from lrc.runtime.signals import Request
from lrc.runtime.translation import _
from lrc.training.checkpoint import checkpoints
from lrc.training.optimizer import optimizer_bytes


class MetricsCallback(TrainerCallback):
    """Writes all logs to `metrics.jsonl`, and shows the progress, the loss and the accuracy."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._advance: Advance | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the progress bar, and remove the lines of steps that will be done again."""
        if not state.is_world_process_zero:
            return
        _keep_until(_file(args), state.global_step)
        self._advance = self._stack.enter_context(track(_("train"), state.max_steps, "steps", before=state.global_step))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Advance the progress bar."""
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
        """Append a line to the file, and print loss and accuracy."""
        if not state.is_world_process_zero or logs is None:
            return
        line = {"step": state.global_step, **logs}
        path = _file(args)
        path.parent.mkdir(parents=True, exist_ok=True)
        with convert_disk_errors(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
        entry = {key: logs[key] for key in ("loss", "eval_loss", "eval_accuracy", "learning_rate") if key in logs}
        if entry:
            values = tuple(f"{key} {value:.4g}" for key, value in entry.items())
            notify(_("step {step}: {values}").format(step=state.global_step, values=values))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the progress bar."""
        self._stack.close()


def keep_training(folder: Path) -> None:
    """Keep the lines of a finished training, except the calibration at its end, which will be logged again."""
    path = folder / METRICS_FILE
    if path.is_file():
        _keep(path, lambda entry: "eval_temperature" not in entry)


def epoch_at(folder: Path, step: int) -> float | None:
    """The (fractional) epoch that was logged with a step; None if the step was not logged."""
    path = folder / METRICS_FILE
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    epochs = [entry.get("epoch") for entry in map(_read, lines) if entry.get("step") == step]
    return next(filter(None, epochs), None)


def _read(line: str) -> dict[str, Any]:
    """The object of a line; an empty one if a kill cut the line short."""
    try:
        entry = json.loads(line)
    except ValueError:
        entry = None
    return entry if isinstance(entry, dict) else {}


def _file(args: TrainingArguments) -> Path:
    return Path(args.output_dir or ".") / METRICS_FILE


def _keep_until(path: Path, step: int) -> None:
    """Keep the lines up to the checkpoint's step, except the summaries at the end, which will be written again."""
    if path.is_file():
        again = {"train_runtime", "eval_temperature"}
        _keep(path, lambda entry: entry.get("step", 0) <= step > 0 and not again & entry.keys())


def _keep(path: Path, wanted: Callable[[dict[str, Any]], bool]) -> None:
    """Rewrite the file with the wanted lines only; a line that a kill cut short is dropped, too."""
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if (entry := _read(line)) and wanted(entry)]
    with new_file(path, force=True) as file:
        file.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


class DiskSpaceCallback(TrainerCallback):
    """Refuses a run before its first step if the disk is too small for its checkpoints and the result."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Compare the space needed with the space free.

        Raises:
            MachineError: too little is free.
        """
        folder = Path(args.output_dir or ".")
        tokenizer = _tokenizer_bytes(kwargs.get("processing_class"))
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        adapter = sum(parameter.numel() * parameter.element_size() for parameter in trained) + tokenizer
        weights = sum(parameter.numel() for parameter in trained)
        one = adapter + weights * optimizer_bytes(getattr(args.optim, "value", args.optim))
        count = _checkpoints_to_come(args, state, len(checkpoints(folder)))
        need, free = count * one + adapter, shutil.disk_usage(folder).free
        if need > free:
            raise MachineError(
                _(
                    "{folder}: {count} checkpoints of {one} and the adapter need {need}, {free} is free; "
                    "free some, set save_total_limit, or raise save_steps"
                ).format(
                    folder=folder, count=count, one=format_size(one), need=format_size(need), free=format_size(free)
                )
            )


def _checkpoints_to_come(args: TrainingArguments, state: TrainerState, existing: int) -> int:
    """How many more checkpoints will exist at once; one more than `save_total_limit` while the next is written."""
    if args.save_strategy == SaveStrategy.NO:
        return 0
    by_steps = args.save_strategy == SaveStrategy.STEPS
    # The epochs are those of the state: with `max_steps`, the arguments have others.
    interval = state.save_steps if by_steps else state.max_steps / state.num_train_epochs
    count = math.ceil((state.max_steps - state.global_step) / max(interval, 1))
    if not args.save_total_limit:
        return count
    kept = max(args.save_total_limit, 2 if args.metric_for_best_model else 1)  # the newest and the best
    return min(count, max(kept + 1 - existing, 1))


def _tokenizer_bytes(tokenizer: Any) -> int:
    folder = Path(str(getattr(tokenizer, "name_or_path", None) or ""))
    return sum((folder / name).stat().st_size for name in TOKENIZER_FILES if (folder / name).is_file())


class StopOnSignalCallback(TrainerCallback):
    """Stops the training once `request` has a signal, in all processes after the same step.

    The checkpoint is saved after the epoch loop, when whatever was due after the step has been logged, evaluated and
    saved, so that the resumed run misses nothing.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.signal = 0  # the number that all processes agreed on; 0 is none

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Ask all processes whether one has received a signal."""
        self.signal = self.request.signal
        if args.world_size > 1:
            # Signals reach the processes at different moments; all have to stop after the same step.
            self.signal = int(gather(torch.tensor([self.signal], device=args.device)).max())
        if self.signal:
            control.should_training_stop = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save a checkpoint; log and evaluate only if the epoch is really over."""
        if not self.signal:
            return
        if state.epoch is None or state.epoch % 1:
            control.should_log = control.should_evaluate = False
        control.should_save = not (Path(args.output_dir or ".") / f"checkpoint-{state.global_step}").is_dir()


class Patience(EarlyStoppingCallback):
    """Upstream's early stopping, which keeps its count when a run is resumed, and says when it stops one.

    Checkpoints hold the count under the name of this class.
    """

    _trained = False  # whether the training has ended

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Restore the count from the checkpoint."""
        super().on_train_begin(args, state, control, **kwargs)
        saved: Any = state.stateful_callbacks.get(type(self).__name__)
        if saved:
            self.early_stopping_patience_counter = saved["attributes"]["early_stopping_patience_counter"]

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: Any, **kwargs: Any
    ) -> None:
        """Count an evaluation, unless it comes after the training."""
        # After a signal, the evaluation that was due in this step counts, since a resumed run does not repeat it.
        if self._trained or state.global_step >= state.max_steps:
            return
        super().on_evaluate(args, state, control, metrics, **kwargs)
        count = self.early_stopping_patience_counter
        if count >= self.early_stopping_patience and state.is_world_process_zero:
            text = _("step {step}: {count} evaluations in a row without improvement; stopping early")
            notify(text.format(step=state.global_step, count=count))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Count no evaluation from here on."""
        self._trained = True


def early_stopping_step(checkpoint: Path) -> int | None:
    """The step of a checkpoint if early stopping ended the training there; otherwise None."""
    state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
    saved: Any = state.stateful_callbacks.get(Patience.__name__)
    if not saved or saved["attributes"]["early_stopping_patience_counter"] < saved["args"]["early_stopping_patience"]:
        return None
    return state.global_step
