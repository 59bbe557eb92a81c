"""Checks arguments that are given in Python, by the rules of the flags of the same names."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

from lrc.runtime.errors import LrcError
from lrc.runtime.translation import _


def require_choice(name: str, value: object, choices: Sequence[str], error: type[LrcError]) -> None:
    """Require one of several texts.

    Args:
        name: of the argument.
        value: that was given.
        choices: the allowed ones.
        error: the class of the exception.

    Raises:
        LrcError: of that class; it is none of them.
    """
    if value not in choices:
        text = _("{name} is {value}, expected one of {choices}")
        raise error(text.format(name=name, value=repr(value), choices=tuple(choices)))


def require_count(name: str, value: object, least: int, error: type[LrcError]) -> None:
    """Require a whole number that is large enough; see `require_choice`.

    Args:
        least: the smallest allowed number.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        text = _("{name} is {value}, expected a whole number from {least}")
        raise error(text.format(name=name, value=repr(value), least=least))
