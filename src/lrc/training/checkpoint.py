"""Checkpoints that are complete or absent: staged, listed in a manifest, flushed to the disk, then renamed.

A checkpoint is whole if every file that its manifest lists has the size and the SHA-256 given there. Whatever a kill
leaves behind is either in the staging folder, which is emptied, or a whole checkpoint.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from lrc.runtime.outputs import checksum, flush
from lrc.runtime.translation import _

STAGE = ".staged"  # the staging folder, inside the folder of the run
MANIFEST = "checkpoint_manifest.json"
STATE = "trainer_state.json"  # transformers' own
_NAME = re.compile(r"checkpoint-(\d+)")


def open_stage(folder: Path) -> Path:
    """Create an empty staging folder in a run's folder, and return it."""
    close_stage(folder)
    stage = folder / STAGE
    stage.mkdir(parents=True)
    return stage


def close_stage(folder: Path) -> None:
    """Remove the staging folder and whatever is in it."""
    shutil.rmtree(folder / STAGE, ignore_errors=True)


def seal(staged: Path, target: Path) -> None:
    """Turn a staged folder into a checkpoint: write the manifest, flush everything, then rename.

    Args:
        staged: a folder in the staging folder, completely written.
        target: `checkpoint-N`; an existing one is replaced.

    Raises:
        OSError: the file system refuses.
    """
    files = _files(staged)
    listed = {str(file.relative_to(staged)): {"size": file.stat().st_size, "sha256": checksum(file)} for file in files}
    manifest = staged / MANIFEST
    manifest.write_text(json.dumps({"files": listed}, indent=2) + "\n", encoding="utf-8")
    _publish(staged, target)


def find_damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, in a few words; None if it is whole."""
    try:
        listed = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))["files"]
        for name, facts in listed.items():
            file = checkpoint / name
            if file.stat().st_size != facts["size"] or checksum(file) != facts["sha256"]:
                return _("{name} is not what was written").format(name=name)
    except FileNotFoundError as error:
        return _("{name} is missing").format(name=Path(error.filename).name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return _("{name} is damaged").format(name=MANIFEST)
    return None


def newest(folder: Path, report: Callable[[str], None]) -> Path | None:
    """The newest whole checkpoint; damaged ones that are newer are renamed. None if there is none.

    Args:
        report: is called with a line for each checkpoint that was renamed.
    """
    for checkpoint in reversed(checkpoints(folder)):
        reason = find_damage(checkpoint)
        if reason is None:
            return checkpoint
        aside = _free_name(checkpoint)
        checkpoint.rename(aside)
        text = _("{checkpoint}: {reason}; moved to {aside}, resuming from the checkpoint before")
        report(text.format(checkpoint=checkpoint, reason=reason, aside=aside.name))
    return None


def adopt(source: Path, folder: Path) -> Path:
    """Copy a checkpoint into another run's folder, completely or not at all, and return its new path.

    Raises:
        OSError: the file system refuses.
    """
    target, staged = folder / source.name, open_stage(folder) / source.name
    shutil.copytree(source, staged)
    _publish(staged, target)
    return target


def _publish(staged: Path, target: Path) -> None:
    """Flush a staged folder to the disk, then rename it; an existing target is replaced."""
    for path in [*staged.rglob("*"), staged]:
        flush(path)
    if target.exists():
        target.rename(staged.with_name(f"{target.name}.old"))
    staged.rename(target)
    flush(target.parent)


def rotate(folder: Path, limit: int | None, best: str | None) -> None:
    """Remove the oldest checkpoints until `limit` are left; the newest and the best are kept in any case.

    Args:
        limit: None or 0 keeps all.
        best: path of the best one so far; only its name is compared, since a run's folder may have been moved.
    """
    found = checkpoints(folder)
    spared = Path(best).name if best else None
    doomed = [checkpoint for checkpoint in found[:-1] if checkpoint.name != spared]
    for checkpoint in doomed[: max(len(found) - limit, 0) if limit else 0]:
        # Renamed first, so that a removal that is cut short leaves its remains in the staging folder.
        aside = folder / STAGE / checkpoint.name
        aside.parent.mkdir(exist_ok=True)
        shutil.rmtree(checkpoint.rename(aside), ignore_errors=True)


def checkpoints(folder: Path) -> list[Path]:
    """The folders named `checkpoint-N`, in ascending order of N."""
    if not folder.is_dir():
        return []
    named = [(int(found[1]), path) for path in folder.iterdir() if (found := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(named) if path.is_dir()]


def best_step(checkpoint: Path) -> int | None:
    """The step with the best evaluation up to a checkpoint; None if nothing was evaluated."""
    state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    found: int | None = state.get("best_global_step")
    return found


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _free_name(checkpoint: Path) -> Path:
    aside = checkpoint.with_name(f"{checkpoint.name}.damaged")
    count = 1
    while aside.exists():
        count += 1
        aside = checkpoint.with_name(f"{checkpoint.name}.damaged{count}")
    return aside
