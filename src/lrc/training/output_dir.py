"""The output folder of a run: whose it is, where the run resumes, and what is in it at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lrc.config.run_record import RUN_FILE, Run, read_run
from lrc.runtime.errors import OutputError, RecipeError
from lrc.runtime.locks import left_behind, list_parts, remove
from lrc.runtime.outputs import checksum, flush, new_file
from lrc.runtime.progress import notify
from lrc.runtime.translation import _
from lrc.training.checkpoint import MANIFEST, STAGE, adopt, best_step, close_stage, find_damage, newest, open_stage
from lrc.training.resume import Difference, differences, is_longer, run_of

WEIGHTS = ("adapter_model.safetensors", "model.safetensors", "model.safetensors.index.json")


@dataclass(frozen=True)
class OutputDir:
    """The `output_dir` of one run."""

    path: Path
    run: Run

    @classmethod
    def open(cls, path: Path, run: Run, *, overwrite: bool) -> OutputDir:
        """Take `path` for `run`: new, or where the same run stopped.

        Raises:
            OutputError: another run, or something else, is in it and `overwrite` is false.
        """
        found = read_run(path)
        if found is not None and not (changed := differences(found, run)):
            _tidy(path)
            # Weights that somebody has removed are trained again.
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
        """Whether the run in the folder came to its end."""
        return self.run.finished

    @property
    def trained(self) -> bool:
        """Whether the trained weights are in the folder, and no more than evaluating them is left."""
        return self.run.step > 0 and any((self.path / name).is_file() for name in WEIGHTS)

    def checkpoint(self, named: str | None, *, best: bool) -> str | None:
        """Where the run resumes, once what a kill left behind is out of the way; for one process.

        Args:
            named: the checkpoint that the recipe says; one of another folder counts until there is one in this.
            best: whether the best checkpoint becomes the result, so that it has to be there.

        Returns:
            The checkpoint that is named, else the newest one that is whole; None where there is none.

        Raises:
            RecipeError, OutputError: it is one of another run, of a finished one, or the best one so far is missing.
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
        """Put the trained weights and the tokenizer into the folder; from then on nothing of the training can be lost.

        Args:
            trainer: whose `save_model` writes them; all processes take part in it.

        Raises:
            MachineError: the disk is full.
        """
        from lrc.runtime.disk import convert_disk_errors  # which brings transformers; `preflight` does without

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
        """Mark the run as finished, in the first process.

        Args:
            decided: fields of the run that are known only now.

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
        """Refuse to resume from a checkpoint of another folder unless it is of this run.

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
            raise RecipeError(
                *(f"{place}: belongs to another run: {one}, or remove resume_from_checkpoint" for one in changed)
            )
        if origin.finished and not is_longer(origin, self.run):
            result = named.resolve().parent
            raise RecipeError(
                _("{place}: its run is finished; use {result}, or remove resume_from_checkpoint").format(
                    place=place, result=result
                )
            )

    def _differences_of(self, checkpoint: Path) -> list[Difference]:
        """What makes a checkpoint one of another run; one that says nothing is of the run whose folder it is in."""
        origin = run_of(checkpoint) or self.run
        return [] if is_longer(origin, self.run) else differences(origin, self.run)

    def _begin_at(self, named: Path, *, best: bool) -> str:
        """Go on from a checkpoint of another folder, and record which it was."""
        if best and (source := self._best_of(named, named.resolve().parent)):
            adopt(source, self.path)
        real = named.resolve()
        origin = {"folder": real.parent.name, "checkpoint": real.name, "manifest_sha256": checksum(real / MANIFEST)}
        self.run.origin.update(origin)
        self._write(self.run)
        return str(named)

    def _best_of(self, checkpoint: Path, folder: Path) -> Path | None:
        """The best checkpoint until another one; None where nothing was evaluated.

        Raises:
            OutputError: it is missing, damaged, or one of another run.
        """
        step = best_step(checkpoint)
        if step is None:
            return None
        found = folder / f"checkpoint-{step}"
        reason = find_damage(found) if found.is_dir() else "is missing"
        if reason is None and self._differences_of(found):
            reason = "belongs to another run"
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
        OutputError: it is or is in a file, or holds something that is not a run and `overwrite` is false.
    """
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not there.is_dir():
        raise OutputError(
            _("{path}: {there} is not a folder; choose another output_dir").format(path=path, there=there)
            if there != path
            else _("{path}: is not a folder; choose another output_dir").format(path=path)
        )
    if not overwrite and _others(path) and read_run(path) is None:
        raise _refusal(path, "something that is not an lrc run")


def _refusal(path: Path, what: str) -> OutputError:
    return OutputError(
        _("{path}: holds {what}; choose another output_dir, or set overwrite_output_dir: true").format(
            path=path, what=what
        )
    )


def another_run(path: Path, changed: Sequence[Difference]) -> OutputError:
    """What is said of an `output_dir` with another run in it, a line for each difference."""
    cure = "choose another output_dir, or set overwrite_output_dir: true"
    return OutputError(*(f"{path}: holds another run ({one.fact}); {one.cure} to resume it, {cure}" for one in changed))


def refuse_sources_in(folder: Path, sources: Sequence[Path]) -> None:
    """Refuse to empty a folder that holds what the run reads.

    Raises:
        OutputError: it does.
    """
    for source in sources:
        if source.exists() and source.resolve().is_relative_to(folder.resolve()):
            raise OutputError(
                _(
                    "{folder}: holds {source}, which overwrite_output_dir would remove; choose another output_dir"
                ).format(folder=folder, source=source)
            )


def _others(path: Path) -> list[Path]:
    """What is in a folder besides this run's lock, and those of runs that were killed as they began."""
    return sorted(set(path.iterdir()) - set(list_parts(path, RUN_FILE))) if path.is_dir() else []


def _tidy(path: Path) -> None:
    """Remove the temporary files of runs that were killed."""
    for leftover in left_behind(path):
        remove(leftover)
