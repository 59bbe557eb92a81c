"""The output folder of a run: whose it is, where the run goes on, and what is in it at the end."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers.trainer_utils import get_last_checkpoint

from lrc.errors import OutputError
from lrc.output import flush, new_file
from lrc.run import RUN_FILE, Run, read_run

PACKAGES = ("lrc", "torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "datasets")
NOT_PUBLIC = ("training_args.bin",)  # a pickle of the trainer's arguments


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
        if path.is_dir() and any(path.iterdir()) or path.is_file():
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
        """The newest checkpoint."""
        found: str | None = get_last_checkpoint(str(self.path))
        return found

    def finish(self, trainer: Any) -> None:
        """Put the adapter and its tokenizer into the folder and mark the run as finished.

        Args:
            trainer: whose `save_model` writes them; all processes take part in it.
        """
        staged = self.path / "final"
        if trainer.is_world_process_zero():
            shutil.rmtree(staged, ignore_errors=True)
        trainer.save_model(str(staged))
        trainer.accelerator.wait_for_everyone()
        if trainer.is_world_process_zero():
            for name in NOT_PUBLIC:
                (staged / name).unlink(missing_ok=True)
            for file in sorted(staged.iterdir()):
                flush(file)
                file.replace(self.path / file.name)
            staged.rmdir()
            self._write(replace(self.run, finished=True))
        trainer.accelerator.wait_for_everyone()

    def _write(self, run: Run) -> None:
        with new_file(self.path / RUN_FILE, force=True) as file:
            run.write(file)


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """The versions of the packages that decide what a run gives."""
    return {name: version(name) for name in PACKAGES}
