"""The ranking of a sweep's trials: a table, `sweep.json`, and a test of whether the best one is best by chance."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lrc.metrics.accuracy import CONFIDENCE, compare_paired, passages_of
from lrc.metrics.predictions import OUTCOMES_FILE, read_outcomes
from lrc.reporting.summary import duration
from lrc.runtime.errors import DataError
from lrc.runtime.outputs import new_file
from lrc.training.sweep.trial import SweepTrial, TrialResult

RESULTS_FILE = "sweep.json"


@dataclass(frozen=True)
class LeaderboardEntry:
    """A trial that has ended, with its result or the reason why it failed."""

    trial: SweepTrial
    result: TrialResult | None
    reason: str | None = None


def rank(entries: Sequence[LeaderboardEntry]) -> list[LeaderboardEntry]:
    """Sort by accuracy, best first; then by lower loss, then by number. Failed trials come last."""

    def order(entry: LeaderboardEntry) -> tuple[float, float, int]:
        result = entry.result
        if result is None:
            return (1.0, 0.0, entry.trial.number)
        loss = float("inf") if result.eval_loss is None else result.eval_loss
        return (-result.accuracy, loss, entry.trial.number)

    return sorted(entries, key=order)


def compare_best(entries: Sequence[LeaderboardEntry]) -> dict[str, Any] | None:
    """Test the two best trials against each other on the same questions, with the models that they saved.

    Args:
        entries: sorted by `rank`.

    Returns:
        The numbers of the trials (`best`, `second`), `n` questions, and what `metrics.accuracy.compare_paired` returns;
        None if there are no two trials with answers to the same questions.
    """
    pair = [entry.trial for entry in entries if entry.result][:2]
    if len(pair) < 2:
        return None
    try:
        one, two = (read_outcomes(trial.folder / OUTCOMES_FILE) for trial in pair)
    except DataError:
        return None
    if not one or [outcome.question for outcome in one] != [outcome.question for outcome in two]:
        return None
    first, second = ([outcome.prediction for outcome in some] for some in (one, two))
    passages = passages_of(outcome.question for outcome in one)
    test = compare_paired(first, second, [outcome.answer for outcome in one], passages)
    numbers = {"best": pair[0].number, "second": pair[1].number, "n": len(one)}
    return {**numbers, **test}


def write(path: Path, sweep: dict[str, Any], entries: Sequence[LeaderboardEntry]) -> None:
    """Write `sweep.json`: the sweep, its trials, best first, and the test of the two best.

    Args:
        path: where to write it.
        sweep: what the sweep is.
        entries: the trials, in any order.
    """
    best_first = rank(entries)
    trials = [
        {
            "trial": entry.trial.number,
            "folder": str(entry.trial.folder),
            "values": entry.trial.values,
            **(asdict(entry.result) if entry.result else {"failed": entry.reason}),
        }
        for entry in best_first
    ]
    document = {"sweep": sweep, "trials": trials, "paired": compare_best(best_first)}
    with new_file(path, force=True) as file:
        file.write_text(json.dumps(document, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def print_leaderboard(entries: Sequence[LeaderboardEntry], base: str) -> None:
    """Print the table, best trial first, and conclusions, on stdout.

    Args:
        entries: the trials, in any order; at least one.
        base: the base model of the trials.
    """
    best_first = rank(entries)
    _print_table(best_first)
    print(*_conclude(best_first, base), sep="\n")


def _print_table(entries: Sequence[LeaderboardEntry]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("trial", "accuracy", "95% interval", "best step", "time", *entries[0].trial.values)
    for entry in entries:
        values = [_short(value) for value in entry.trial.values.values()]
        table.add_row(*(Text(cell) for cell in (str(entry.trial.number), *_cells(entry.result), *values)))
    # A pipe has no width: rich would take 80 columns and wrap the cells.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _cells(result: TrialResult | None) -> tuple[str, str, str, str]:
    if result is None:
        return "failed", "", "", ""
    time = "" if result.seconds is None else duration(result.seconds)
    interval = f"{result.ci_low:.4f} to {result.ci_high:.4f}"
    return f"{result.accuracy:.4f}", interval, f"{result.step} of {result.steps}", time


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _conclude(entries: Sequence[LeaderboardEntry], base: str) -> list[str]:
    lines = [f"trial {one.trial.number} failed: {one.reason}" for one in entries if one.result is None]
    best = entries[0]
    if best.result is None:
        return lines
    lines.append(_verdict(entries))
    results = sum(entry.result is not None for entry in entries)
    if results > 1:
        lines.append(
            f"the best of {results} on the same questions is partly luck: run `lrc evaluate` on questions that "
            "chose no trial to see its real accuracy"
        )
    for one in entries:
        if one.result and one.result.best_accuracy > best.result.accuracy:
            lines.append(
                f"trial {one.trial.number} had {one.result.best_accuracy:.4f} at step {one.result.step}, and left "
                f"{one.result.accuracy:.4f} (load_best_model_at_end: true keeps the best)"
            )
    lines.append(
        f"next: lrc generate --model {base} --adapter {best.trial.folder} --data TEST.xlsx --output answer.csv"
    )
    return lines


def _verdict(entries: Sequence[LeaderboardEntry]) -> str:
    name, test = f"trial {entries[0].trial.number} is best", compare_best(entries)
    if test is None:
        return f"{name}; no other trial has answered the same questions"
    evidence = (
        f"only one right {test['first_only']} to {test['second_only']} of {test['n']}, "
        f"permuted by passage p = {test['p_value']:.4f}"
    )
    if test["p_value"] < 1 - CONFIDENCE:
        return f"{name}, beyond the noise of trial {test['second']}: {evidence}"
    return (
        f"{name}, within the noise of trial {test['second']}: {evidence}; evaluate on more questions to tell them apart"
    )
