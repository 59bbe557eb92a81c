"""`lrc sweep SWEEP.yaml`: an Optuna study over the keys of a recipe, each trial a training of its own.

The study is kept in a file in the sweep's folder, so that the same command resumes it: finished trials are kept, and an
interrupted one resumes from its last checkpoint.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrc.config.accelerate_config import find_accelerate_config
from lrc.config.run_record import read_run
from lrc.runtime.errors import DataError, LrcError, OutputError, describe_os_error
from lrc.runtime.locks import list_parts, locked
from lrc.runtime.outputs import checksum
from lrc.runtime.progress import notify, track
from lrc.runtime.signals import Request, deferred
from lrc.runtime.translation import _
from lrc.training.sweep import leaderboard as entries
from lrc.training.sweep.leaderboard import RESULTS_FILE, LeaderboardEntry, shorten
from lrc.training.sweep.study import (
    STUDY_FILE,
    ended_trials,
    next_trial,
    open_study,
    record_trial,
    require_optuna,
    trial_of,
)
from lrc.training.sweep.sweep_file import Sweep, read_sweep
from lrc.training.sweep.trial import SweepTrial

if TYPE_CHECKING:
    from optuna import Study


def sweep(path: Path, *, accelerate_config: str | None = None, trials: int | None = None) -> None:
    """Train the missing trials, then print all of them, best first.

    Args:
        path: the SWEEP.yaml.
        accelerate_config: for all trials; None takes one that suits this machine.
        trials: the total number of trials; None takes that of the file.

    Raises:
        LrcError: the file, the folder or the machine cannot be used, or every trial failed.
        SystemExit: a signal stopped it, after the current trial has saved a checkpoint; the status is 128 + the
            signal's number.
    """
    require_optuna()
    plan = read_sweep(path, trials)
    if accelerate_config:
        find_accelerate_config(accelerate_config)
    identity = _identity(plan)
    with _folder(plan.output_dir), deferred(line=_("stopping: the trial in hand saves a checkpoint first")) as request:
        study = open_study(plan, identity)
        found = _train_all(study, plan, accelerate_config, request)
        entries.write(plan.output_dir / RESULTS_FILE, identity, found)
    if request.signal:
        text = _("{folder}: stopped with {count} of {trials} trials; run again to resume from there")
        notify(text.format(folder=plan.output_dir, count=len(found), trials=plan.trials))
        sys.exit(128 + request.signal)
    entries.print_leaderboard(found, str(plan.fixed["model_name_or_path"]))
    if not any(entry.result for entry in found):
        raise LrcError(
            _("{output_dir}: every trial failed; see the reasons above, and sweep into another folder").format(
                output_dir=plan.output_dir
            )
        )


@contextmanager
def _folder(path: Path) -> Iterator[None]:
    """Create the sweep's folder, and lock it in the block.

    Raises:
        OutputError: something else is in it, or another process is using it.
    """
    if path.exists() and not path.is_dir():
        raise OutputError(_("{path}: is not a folder; choose another output_dir").format(path=path))
    strangers = set(path.iterdir()) - set(list_parts(path, RESULTS_FILE)) if path.is_dir() else set()
    if strangers and not (path / STUDY_FILE).is_file():
        raise OutputError(
            _("{path}: holds something that is not an lrc sweep; choose another output_dir").format(path=path)
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
        with locked(path / RESULTS_FILE, output=path):
            yield
    except OSError as error:
        raise OutputError(
            _("{filename}: {reason}").format(filename=error.filename or path, reason=describe_os_error(error))
        ) from error


def _identity(plan: Sweep) -> dict[str, Any]:
    """What must not change for a sweep to be continued; the number of trials may."""
    data = {}
    folded = "fold" in {**plan.fixed, **plan.search}  # then other files are read, which each run checks itself
    for role in ("train_file", "validation_file"):
        if role in plan.fixed and role not in plan.search and not folded:
            try:
                named = plan.fixed[role]
                sums = {file: checksum(Path(file)) for file in ([named] if isinstance(named, str) else named)}
                data[role] = sums[named] if isinstance(named, str) else list(sums.values())
            except OSError as error:
                raise DataError(
                    _("{filename}: {reason}; make it with `lrc convert`, or name another file as {role}").format(
                        filename=error.filename or named, reason=describe_os_error(error), role=role
                    )
                ) from error
    return {"recipe": plan.fixed, "search": plan.written, "seed": plan.seed, "data": data}


def _train_all(study: Study, plan: Sweep, config: str | None, request: Request) -> list[LeaderboardEntry]:
    """Train the missing trials, and return all that have ended."""
    goal = plan.trials if plan.size is None else min(plan.trials, plan.size)
    found = ended_trials(study, plan)
    with track(_("sweep"), goal, "trials", before=min(len(found), goal)) as advance:
        while not request.signal and (trial := next_trial(study, plan, len(found) < goal)) is not None:
            entry = _train_one(trial_of(trial, plan), plan, config, request)
            if request.signal and entry.result is None:
                break
            record_trial(study, trial, entry)
            found = ended_trials(study, plan)
            entries.write(plan.output_dir / RESULTS_FILE, study.user_attrs["sweep"], found)
            advance()
    return found


def _train_one(trial: SweepTrial, plan: Sweep, config: str | None, request: Request) -> LeaderboardEntry:
    values = tuple(f"{key} {shorten(value)}" for key, value in trial.values.items())
    notify(_("trial {number}: {values}; see {log}").format(number=trial.number, values=values, log=trial.log))
    trial.write_recipe(plan.fixed)
    try:
        reason = trial.train(config, request)
        result = None if reason or not _is_finished(trial, request) else trial.result()
    except DataError as error:
        reason, result = error.findings[0].sentence, None
    if reason:
        notify(_("trial {number}: failed: {reason}").format(number=trial.number, reason=reason))
    elif result:
        text = _("trial {number}: accuracy {accuracy:.4f} ({low:.4f} to {high:.4f})")
        bounds = {"low": result.ci_low, "high": result.ci_high}
        notify(text.format(number=trial.number, accuracy=result.accuracy, **bounds))
    return LeaderboardEntry(trial, result, reason)


def _is_finished(trial: SweepTrial, request: Request) -> bool:
    """Whether a trial is finished; after a signal, it may have finished just before."""
    if not request.signal:
        return True
    run = read_run(trial.folder)
    return run is not None and run.finished
