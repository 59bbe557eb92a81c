"""What a run notes of how it was started: the command, the hardware, the day, and the workbook behind its data.

Nothing that was trained depends on these, so they say nothing about whether two runs are the same.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from lrc.config.recipe import Recipe, read_recipe
from lrc.data.manifest import source_of
from lrc.data.questions import script_of
from lrc.reporting.scrub import scrub
from lrc.runtime.machine import describe_hardware


def record_launch(recipe: Recipe, passages: Iterable[str]) -> dict[str, Any]:
    """Look at what a run was started with, and on.

    Args:
        passages: of the questions that it trained or was asked about.

    Returns:
        `command`, without folders and secrets; `hardware`; `date`, of the run's end, in UTC; `script`, `Hant` or
        `Hans`; and `workbooks`, the name and the SHA-256 of what each data file was converted from, by the role of the
        file; the last two as far as they are known.
    """
    args, data = recipe.training, recipe.data
    read = {"train_file": data.train_files[0], "validation_file": data.validation_file}
    sources = {role: source_of(Path(file)) for role, file in read.items() if file}
    return {
        "command": shlex.join(_words(recipe)),
        "hardware": describe_hardware(args.device.type, args.world_size),
        "date": datetime.now(UTC).date().isoformat(),
        **({"script": script} if (script := script_of(passages)) else {}),
        "workbooks": {role: source for role, source in sources.items() if source},
    }


def _words(recipe: Recipe) -> Iterator[str]:
    """`lrc train`, the recipe, and the keys that it does not have so itself."""
    yield from ("lrc", "train")
    if recipe.path is not None:
        yield _name(recipe.path)
    own = read_recipe(recipe.path).values if recipe.path is not None and recipe.path.is_file() else {}
    for key, value in scrub({key: value for key, value in recipe.given.items() if own.get(key) != value}).items():
        yield f"--{key}"
        yield from map(str, value if isinstance(value, list) else [value])


def _name(path: Path) -> str:
    """A recipe as the command line has it: the name of one that ships, else its file's."""
    shipped = Path(str(files("lrc.recipes"))).resolve()
    real = path.resolve()
    return real.relative_to(shipped).with_suffix("").as_posix() if real.is_relative_to(shipped) else path.name
