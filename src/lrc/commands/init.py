"""`lrc init`: editable copies of the recipes and launch configs that lrc ships."""

from __future__ import annotations

import os
import shlex
from contextlib import ExitStack
from importlib.resources import files as packaged
from pathlib import Path

from lrc.runtime.errors import OutputError
from lrc.runtime.outputs import new_file

FOLDERS = ("recipes", "accelerate_configs")
SUGGESTED = "recipes/chinese-alpaca-2-13b/qlora.yaml"


def init(folder: Path, *, force: bool = False) -> None:
    """Copy every shipped recipe and accelerate config into `folder`, and print where they are and what comes next.

    The folders have the names that the recipes' headers use, so the commands there work from `folder` unchanged.

    Args:
        folder: where `recipes/` and `accelerate_configs/` go; it is made.
        force: overwrite files that exist.

    Raises:
        OutputError: a file exists, one finding each, or cannot be written; nothing is written then.
    """
    copies = {folder / name: text for name, text in shipped().items()}
    existing = [path for path in copies if os.path.lexists(path)]
    if existing and not force:
        cure = "choose another folder, or overwrite it with --force"
        raise OutputError(*(f"{path}: already exists; {cure}" for path in existing))
    with ExitStack() as stack:  # every copy is complete under its temporary name before the first is renamed
        for path, content in copies.items():
            stack.enter_context(new_file(path, force=force)).write_bytes(content)
    print(*(f"wrote {path}" for path in copies), sep="\n")
    print(f"next: {_next(folder)}")


def shipped() -> dict[str, bytes]:
    """The bytes of the shipped YAML files by their place in the user's folder, sorted."""
    roots = {name: Path(str(packaged(f"lrc.{name}"))) for name in FOLDERS}
    return {
        f"{name}/{file.relative_to(root).as_posix()}": file.read_bytes()
        for name, root in roots.items()
        for file in sorted(root.rglob("*.yaml"))
    }


def _next(folder: Path) -> str:
    change = "" if folder == Path() else f"cd {shlex.quote(str(folder))} && "
    return f"edit {SUGGESTED} or another of them, then: {change}lrc train {SUGGESTED}"
