"""Keys of a recipe given on the command line, `--key value`, taken the way TRL's parser takes them."""

from __future__ import annotations

import re
from argparse import SUPPRESS, ArgumentTypeError
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, get_type_hints

from trl import TrlParser

from lrc.errors import RecipeError
from lrc.values import fits, takes_list, takes_text


def parse_overrides(overrides: Sequence[str], classes: Sequence[type]) -> tuple[dict[str, Any], list[str]]:
    """Read `--key value`, `--key=value`, `--key a b c` for a list, and `--key` alone for a boolean.

    Args:
        overrides: the words of the command line.
        classes: the dataclasses whose fields are the keys.

    Returns:
        The values by key, a text where it cannot be turned into the field's type; and the unknown keys.

    Raises:
        RecipeError: a key without a value, or a value without a key.
    """
    parser = _Given(classes, allow_abbrev=False, add_help=False)
    namespace, rest = parser.parse_known_args(list(overrides))
    values = vars(namespace)
    for key in parser.one_or_more & values.keys():
        values[key] = values[key][0] if len(values[key]) == 1 else values[key]
    # As in the file; argparse knows no null of a text.
    values |= {key: None for key, value in values.items() if value == "null" and fits(None, parser.hints[key])}
    unknown = [word[2:].partition("=")[0] for word in rest if word.startswith("--") and len(word) > 2]
    if rest and not unknown:
        raise RecipeError(f"command line: {rest[0]!r} belongs to no key; write --key value")
    return values, unknown


class _Given(TrlParser):
    """Holds only what is given, leaves faults of a value to `values.fault`, and never exits."""

    def __init__(self, classes: Sequence[type], **options: Any) -> None:
        super().__init__(classes, **options)
        self.hints = {key: hint for cls in classes for key, hint in get_type_hints(cls).items()}
        # Of a field that takes a text or a list of it, argparse is told the text alone.
        self.one_or_more = {key for key, hint in self.hints.items() if takes_text(hint) and takes_list(hint)}
        for action in self._actions:
            action.nargs = "+" if action.dest in self.one_or_more else action.nargs
            action.default, action.choices, action.required = SUPPRESS, None, False
            action.type = _lenient(action.type) if action.type else None

    def error(self, message: str) -> NoReturn:
        raise RecipeError(re.sub(r"^argument (--\w+)\S*: ", r"\1: ", message))


def _lenient(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    def converted(word: str) -> Any:
        try:
            return convert(word)
        except (ValueError, TypeError, ArgumentTypeError):
            return word

    return converted
