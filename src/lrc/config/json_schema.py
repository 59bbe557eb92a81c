"""Makes the JSON Schema of recipes, with which an editor completes keys, explains them and underlines mistakes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import Enum
from functools import cache
from importlib.resources import files
from typing import Any, Literal, get_args, get_origin

from lrc.config.field_types import Bounds, written_members
from lrc.config.recipe import REQUIRED, SECRETS
from lrc.config.rules import SAMPLING, UNSUPPORTED
from lrc.config.schema import Key, Unwritable, shipped_schema

DIALECT = "http://json-schema.org/draft-07/schema#"  # the one that yaml-language-server reads
MEANINGS = "recipe_meanings.json"  # written by docs/build_recipes.py
NAMES: dict[Any, str] = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
WORDS = {"least": "minimum", "above": "exclusiveMinimum", "below": "exclusiveMaximum"}


def json_schema() -> dict[str, Any]:
    """The JSON Schema, with a property for each key of a recipe; other keys are not allowed.

    It does not cover rules about several keys or about the machine; `lrc check recipe.yaml` does.
    """
    keys = {name: key for name, key in shipped_schema().items() if name not in SECRETS}
    return {
        "$schema": DIALECT,
        "title": "A recipe of lrc",
        "type": "object",
        "properties": {name: _describe_key(name, key) for name, key in keys.items()},
        "required": list(REQUIRED),
        "additionalProperties": False,
    }


def schema_text() -> str:
    """The JSON Schema as the text of a file."""
    return json.dumps(json_schema(), ensure_ascii=False, indent=1) + "\n"


def schema_line(place: str) -> str:
    """The first line of a recipe, which tells editors where the schema is.

    Args:
        place: the path of the schema, relative to the folder of the recipe.
    """
    return f"# yaml-language-server: $schema={place}\n"


def _describe_key(name: str, key: Key) -> dict[str, Any]:
    """The property of one key."""
    entry: dict[str, Any] = {"description": meaning} if (meaning := _meanings().get(name)) else {}
    if name in UNSUPPORTED:
        return entry | {"description": "lrc supports no other value.", "const": UNSUPPORTED[name]}
    if name == "train_sampling_strategy":
        return entry | {"enum": list(SAMPLING), "default": key.default}
    if key.default is not None:
        entry["default"] = key.default
    return entry | _describe_types(key) | _describe_bounds(key.bounds)


def _describe_types(key: Key) -> dict[str, Any]:
    arms = written_members(key.hint)
    if key.choices:
        entries = [{"enum": list(key.choices)}, *(_describe_type(arm) for arm in arms if arm is not str)]
    else:
        entries = [_describe_type(arm) for arm in arms if arm is not Unwritable]
    return entries[0] if len(entries) == 1 else {"anyOf": entries}


def _describe_type(hint: Any) -> dict[str, Any]:
    """A type in JSON Schema."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return {"enum": list(arguments)}
    if isinstance(hint, type) and issubclass(hint, Enum):
        return {"enum": [member.value for member in hint]}
    if origin is list:
        return {"type": "array", "items": _describe_type(arguments[0])}
    if origin is dict:
        values = {} if arguments[1] is Any else {"additionalProperties": _describe_type(arguments[1])}
        return {"type": "object"} | values
    return {} if hint is Any else {"type": NAMES[hint]}


def _describe_bounds(bounds: Bounds) -> dict[str, float]:
    """Bounds in JSON Schema; they apply to numbers only."""
    found = {word: getattr(bounds, name) for name, word in WORDS.items()}
    return {word: number for word, number in found.items() if number is not None}


@cache
def _meanings() -> Mapping[str, str]:
    found: dict[str, str] = json.loads(files(__package__).joinpath(MEANINGS).read_text(encoding="utf-8"))
    return found
