"""Parses the keys of a recipe on the command line, `--key value`, as transformers' `HfArgumentParser` does."""

from __future__ import annotations

import re
from argparse import SUPPRESS, ArgumentParser
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Literal, NoReturn, get_args, get_origin

from lrc.config.field_types import fits, members, takes_list, takes_text
from lrc.config.schema import Key, Schema
from lrc.runtime.errors import RecipeError
from lrc.runtime.translation import _

TRUTHS = {"yes": True, "true": True, "t": True, "y": True, "1": True}
TRUTHS |= {"no": False, "false": False, "f": False, "n": False, "0": False}


def parse_overrides(overrides: Sequence[str], schema: Schema) -> tuple[dict[str, Any], list[str]]:
    """Parse `--key value`, `--key=value`, `--key a b c` for a list, and `--key` by itself for a boolean.

    Args:
        overrides: the words of the command line.
        schema: the keys of a recipe.

    Returns:
        The values by key, as text if they cannot be converted to the type of the field; and the unknown keys.

    Raises:
        RecipeError: a key without a value, or a value without a key.
    """
    parser = _Parser(allow_abbrev=False, add_help=False, argument_default=SUPPRESS)
    for name, key in schema.items():
        _add_key(parser, name, key)
    namespace, rest = parser.parse_known_args(list(overrides))
    values = vars(namespace)
    for name in values:
        hint = schema[name].hint
        # As in upstream's parser, a single word is a text if the field takes both.
        if takes_text(hint) and takes_list(hint):
            values[name] = values[name][0] if len(values[name]) == 1 else values[name]
        # As in the file; argparse would keep the text "null".
        if values[name] in ("null", ["null"]) and fits(None, hint):
            values[name] = None
    unknown = [word[2:].partition("=")[0] for word in rest if word.startswith("--") and len(word) > 2]
    if rest and not unknown:
        raise RecipeError(_("command line: {rest} has no key before it; write --key value").format(rest=repr(rest[0])))
    return values, unknown


class _Parser(ArgumentParser):
    """Raises an error instead of exiting."""

    def error(self, message: str) -> NoReturn:
        raise RecipeError(re.sub(r"^argument (--\w+)\S*: ", r"\1: ", message))


def _add_key(parser: ArgumentParser, name: str, key: Key) -> None:
    flags = [f"--{name}", f"--{name.replace('_', '-')}"][: 1 + ("_" in name)]
    arms = _arms(key.hint)
    words: dict[str, Any] = {"nargs": "+"} if takes_list(key.hint) else {}
    if key.alone:
        words = {"nargs": "?", "const": True}
    parser.add_argument(*flags, dest=name, type=_make_converter(arms), **words)
    if bool in arms and key.default is True:
        negated = (f"--no_{name}", f"--no-{name.replace('_', '-')}")
        parser.add_argument(*dict.fromkeys(negated), dest=name, action="store_false")


def _make_converter(arms: Sequence[Any]) -> Callable[[str], Any]:
    """The function that converts a word of the command line; a word that no type of the field takes is kept."""
    if bool in arms:
        return lambda word: TRUTHS.get(word.lower(), word)
    number = next((arm for arm in (int, float) if arm in arms), None)
    if number and str not in arms:
        return lambda word: _convert_number(number, word)
    if named := {str(value): value for arm in arms for value in _list_values(arm)}:
        return lambda word: named.get(word, word)
    return str


def _convert_number(kind: type, word: str) -> Any:
    try:
        return kind(word)
    except ValueError:
        return word


def _list_values(arm: Any) -> Sequence[Any]:
    if isinstance(arm, type) and issubclass(arm, Enum):
        return [member.value for member in arm]
    # In a union with text, `false` on the command line is a text.
    return [value for value in get_args(arm) if isinstance(value, str)] if get_origin(arm) is Literal else ()


def _arms(hint: Any) -> tuple[Any, ...]:
    """The types of a field: for a list those of its items, and None for NoneType."""
    return tuple(
        None if arm is type(None) else get_args(arm)[0] if get_origin(arm) is list else arm for arm in members(hint)
    )
