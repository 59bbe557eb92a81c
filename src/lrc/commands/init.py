"""`lrc init`: writes editable copies of what lrc ships: recipes and their schema, launch configs, samples, versions."""

from __future__ import annotations

import os
import re
from contextlib import ExitStack
from importlib.resources import files as packaged
from pathlib import Path

from lrc.config.json_schema import schema_line, schema_text
from lrc.runtime import system
from lrc.runtime.errors import OutputError
from lrc.runtime.findings import print_lines, print_next
from lrc.runtime.outputs import is_file_of, new_file
from lrc.runtime.packages import constraints_file
from lrc.runtime.translation import _

# The files of each folder that are copied.
FOLDERS = {"recipes": ("*/*.yaml",), "accelerate_configs": ("*.yaml",), "examples": ("*.xlsx", "sweep.yaml")}
SCHEMA = "recipe.schema.json"
SUGGESTED = "recipes/qwen3-8b/qlora.yaml"


def init(folder: Path, *, force: bool = False) -> None:
    """Copy the shipped recipes, accelerate configs and samples into `folder`, and print the next command.

    The folders have the names in the recipes' headers, so that the commands there work in `folder` unchanged.

    Args:
        folder: where `recipes/`, `accelerate_configs/`, `examples/`, the schema and constraints.txt go; it is created.
        force: overwrite files that exist.

    Raises:
        OutputError: files exist, with a finding for each, or one cannot be written; then nothing is written.
    """
    copies = {folder / name: text for name, text in shipped().items()}
    # Files that are as shipped are left alone, so that a killed init can be continued, and one in a clone is.
    missing = {path: content for path, content in copies.items() if force or not _is_there(path, content)}
    existing = [path for path in missing if os.path.lexists(path)]
    if existing and not force:
        text = _("{path}: already exists; choose another folder, or overwrite it with --force")
        raise OutputError(*(text.format(path=path) for path in existing))
    with ExitStack() as stack:  # every copy is complete under its temporary name before the first is renamed
        for path, content in missing.items():
            stack.enter_context(new_file(path, force=force)).write_bytes(content)
    wrote, there = _("wrote {output}"), _("{output}: is there already, unchanged")
    lines = [(wrote if path in missing else there).format(output=path) for path in copies]
    print_lines(*lines)
    print_next(_next(folder))


def shipped() -> dict[str, bytes]:
    """The contents of the files to write, by their relative paths.

    The first line of each recipe names the schema, for editors.
    """
    copies = {constraints_file().name: constraints_file().read_bytes(), SCHEMA: schema_text().encode()}
    for name, patterns in FOLDERS.items():
        root = Path(str(packaged(f"lrc.{name}")))
        for file in sorted(file for pattern in patterns for file in root.glob(pattern)):
            place = file.relative_to(root)
            head = schema_line(f"{'../' * len(place.parts)}{SCHEMA}") if name == "recipes" else ""
            copies[f"{name}/{place.as_posix()}"] = head.encode() + file.read_bytes()
    return copies


def _is_there(path: Path, content: bytes) -> bool:
    """Whether a file is as shipped: a recipe with the line for editors or, in a clone, without it."""
    return is_file_of(path, content) or is_file_of(path, re.sub(rb"\A# yaml-language-server: .*\n", b"", content))


def _next(folder: Path) -> str:
    train, place = f"lrc train {SUGGESTED}", system.command_line([str(folder)])
    text = _("`lrc doctor` says which recipe suits this machine; edit {recipe} or another, then: {command}")
    if folder == Path():
        return text.format(recipe=SUGGESTED, command=train)
    if system.WINDOWS:  # whose PowerShell does not know &&
        text = _(
            "`lrc doctor` says which recipe suits this machine; edit {recipe} or another, then, in {place}: {command}"
        )
        return text.format(recipe=SUGGESTED, place=place, command=train)
    return text.format(recipe=SUGGESTED, command=f"cd {place} && {train}")
