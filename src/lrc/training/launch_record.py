"""What a run records about its start: the command, the hardware, the date, and the workbook behind its data.

The weights do not depend on any of it, so it plays no part in whether a run may be resumed.
"""

from __future__ import annotations

import json
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
from lrc.runtime.system import command_line


def record_launch(recipe: Recipe, passages: Iterable[str]) -> dict[str, Any]:
    """Collect what a run was started with, and on what.

    Args:
        passages: some of those that it was trained on.

    Returns:
        `command`, without folders and secrets; `hardware`; `date`, in UTC, on which the run ended; `script`, `Hant` or
        `Hans`, if it can be told; and `workbooks`: for each data file that was converted from one, by the file's role,
        the workbook's name and SHA-256.
    """
    args, data = recipe.training, recipe.data
    read = {"train_file": data.train_files[0], "validation_file": data.validation_file}
    sources = {role: source_of(Path(file)) for role, file in read.items() if file}
    return {
        "command": command_line(_words(recipe)),
        "hardware": describe_hardware(args.device.type, args.world_size),
        "date": datetime.now(UTC).date().isoformat(),
        **({"script": script} if (script := script_of(passages)) else {}),
        "workbooks": {role: source for role, source in sources.items() if source},
    }


def _words(recipe: Recipe) -> Iterator[str]:
    """The words of `lrc train RECIPE --key value …`, with the keys that differ from the recipe file."""
    yield from ("lrc", "train")
    if recipe.path is not None:
        yield _name(recipe.path)
    own = read_recipe(recipe.path).values if recipe.path is not None and recipe.path.is_file() else {}
    for key, value in scrub({key: value for key, value in recipe.given.items() if own.get(key) != value}).items():
        yield f"--{key}"
        yield from map(_word, value if isinstance(value, list) else [value])


def _word(value: object) -> str:
    """A value as the command line takes it: `null` and `true`, not Python's `None` and `True`."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _name(path: Path) -> str:
    """How the command line names a recipe: a shipped one without folder and suffix, any other by its file name."""
    shipped = Path(str(files("lrc.recipes"))).resolve()
    real = path.resolve()
    return real.relative_to(shipped).with_suffix("").as_posix() if real.is_relative_to(shipped) else path.name
