"""Reads the training curves of a run from its `metrics.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, nan
from pathlib import Path
from typing import Any

from lrc.runtime.errors import DataError
from lrc.runtime.findings import abridge
from lrc.runtime.library_errors import describe_error
from lrc.runtime.progress import notify
from lrc.runtime.translation import _

INTERVAL = {"eval_accuracy": ("eval_ci_low", "eval_ci_high")}
# Those with `all` are of all validation questions, where the others are of a sample (`eval_questions`).
SERIES = ("loss", "eval_loss", "eval_accuracy", "eval_all_loss", "eval_all_accuracy", "learning_rate", "skipped_steps")
# Of the whole run: the time in seconds, questions per second, and the metrics of throughput.py.
TOTALS = (
    *("train_runtime", "train_questions_per_second", "train_tokens_per_second"),
    *("train_unique_token_share", "peak_memory_mb"),
)
NUMBERS = (*SERIES, *TOTALS, *(name for bounds in INTERVAL.values() for name in bounds))

_LAST_STEP = 2**53  # the last whole number up to which a float, and so an axis of a chart, has all of them


@dataclass(frozen=True)
class Point:
    """One logged value."""

    step: int
    value: float  # nan if it was not finite
    low: float = nan  # of the 95% interval; nan if the value has none
    high: float = nan


Curve = tuple[Point, ...]


@dataclass(frozen=True)
class Curves:
    """The logged metrics of a run."""

    series: Mapping[str, Curve]  # by name of the metric, sorted by step
    totals: Mapping[str, float]  # see TOTALS; empty before the end of the run
    last_step: int = 0  # of all lines; the end of the run is one, whether or not a loss was logged there

    def __getitem__(self, name: str) -> Curve:
        """The curve of a metric in SERIES; empty if it was not logged."""
        return self.series.get(name, ())


def read_curves(path: Path) -> Curves:
    """Read a `metrics.jsonl`.

    A last line that is incomplete, since the run was killed, is skipped with a notice.

    Returns:
        No curves if there is no such file.

    Raises:
        DataError: the file is not UTF-8, or has other invalid lines; one finding for each of these.
    """
    if not path.is_file():
        return Curves({}, {})
    series: dict[str, dict[int, Point]] = {}
    totals: dict[str, float] = {}
    last_step = 0
    for line in _read_lines(path):
        last_step = max(last_step, line["step"])
        for name in SERIES:
            if name in line:
                # The later value of a step that was evaluated again after a resume.
                series.setdefault(name, {})[line["step"]] = _make_point(name, line)
        totals |= {name: _to_finite(line[name]) for name in TOTALS if name in line}
    curves = {name: tuple(points[step] for step in sorted(points)) for name, points in series.items()}
    return Curves(curves, totals, last_step)


def _read_lines(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except UnicodeDecodeError as error:
        broken = _("{path}: byte {place} is not UTF-8; restore the file, or remove it")
        raise DataError(broken.format(path=path, place=error.start)) from error
    findings, kept = [], []
    for number, text in enumerate(lines, start=1):
        try:
            kept.append(_check_line(json.loads(text)))
        except (ValueError, RecursionError) as error:
            if number == len(lines) and not text.endswith("\n"):
                notify(_("{path}, line {number}: cut short; left out").format(path=path, number=number))
            else:
                broken = _("{path}, line {number}: {reason}; remove the line, or restore the file")
                findings.append(broken.format(path=path, number=number, reason=describe_error(error)))
    if findings:
        raise DataError(*findings)
    return kept


def _check_line(line: Any) -> dict[str, Any]:
    if not isinstance(line, dict) or type(line.get("step")) is not int or line["step"] < 0:
        raise ValueError(_("is not an object with a step"))
    if line["step"] > _LAST_STEP:
        raise ValueError(
            _("step is {value}, expected up to {most}").format(value=abridge(f"{line['step']}"), most=_LAST_STEP)
        )
    wrong = [name for name in NUMBERS if name in line and type(line[name]) not in (int, float)]
    if wrong:
        value = abridge(json.dumps(line[wrong[0]], ensure_ascii=False))
        raise ValueError(_("{name} is {value}, expected a number").format(name=wrong[0], value=value))
    return line


def _make_point(name: str, line: Mapping[str, Any]) -> Point:
    bounds = (_to_finite(line.get(bound, nan)) for bound in INTERVAL.get(name, ()))
    return Point(line["step"], _to_finite(line[name]), *bounds)


def _to_finite(value: float) -> float:
    try:
        return float(value) if isfinite(value) else nan
    except OverflowError:  # a whole number beyond what a float holds
        return nan
