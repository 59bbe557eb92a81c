"""One trial of a sweep: its recipe, the process that trains it, and its result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import IO, Any

from lrc.config.run_record import METRICS_FILE
from lrc.metrics.accuracy import accuracy, passages_of
from lrc.metrics.predictions import OUTCOMES_FILE, read_outcomes
from lrc.metrics.training_log import read_curves
from lrc.metrics.verdict import describe_size
from lrc.reporting.summary import best_point
from lrc.runtime.errors import DataError
from lrc.runtime.locks import LOCKS, lock
from lrc.runtime.outputs import new_file
from lrc.runtime.progress import notify
from lrc.runtime.signals import Request
from lrc.runtime.system import SAFE_PATH, WINDOWS
from lrc.runtime.translation import Message, _

_PAUSE = 0.2  # seconds


@dataclass(frozen=True)
class SweepTrial:
    """A trial and its files."""

    number: int
    values: dict[str, Any]  # of the searched keys
    root: Path  # the sweep's folder

    @property
    def folder(self) -> Path:
        """The `output_dir` of its training."""
        return self.root / f"trial-{self.number}"

    @property
    def recipe(self) -> Path:
        """The trial's recipe; `lrc train` with it repeats the trial."""
        return self.root / f"trial-{self.number}.yaml"

    @property
    def log(self) -> Path:
        """The output of the trial's process."""
        return self.root / f"trial-{self.number}.log"

    def write_recipe(self, fixed: dict[str, Any]) -> None:
        """Write the trial's recipe.

        Args:
            fixed: the keys that all trials have in common.
        """
        name = f"{self.root.resolve().name}-{self.folder.name}"
        values = {**fixed, **self.values, "output_dir": str(self.folder), "run_name": name}
        lines = [f"# Trial {self.number} of a sweep; alone: lrc train {self.recipe}"]
        # JSON is YAML, and leaves no doubt about the type of a value.
        lines += [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
        with new_file(self.recipe, force=True) as file:
            file.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def train(self, accelerate_config: str | None, request: Request) -> str | None:
        """Run `lrc train`, which resumes if the trial was interrupted.

        Args:
            accelerate_config: the launch configuration; None is that of `lrc train`.
            request: a signal that arrives is passed on; the training then saves a checkpoint and ends.

        Returns:
            Why it failed, in one line; None if it succeeded, or if a signal was passed on.
        """
        command = [sys.executable, "-m", "lrc", "train", str(self.recipe)]
        command += ["--accelerate-config", accelerate_config] if accelerate_config else []
        # The child inherits the lock of the log, which is released when both processes have ended.
        with self.log.open("ab") as log:
            if not self._take_log(log, request):
                return None
            start = log.seek(0, 2)
            status = _run(command, log, request)
        if status == 0 or request.signal:
            return None
        lines = self.log.read_bytes()[start:].decode(errors="replace").split("\n")
        printed = [line.strip() for line in lines if line.strip()]
        return (
            printed[-1] if status > 0 and printed else _("its process ended with status {status}").format(status=status)
        )

    def result(self) -> TrialResult:
        """Read the result of the training from its folder.

        Raises:
            DataError: it left no accuracy, or its files are damaged.
        """
        curves, outcomes = read_curves(self.folder / METRICS_FILE), read_outcomes(self.folder / OUTCOMES_FILE)
        every = curves["eval_all_accuracy"]
        trained = tuple(point for point in curves["eval_accuracy"] if point.step)
        best = best_point(trained or every or curves["eval_accuracy"])
        if best is None or isnan(best.value) or not outcomes:
            text = _(
                "{folder}: has no accuracy; its validation_file holds no question: name one with labelled questions"
            )
            raise DataError(text.format(folder=self.folder))
        passages = passages_of(one.question for one in outcomes)
        left = accuracy([one.prediction for one in outcomes], [one.answer for one in outcomes], passages)
        return TrialResult(
            accuracy=left["accuracy"],
            ci_low=left["ci_low"],
            ci_high=left["ci_high"],
            n=len(outcomes),
            step=best.step,
            steps=curves.last_step,
            eval_loss=next(
                (curve[-1].value for curve in (curves["eval_all_loss"], curves["eval_loss"]) if curve), None
            ),
            best_accuracy=left["accuracy"] if every else best.value,  # that of a sample compares with no other
            seconds=curves.totals.get("train_runtime"),
            passages=round(left["passages"]),
            n_effective=left["n_effective"],
        )

    def _take_log(self, log: IO[bytes], request: Request) -> bool:
        """Lock the log, after waiting for a training that a killed sweep left running; false if a signal arrived."""
        notified = False
        while not request.signal:
            # Without locks that a child inherits, it cannot be told whether one is running.
            if not LOCKS or lock(log.fileno()) is not False:
                return True
            if not notified:
                text = _("{folder}: a training started earlier is still running; waiting for it to finish")
                notify(text.format(folder=self.folder))
            notified = True
            time.sleep(_PAUSE)
        return False


@dataclass(frozen=True)
class TrialResult:
    """The result of a trial, on the validation questions."""

    accuracy: float  # of the saved model, as `lrc generate` will answer
    ci_low: float  # 95% confidence interval
    ci_high: float
    n: int  # questions
    step: int  # with the best accuracy during training
    steps: int  # of the whole training
    eval_loss: float | None  # the last one
    best_accuracy: float  # at `step`, before the normalisation of scores was chosen
    seconds: float | None  # of training, since the trial was last started or resumed
    passages: int | None = None  # None in a sweep of an earlier version, as is the next
    n_effective: float | None = None  # see `metrics.accuracy.effective_size`

    @property
    def size(self) -> Message:
        """The size of the sample, as it is worded everywhere; of an earlier version's trial, the number of questions.

        Its interval was computed for the effective number of questions all the same.
        """
        n = self.n
        return describe_size({"n": n, "passages": self.passages or n, "n_effective": self.n_effective or n})


def _run(command: Sequence[str], log: IO[bytes], request: Request) -> int:
    """Run a process with its output in `log`, in a process group of its own, so that it gets signals only from here.

    Returns:
        Its exit status.
    """
    alone: dict[str, Any] = {"process_group": 0} if not WINDOWS else {}
    output: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT}
    process = subprocess.Popen(command, env={**os.environ, **SAFE_PATH}, **output, **alone)
    passed_on = False
    while True:
        try:
            return process.wait(_PAUSE)
        except subprocess.TimeoutExpired:
            # On Windows an interrupt has reached the process already, and any signal sent would kill it.
            if request.signal and not passed_on and not WINDOWS:
                process.send_signal(request.signal)
                passed_on = True
