"""What a finished run comes to: its answers, its speed, where it is, and what can be done next.

Everything is read from the run's folder, so that a run which is finished already tells the same again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from math import isnan
from pathlib import Path
from typing import Any

from lrc.config.run_record import METRICS_FILE
from lrc.metrics.accuracy import Figures
from lrc.metrics.predictions import OUTCOMES_FILE, Outcome, read_outcomes
from lrc.metrics.training_log import Curve, Curves, Point, read_curves
from lrc.metrics.verdict import NAMES, describe_size, judge
from lrc.runtime.findings import pad
from lrc.runtime.steps import is_step
from lrc.runtime.system import command_line
from lrc.runtime.translation import Message, _, localized

ADAPTER = "adapter_config.json"
Rows = list[tuple[str, str]]


def best_point(curve: Curve) -> Point | None:
    """The evaluation with the highest accuracy, the first of several; None where nothing was evaluated."""
    return max(curve, key=lambda point: (point.value, -point.step), default=None)


def summarize(run_dir: Path, base: str) -> tuple[Rows, list[str]]:
    """Sum up a run.

    Args:
        run_dir: the `output_dir` of a finished training.
        base: the model that it was trained on.

    Returns:
        What is told by its name, in order; and the commands that come next.

    Raises:
        DataError: a file of the run is damaged.
    """
    curves, outcomes = read_curves(run_dir / METRICS_FILE), read_outcomes(run_dir / OUTCOMES_FILE)
    adapter = (run_dir / ADAPTER).is_file()
    rows = [*_answers(curves, outcomes), *_losses(curves), *_speed(curves)]
    rows.append(("adapter" if adapter else "model", str(run_dir)))
    return rows, _next(run_dir, base) if adapter else [_command("generate", "--model", run_dir, *_ANSWERED)]


def validation_figures(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """How well a model answered its validation questions, as far as they were scored, with the best baseline.

    Returns:
        the figures of `accuracy.accuracy`, `baseline` (its name), `baseline_accuracy` and `verdict` (the sentence);
        empty without outcomes.
    """
    if not outcomes:
        return {}
    verdict = judge([outcome.question for outcome in outcomes], [outcome.prediction for outcome in outcomes])
    baseline = verdict.baselines[verdict.best]["accuracy"]
    return {
        **verdict.figures,
        "baseline": verdict.best,
        "baseline_accuracy": baseline,
        "verdict": str(verdict),
    }


def untrained_figures(curves: Curves) -> dict[str, float]:
    """What the base had right before its first step, where that was evaluated (`eval_on_start`).

    Returns:
        `untrained_accuracy`, and the bounds of its interval; empty where nothing is known.
    """
    first = next((point for point in curves["eval_accuracy"] if point.step == 0), None)
    if first is None or isnan(first.value):
        return {}
    bounds = {"untrained_ci_low": first.low, "untrained_ci_high": first.high}
    return {"untrained_accuracy": first.value} | {name: bound for name, bound in bounds.items() if not isnan(bound)}


def print_summary(run_dir: Path, base: str) -> None:
    """Print the summary on stdout: a table in a terminal, plain lines in a pipe."""
    rows, commands = summarize(run_dir, base)
    commands = [] if is_step() else commands
    if sys.stdout.isatty():
        _table(rows, commands)
        return
    for name, text in [*rows, *((_("next"), command) for command in commands)]:
        print(f"{pad(localized(name), 13)} {localized(text)}")


def share(figures: Figures) -> str:
    """An accuracy as people read it: `0.7500 (0.6700 to 0.8200), n = 120`; see `verdict.describe_size`."""
    text = _("{accuracy:.4f} ({ci_low:.4f} to {ci_high:.4f}), {size}")
    return text.format(**figures, size=describe_size(figures))


def duration(seconds: float) -> str:
    """A time as people read it: `1 h 05 min`, `3 min 20 s`, `12.3 s`."""
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
    yield _("verdict"), verdict.text
    yield _("accuracy"), share(verdict.figures)
    yield _("baseline"), _("{share}: {name}, the best one without a model").format(share=best_share, name=best_name)
    best = best_point(curves["eval_accuracy"])
    if best is not None and len(curves["eval_accuracy"]) > 1:
        text = _("{step} of {last}, with accuracy {accuracy:.4f}")
        yield _("best step"), text.format(step=best.step, last=curves.last_step, accuracy=best.value)


def _losses(curves: Curves) -> Iterator[tuple[str, str]]:
    losses = tuple(text.format(loss=curve[-1].value) for curve, text in _last(curves) if curve)
    if losses:
        yield _("loss"), _("{list}").format(list=losses)


def _last(curves: Curves) -> list[tuple[Curve, Message]]:
    return [(curves["loss"], _("{loss:.4g} in training")), (curves["eval_loss"], _("{loss:.4g} in validation"))]


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
    for command in commands:  # outside of the table, to be copied
        console.print(Text(f"$ {command}"), soft_wrap=True)
