"""Progress of long work on stderr: a bar with rate and time left in a terminal, now and then a line in a pipe."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import Any, Protocol

SECONDS_BETWEEN_LINES = 5.0
# Set by `lrc --quiet` for the processes that a verb starts.
QUIET = "LRC_QUIET"
_quiet = os.environ.get(QUIET) == "1"
_shown: Any = None  # the bars on the terminal


class Advance(Protocol):
    """Call with the number of things done since the last call."""

    def __call__(self, done: int = 1) -> None: ...


def silence() -> None:
    """Show no progress from here on (`--quiet`, and every process but the first)."""
    global _quiet
    _quiet = True


def escape_what_is_not_encodable() -> None:
    """Have a terminal that knows no Chinese, or not all of it, get escapes rather than an exception."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(line: str) -> None:
    """Print a line on stderr: something that they should know and that is not an error."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def track(stage: str, total: int, unit: str = "questions", *, before: int = 0) -> Iterator[Advance]:
    """Show how far `stage` is while the block runs.

    Args:
        stage: what is being done, in one or two words.
        total: how many `unit` there are.
        before: how many of them an earlier run did, which say nothing about the rate.
    """
    if _quiet:
        yield lambda done=1: None
    elif sys.stderr.isatty():
        yield from _bar(stage, total, unit, before)
    else:
        yield from _lines(stage, total, unit, before)


def _bar(stage: str, total: int, unit: str, before: int) -> Iterator[Advance]:
    with _bars() as bar:
        task = bar.add_task(stage, total=total, completed=before, unit=unit, rate="")
        start = time.monotonic()
        count = 0

        def advance(done: int = 1) -> None:
            nonlocal count
            count += done
            bar.update(task, advance=done, rate=f"{count / max(time.monotonic() - start, 1e-6):.1f}/s")

        yield advance
        if len(bar.task_ids) > 1:  # within another stage, whose bar goes on
            bar.remove_task(task)


@contextmanager
def _bars() -> Iterator[Any]:
    """The bars on the terminal; a stage within another adds its own, since older versions of rich show one set only."""
    global _shown
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    if _shown is not None:
        yield _shown
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as _shown:
        try:
            yield _shown
        finally:
            _shown = None


def _lines(stage: str, total: int, unit: str, before: int) -> Iterator[Advance]:
    start = last = time.monotonic()
    count = before

    def line(now: float) -> None:
        rate = (count - before) / max(now - start, 1e-6)
        left = f", {(total - count) / rate:.0f} s left" if before < count < total else ""
        print(f"{stage}: {count}/{total} {unit}, {rate:.1f}/s{left}", file=sys.stderr, flush=True)

    def advance(done: int = 1) -> None:
        nonlocal count, last
        count += done
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES and count < total:
            last = now
            line(now)

    yield advance
    if (end := time.monotonic()) - start >= SECONDS_BETWEEN_LINES:  # nobody waited for less
        line(end)
