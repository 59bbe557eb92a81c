"""Notices and progress on stderr: a bar with rate and time left in a terminal, occasional lines in a pipe."""

from __future__ import annotations

import codecs
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import Any, Literal, Protocol

from lrc.runtime.exit_status import is_first
from lrc.runtime.findings import wrap_line
from lrc.runtime.signals import ending_with
from lrc.runtime.translation import Message, _, localized

SECONDS_BETWEEN_LINES = 5.0
# Shorter waits are not reported; tests, which may run on a busy machine, set a longer time.
SECONDS_UNTOLD = float(os.environ.get("LRC_SECONDS_UNTOLD", "2"))
SECONDS_BETWEEN_WAITS = 30.0
IMPORTS = _("loading PyTorch and transformers")
Unit = Literal[
    "questions", "passages", "steps", "trials", "tensors", "MiB", "bands", "parts", "batches", "plans", "file"
]
AMOUNTS: dict[Unit, Message] = {
    "questions": _("{count}/{total} questions"),
    "passages": _("{count}/{total} passages"),
    "steps": _("{count}/{total} steps"),
    "trials": _("{count}/{total} trials"),
    "tensors": _("{count}/{total} tensors"),
    "MiB": _("{count}/{total} MiB"),
    "bands": _("{count}/{total} bands"),
    "parts": _("{count}/{total} parts"),
    "batches": _("{count}/{total} batches"),
    "plans": _("{count}/{total} plans"),
    "file": _("{count}/{total} file"),
}
# Set by `lrc --quiet` for the processes that a command starts.
QUIET = "LRC_QUIET"
REPLACEMENT = "lrc.replace"  # the error handler for characters that a console cannot show
LETTERS = {
    **{"⟦": "[[", "⟧": "]]", "⏎": "\\n", "⇥": "\\t", "␣": "_"},
    **{"…": "...", "–": "-", "−": "-", "×": "x", "→": "->", "“": '"', "”": '"', "≥": ">=", "≤": "<=", "·": "*"},
}
_quiet = os.environ.get(QUIET) == "1"
_shown: Any = None  # the bars on the terminal
# On a CPU, its import warns about optional kernels.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


class Advance(Protocol):
    """Call with the number of things done since the last call."""

    def __call__(self, done: int = 1) -> None: ...


def silence() -> None:
    """Show no progress from here on (`--quiet`, and every process but the first)."""
    global _quiet
    _quiet = True


def escape_unencodable() -> None:
    """Make stdout and stderr escape characters that their encoding lacks, instead of raising.

    lrc's own symbols are replaced by ASCII look-alikes.
    """
    codecs.register_error(REPLACEMENT, _replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors=REPLACEMENT)


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(
        LETTERS.get(sign) or sign.encode("ascii", "backslashreplace").decode() for sign in lacking
    ), error.end


def notify(line: str) -> None:
    """Print a notice on stderr, in the user's language, and wrapped to the width of a terminal."""
    print(*wrap_line(localized(line), stream=sys.stderr), sep="\n", file=sys.stderr, flush=True)


def show_command(line: str) -> None:
    """Print a line with a command on stderr; it is not wrapped, so that the command can be copied."""
    print(localized(line), file=sys.stderr, flush=True)


def is_quiet() -> bool:
    """Whether progress is turned off."""
    return _quiet


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Report `what` if the block takes more than a few seconds, and has no progress of its own.

    In a launch of several processes, only the first reports.

    Args:
        what: the beginning of a line, such as `loading the model a`.
    """
    ended = threading.Event()
    if not _quiet and is_first():
        threading.Thread(target=_notify_waiting, args=(what, ended), daemon=True).start()
    try:
        yield
    finally:
        ended.set()


@contextmanager
def importing() -> Iterator[None]:
    """In the block, imports take seconds: report that, and let a signal end the process at once, without traceback."""
    with ending_with(_("nothing was begun; run the same command again")), waiting(IMPORTS):
        yield


def _notify_waiting(what: str, ended: threading.Event) -> None:
    start = time.monotonic()
    if ended.wait(SECONDS_UNTOLD):
        return
    notify(_("{what} …").format(what=what))
    while not ended.wait(SECONDS_BETWEEN_WAITS):
        notify(_("{what}: {seconds:.0f} s so far").format(what=what, seconds=time.monotonic() - start))


@contextmanager
def track(stage: str, total: int, unit: Unit = "questions", *, before: int = 0) -> Iterator[Advance]:
    """Show the progress of `stage` while the block runs.

    Args:
        stage: what is being done, in one or two words.
        total: the number of units.
        unit: what is counted.
        before: how many an earlier run has done, which do not count for the rate.

    Yields:
        A function to call with the number of units done since the last call.
    """
    if _quiet:
        yield lambda done=1: None
    elif sys.stderr.isatty():
        yield from _bar(stage, total, unit, before)
    else:
        yield from _lines(stage, total, unit, before)


def _bar(stage: str, total: int, unit: Unit, before: int) -> Iterator[Advance]:
    if not total:
        yield lambda done=1: None
        return

    def amount(done: int) -> str:
        return localized(AMOUNTS[unit].format(count=done, total=total))

    with _bars() as bar:
        task = bar.add_task(localized(stage), total=total, completed=before, amount=amount(before), rate="")
        start = time.monotonic()
        count = 0

        def advance(done: int = 1) -> None:
            nonlocal count
            count += done
            rate = f"{count / max(time.monotonic() - start, 1e-6):,.1f}/s"
            bar.update(task, advance=done, amount=amount(before + count), rate=rate)

        yield advance
        if len(bar.task_ids) > 1:  # nested in another stage
            bar.remove_task(task)


@contextmanager
def _bars() -> Iterator[Any]:
    """The progress display; nested stages share it, since older versions of rich allow only one at a time."""
    global _shown
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    if _shown is not None:
        yield _shown
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[amount]}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    start = time.monotonic()
    with Progress(*columns, console=Console(stderr=True)) as _shown:
        try:
            yield _shown
        finally:
            # As in a pipe, a short stage leaves nothing behind.
            _shown.live.transient = time.monotonic() - start < SECONDS_BETWEEN_LINES
            _shown = None


def _lines(stage: str, total: int, unit: Unit, before: int) -> Iterator[Advance]:
    start = last = time.monotonic()
    count = before

    def line(now: float) -> None:
        rate = (count - before) / max(now - start, 1e-6)
        known = before < count < total
        text = (
            _("{stage}: {amount}, {rate:,.1f}/s, {left:.0f} s left") if known else _("{stage}: {amount}, {rate:,.1f}/s")
        )
        left = (total - count) / rate if known else 0
        notify(text.format(stage=stage, amount=AMOUNTS[unit].format(count=count, total=total), rate=rate, left=left))

    def advance(done: int = 1) -> None:
        nonlocal count, last
        count += done
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES and count < total:
            last = now
            line(now)

    yield advance
    if (end := time.monotonic()) - start >= SECONDS_BETWEEN_LINES:
        line(end)
