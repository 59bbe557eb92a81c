"""The summary of a finished run: accuracy, speed, where the result is, and the next commands.

Everything is read from the run's folder, so that a run that had already finished prints the same.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from math import inf, isnan
from pathlib import Path
from typing import Any

from lrc.config.rules import best_metric
from lrc.config.run_record import METRICS_FILE, read_run
from lrc.metrics.accuracy import Figures
from lrc.metrics.predictions import OUTCOMES_FILE, Outcome, read_outcomes
from lrc.metrics.training_log import Curve, Curves, Point, read_curves
from lrc.metrics.verdict import NAMES, describe_size, judge
from lrc.runtime.exit_status import is_step
from lrc.runtime.findings import pad
from lrc.runtime.system import command_line
from lrc.runtime.translation import Message, _, localized

ADAPTER = "adapter_config.json"
Rows = list[tuple[str, str]]


def best_point(curve: Curve) -> Point | None:
    """The point with the highest value, NaN being the lowest; on a tie, the first. None for an empty curve."""
    return max(curve, key=lambda point: -inf if isnan(point.value) else point.value, default=None)


def summarize(run_dir: Path, base: str) -> tuple[Rows, list[str]]:
    """Summarize a run.

    Args:
        run_dir: the `output_dir` of a finished training.
        base: the base model, as the next command names it.

    Returns:
        What is told by its name, in order; and the commands that come next, if another verb does not run them.

    Raises:
        DataError: a file of the run is damaged.
    """
    curves, outcomes = read_curves(run_dir / METRICS_FILE), read_outcomes(run_dir / OUTCOMES_FILE)
    adapter = (run_dir / ADAPTER).is_file()
    rows = [*_answers(curves, outcomes), *_kept(run_dir, curves), *_losses(curves), *_skipped(curves)]
    rows += _speed(curves)
    rows.append((_("adapter") if adapter else _("model"), str(run_dir)))
    if is_step():
        return rows, []
    return rows, _next(run_dir, base) if adapter else [_command("generate", "--model", run_dir, *_ANSWERED)]


def validation_figures(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The accuracy on the validation questions, and the best baseline's.

    Returns:
        The figures of `metrics.accuracy.accuracy`, `baseline` (its name), `baseline_accuracy` and `verdict` (a
        sentence); empty without outcomes.
    """
    if not outcomes:
        return {}
    verdict = judge([outcome.question for outcome in outcomes], [outcome.prediction for outcome in outcomes])
    baseline = verdict.baselines[verdict.best]["accuracy"]
    return {
        **verdict.figures,
        "baseline": verdict.best,
        "baseline_accuracy": baseline,
        "verdict": str(verdict.tell(None)),  # a model card has it, whose readers trained nothing
    }


def untrained_figures(curves: Curves) -> dict[str, float]:
    """The accuracy before the first step, if it was evaluated (`eval_on_start`).

    Returns:
        `untrained_accuracy`, and the bounds of its interval; empty if it is not known.
    """
    first = next((point for point in curves["eval_accuracy"] if point.step == 0), None)
    if first is None or isnan(first.value):
        return {}
    bounds = {"untrained_ci_low": first.low, "untrained_ci_high": first.high}
    return {"untrained_accuracy": first.value} | {name: bound for name, bound in bounds.items() if not isnan(bound)}


def print_summary(run_dir: Path, base: str) -> None:
    """Print the summary on stdout: a table in a terminal, plain lines in a pipe."""
    rows, commands = summarize(run_dir, base)
    if sys.stdout.isatty():
        _table(rows, commands)
        return
    for name, text in [*rows, *((_("next"), command) for command in commands)]:
        print(f"{pad(localized(name), 13)} {localized(text)}")


def share(figures: Figures) -> str:
    """An accuracy in words: `0.7500 (0.6700 to 0.8200), n = 120`; see `verdict.describe_size`."""
    text = _("{accuracy:.4f} ({ci_low:.4f} to {ci_high:.4f}), {size}")
    return text.format(**figures, size=describe_size(figures))


