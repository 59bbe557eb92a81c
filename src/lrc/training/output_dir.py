"""The output folder of a run: which run it belongs to, where that resumes, and how the result gets there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lrc.config.run_record import RUN_FILE, Run, read_run
from lrc.runtime.disk import convert_disk_errors
from lrc.runtime.errors import OutputError, RecipeError
from lrc.runtime.locks import left_behind, list_parts, remove
from lrc.runtime.outputs import checksum, flush, is_in, new_file
from lrc.runtime.progress import notify
from lrc.runtime.system import expand_home
from lrc.runtime.translation import _
from lrc.training.checkpoint import MANIFEST, STAGE, adopt, best_step, close_stage, find_damage, newest, open_stage
from lrc.training.resume import Difference, differences, is_longer, run_of

_CHECKPOINT = re.compile(r"checkpoint-\d+")
WEIGHTS = ("adapter_model.safetensors", "model.safetensors", "model.safetensors.index.json")


@dataclass(frozen=True)
class OutputDir:
    """The `output_dir` of one run."""

    path: Path
    run: Run

    @classmethod
    def open(cls, path: Path, run: Run, *, overwrite: bool) -> OutputDir:
        """Open `path` for `run`: a new folder, or one in which the same run stopped.

        Args:
            path: the `output_dir`, which is created if need be.
            run: what is about to be trained.
            overwrite: remove whatever else is there.

        Raises:
            OutputError: another run, or something else, is in it and `overwrite` is false.
        """
        found = read_run(path)
        if found is not None and not (changed := differences(found, run)):
            _tidy(path)
            # If somebody has removed the weights, they are trained again.
            there = any((path / name).is_file() for name in WEIGHTS)
            finished, step = found.finished and there, found.step if there else 0
            return cls(path, replace(run, finished=finished, origin=found.origin, step=step))
        refuse_taken(path, overwrite=overwrite)
        if _others(path):
            if not overwrite and found:
                raise another_run(path, changed)
            for other in _others(path):
                remove(other)
        path.mkdir(parents=True, exist_ok=True)
        _tidy(path)
        folder = cls(path, run)
        folder._write(run)
        return folder

    @property
    def finished(self) -> bool:
        """Whether the run in the folder is finished, evaluation included."""
        return self.run.finished

    @property
    def trained(self) -> bool:
        """Whether the final weights are in the folder, so that only their evaluation may be missing."""
        return self.run.step > 0 and any((self.path / name).is_file() for name in WEIGHTS)

    def checkpoint(self, named: str | None, *, best: bool) -> str | None:
        """Find the checkpoint to resume from, and clear away what a kill left behind; only one process calls this.

        Args:
            named: the recipe's `resume_from_checkpoint`. One in another folder is used only while this folder has none
                of its own.
            best: whether the best checkpoint becomes the result, so that it has to exist.

        Returns:
            The path of the named checkpoint, otherwise of the newest whole one; None if there is none.

        Raises:
            RecipeError: the named checkpoint belongs to another run, or to a finished one.
            OutputError: a checkpoint in the folder belongs to another run, or the best one so far is missing.
        """
        close_stage(self.path)
        found = newest(self.path, notify)
        if named is not None and Path(named).resolve().parent == self.path.resolve():
            found = Path(named)
        elif named is not None and found is None:
            self._refuse_other(Path(named))
            return self._begin_at(Path(named), best=best)
        if found is None:
            return None
        if changed := self._differences_of(found):
            text = _("{found}: belongs to another run, whose {fact}; move it away")
            raise OutputError(*(text.format(found=found, fact=one.fact) for one in changed))
        if best:
            self._best_of(found, self.path)
        return str(found)

    def keep(self, trainer: Any) -> None:
        """Save the trained weights and the tokenizer in the folder, completely or not at all; all processes call this.

        Args:
            trainer: a `TreeTrainer`.

        Raises:
            MachineError: the disk is full.
        """
        first = trainer.is_world_process_zero()
        staged = (open_stage(self.path) if first else self.path / STAGE) / "final"
        try:
            with convert_disk_errors(self.path, staged):
                trainer.save_model(str(staged))
                trainer.accelerator.wait_for_everyone()
                if first:
                    self._write(replace(self.run, step=trainer.state.global_step))
                    self._publish(staged)
        finally:
            if first:
                close_stage(self.path)
        trainer.accelerator.wait_for_everyone()

    def finish(self, trainer: Any, **decided: Any) -> None:
        """Record that the run is finished, and write its model card; all processes call this.

        Args:
            trainer: a `TreeTrainer`.
            decided: fields of `Run` that are known only now.

        Raises:
            OutputError: the disk is full.
        """
        if trainer.is_world_process_zero():
            run = replace(self.run, finished=True, step=trainer.state.global_step, **decided)
            if trainer.write_card:  # once more, with the results
                trainer.write_card(self.path, run=run)
            self._write(run)
        trainer.accelerator.wait_for_everyone()

    def _refuse_other(self, named: Path) -> None:
        """Refuse to resume from a checkpoint in another folder unless it is of the same run.

        Raises:
            RecipeError: it is not, or that run is finished.
        """
        place, origin = f"resume_from_checkpoint: {named}", run_of(named)
        if origin is None:
            raise RecipeError(
                _("{place}: no {run_file} in it or next to it; name it in the folder of its run").format(
                    place=place, run_file=RUN_FILE
                )
            )
        if changed := self._differences_of(named):
            text = _("{place}: belongs to another run: {fact}; {cure}, or remove resume_from_checkpoint")
            raise RecipeError(*(text.format(place=place, fact=one.fact, cure=one.cure) for one in changed))
        if origin.finished and not is_longer(origin, self.run):
            result = named.resolve().parent
            raise RecipeError(
                _("{place}: its run is finished; use {result}, or remove resume_from_checkpoint").format(
                    place=place, result=result
                )
            )

    def _differences_of(self, checkpoint: Path) -> list[Difference]:
        """How the run of a checkpoint differs from this one; a checkpoint without a run file belongs to this run."""
        origin = run_of(checkpoint) or self.run
        return [] if is_longer(origin, self.run) else differences(origin, self.run)

    def _begin_at(self, named: Path, *, best: bool) -> str:
        """Start from a checkpoint in another folder, and record which one it was."""
        if best and (source := self._best_of(named, named.resolve().parent)):
            adopt(source, self.path)
        real = named.resolve()
        origin = {"folder": real.parent.name, "checkpoint": real.name, "manifest_sha256": checksum(real / MANIFEST)}
        self.run.origin.update(origin)
        self._write(self.run)
        return str(named)

    def _best_of(self, checkpoint: Path, folder: Path) -> Path | None:
        """The best checkpoint up to `checkpoint`, in `folder`; None if nothing had been evaluated.

        Raises:
            OutputError: it is missing, damaged, or belongs to another run.
        """
        step = best_step(checkpoint)
        if step is None:
            return None
        found = folder / f"checkpoint-{step}"
        reason = find_damage(found) if found.is_dir() else _("is missing")
        if reason is None and self._differences_of(found):
            reason = _("belongs to another run")
        if reason is None:
            return found
        raise OutputError(
            _(
                "{found}: {reason}, and it was the best so far at {name}; put it back, or start over "
                "with overwrite_output_dir: true"
            ).format(found=found, reason=reason, name=checkpoint.name)
        )

    @contextmanager
    def discard_if_refused(self, *, first: bool) -> Iterator[None]:
        """If the block raises while the folder has only the run file, remove that, so that the folder is free again.

        A corrected recipe is another run, which would otherwise be refused.

        Args:
            first: whether this is the first process, which owns the folder.
        """
        try:
            yield
        except Exception:
            if first and _others(self.path) == [self.path / RUN_FILE]:
                remove(self.path / RUN_FILE)
            raise

    def _publish(self, staged: Path) -> None:
        """Move the files into place, the weights last: if they are there, so is everything else."""
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
    """Refuse an `output_dir` that cannot be used, whatever the run.

    Raises:
        OutputError: it or a parent is a file, or it holds something that is not a run and `overwrite` is false.
    """
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not there.is_dir():
        raise OutputError(
            _("{path}: {there} is not a folder; choose another output_dir").format(path=path, there=there)
            if there != path
            else _("{path}: is not a folder; choose another output_dir").format(path=path)
        )
    if not overwrite and _others(path) and read_run(path) is None:
        text = _(
            "{path}: holds something that is not an lrc run; choose another output_dir, or set overwrite_output_dir: "
            "true"
        )
        raise OutputError(text.format(path=path))


def another_run(path: Path, changed: Sequence[Difference]) -> OutputError:
    """The error for an `output_dir` with another run in it, with a line for each difference."""
    text = _(
        "{path}: holds another run ({fact}); {cure} to resume it, choose another output_dir, or set "
        "overwrite_output_dir: true"
    )
    return OutputError(*(text.format(path=path, fact=one.fact, cure=one.cure) for one in changed))


def refuse_sources_in(folder: Path, sources: Sequence[Path]) -> None:
    """Refuse to overwrite a folder that holds a file which the run reads, the user's home, or other runs.

    Raises:
        OutputError: it does.
    """
    runs = [file.parent for file in sorted(folder.glob(f"*/{RUN_FILE}")) if not _CHECKPOINT.fullmatch(file.parent.name)]
    for source in (*sources, Path(expand_home("~")), *runs):
        if source.exists() and is_in(source, folder):
            raise OutputError(
                _(
                    "{folder}: holds {source}, which overwrite_output_dir would remove; choose another output_dir"
                ).format(folder=folder, source=source)
            )


def _others(path: Path) -> list[Path]:
    """What is in a folder, except the locks of this run and of runs that were killed while starting."""
    return sorted(set(path.iterdir()) - set(list_parts(path, RUN_FILE))) if path.is_dir() else []


def _tidy(path: Path) -> None:
    """Remove the temporary files of runs that were killed."""
    for leftover in left_behind(path):
        remove(leftover)
