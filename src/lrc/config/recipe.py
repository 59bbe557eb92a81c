"""Reads recipes, the YAML of a run and the keys that override it: checked strictly, then built by TRL's parser."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrc.config.field_types import fits, takes_list, takes_text
from lrc.config.ignored_keys import describe_ignored
from lrc.config.overrides import parse_overrides
from lrc.config.rules import JUDGED_UPSTREAM, broken_rules
from lrc.config.schema import Schema, installed_schema, is_exact, shipped_schema
from lrc.config.shipped import find_shipped
from lrc.config.synonyms import cure
from lrc.config.yaml_reader import YamlMapping, read_mapping, refuse_tokens
from lrc.runtime.devices import apply_device_support
from lrc.runtime.errors import RecipeError
from lrc.runtime.system import expand_home
from lrc.runtime.translation import _

if TYPE_CHECKING:
    from lrc.config.arguments import AdapterArguments, DataArguments, ModelArguments, TrainingArguments

REQUIRED = {
    "model_name_or_path": _("the base model: a folder, or a name on the Hub"),
    "train_file": _("the JSON that `lrc convert` wrote"),
    "output_dir": _("the folder for the adapter"),
}
# Keys whose text must not be empty: it would be taken for the current folder, or ignored.
NAMES = (
    "validation_file",
    "soft_labels",
    "pseudo_labels",
    "pseudo_label_file",
    "model_revision",
    "resume_from_checkpoint",
)
# Keys that may be paths. Where they begin with `~`, transformers expands only output_dir, and a shell only some words.
PATHS = (*NAMES, "model_name_or_path", "train_file", "output_dir")
COMMAND_LINE = _("command line")
SECRETS = ("hub_token", "push_to_hub_token", "hf_token", "token", "use_auth_token")
# Files of data, which other commands read, and which may be given as a recipe by mistake.
TABLES = (".xlsx", ".xlsm", ".xls", ".xlsb", ".ods", ".csv", ".tsv", ".jsonl")


@dataclass(frozen=True)
class Recipe:
    """A recipe with its overrides, checked and built."""

    path: Path | None  # None if all keys are from the command line
    data: DataArguments
    training: TrainingArguments
    model: ModelArguments
    adapter: AdapterArguments
    given: dict[str, Any]  # the keys in the file and on the command line, as given there
    # To be shown: keys without effect; and what this machine does not support, with what is used instead.
    notices: tuple[str, ...] = ()


def load_recipe(path: Path | None, overrides: Sequence[str] = ()) -> Recipe:
    """Read, check and build a recipe.

    A number format that this machine does not support is replaced by another one, with a notice.

    Args:
        path: the YAML file; None if all keys are on the command line.
        overrides: `--key value`, `--key=value`, `--key` for a boolean, `--key a b c` for a list.

    Raises:
        RecipeError: something is wrong in the file or the overrides; one finding for each error.
    """
    return resolve(read_recipe(path), overrides, path)


def find_ignored(path: Path) -> str | None:
    """What to say about the keys of a recipe that change nothing, without the place; imports no torch.

    Raises:
        RecipeError: the file is not a YAML mapping, or is data.
    """
    return _describe_ignored(read_recipe(path).values)


def _describe_ignored(given: dict[str, Any]) -> str | None:
    return describe_ignored(given, {key: known.default for key, known in shipped_schema().items()})


def check_recipe(path: Path | None, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Check a recipe as `load_recipe` does, but import torch only if a key or the installed versions require it.

    Returns:
        The keys in the file and on the command line.

    Raises:
        RecipeError: something is wrong; one finding for each error.
    """
    given = read_given(path, overrides)
    judged = [key for key in JUDGED_UPSTREAM if given.get(key) not in (None, "none", [], ["none"])]
    return load_recipe(path, overrides).given if judged or not is_exact() else given