def duration(seconds: float) -> str:
    """A time in words: `1 h 05 min`, `3 min 20 s`, `12.3 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, left = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {left:02d} s"


_ANSWERED = ("--data", "TEST.xlsx", "--output", "answer.csv")


def _answers(curves: Curves, outcomes: list[Outcome]) -> Iterator[tuple[str, str]]:
    if not outcomes:
        return
    verdict = judge([outcome.question for outcome in outcomes], [outcome.prediction for outcome in outcomes])
    best_share, best_name = share(verdict.baselines[verdict.best]), NAMES.get(verdict.best, verdict.best)
    yield _("verdict"), verdict.tell(None if is_step() else verdict.next)
    yield _("accuracy"), share(verdict.figures)
    yield _("baseline"), _("{share}: {name}, the best one without a model").format(share=best_share, name=best_name)
    best = best_point(curves["eval_accuracy"])
    if best is not None and len(curves["eval_accuracy"]) > 1:
        text = _("{step} of {last}, with accuracy {accuracy:.4f}")
        yield _("best step"), text.format(step=best.step, last=curves.last_step, accuracy=best.value)


def _kept(run_dir: Path, curves: Curves) -> Iterator[tuple[str, str]]:
    """The step whose weights are the result, if it is not the last one: the best by another metric, perhaps."""
    run = read_run(run_dir)
    if run is not None and run.step and run.step != curves.last_step:
        text = _("{step} of {last}, the best by {metric}")
        yield _("kept step"), text.format(step=run.step, last=curves.last_step, metric=best_metric(run.recipe))


def _losses(curves: Curves) -> Iterator[tuple[str, str]]:
    losses = tuple(text.format(loss=curve[-1].value) for curve, text in _last(curves) if curve)
    if losses:
        yield _("loss"), _("{list}").format(list=losses)


def _last(curves: Curves) -> list[tuple[Curve, Message]]:
    validated = curves["eval_all_loss"] or curves["eval_loss"]
    return [(curves["loss"], _("{loss:.4g} in training")), (validated, _("{loss:.4g} in validation"))]


def _skipped(curves: Curves) -> Iterator[tuple[str, str]]:
    if skipped := sum(point.value for point in curves["skipped_steps"]):
        text = _("{skipped:.0f} of {steps} steps overflowed float16, and changed no weight")
        yield _("skipped"), text.format(skipped=skipped, steps=curves.last_step)


def _speed(curves: Curves) -> Iterator[tuple[str, str]]:
    totals = curves.totals
    if "train_runtime" in totals:
        yield _("time"), duration(totals["train_runtime"])
    if "train_tokens_per_second" in totals:
        questions, tokens = totals["train_questions_per_second"], totals["train_tokens_per_second"]
        text = _("{questions:,.2f} questions/s, {tokens:,.0f} tokens/s, without evaluation and checkpoints")
        yield _("speed"), text.format(questions=questions, tokens=tokens)
    unique = totals.get("train_unique_token_share")
    if unique:
        text = _("computed {share:.1%} of the tokens ({times:.2f}x fewer than unpacked)")
        yield _("sharing"), text.format(share=unique, times=1 / unique)
    if "peak_memory_mb" in totals:
        yield _("peak memory"), f"{totals['peak_memory_mb']:,.0f} MB"


def _next(run_dir: Path, base: str) -> list[str]:
    merged = run_dir.with_name(f"{run_dir.resolve().name}-merged")
    return [
        _command("generate", "--model", base, "--adapter", run_dir, *_ANSWERED),
        _command("merge", "--adapter", run_dir, "--output-dir", merged),
    ]


def _command(*words: str | Path) -> str:
    return command_line(["lrc", *map(str, words)])


def _table(rows: Rows, commands: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, text in rows:
        table.add_row(localized(name), Text(localized(text)))
    console = Console()
    console.print(table)
    for command in commands:  # outside the table, so that they can be copied
        console.print(Text(f"$ {command}"), soft_wrap=True)
