"""Reads SWEEP.yaml: which recipe is trained, which of its keys are searched, and where the output goes.

It is read as strictly as a recipe. Before anything is trained, each choice and the ends of each range have passed the
checks of a recipe.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Any

from lrc.config.field_types import format_value
from lrc.config.recipe import REQUIRED, find_recipe, read_recipe, resolve, takes_whole_numbers_only
from lrc.config.yaml_reader import YamlMapping, read_mapping
from lrc.runtime.errors import RecipeError
from lrc.runtime.findings import Finding
from lrc.runtime.translation import _

# Of each key: its type, whether it is required, and a description of its values.
KEYS = {
    "recipe": (str, True, _("a recipe's file, or the name of a shipped one")),
    "trials": (int, True, _("a whole number, 1 or more")),
    "output_dir": (str, True, _("a folder")),
    "search": (
        dict,
        True,
        _("a mapping of a recipe's keys, each with a list of values or {{low: …, high: …}}").format(),
    ),
    "seed": (int, False, _("a whole number, 0 or more")),
    "overrides": (dict, False, _("a mapping of a recipe's keys")),
}
LEAST = {"trials": 1, "seed": 0}
SPEC_KEYS = ("low", "high", "log", "step")
# Keys of a recipe that the sweep sets for each trial.
OWN = ("output_dir", "overwrite_output_dir", "resume_from_checkpoint", "run_name")


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included."""

    low: float
    high: float
    log: bool = False  # sampled uniformly on a logarithmic scale
    step: float | None = None  # None is 1 for whole numbers; otherwise the range is continuous
    whole: bool = False  # whole numbers only

    @property
    def size(self) -> int | None:
        """How many numbers there are; None if the range is continuous."""
        if self.step is None and not self.whole:
            return None
        return math.floor((self.high - self.low) / (self.step or 1) + 1e-9) + 1

    @property
    def values(self) -> list[float]:
        """The numbers, if the range is not continuous; otherwise empty."""
        step = self.step or 1
        return [self.low + i * step for i in range(self.size or 0)]


Choices = tuple[Any, ...]


@dataclass(frozen=True)
class Sweep:
    """A sweep, as described by its file."""

    path: Path
    trials: int
    output_dir: Path
    seed: int
    fixed: dict[str, Any]  # the recipe's keys, with `overrides` applied
    search: dict[str, Range | Choices]
    written: dict[str, Any]  # `search` as it is in the file

    @property
    def size(self) -> int | None:
        """How many different trials there can be; None if a range is continuous."""
        sizes = [spec.size if isinstance(spec, Range) else len(spec) for spec in self.search.values()]
        return None if None in sizes else math.prod(size for size in sizes if size)

    def combinations(self) -> Iterator[dict[str, Any]]:
        """The values of all possible trials; only if `size` is not None."""
        every = [spec.values if isinstance(spec, Range) else spec for spec in self.search.values()]
        return (dict(zip(self.search, values, strict=True)) for values in product(*every))


@dataclass(frozen=True)
class _Layers(YamlMapping):
    """A recipe's keys, each with the place where it is written."""

    places: dict[str, str]

    def place(self, key: str) -> str:
        return self.places.get(key, self.name)


def read_sweep(path: Path, trials: int | None = None) -> Sweep:
    """Read a SWEEP.yaml, and check its values as those of a recipe.

    Args:
        path: the file.
        trials: replaces the number of trials in the file.

    Raises:
        RecipeError: something is wrong, with one line for each.
    """
    file = read_mapping(path)
    findings = [*_structure(file)]
    if findings:
        raise RecipeError(*findings)
    values = file.values
    recipe = read_recipe(find_recipe(values["recipe"]))
    overrides = values.get("overrides", {})
    findings = [*_own_keys(file, overrides), *_specs(file, values["search"])]
    if findings:
        raise RecipeError(*findings)
    fixed = {**recipe.values, **overrides}
    places = {key: recipe.place(key) for key in recipe.values} | dict.fromkeys(overrides, f"{path.name}, overrides")
    search = {key: _spec(key, spec) for key, spec in values["search"].items()}
    output = Path(values["output_dir"])
    _check(YamlMapping(path.name, {**fixed, "output_dir": str(output)}, {}), places, search)
    return Sweep(path, trials or values["trials"], output, values.get("seed", 42), fixed, search, values["search"])


def _structure(file: YamlMapping) -> Iterator[str]:
    if not KEYS.keys() & file.values.keys() - {"seed", "output_dir"} and file.values.keys() & set(REQUIRED):
        yield _(
            "{file}: is a recipe, not a sweep; write a file with `recipe: {file}`, trials, search and output_dir, as "
            "examples/sweep.yaml has them"
        ).format(file=file.name)
        return
    for key, value in file.values.items():
        if key not in KEYS:
            text = _("{place}: unknown key {key}; {cure}")
            yield text.format(place=file.place(key), key=repr(key), cure=_nearest(key, KEYS))
        elif type(value) is not KEYS[key][0] or KEYS[key][1] and not value or _is_too_small(key, value):
            text = _("{place}: {key} is {value}, expected {what}")
            yield text.format(place=file.place(key), key=key, value=format_value(value), what=KEYS[key][2])
    for key, (_type, needed, what) in KEYS.items():
        if needed and key not in file.values:
            yield _("{place}: {key} is missing; give {what}").format(place=file.name, key=key, what=what)


