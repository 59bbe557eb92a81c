"""Finds the recipes and accelerate configs that lrc ships by name, and suggests similar names."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path

from lrc.config.yaml_reader import read_mapping
from lrc.runtime.errors import LrcError, RecipeError
from lrc.runtime.exit_status import is_first, is_step
from lrc.runtime.progress import notify
from lrc.runtime.system import expand_home
from lrc.runtime.translation import Message, _, alternatives

MOST_DESCRIBED = 4  # similar files up to which each is listed with a description
FEW = 12  # shipped files up to which all are listed with a description if none is similar


def find_shipped(name: str, kind: str, folder: str) -> Path:
    """Find a YAML file by its path, or a shipped one by its name.

    A shipped one is named on stderr if an edited copy of it lies where `lrc init` puts it, and is not what was named.

    Args:
        name: a path, or the name of a shipped file, with or without folder and suffix.
        kind: what to call such a file in messages.
        folder: the subpackage of `lrc` with the shipped files.

    Raises:
        RecipeError: there is none; the message suggests similar ones.
    """
    if Path(expand_home(name)).is_file():
        return Path(expand_home(name))
    shipped = shipped_files(folder)
    # The documentation has paths that exist only in a clone; the names in them work wherever lrc is installed.
    short = name.replace("\\", "/").removeprefix(f"{folder}/").removesuffix(".yaml").rstrip("/")
    if short in shipped:
        _tell_of_copy(kind, Path(folder, f"{short}.yaml"), shipped[short])
        return shipped[short]
    near = _find_similar(short, shipped)
    if not 0 < len(near) <= MOST_DESCRIBED:
        names = tuple(near or shipped)
        if not near and len(shipped) <= FEW:
            names = tuple(_name_with_description(one, file) for one, file in shipped.items())
        text = _("{name}: no such {kind}; give a YAML file, or one of {names}")
        raise RecipeError(text.format(name=name, kind=kind, names=names))
    named = [repr(one) if len(near) == 1 else _name_with_description(repr(one), shipped[one]) for one in near]
    raise RecipeError(
        _("{name}: no such {kind}; did you mean {named}?").format(
            name=name, kind=kind, named=alternatives(named, _("{words} or {last}"))
        )
    )


def shipped_files(folder: str) -> dict[str, Path]:
    """The YAML files of a subpackage of `lrc`, by their names without suffix, such as `tiny/lora`; sorted."""
    root = Path(str(files(f"lrc.{folder}")))
    return {file.relative_to(root).with_suffix("").as_posix(): file for file in sorted(root.rglob("*.yaml"))}


@cache
def _tell_of_copy(kind: str, copy: Path, shipped: Path) -> None:
    """Tell once that a copy with other values is not used; a step of `lrc run` leaves that to its caller."""
    if not copy.is_file() or is_step() or not is_first():
        return
    with suppress(LrcError):
        if read_mapping(copy).values == read_mapping(shipped).values:
            return
    text = _("{copy}: has other values than the {kind} that lrc ships, which is used; give this path to use the copy")
    notify(text.format(copy=copy, kind=kind))


def _find_similar(name: str, shipped: Collection[str]) -> list[str]:
    """The shipped names that contain the words of a name, else the one most similar to it."""
    words = name.lower().replace("_", "-")
    parts = {one: one.lower().replace("_", "-").replace("/", "-").split("-") for one in shipped}
    whole = [one for one in shipped if one.startswith(f"{name.lower()}/")]
    asked = [word.removesuffix("s") if len(word) > 3 else word for word in words.split("-")]
    holding = [
        one for one, split in parts.items() if all(any(part.startswith(word) for part in split) for word in asked)
    ]
    # The simplest first: one GPU before several.
    holding.sort(key=lambda one: ("multi" in one, len(parts[one])))
    return whole or holding or get_close_matches(name, list(shipped), n=1)


def _name_with_description(name: str, path: Path) -> str:
    description = Message(first_sentence(path.read_text(encoding="utf-8")))
    return _("{name} ({description})").format(name=name, description=description)


def first_sentence(text: str) -> str:
    """The first sentence of the comment at the top of a shipped file, which describes it; a message id."""
    first = text.partition("\n\n")[0].replace("\n# ", " ").removeprefix("# ")
    for end in (". ", ": ", "; ", ", made"):
        first = first.partition(end)[0]
    return first.splitlines()[0].rstrip(".")
