"""The ranking of a sweep's trials: a table, `sweep.json`, and a test of whether the best one is best by chance."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lrc.metrics.accuracy import CONFIDENCE, compare_paired, passages_of
from lrc.metrics.predictions import OUTCOMES_FILE, Outcome, read_outcomes
from lrc.metrics.verdict import describe_size, judge, spell
from lrc.reporting.summary import duration
from lrc.runtime.errors import DataError
from lrc.runtime.findings import print_lines, print_next
from lrc.runtime.outputs import new_file
from lrc.runtime.system import command_line
from lrc.runtime.translation import _, localized
from lrc.training.sweep.trial import SweepTrial, TrialResult

RESULTS_FILE = "sweep.json"
# What the loss consists of: the losses of trials that differ in one of these cannot be compared.
LOSS_KEYS = (
    *("answer_style", "option_contrast", "contrast_temperature", "score_normalisation"),
    *("model_name_or_path", "model_revision", "template", "list_options"),
)


@dataclass(frozen=True)
class LeaderboardEntry:
    """A trial that has ended, with its result or the reason why it failed."""

    trial: SweepTrial
    result: TrialResult | None
    reason: str | None = None


def rank(entries: Sequence[LeaderboardEntry]) -> list[LeaderboardEntry]:
    """Sort by accuracy, best first, then by lower loss if losses can be compared, then by number; failed ones last."""
    comparable = not any(key in entry.trial.values for entry in entries for key in LOSS_KEYS)

    def order(entry: LeaderboardEntry) -> tuple[float, float, int]:
        result = entry.result
        if result is None:
            return (1.0, 0.0, entry.trial.number)
        loss = float("inf") if result.eval_loss is None or not comparable else result.eval_loss
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
    one, two = map(_read_answers, pair)
    if not one or [outcome.question for outcome in one] != [outcome.question for outcome in two]:
        return None
    first, second = ([outcome.prediction for outcome in some] for some in (one, two))
    passages = passages_of(outcome.question for outcome in one)
    test = compare_paired(first, second, [outcome.answer for outcome in one], passages)
    numbers = {"best": pair[0].number, "second": pair[1].number, "n": len(one)}
    return {**numbers, **test}


def _read_answers(trial: SweepTrial) -> list[Outcome]:
    """The answers of the model that a trial left; none if they are no longer there."""
    try:
        return read_outcomes(trial.folder / OUTCOMES_FILE)
    except DataError:
        return []


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
    if best_first[0].result:
        print_lines(*_verdict(best_first), "")
    _print_table(best_first)
    print_lines(*_notes(best_first))
    if best_first[0].result:
        asked = ["--data", "TEST.xlsx", "--output", "answer.csv"]
        folder = str(best_first[0].trial.folder)
        print_next(command_line(["lrc", "generate", "--model", base, "--adapter", folder, *asked]))


def _print_table(entries: Sequence[LeaderboardEntry]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    names = (_("trial"), _("accuracy, interval (95%)"), _("questions"), _("best step"), _("time"))
    table = Table()
    for name in (*map(localized, names), *entries[0].trial.values):
        table.add_column(name, overflow="fold")  # in a narrow terminal, nothing is cut off
    for entry in entries:
        values = [shorten(value) for value in entry.trial.values.values()]
        table.add_row(*(Text(cell) for cell in (str(entry.trial.number), *_cells(entry.result), *values)))
    # A pipe has no width: rich would take 80 columns and wrap the cells.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _cells(result: TrialResult | None) -> tuple[str, str, str, str]:
    if result is None:
        return localized(_("failed")), "", "", ""
    time = "" if result.seconds is None else duration(result.seconds)
    share = spell({"accuracy": result.accuracy, "ci_low": result.ci_low, "ci_high": result.ci_high})
    step = localized(_("{step} of {steps}").format(step=result.step, steps=result.steps))
    return share, localized(result.size), step, time


def shorten(value: Any) -> str:
    """A value of a recipe's key, a number with three digits; `sweep.json` has all of them."""
    if isinstance(value, float):
        return f"{value:.3g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _notes(entries: Sequence[LeaderboardEntry]) -> list[str]:
    text = _("trial {number} failed: {reason}")
    lines: list[str] = [
        text.format(number=one.trial.number, reason=one.reason or "") for one in entries if one.result is None
    ]
    best = entries[0]
    if best.result is None:
        return lines
    results = sum(entry.result is not None for entry in entries)
    if results > 1:
        text = _(
            "the best of {count} on the same questions is partly luck: evaluate it on questions that chose no trial to "
            "see its real accuracy"
        )
        lines.append(text.format(count=results))
    text = _(
        "trial {number} had {best:.4f} at step {step}, and left {left:.4f} "
        "(load_best_model_at_end: true with metric_for_best_model: accuracy keeps the best)"
    )
    for one in entries:
        if (found := one.result) and found.best_accuracy > best.result.accuracy:
            lines.append(
                text.format(number=one.trial.number, best=found.best_accuracy, step=found.step, left=found.accuracy)
            )
    return lines


def _verdict(entries: Sequence[LeaderboardEntry]) -> Iterator[str]:
    """How good the best trial is, as of any other model, and whether it is better than the next."""
    best = entries[0].trial
    if outcomes := _read_answers(best):
        verdict = judge([one.question for one in outcomes], [one.prediction for one in outcomes])
        yield _("the best is trial {number}: {verdict}").format(number=best.number, verdict=verdict.tell(None))
        text = _("{share}, {size}")
        yield text.format(share=spell(verdict.figures), size=describe_size(verdict.figures))
    if (test := compare_best(entries)) is None:
        yield _("no other trial has answered the same questions")
        return
    text = _(
        "of {n} questions, {first_only} are right only in it, {second_only} only in the next, trial {second}: that may "
        "be chance (p = {p_value:.2g}); more questions would tell"
    )
    if test["p_value"] < 1 - CONFIDENCE:
        text = _(
            "of {n} questions, {first_only} are right only in it, {second_only} only in the next, trial {second}: that "
            "is more than chance (p = {p_value:.2g})"
        )
    yield text.format(**test)
