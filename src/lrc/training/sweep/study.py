"""The study behind a sweep: Optuna draws the trials and keeps them in a file of the sweep's folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrc.runtime.errors import MachineError, OutputError
from lrc.runtime.packages import install_extra
from lrc.training.sweep.leaderboard import LeaderboardEntry
from lrc.training.sweep.sweep_file import Range, Sweep
from lrc.training.sweep.trial import SweepTrial, TrialResult

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

STUDY_FILE = "study.jsonl"
_DRAWS = 100  # of a trial that was not there before


def require_optuna() -> None:
    """See that Optuna is there.

    Raises:
        MachineError: it is not.
    """
    try:
        import optuna
    except ImportError as error:
        raise MachineError(f"sweep: optuna is not installed; {install_extra('sweep')}") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # what it would tell of each trial is told here


def open_study(plan: Sweep, identity: dict[str, Any]) -> Study:
    """The study in the sweep's folder, begun where there is none.

    Raises:
        OutputError: it is another sweep's.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    path = plan.output_dir / STUDY_FILE
    _mend(path)
    storage = JournalStorage(JournalFileBackend(str(path)))
    study = optuna.create_study(storage=storage, study_name="sweep", direction="maximize", load_if_exists=True)
    # Through JSON, as the study keeps it: a list is a list.
    wanted, kept = json.loads(json.dumps(identity)), study.user_attrs.get("sweep")
    if kept not in (None, wanted):
        changed = ", ".join(_find_changes(kept, wanted))
        raise OutputError(f"{plan.output_dir}: holds another sweep ({changed}); choose another output_dir")
    study.set_user_attr("sweep", wanted)
    if plan.size is not None and plan.size <= plan.trials:
        for values in plan.combinations():
            study.enqueue_trial({key: _encode(plan, key, value) for key, value in values.items()}, skip_if_exists=True)
    return study


def _mend(path: Path) -> None:
    """Take back what a kill left of the study's last line, and its lock: this process holds the lock of the folder."""
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
    """A trial that was cut off, or else, where `more` are wanted, a new one."""
    import optuna
    from optuna.trial import TrialState

    for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if frozen.params.keys() == plan.search.keys():
            return optuna.trial.Trial(study, frozen._trial_id)
        study.tell(frozen.number, state=TrialState.FAIL)  # killed before it had all of its values
    tried = [standing.trial.values for standing in ended_trials(study, plan)]
    for _ in range(_DRAWS if more else 0):
        # A seed for each, so that a sweep which was cut off draws what it would have drawn.
        study.sampler = optuna.samplers.TPESampler(seed=plan.seed + len(study.get_trials(deepcopy=False)))
        trial = study.ask(_distributions(plan))
        if _decode(plan, trial.params) not in tried:
            return trial
        study.tell(trial, state=TrialState.FAIL)
    return None


def record_trial(study: Study, trial: Trial, standing: LeaderboardEntry) -> None:
    """Keep how a trial ended."""
    from optuna.trial import TrialState

    if standing.result is None:
        trial.set_user_attr("reason", standing.reason)
        study.tell(trial, state=TrialState.FAIL)
    else:
        trial.set_user_attr("result", asdict(standing.result))
        study.tell(trial, standing.result.accuracy)


def ended_trials(study: Study, plan: Sweep) -> list[LeaderboardEntry]:
    """The trials with a result and those that failed; not what was drawn and never trained."""
    found = []
    for trial in study.get_trials(deepcopy=False):
        result, reason = trial.user_attrs.get("result"), trial.user_attrs.get("reason")
        if trial.state.is_finished() and (result or reason):
            found.append(LeaderboardEntry(trial_of(trial, plan), TrialResult(**result) if result else None, reason))
    return found


def trial_of(trial: Trial | FrozenTrial, plan: Sweep) -> SweepTrial:
    """The trial as it is trained."""
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
    """A value as Optuna keeps it: of a list, as JSON, since a choice may itself be a list."""
    return value if isinstance(plan.search[key], Range) else json.dumps(value, ensure_ascii=False)


def _decode(plan: Sweep, params: dict[str, Any]) -> dict[str, Any]:
    """The values of a trial in the order of the file."""
    return {
        key: params[key] if isinstance(spec, Range) else json.loads(params[key]) for key, spec in plan.search.items()
    }
