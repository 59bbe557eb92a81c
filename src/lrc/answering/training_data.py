"""Tells that questions are those that a model was trained on, so that nobody relies on its accuracy on them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lrc.config.run_record import read_run
from lrc.runtime.progress import notify
from lrc.runtime.translation import _


def warn_of_training_data(data: Path, sha256: str, folders: Iterable[Path]) -> None:
    """Say so if the questions are those that a model was trained on: a file of them, or the workbook they are from.

    Args:
        data: the questions.
        sha256: of their file.
        folders: of adapters and models; those without a run file are passed over.

    Raises:
        ModelError: a run file cannot be read.
    """
    for folder in folders:
        run = read_run(folder) if folder.is_dir() else None
        named = [*run.data.items(), *run.launch.get("workbooks", {}).items()] if run else []
        if sha256 in {file.get("sha256") for role, file in named if role.startswith("train_file")}:
            text = _("{data}: {folder} was trained on questions of it; the accuracy says little about other questions")
            notify(text.format(data=data, folder=folder))
