"""The Optuna study behind a sweep: it draws the trials, and is kept in a file in the sweep's folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrc.runtime.errors import MachineError, OutputError
from lrc.runtime.packages import install_extra
from lrc.runtime.translation import _
from lrc.training.sweep.leaderboard import LeaderboardEntry
from lrc.training.sweep.sweep_file import Range, Sweep
from lrc.training.sweep.trial import SweepTrial, TrialResult

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

STUDY_FILE = "study.jsonl"
_DRAWS = 100  # attempts to draw values that no trial has had


def require_optuna() -> None:
    """Import Optuna.

    Raises:
        MachineError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        text = _("sweep: optuna is not installed; {install_extra}")
        raise MachineError(text.format(install_extra=install_extra("sweep"))) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # lrc reports on the trials itself


def open_study(plan: Sweep, identity: dict[str, Any]) -> Study:
    """Open the study in the sweep's folder, or create it. If all combinations are to be tried, enqueue them.

    Args:
        plan: the sweep.
        identity: what must not change for a sweep to be continued.

    Raises:
        OutputError: the study in the folder belongs to another sweep.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    path = plan.output_dir / STUDY_FILE
    _mend(path)
    lock = JournalFileOpenLock(str(path))  # the default one makes a link, which Windows and some disks do not permit
    storage = JournalStorage(JournalFileBackend(str(path), lock))
    study = optuna.create_study(storage=storage, study_name="sweep", direction="maximize", load_if_exists=True)
    # Through JSON, as in the study, so that tuples compare equal to lists.
    wanted, kept = json.loads(json.dumps(identity)), study.user_attrs.get("sweep")
    if kept not in (None, wanted):
        text = _("{folder}: holds another sweep ({changed}); choose another output_dir")
        raise OutputError(text.format(folder=plan.output_dir, changed=tuple(_find_changes(kept, wanted))))
    study.set_user_attr("sweep", wanted)
    if plan.size is not None and plan.size <= plan.trials:
        for values in plan.combinations():
            study.enqueue_trial({key: _encode(plan, key, value) for key, value in values.items()}, skip_if_exists=True)
    return study


def _mend(path: Path) -> None:
    """Remove an incomplete last line of the study and Optuna's lock, which a kill left: the folder's lock is held."""
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    if path.is_file():
        whole = path.read_bytes().rpartition(b"\n")
        if whole[2]:
            with path.open("r+b") as file:
                file.truncate(len(whole[0]) + len(whole[1]))


def _find_changes(kept: dict[str, Any], wanted: dict[str, Any]) -> Iterator[str]:
    for part in wanted:
        if isinstance(wanted[part], dict):
            keys = sorted(kept[part].keys() | wanted[part].keys())
            yield from (f"{part} {key}" for key in keys if kept[part].get(key) != wanted[part].get(key))
        elif kept[part] != wanted[part]:
            yield part


def next_trial(study: Study, plan: Sweep, more: bool) -> Trial | None:
    """The next trial: one that was interrupted, otherwise a new one if `more` is true; None if there is none."""
    import optuna
    from optuna.trial import TrialState

    for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if frozen.params.keys() == plan.search.keys():
            return optuna.trial.Trial(study, frozen._trial_id)
        study.tell(frozen.number, state=TrialState.FAIL)  # killed while its values were drawn
    tried = [entry.trial.values for entry in ended_trials(study, plan)]
    for _draw in range(_DRAWS if more else 0):
        # Seeded anew for each trial, so that an interrupted sweep draws what it would have drawn.
        study.sampler = optuna.samplers.TPESampler(seed=plan.seed + len(study.get_trials(deepcopy=False)))
        trial = study.ask(_distributions(plan))
        if _decode(plan, trial.params) not in tried:
            return trial
        study.tell(trial, state=TrialState.FAIL)
    return None


def record_trial(study: Study, trial: Trial, entry: LeaderboardEntry) -> None:
    """Record in the study how a trial ended."""
    from optuna.trial import TrialState

    if entry.result is None:
        trial.set_user_attr("reason", entry.reason)
        study.tell(trial, state=TrialState.FAIL)
    else:
        trial.set_user_attr("result", asdict(entry.result))
        study.tell(trial, entry.result.accuracy)


def ended_trials(study: Study, plan: Sweep) -> list[LeaderboardEntry]:
    """The trials that have a result or failed in training; not those that were drawn and never trained."""
    found = []
    for trial in study.get_trials(deepcopy=False):
        result, reason = trial.user_attrs.get("result"), trial.user_attrs.get("reason")
        if trial.state.is_finished() and (result or reason):
            found.append(LeaderboardEntry(trial_of(trial, plan), TrialResult(**result) if result else None, reason))
    return found


def trial_of(trial: Trial | FrozenTrial, plan: Sweep) -> SweepTrial:
    """The trial that an Optuna trial stands for."""
    return SweepTrial(trial.number, _decode(plan, trial.params), plan.output_dir)


def _distributions(plan: Sweep) -> dict[str, BaseDistribution]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    made: dict[str, BaseDistribution] = {}
    for key, spec in plan.search.items():
        if not isinstance(spec, Range):
            made[key] = CategoricalDistribution([_encode(plan, key, value) for value in spec])
        elif spec.whole:
            made[key] = IntDistribution(int(spec.low), int(spec.high), log=spec.log, step=int(spec.step or 1))
        else:
            made[key] = FloatDistribution(spec.low, spec.high, log=spec.log, step=spec.step)
    return made


def _encode(plan: Sweep, key: str, value: Any) -> Any:
    """A value as Optuna keeps it: choices as JSON, since Optuna takes only scalars and a choice may be a list."""
    return value if isinstance(plan.search[key], Range) else json.dumps(value, ensure_ascii=False)


def _decode(plan: Sweep, params: dict[str, Any]) -> dict[str, Any]:
    """A trial's values, in the order of the sweep file."""
    return {
        key: params[key] if isinstance(spec, Range) else json.loads(params[key]) for key, spec in plan.search.items()
    }