def read_given(path: Path | None, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read the keys of the file and the command line, and check what can be checked without upstream's classes.

    Torch is imported only if the shipped schema is not that of the installed versions and finds an error.

    Returns:
        The keys in the file and on the command line.

    Raises:
        RecipeError: something is wrong; one finding for each error.
    """
    return _merge_given(read_recipe(path), overrides)


def read_recipe(path: Path | None) -> YamlMapping:
    """Read the YAML of a recipe without checking its keys.

    Raises:
        RecipeError: the file is not a YAML mapping, or is data.
    """
    if path is None:
        return YamlMapping(COMMAND_LINE, {}, {})
    if _is_data(path):
        raise RecipeError(
            _(
                "{path}: is data, not a recipe; give a YAML file or the name of a shipped recipe, and "
                "the data that `lrc convert` wrote as --train_file"
            ).format(path=path)
        )
    return read_mapping(path)


def _is_data(path: Path) -> bool:
    if path.suffix.lower() != ".json" or not path.is_file():
        return path.suffix.lower() in TABLES and path.is_file()
    with path.open("rb") as file:
        return file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")


def resolve(file: YamlMapping, overrides: Sequence[str] = (), path: Path | None = None) -> Recipe:
    """Check and build a recipe whose YAML is read already; see `load_recipe`.

    Raises:
        RecipeError: something is wrong; one finding for each error.
    """
    given = _merge_given(file, overrides)
    # Imported late: TRL, transformers and PEFT take seconds.
    from lrc.config.arguments import CLASSES

    support = apply_device_support(given)
    data, training, model, adapter = _build(CLASSES, support.values, file.name)
    ignored = _describe_ignored(given)
    notices = (_("{place}: {text}").format(place=file.name, text=ignored),) if ignored else ()
    return Recipe(path, data, training, model, adapter, given, notices + support.notices)


def _merge_given(file: YamlMapping, overrides: Sequence[str]) -> dict[str, Any]:
    """Merge and check the keys of the file and the command line."""
    for word in overrides:
        refuse_tokens(COMMAND_LINE, word)
    _refuse_secrets(file, overrides)
    try:
        return _check_given(file, overrides, shipped_schema())
    except RecipeError:
        if is_exact():
            raise
    return _check_given(file, overrides, installed_schema())


def _check_given(file: YamlMapping, overrides: Sequence[str], known: Schema) -> dict[str, Any]:
    overriding, strangers = parse_overrides(overrides, known)
    from_file = {key: _as_list(value, known[key].hint) if key in known else value for key, value in file.values.items()}
    given = {key: _expand(value) if key in PATHS else value for key, value in {**from_file, **overriding}.items()}
    missing = [key for key in REQUIRED if _is_blank(given.get(key))]
    findings = _find_errors(_drop(from_file, missing), known, file.place)
    on_command_line = {**_drop(overriding, missing), **dict.fromkeys(strangers)}
    findings += _find_errors(on_command_line, known, lambda key: COMMAND_LINE)
    places = {key: COMMAND_LINE if key in overriding else file.place(key) for key in missing}
    findings += [
        _("{place}: {key} is missing; give {what}").format(place=place, key=key, what=REQUIRED[key])
        for key, place in places.items()
    ]
    if not findings:
        values = {key: known[key].default for key in known} | given
        findings = [_("{file}: {text}").format(file=file.name, text=text) for text in broken_rules(values)]
    if findings:
        raise RecipeError(*findings)
    return given


def takes_whole_numbers_only(key: str) -> bool:
    """Whether a key takes whole numbers but no other numbers; false for an unknown key."""
    known = installed_schema().get(key)
    return known is not None and fits(1, known.hint) and not fits(0.5, known.hint)


def find_recipe(name: str) -> Path:
    """Find a recipe: a YAML file, or one that lrc ships, such as `tiny/lora`.

    Raises:
        RecipeError: there is none of that name.
    """
    return find_shipped(name, _("recipe"), "recipes")


def _refuse_secrets(file: YamlMapping, overrides: Sequence[str]) -> None:
    text = _("{place}: {key} does not belong in a recipe; log in with `hf auth login` or set HF_TOKEN")
    words = {word.lstrip("-").partition("=")[0].replace("-", "_") for word in overrides if word.startswith("--")}
    findings = [text.format(place=file.place(key), key=key) for key in SECRETS if file.values.get(key) is not None]
    findings += [text.format(place=COMMAND_LINE, key=key) for key in SECRETS if key in words]
    if findings:
        raise RecipeError(*findings)


def _find_errors(values: dict[str, Any], known: Schema, place: Callable[[str], str]) -> list[str]:
    strange = _("{place}: unknown key {key}; {cure}")
    unknown: list[str] = [
        strange.format(place=place(key), key=repr(key), cure=cure(key, known)) for key in values if key not in known
    ]
    errors = {key: known[key].find_error(value) for key, value in values.items() if key in known}
    blank = [key for key in NAMES if values.get(key) is not None and _is_blank(values[key])]
    errors |= dict.fromkeys(blank, _("is empty; give one, or remove it"))
    wrong = _("{place}: {key} {text}")
    return unknown + [wrong.format(place=place(key), key=key, text=text) for key, text in errors.items() if text]


def _drop(values: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in keys}


def _is_blank(value: Any) -> bool:
    if isinstance(value, list):
        return not value or any(map(_is_blank, value))
    return value is None or (isinstance(value, str) and not value.strip())


def _expand(value: Any) -> Any:
    """Put the home folder in the place of `~` in a path, or in each of a list."""
    if isinstance(value, list):
        return [_expand(one) for one in value]
    return expand_home(value) if isinstance(value, str) else value


def _as_list(value: Any, hint: Any) -> Any:
    """Put a text, such as `all-linear`, into a list if the key takes only lists, as upstream does."""
    return [value] if isinstance(value, str) and takes_list(hint) and not takes_text(hint) else value


def _build(classes: Sequence[type], values: dict[str, Any], name: str) -> tuple[Any, ...]:
    from trl import TrlParser

    try:
        with warnings.catch_warnings():
            # transformers warns of renamed keys that TRL still has under their old names.
            warnings.simplefilter("ignore", FutureWarning)
            built: tuple[Any, ...] = TrlParser(classes).parse_dict(values)
    except (ValueError, TypeError, KeyError, RuntimeError, ImportError, OSError, AssertionError) as error:
        raise RecipeError(_("{file}: {reason}").format(file=name, reason=error)) from error
    return built
