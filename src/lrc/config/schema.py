"""What each key of a recipe takes, known without the seconds that TRL, transformers and PEFT need to be imported.

`recipe_schema.json` is written by docs/build_recipes.py from the dataclasses of `lrc.config.arguments`, and says with
which versions of transformers and TRL. Where others are installed it is a first guess: what it finds fault with is
looked at again with the installed dataclasses.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from enum import Enum
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from lrc.config.field_types import ANY, BOUNDS, Bounds, find_error

FILE = "recipe_schema.json"
PACKAGES = ("transformers", "trl")  # whose dataclasses lrc's derive from
# JSON's word for each plain type.
WORDS: dict[Any, str] = {bool: "bool", int: "int", float: "float", str: "str", type(None): "null", Any: "any"}
PLAIN = {word: hint for hint, word in WORDS.items()}


class Unwritable:
    """Stands for a class of upstream's that no YAML can write."""


@dataclass(frozen=True)
class Key:
    """One key of a recipe.

    Args:
        hint: the type of its field; an enumeration of upstream's is rebuilt from its values.
        choices: the values allowed, where the type does not say.
        bounds: of the numbers allowed.
        default: as JSON has it; None also where the machine decides.
        alone: whether it may be on the command line without a value, and is true then.
    """

    hint: Any
    choices: Sequence[Any] | None = None
    bounds: Bounds = ANY
    default: Any = None
    alone: bool = False

    def find_error(self, value: Any) -> str | None:
        """What is wrong with a value, as in `is 4.5, expected a whole number`; None where nothing is."""
        return find_error(value, self.hint, self.choices, self.bounds)


Schema = Mapping[str, Key]
MISSING_PACKAGE = "none"


@cache
def shipped_schema() -> Schema:
    """The keys as they were when lrc was released."""
    return {name: _read(name, entry) for name, entry in _document()["keys"].items()}


@cache
def installed_schema() -> Schema:
    """The keys as the installed packages have them; imports torch where lrc was released with others."""
    if is_exact():
        return shipped_schema()
    from lrc.config.arguments import CLASSES

    return {name: _read(name, entry) for name, entry in describe_schema(CLASSES)["keys"].items()}


@cache
def is_exact() -> bool:
    """Whether the installed packages are those that the shipped schema was made with, or are not there to differ."""
    made_with = _document()["versions"]
    return all(found in (made_with[name], MISSING_PACKAGE) for name, found in _versions().items())


def describe_schema(classes: Sequence[type]) -> dict[str, Any]:
    """What `recipe_schema.json` holds: versions, and type, choices and default of every field of the dataclasses."""
    keys: dict[str, Any] = {}
    for cls in classes:
        hints = get_type_hints(cls)
        keys |= {field.name: _entry(field, hints[field.name]) for field in fields(cls) if field.init}
    return {"versions": _versions(), "keys": keys}


def _document() -> Any:
    return json.loads(files(__package__).joinpath(FILE).read_text(encoding="utf-8"))


def _versions() -> dict[str, str]:
    return {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return MISSING_PACKAGE


def _entry(field: Field[Any], hint: Any) -> dict[str, Any]:
    arms = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    entry: dict[str, Any] = {"takes": [_encode_type(arm) for arm in arms]}
    if choices := field.metadata.get("choices"):
        entry["choices"] = list(choices)
    if field.default is not MISSING:
        default = getattr(field.default, "value", field.default)
        if default is not None:
            entry["default"] = default
    # As transformers' parser has it: every boolean but one whose default is nothing, and what asks for it.
    if bool in arms and not (type(None) in arms and field.default is None) or field.metadata.get("const") is True:
        entry["alone"] = True
    return entry


def _encode_type(arm: Any) -> Any:
    """A type as JSON has it: a word, or an object for what holds values or other types."""
    if arm in WORDS:
        return WORDS[arm]
    origin, arguments = get_origin(arm), get_args(arm)
    if origin is Literal:
        return {"literal": list(arguments)}
    if isinstance(arm, type) and issubclass(arm, Enum):
        return {"enum": [member.value for member in arm]}
    if origin is list:
        return {"list": _encode_type(arguments[0])}
    if arm is dict or origin is dict:
        return {"dict": _encode_type(arguments[1]) if arguments else "any"}
    return {"class": arm.__name__}


def _read(name: str, entry: Mapping[str, Any]) -> Key:
    arms = tuple(_hint(arm) for arm in entry["takes"])
    hint = Union[arms] if len(arms) > 1 else arms[0]  # noqa: UP007 - `|` needs the types by name
    return Key(hint, entry.get("choices"), BOUNDS.get(name, ANY), entry.get("default"), "alone" in entry)


def _hint(written: Any) -> Any:
    if isinstance(written, str):
        return PLAIN[written]
    ((kind, content),) = written.items()
    match kind:
        case "literal":
            return Literal[tuple(content)]
        case "enum":
            return Enum("Choice", {str(value): value for value in content})
        case "list":
            return list[_hint(content)]  # type: ignore[misc]
        case "dict":
            return dict[str, _hint(content)]  # type: ignore[misc]
    return Unwritable
