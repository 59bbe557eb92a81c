"""The output folder of a run: whose it is, where the run goes on, and what is in it at the end."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lrc.checkpoint import STAGE, close_stage, newest, open_stage
from lrc.errors import OutputError
from lrc.output import flush, new_file
from lrc.progress import say
from lrc.run import RUN_FILE, Run, read_run
from lrc.space import disk_failures_told

PACKAGES = ("lrc", "torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "datasets")
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
            return cls(path, replace(run, finished=found.finished))
        if path.is_file() or _holds_something(path):
            if not overwrite:
                what = f"another run ({found.difference(run)})" if found else "something that is no run of lrc"
                raise OutputError(f"{path}: holds {what}; choose another output_dir, or set overwrite_output_dir: true")
            shutil.rmtree(path)
        path.mkdir(parents=True, exist_ok=True)
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
        for leftover in _unnamed(self.path, "*"):
            leftover.unlink()
        found = newest(self.path, say)
        return str(found) if found else None

    def finish(self, trainer: Any) -> None:
        """Put the adapter and its tokenizer into the folder and mark the run as finished.

        Args:
            trainer: whose `save_model` writes them; all processes take part in it.

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
                    self._publish(staged)
                    self._write(replace(self.run, finished=True))
        finally:
            if first:
                close_stage(self.path)
        trainer.accelerator.wait_for_everyone()

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


def _holds_something(path: Path) -> bool:
    """Whether there is more in a folder than the temporary files of a run that was killed as it began."""
    return path.is_dir() and set(path.iterdir()) != set(_unnamed(path, RUN_FILE))


def _unnamed(path: Path, name: str) -> list[Path]:
    """Files that a kill kept from getting their names, see `lrc.output`."""
    return list(path.glob(f".{name}.*.part"))


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """The versions of the packages that decide what a run gives."""
    return {name: version(name) for name in PACKAGES}
