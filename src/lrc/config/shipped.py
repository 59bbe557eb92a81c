"""Files that lrc ships, recipes and accelerate configs, found by their names or by what resembles one."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path

from lrc.runtime.errors import RecipeError
from lrc.runtime.translation import _, alternatives

MOST_DESCRIBED = 4  # files that a name may stand for, each told with what it is for
FEW = 12  # files, of which all are told so where a name is like none of them


def find_shipped(name: str, kind: str, folder: str) -> Path:
    """The YAML file of that name, or the shipped one that the name stands for.

    Args:
        kind: what to call it in a message.
        folder: the data package that ships such files, beside `lrc`'s rooms.

    Raises:
        RecipeError: there is none; the nearest are named.
    """
    if Path(name).is_file():
        return Path(name)
    root = Path(str(files(f"lrc.{folder}")))
    shipped = {file.relative_to(root).with_suffix("").as_posix(): file for file in sorted(root.rglob("*.yaml"))}
    # The paths in the documentation hold in a clone only; the names in them hold wherever lrc is installed.
    short = name.replace("\\", "/").removeprefix(f"{folder}/").removesuffix(".yaml").rstrip("/")
    if short in shipped:
        return shipped[short]
    near = _alike(short, shipped)
    if not near and len(shipped) <= FEW:
        described = tuple(f"{one} ({_about(file)})" for one, file in shipped.items())
        raise RecipeError(
            _("{name}: no such {kind}; give a YAML file, or one of {described}").format(
                name=name, kind=kind, described=described
            )
        )
    if not 0 < len(near) <= MOST_DESCRIBED:
        raise RecipeError(
            _("{name}: no such {kind}; give a YAML file, or one of {names}").format(
                name=name, kind=kind, names=tuple(near or shipped)
            )
        )
    named = [repr(one) if len(near) == 1 else f"{one!r} ({_about(shipped[one])})" for one in near]
    raise RecipeError(
        _("{name}: no such {kind}; did you mean {named}?").format(
            name=name, kind=kind, named=alternatives(named, _("{words} or {last}"))
        )
    )


def _alike(name: str, shipped: Sequence[str] | dict[str, Path]) -> list[str]:
    """The shipped ones that a name stands for in part, else the one that it resembles."""
    words = name.lower().replace("_", "-")
    parts = {one: one.lower().replace("_", "-").replace("/", "-").split("-") for one in shipped}
    whole = [one for one in shipped if one.startswith(f"{name.lower()}/")]
    asked = [word.removesuffix("s") if len(word) > 3 else word for word in words.split("-")]
    holding = [
        one for one, split in parts.items() if all(any(part.startswith(word) for part in split) for word in asked)
    ]
    # The plainest first: one GPU before several.
    holding.sort(key=lambda one: ("multi" in one, len(parts[one])))
    return whole or holding or get_close_matches(name, list(shipped), n=1)


def _about(path: Path) -> str:
    """The first sentence of a shipped file, which says what it is for."""
    first = path.read_text(encoding="utf-8").partition("\n\n")[0].replace("\n# ", " ").removeprefix("# ")
    for end in (". ", ": ", "; ", ", made"):
        first = first.partition(end)[0]
    return first.splitlines()[0].rstrip(".")
