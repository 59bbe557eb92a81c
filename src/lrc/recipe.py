"""Recipes: one run's YAML and the keys that override it, read strictly, then built by TRL's parser."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import Field, dataclass, fields
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from lrc.bounds import ANY, BOUNDS, Bounds
from lrc.dtypes import settle
from lrc.errors import RecipeError
from lrc.strictyaml import Mapping, read_mapping, refuse_tokens
from lrc.values import fault, fits, takes_list, takes_text

if TYPE_CHECKING:
    from lrc.arguments import AdapterArguments, DataArguments, ModelArguments, TrainingArguments

REQUIRED = {
    "model_name_or_path": "the base model: a folder, or a name on the Hub",
    "train_file": "the JSON that `lrc convert` wrote",
    "output_dir": "the folder for the adapter",
}
# Texts that name something: an empty one would be taken for the folder that the command runs in, or for nothing.
NAMES = ("validation_file", "soft_labels", "model_revision", "resume_from_checkpoint")
COMMAND_LINE = "command line"
SECRETS = ("hub_token", "push_to_hub_token", "hf_token", "token", "use_auth_token")
# Keys that older recipes have, and what became of them upstream.
GONE = {
    "env": "set environment variables where the run is started",
    "warmup_ratio": "write warmup_steps: a value below 1 is a ratio",
    "max_seq_length": "it is now max_length",
    "torch_dtype": "it is now dtype",
    "bnb_4bit_compute_dtype": "4-bit weights are computed with in dtype; remove it",
    "bnb_4bit_use_double_quant": "it is use_bnb_nested_quant",
    "tokenizer_name": "the base model's own tokenizer is used; remove it",
    "tokenizer_name_or_path": "the base model's own tokenizer is used; remove it",
    "save_safetensors": "nothing else is saved; remove it",
    "logging_dir": "trackers have their own places; remove it",
    "evaluation_strategy": "it is now eval_strategy",
    "group_by_length": "packed trees leave nothing to pad; remove it",
    "no_cuda": "it is now use_cpu",
    "target_modules": "it is lora_target_modules",
    "modules_to_save": "it is lora_modules_to_save",
}


@dataclass(frozen=True)
class Recipe:
    """A recipe as resolved."""

    path: Path | None
    data: DataArguments
    training: TrainingArguments
    model: ModelArguments
    adapter: AdapterArguments
    given: dict[str, Any]  # the keys in the file and on the command line, as given there


def load_recipe(path: Path | None, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Mixed precision that this machine lacks becomes float32, with a line on stderr.

    Args:
        path: the YAML file; None where the command line has every key.
        overrides: `--key value`, `--key=value`, `--key` for a boolean, `--key a b c` for a list.

    Raises:
        RecipeError: whatever is wrong in the file or the overrides, a line each.
    """
    for word in overrides:
        refuse_tokens("command line", word)
    return resolve(read_mapping(path) if path else Mapping("command line", {}, {}), overrides, path)


def resolve(file: Mapping, overrides: Sequence[str] = (), path: Path | None = None) -> Recipe:
    """Check and build what a recipe's YAML and the overriding keys say together, as `load_recipe` does.

    Raises:
        RecipeError: whatever is wrong, a line each.
    """
    _refuse_secrets(file, overrides)
    # From here on it takes seconds: TRL brings transformers and PEFT with it.
    from lrc.arguments import AdapterArguments, DataArguments, ModelArguments, TrainingArguments
    from lrc.overrides import parse_overrides

    classes = (DataArguments, TrainingArguments, ModelArguments, AdapterArguments)
    known = _known_keys(classes)
    overriding, strangers = parse_overrides(overrides, classes)
    from_file = {key: _as_list(value, known[key].hint) if key in known else value for key, value in file.values.items()}
    given = {**from_file, **overriding}
    missing = [key for key in REQUIRED if _is_blank(given.get(key))]
    findings = _findings(_without(from_file, missing), known, file.place)
    on_command_line = {**_without(overriding, missing), **dict.fromkeys(strangers)}
    findings += _findings(on_command_line, known, lambda key: COMMAND_LINE)
    places = {key: COMMAND_LINE if key in overriding else file.place(key) for key in missing}
    findings += [f"{place}: {key} is missing; give {REQUIRED[key]}" for key, place in places.items()]
    findings += [f"{file.name}: {text}" for text in _contradictions(given)]
    if findings:
        raise RecipeError(*findings)
    data, training, model, adapter = _build(classes, settle(given), file.name)
    return Recipe(path, data, training, model, adapter, given)


def takes_whole_numbers_only(key: str) -> bool:
    """Whether a recipe's key takes whole numbers and no others; false for a key that is none of a recipe's."""
    from lrc.arguments import AdapterArguments, DataArguments, ModelArguments, TrainingArguments

    known = _known_keys((DataArguments, TrainingArguments, ModelArguments, AdapterArguments)).get(key)
    return known is not None and fits(1, known.hint) and not fits(0.5, known.hint)


def find_recipe(name: str) -> Path:
    """The recipe of that name: a YAML file, or one that lrc ships, such as `tiny/lora`.

    Raises:
        RecipeError: there is none.
    """
    return _find(name, "recipe", "recipes")


