"""Checks a value of a recipe against the type and the bounds of its field, and words the error."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from lrc.runtime.translation import _

LARGEST = 2**63  # one more than a tensor's size or a counter can be
NAMES = {bool: _("true or false"), int: _("a whole number"), float: _("a number"), str: _("text"), dict: _("a mapping")}
LISTS = {int: _("a list of whole numbers"), float: _("a list of numbers"), str: _("a list of texts")}


@dataclass(frozen=True)
class Bounds:
    """The bounds of a number."""

    least: float | None = None
    above: float | None = None
    below: float | None = None

    def find_error(self, value: float) -> str | None:
        """What is expected of a number that is out of bounds; None if it is within them."""
        if self.least is not None and value < self.least:
            return _("{least} or more").format(least=self.least)
        if self.above is not None and value <= self.above:
            return _("more than {above}").format(above=self.above)
        if self.below is not None and value >= self.below:
            return _("less than {below}").format(below=self.below)
        return None

    def __str__(self) -> str:
        """The bounds in words, such as `from 0 and below 1`."""
        words = {"from": self.least, "above": self.above, "below": self.below}
        return " and ".join(f"{word} {number}" for word, number in words.items() if number is not None)


ANY = Bounds()
# For keys that upstream checks late or not at all.
BOUNDS = {
    "per_device_train_batch_size": Bounds(1),
    "per_device_eval_batch_size": Bounds(1),
    "gradient_accumulation_steps": Bounds(1),
    "num_train_epochs": Bounds(above=0),
    "max_steps": Bounds(-1),
    "learning_rate": Bounds(above=0),
    "weight_decay": Bounds(0),
    "warmup_steps": Bounds(0),
    "adam_beta1": Bounds(0, below=1),
    "adam_beta2": Bounds(0, below=1),
    "adam_epsilon": Bounds(above=0),  # with 0, matrix A's first update is 0 / 0: B is zero, and so is A's gradient
    "max_grad_norm": Bounds(0),
    "logging_steps": Bounds(above=0),
    "eval_steps": Bounds(above=0),
    "eval_delay": Bounds(0),
    "save_steps": Bounds(above=0),
    "save_total_limit": Bounds(0),
    "max_length": Bounds(1),
    "lora_r": Bounds(1),
    "lora_alpha": Bounds(1),
    "lora_dropout": Bounds(0, below=1),
    "loraplus_lr_ratio": Bounds(1),
    "loraplus_lr_embedding": Bounds(above=0),
    "neftune_noise_alpha": Bounds(0),
    "early_stopping_patience": Bounds(1),
    "early_stopping_threshold": Bounds(0),
    "option_orders": Bounds(1),
    "eval_questions": Bounds(1),
    "option_contrast": Bounds(0),
    "contrast_temperature": Bounds(above=0),
    "soft_label_weight": Bounds(0),
    "pseudo_label_threshold": Bounds(0),
    "soft_label_temperature": Bounds(above=0),
    "row_tokens": Bounds(1),
    "fold": Bounds(0),
    "expected_vocab_size": Bounds(1),
    "seed": Bounds(0, below=2**32),
    "data_seed": Bounds(0, below=2**32),
    "dataset_num_proc": Bounds(1),
    "dataloader_num_workers": Bounds(0),
    "torch_empty_cache_steps": Bounds(1),
    "ddp_bucket_cap_mb": Bounds(1),
    "ddp_timeout": Bounds(1),
}


def find_error(value: Any, hint: Any, choices: Sequence[Any] | None = None, bounds: Bounds = ANY) -> str | None:
    """Find what is wrong with a value.

    Args:
        value: from the YAML file or the command line.
        hint: the type hint of the field.
        choices: the allowed values, if the hint does not list them.
        bounds: of an allowed number.

    Returns:
        An error such as `is 4.5, expected a whole number`; None if the value is valid.
    """
    allowed = list(choices) if choices else _names(hint)
    if value is not None and allowed and value not in allowed and not _holds_more(hint, choices):
        return _expect(value, _join_words(allowed))
    if isinstance(value, str) and "\0" in value:
        return _("holds a nul character; write the text without it")
    if type(value) is int and abs(value) >= LARGEST:
        return _expect(value, _("a number below {largest}").format(largest=LARGEST))
    if not fits(value, hint):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return _expect(value, describe_type(hint), quoted=number and describe_type(hint).startswith("text"))
    limit = bounds.find_error(value) if fits(value, float) else None
    return _expect(value, limit) if limit else None


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type; an int is also a float, but neither a bool nor infinity is a number."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, UnionType):
        return any(fits(value, arm) for arm in arguments)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in arguments)
    if origin is list:
        return isinstance(value, list) and all(fits(item, arguments[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits(item, arguments[1]) for item in value.values())
    return _is_a(value, hint)


def describe_type(hint: Any) -> str:
    """A type in words, such as `a whole number or nothing`."""
    arms = written_members(hint)
    one = [NAMES.get(arm) or NAMES.get(get_origin(arm)) for arm in arms]
    several = [LISTS.get(get_args(arm)[0], _("a list of names")) for arm in arms if get_origin(arm) is list]
    known = list(dict.fromkeys([*_names(hint), *(word for word in one if word), *several]))
    return _join_words(known + ([_("nothing")] if type(None) in arms else []))


def members(hint: Any) -> list[Any]:
    """The types of a union; a type by itself."""
    return list(get_args(hint)) if get_origin(hint) in (Union, UnionType) else [hint]


def written_members(hint: Any) -> list[Any]:
    """The types of a union as they are written: of upstream's `SomeEnum | str`, all texts are the enumeration's."""
    return [arm for arm in members(hint) if not (arm is str and _enumerations(hint))]


def takes_list(hint: Any) -> bool:
    """Whether a field takes a list."""
    return any(get_origin(arm) is list for arm in members(hint))


def takes_text(hint: Any) -> bool:
    """Whether a field takes a single text."""
    return str in members(hint)


def format_value(value: Any) -> str:
    """A value as YAML writes it, abridged to 60 characters."""
    text = "empty" if value is None else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _is_a(value: Any, hint: Any) -> bool:
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return value in [member.value for member in hint]
    return isinstance(hint, type) and isinstance(value, hint)


def _names(hint: Any) -> list[Any]:
    """The values of the literals and enumerations among the types of a field."""
    literals = [choice for arm in members(hint) if get_origin(arm) is Literal for choice in get_args(arm)]
    return literals + [member.value for enumeration in _enumerations(hint) for member in enumeration]


def _enumerations(hint: Any) -> list[type[Enum]]:
    return [arm for arm in members(hint) if isinstance(arm, type) and issubclass(arm, Enum)]


def _holds_more(hint: Any, choices: Sequence[Any] | None) -> bool:
    """Whether a field takes any text in addition to the literals, as in `str | Literal[False] | None`."""
    return not choices and takes_text(hint) and any(get_origin(arm) is Literal for arm in members(hint))


def _expect(value: Any, words: str, *, quoted: bool = False) -> str:
    text = _("is {value}, expected {expected}")
    if quoted:
        text = _("is {value}, expected {expected}; put it in quotes")
    return text.format(value=format_value(value), expected=words)


def _join_words(words: Sequence[Any]) -> str:
    texts = [word if isinstance(word, str) else str(word).lower() for word in words]
    return texts[0] if len(texts) == 1 else _("{words} or {last}").format(words=tuple(texts[:-1]), last=texts[-1])
