"""The type, the choices and the default of each key of a recipe, without importing TRL, transformers and PEFT.

docs/build_recipes.py writes `recipe_schema.json` from the dataclasses of `lrc.config.arguments`, with the versions of
transformers and TRL. If other versions are installed, it is only an approximation: a recipe that it refuses is checked
again with the installed dataclasses.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from enum import Enum
from functools import cache
from importlib.resources import files
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from lrc.config.field_types import ANY, BOUNDS, Bounds, find_error, members
from lrc.runtime.packages import installed_version

FILE = "recipe_schema.json"
PACKAGES = ("transformers", "trl")  # lrc's dataclasses derive from theirs
# The name of each plain type in the file.
WORDS: dict[Any, str] = {bool: "bool", int: "int", float: "float", str: "str", type(None): "null", Any: "any"}
PLAIN = {word: hint for hint, word in WORDS.items()}


class Unwritable:
    """Takes the place of an upstream class whose values cannot be written in YAML."""


@dataclass(frozen=True)
class Key:
    """One key of a recipe.

    Args:
        hint: the type of the field; upstream's enumerations are rebuilt from their values.
        choices: the allowed values, if the type does not list them.
        bounds: of an allowed number.
        default: as in JSON; None also if the default depends on the machine.
        alone: whether the key may be on the command line without a value, which means true.
    """

    hint: Any
    choices: Sequence[Any] | None = None
    bounds: Bounds = ANY
    default: Any = None
    alone: bool = False

    def find_error(self, value: Any) -> str | None:
        """What is wrong with a value, such as `is 4.5, expected a whole number`; None if it is valid."""
        return find_error(value, self.hint, self.choices, self.bounds)


Schema = Mapping[str, Key]
MISSING_PACKAGE = "none"


@cache
def shipped_schema() -> Schema:
    """The keys with the versions of upstream that lrc was released with."""
    return {name: _read(name, entry) for name, entry in _document()["keys"].items()}


@cache
def installed_schema() -> Schema:
    """The keys with the installed versions; imports torch if lrc was released with other versions."""
    if is_exact():
        return shipped_schema()
    from lrc.config.arguments import CLASSES

    return {name: _read(name, entry) for name, entry in describe_schema(CLASSES)["keys"].items()}


@cache
def is_exact() -> bool:
    """Whether the shipped schema was made with the installed versions; packages that are not installed do not count."""
    made_with = _document()["versions"]
    return all(found in (made_with[name], MISSING_PACKAGE) for name, found in _versions().items())


def describe_schema(classes: Sequence[type]) -> dict[str, Any]:
    """The content of `recipe_schema.json`: the versions, and type, choices and default of each field of the classes."""
    keys: dict[str, Any] = {}
    for cls in classes:
        hints = get_type_hints(cls)
        keys |= {field.name: _entry(field, hints[field.name]) for field in fields(cls) if field.init}
    return {"versions": _versions(), "keys": keys}


def _document() -> Any:
    return json.loads(files(__package__).joinpath(FILE).read_text(encoding="utf-8"))


def _versions() -> dict[str, str]:
    return {name: installed_version(name) or MISSING_PACKAGE for name in PACKAGES}


def _entry(field: Field[Any], hint: Any) -> dict[str, Any]:
    arms = members(hint)
    entry: dict[str, Any] = {"takes": [_encode_type(arm) for arm in arms]}
    if choices := field.metadata.get("choices"):
        entry["choices"] = list(choices)
    if field.default is not MISSING:
        default = getattr(field.default, "value", field.default)
        if default is not None:
            entry["default"] = default
    # As in transformers' parser: booleans, except those whose default is None, and fields with `const`.
    if bool in arms and not (type(None) in arms and field.default is None) or field.metadata.get("const") is True:
        entry["alone"] = True
    return entry


def _encode_type(arm: Any) -> Any:
    """A type in JSON: a word, or an object if it has values or other types inside."""
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