def find_accelerate_config(name: str) -> Path:
    """The accelerate config of that name: a YAML file, or one that lrc ships, such as `cpu_2`.

    Raises:
        RecipeError: there is none.
    """
    return _find(name, "accelerate config", "accelerate_configs")


def default_accelerate_config() -> str:
    """The shipped accelerate config for the devices of this machine."""
    import torch

    count = torch.accelerator.device_count() if torch.accelerator.is_available() else 0
    return "cpu" if count == 0 else "single_gpu" if count == 1 else "multi_gpu"


def _find(name: str, kind: str, folder: str) -> Path:
    if Path(name).is_file():
        return Path(name)
    root = Path(str(files(f"lrc.{folder}")))
    shipped = {file.relative_to(root).with_suffix("").as_posix(): file for file in sorted(root.rglob("*.yaml"))}
    # The paths in the documentation hold in a clone only; the names in them hold wherever lrc is installed.
    short = name.removeprefix(f"{folder}/").removesuffix(".yaml")
    if short in shipped:
        return shipped[short]
    near = get_close_matches(short, shipped, n=1)
    cure = f"did you mean {near[0]!r}?" if near else f"give a YAML file, or one of {', '.join(shipped)}"
    raise RecipeError(f"{name}: no such {kind}; {cure}")


@dataclass(frozen=True)
class _Key:
    """One key of a recipe: what its field takes."""

    hint: Any
    choices: Sequence[Any] | None
    bounds: Bounds

    def fault(self, value: Any) -> str | None:
        return fault(value, self.hint, self.choices, self.bounds)


def _known_keys(classes: Sequence[type]) -> dict[str, _Key]:
    def key(field: Field[Any], hint: Any) -> _Key:
        return _Key(hint, field.metadata.get("choices"), BOUNDS.get(field.name, ANY))

    hints = {cls: get_type_hints(cls) for cls in classes}
    return {f.name: key(f, hints[cls][f.name]) for cls in classes for f in fields(cls) if f.init}


def _refuse_secrets(file: Mapping, overrides: Sequence[str]) -> None:
    cure = "does not belong in a recipe; log in with `hf auth login` or set HF_TOKEN"
    words = {word.lstrip("-").partition("=")[0].replace("-", "_") for word in overrides if word.startswith("--")}
    findings = [f"{file.place(key)}: {key} {cure}" for key in SECRETS if file.values.get(key) is not None]
    findings += [f"command line: {key} {cure}" for key in SECRETS if key in words]
    if findings:
        raise RecipeError(*findings)


def _findings(values: dict[str, Any], known: dict[str, _Key], place: Callable[[str], str]) -> list[str]:
    unknown = [f"{place(key)}: {_unknown(key, known)}" for key in values if key not in known]
    faults = {key: known[key].fault(value) for key, value in values.items() if key in known}
    blank = [key for key in NAMES if values.get(key) is not None and _is_blank(values[key])]
    faults |= dict.fromkeys(blank, "is empty; give one, or remove it")
    return unknown + [f"{place(key)}: {key} {text}" for key, text in faults.items() if text]


def _without(values: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in keys}


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _contradictions(given: dict[str, Any]) -> list[str]:
    """Keys that are right by themselves and do not go together, where they are of different parts of a recipe."""
    found = []
    if given.get("fp16") is True and given.get("bf16") is True:
        found.append("fp16 and bf16 are both true; keep one")
    start = str(given.get("init_lora_weights"))
    if start.startswith("pissa"):
        bits = [key for key in ("load_in_4bit", "load_in_8bit") if given.get(key) is True]
        found += [f"init_lora_weights is {start}, which changes the base that {key} freezes; keep one" for key in bits]
        if given.get("use_dora") is True:
            found.append(f"init_lora_weights is {start}, and use_dora is true; what both learn has no LoRA, keep one")
        if given.get("use_rslora") is True and (given.get("rank_pattern") or given.get("alpha_pattern")):
            found.append(f"init_lora_weights is {start}, and use_rslora goes with no pattern then; remove one of them")
    return found


def _unknown(key: str, known: dict[str, _Key]) -> str:
    if key in GONE:
        return f"unknown key {key!r}; {GONE[key]}"
    near = get_close_matches(key, known, n=1)
    return f"unknown key {key!r}; " + (f"did you mean {near[0]!r}?" if near else "remove it")


def _as_list(value: Any, hint: Any) -> Any:
    """A text where a list is wanted, such as `all-linear`, stands for a list of it, as upstream has it."""
    return [value] if isinstance(value, str) and takes_list(hint) and not takes_text(hint) else value


def _build(classes: Sequence[type], values: dict[str, Any], name: str) -> tuple[Any, ...]:
    from trl import TrlParser

    try:
        with warnings.catch_warnings():
            # transformers announces new names for keys that TRL still has under the old ones.
            warnings.simplefilter("ignore", FutureWarning)
            built: tuple[Any, ...] = TrlParser(classes).parse_dict(values)
    except (ValueError, TypeError, KeyError, RuntimeError, ImportError, OSError, AssertionError) as error:
        raise RecipeError(f"{name}: {error}") from error
    return built
