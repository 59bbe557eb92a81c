"""The output folder of a run: whose it is, where the run goes on, and what is in it at the end."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lrc.checkpoint import STAGE, close_stage, newest, open_stage
from lrc.claim import left_behind, parts, remove
from lrc.errors import OutputError
from lrc.output import flush, new_file
from lrc.progress import say
from lrc.run import RUN_FILE, Run, read_run
from lrc.space import disk_failures_told

WEIGHTS = ("adapter_model.safetensors", "model.safetensors")


@dataclass(frozen=True)
class RunFolder:
    """The `output_dir` of one run."""

    path: Path
    run: Run

    @classmethod
    def open(cls, path: Path, run: Run, *, overwrite: bool) -> RunFolder:
        """Take `path` for `run`: new, or where the same run stopped.

        Raises:
            OutputError: another run, or something else, is in it and `overwrite` is false.
        """
        found = read_run(path)
        if found is not None and found.same_as(run):
            _tidy(path)
            return cls(path, replace(run, finished=found.finished))
        refuse_taken(path, overwrite=overwrite)
        if _others(path):
            if not overwrite and found:
                raise _taken(path, f"another run ({found.difference(run)})")
            for other in _others(path):
                remove(other)
        path.mkdir(parents=True, exist_ok=True)
        _tidy(path)
        folder = cls(path, run)
        folder._write(run)
        return folder

    @property
    def finished(self) -> bool:
        """Whether the run in the folder came to its end."""
        return self.run.finished

    @property
    def checkpoint(self) -> str | None:
        """The newest checkpoint that is whole, once what a kill left behind is out of the way; for one process."""
        close_stage(self.path)
        found = newest(self.path, say)
        return str(found) if found else None

    def finish(self, trainer: Any, **decided: Any) -> None:
        """Put the adapter and its tokenizer into the folder and mark the run as finished.

        Args:
            trainer: whose `save_model` writes them; all processes take part in it.
            decided: fields of the run that are known only now.

        Raises:
            MachineError: the disk is full.
        """
        first = trainer.is_world_process_zero()
        staged = (open_stage(self.path) if first else self.path / STAGE) / "final"
        try:
            with disk_failures_told(self.path, staged):
                trainer.save_model(str(staged))
                trainer.accelerator.wait_for_everyone()
                if first:
                    run = replace(self.run, finished=True, **decided)
                    if trainer.write_card:  # once more, with the results
                        trainer.write_card(staged, run=run)
                    self._publish(staged)
                    self._write(run)
        finally:
            if first:
                close_stage(self.path)
        trainer.accelerator.wait_for_everyone()

    @contextmanager
    def given_up_if_refused(self, *, first: bool) -> Iterator[None]:
        """Where the block ends in an error before there is more in the folder than the run file, leave the folder.

        Corrected, the recipe is another run, for which the folder is free then.

        Args:
            first: whether this is the process that decides about the folder.
        """
        try:
            yield
        except Exception:
            if first and _others(self.path) == [self.path / RUN_FILE]:
                remove(self.path / RUN_FILE)
            raise

    def _publish(self, staged: Path) -> None:
        """Give the files their names; where the weights are, everything is."""
        files = sorted(staged.iterdir(), key=lambda file: (file.name in WEIGHTS, file.name))
        for file in files:
            flush(file)
        for file in files:
            file.replace(self.path / file.name)
        flush(self.path)

    def _write(self, run: Run) -> None:
        with new_file(self.path / RUN_FILE, force=True) as file:
            run.write(file)


def refuse_taken(path: Path, *, overwrite: bool) -> None:
    """Refuse an `output_dir` that no run can have, whichever it is.

    Raises:
        OutputError: it is or is in a file, or holds something that is no run and `overwrite` is false.
    """
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not there.is_dir():
        raise OutputError(f"{path}: {'is' if there == path else f'{there} is'} no folder; choose another output_dir")
    if not overwrite and _others(path) and read_run(path) is None:
        raise _taken(path, "something that is no run of lrc")


def _taken(path: Path, what: str) -> OutputError:
    return OutputError(f"{path}: holds {what}; choose another output_dir, or set overwrite_output_dir: true")


def refuse_sources_in(folder: Path, sources: Sequence[Path]) -> None:
    """Refuse to empty a folder that holds what the run reads.

    Raises:
        OutputError: it does.
    """
    for source in sources:
        if source.exists() and source.resolve().is_relative_to(folder.resolve()):
            raise OutputError(
                f"{folder}: holds {source}, which overwrite_output_dir would remove; choose another output_dir"
            )


def _others(path: Path) -> list[Path]:
    """What is in a folder besides this run's claim, and those of runs that were killed as they began."""
    return sorted(set(path.iterdir()) - set(parts(path, RUN_FILE))) if path.is_dir() else []


def _tidy(path: Path) -> None:
    """Remove the temporary files of runs that were killed."""
    for leftover in left_behind(path):
        remove(leftover)


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