def _is_too_small(key: str, value: Any) -> bool:
    return key in LEAST and value < LEAST[key]


def _own_keys(file: YamlMapping, overrides: dict[str, Any]) -> Iterator[str]:
    for part, keys in (("search", file.values["search"]), ("overrides", overrides)):
        for key in OWN:
            if key in keys:
                text = _("{file}, {part}: {key} is set by the sweep itself; remove it")
                yield text.format(file=file.name, part=part, key=key)
    for key in file.values["search"].keys() & overrides.keys():
        yield _("{file}: {key} is in both search and overrides; keep one").format(file=file.name, key=key)


def _specs(file: YamlMapping, search: dict[str, Any]) -> Iterator[str]:
    for key, spec in search.items():
        problem = _check_range(spec) if isinstance(spec, dict) else _check_list(spec)
        if problem:
            yield _("{file}, search: {key} {problem}").format(file=file.name, key=key, problem=problem)


def _check_list(spec: Any) -> str | None:
    if not isinstance(spec, list) or not spec:
        text = _("is {value}, expected a list of values, or {{low: …, high: …}}")
        return text.format(value=format_value(spec))
    doubled = [value for i, value in enumerate(spec) if value in spec[:i]]
    return _("lists {value} twice; keep one").format(value=format_value(doubled[0])) if doubled else None


def _check_range(spec: dict[str, Any]) -> str | None:
    unknown = [key for key in spec if key not in SPEC_KEYS]
    if unknown:
        text = _("has an unknown key {key}; {cure}")
        return text.format(key=repr(unknown[0]), cure=_nearest(unknown[0], SPEC_KEYS))
    low: Any = spec.get("low")
    high: Any = spec.get("high")
    step: Any = spec.get("step", 1)
    for key, value in {"low": low, "high": high, "step": step}.items():
        if type(value) not in (int, float) or not math.isfinite(value):
            return _("has {value} as {key}, expected a number").format(value=format_value(value), key=key)
    if not low < high:
        text = _("has {low} as low, expected less than high, {high}")
        return text.format(low=format_value(spec["low"]), high=format_value(spec["high"]))
    if type(spec.get("log", False)) is not bool:
        return _("has {value} as log, expected true or false").format(value=format_value(spec["log"]))
    if spec.get("log") and (low <= 0 or "step" in spec):
        return _("has log: true, which needs low above 0 and excludes step")
    return _("has {value} as step, expected more than 0").format(value=format_value(step)) if step <= 0 else None


def _spec(key: str, spec: Any) -> Range | Choices:
    if isinstance(spec, list):
        return tuple(spec)
    return Range(**spec, whole=takes_whole_numbers_only(key))


def _check(file: YamlMapping, places: dict[str, str], search: dict[str, Range | Choices]) -> None:
    """Run a recipe's checks on each choice, and on the ends of each range, with all other keys at their first value."""
    candidates = {
        key: (spec.low, spec.high, *([spec.low + spec.step] if spec.step else [])) if isinstance(spec, Range) else spec
        for key, spec in search.items()
    }
    places = {**places, **dict.fromkeys(search, f"{file.name}, search")}
    first = {key: values[0] for key, values in candidates.items()}
    tried = [first, *({**first, key: value} for key, values in candidates.items() for value in values[1:])]
    findings: dict[str | Finding, None] = {}
    for values in tried:
        try:
            built = resolve(_Layers(file.name, {**file.values, **values}, {}, places))
            findings |= dict.fromkeys(
                _refuse_settings(built.data.validation_file, built.training.push_to_hub, file.name)
            )
        except RecipeError as error:
            findings |= dict.fromkeys(error.findings)
    if findings:
        raise RecipeError(*findings)


def _refuse_settings(validation_file: str | None, push_to_hub: bool, name: str) -> Iterator[str]:
    if validation_file is None:
        text = _("{file}: the recipe has no validation_file, by which trials are compared; give one in overrides")
        yield text.format(file=name)
    if push_to_hub:
        text = _("{file}: push_to_hub is true, and every trial would be uploaded; publish the best with `lrc publish`")
        yield text.format(file=name)


def _nearest(key: str, known: Sequence[str] | dict[str, Any]) -> str:
    near = get_close_matches(key, list(known), n=1)
    if near:
        return _("did you mean {near}?").format(near=repr(near[0]))
    return _("known are {names}").format(names=tuple(known))
