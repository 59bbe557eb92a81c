"""Write docs/recipes.md, and recipe_schema.json and recipe_meanings.json of src/lrc/config: every key of a recipe.

    python docs/build_recipes.py

The keys, what they take and their defaults come from `lrc.config.arguments`; so do the meanings of the keys that lrc
declares.
What upstream's keys do in lrc is in `upstream_keys.yaml`, which has to know all of them and no others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from lrc.config import arguments, json_schema, rules, schema
from lrc.config.field_types import BOUNDS, describe_type
from lrc.config.ignored_keys import IGNORED
from lrc.config.recipe import REQUIRED, SECRETS
from lrc.config.synonyms import GONE

HERE = Path(__file__).parent
CLASSES = (
    arguments.DataArguments,
    arguments.AdapterArguments,
    arguments.ModelArguments,
    arguments.TrainingArguments,
)
OWN = "Questions, prompts and trees"
IDLE = "Without effect"
# The groups of the keys that lrc declares among upstream's, most because upstream's default or meaning is another one.
REDECLARED = {
    "project": "Logging",
    "run_name": "Logging",
    "use_peft": "Adapter",
    "bf16": "Precision and memory",
    "gradient_checkpointing": "Precision and memory",
    "use_cpu": "Several processes",
    "early_stopping_patience": "Evaluation while training",
    "early_stopping_threshold": "Evaluation while training",
}
INTRODUCTION = """\
<!-- Written by docs/build_recipes.py: change that, upstream_keys.yaml or src/lrc/config/arguments.py and run it. -->

# Every key of a recipe

A recipe is a YAML file of keys and plain values that describes one training. [`recipes/`](../recipes) has those that
lrc ships; `lrc init` writes copies for you to edit. Any key can also be given on the command line, which overrides the
file:

```text
lrc train my.yaml --learning_rate 2.0e-4 --lora_target_modules q_proj v_proj --fp16 false
```

- The file is read strictly. An unknown key is refused, and the nearest known one suggested. Duplicate keys, values of
  the wrong type, YAML tags and aliases, and anything that looks like an access token are refused as well. `2e-4` is a
  number here; `no` and `yes` are text, since booleans are `true` and `false`.
- `lrc check my.yaml` checks a recipe without training; `lrc preview my.yaml` shows what it would train.
- Relative paths start at the folder in which the command runs.
- Three keys are required: {required}.
- Keys that also exist in TRL, transformers or PEFT have the same names here.

In the tables, "nothing" means an empty value (`null`).
"""


@dataclass(frozen=True)
class Key:
    """One key, as a line of a table."""

    name: str
    takes: str
    default: str
    meaning: str

    def __str__(self) -> str:
        cells = (f"`{self.name}`", self.takes, self.default, self.meaning)
        return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def build() -> str:
    """The text of docs/recipes.md.

    Raises:
        ValueError: `upstream_keys.yaml` lacks a key, or has one that there is not.
    """
    groups = _groups()
    tables = {OWN: [], **{title: [] for title in groups}}
    _require_all(groups)
    for field, hint, own in _keys():
        title, meaning = _place(field, own, groups)
        if title:
            tables[title].append(Key(field.name, _takes(field, hint), _default(field), meaning))
    idle = tables.pop(IDLE)
    parts = [INTRODUCTION.format(required=", ".join(f"`{key}`" for key in REQUIRED))]
    parts += [_table(title, keys) for title, keys in tables.items()]
    parts += [_refused(), _idle(idle)]
    return "\n".join(parts)


def _groups() -> dict[str, dict[str, str]]:
    """What upstream's keys do, by group; those without effect are named by lrc itself."""
    groups = yaml.safe_load((HERE / "upstream_keys.yaml").read_text(encoding="utf-8"))
    return {**groups, IDLE: {key: str(reason) for key, reason in IGNORED.items()}}


def _keys() -> Iterator[tuple[Field[Any], Any, bool]]:
    """Every key with its type, and whether lrc declares it itself."""
    for cls in CLASSES:
        hints = get_type_hints(cls)
        for field in fields(cls):
            if field.init:
                yield field, hints[field.name], field.name in vars(cls).get("__annotations__", {})


def _require_all(groups: Mapping[str, Mapping[str, str]]) -> None:
    described = {key for group in groups.values() for key in group}
    wanted = {f.name for f, _, own in _keys() if not own} - {*rules.UNSUPPORTED, *SECRETS}
    if faults := sorted(described ^ wanted):
        raise ValueError(f"upstream_keys.yaml: {', '.join(faults)}: missing, or no such key")


def _place(field: Field[Any], own: bool, groups: Mapping[str, Mapping[str, str]]) -> tuple[str | None, str]:
    """The group of a key and its meaning; no group where the key is refused."""
    if field.name in rules.UNSUPPORTED or field.name in SECRETS:
        return None, ""
    if own:
        adapter = any(field.name == one.name for one in fields(arguments.AdapterArguments))
        return REDECLARED.get(field.name, "Adapter" if adapter else OWN), field.metadata["help"]
    return next((title, keys[field.name]) for title, keys in groups.items() if field.name in keys)


def _takes(field: Field[Any], hint: Any) -> str:
    arms = get_args(hint) if get_origin(hint) in (Union, type(int | str)) else (hint,)
    named = [f"`{choice}`" for arm in arms if get_origin(arm) is Literal for choice in get_args(arm)]
    # Upstream's enumerations and odd classes have no words of their own; their names are text.
    unworded = str | None if type(None) in arms else str
    takes = ", ".join(named) if named and str not in arms else describe_type(hint if _worded(arms) else unworded)
    bounds = BOUNDS.get(field.name)
    return takes if bounds is None else takes.replace("number", f"number {bounds}", 1)


def _worded(arms: tuple[Any, ...]) -> bool:
    if any(isinstance(arm, type) and issubclass(arm, Enum) for arm in arms):
        return False
    return any(arm in (bool, int, float, str, dict) or get_origin(arm) in (dict, list) for arm in arms)


def _default(field: Field[Any]) -> str:
    if field.default_factory is not MISSING:
        return "`[]`" if field.default_factory is list else "by the machine"
    if field.default is MISSING:
        return "required"
    value = getattr(field.default, "value", field.default)
    if value is None or value == "":
        return "required" if field.name in REQUIRED else "nothing"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _table(title: str, keys: list[Key]) -> str:
    head = "| key | takes | default | meaning |\n|---|---|---|---|"
    return "\n".join([f"## {title}", "", head, *map(str, keys), ""])


def _refused() -> str:
    lines = ["## Refused", "", "TRL and transformers have these keys, but lrc does not support them. Any value other"]
    lines += ["than the one below is refused with exit status 1:", "", "| key | may only be |", "|---|---|"]
    lines += [f"| `{key}` | `{_yaml(value)}` |" for key, value in rules.UNSUPPORTED.items()]
    strategies = " or ".join(f"`{name}`" for name in rules.SAMPLING)
    lines += [f"| `train_sampling_strategy` | {strategies} |", ""]
    lines += ["An access token does not belong in a recipe: " + ", ".join(f"`{key}`" for key in SECRETS) + " are"]
    lines += ["refused. Log in with `hf auth login`, or set `HF_TOKEN`.", ""]
    lines += ["Keys of older recipes are refused, with what to write instead:", "", "| key | instead |", "|---|---|"]
    return "\n".join([*lines, *(f"| `{key}` | {cure} |" for key, cure in GONE.items()), ""])


def _idle(keys: list[Key]) -> str:
    lines = [f"## {IDLE}", "", "These keys are accepted and checked, but change nothing, and a line says so:", ""]
    lines += ["| key | because |", "|---|---|"]
    return "\n".join([*lines, *(f"| `{key.name}` | {key.meaning} |" for key in keys), ""])


def _yaml(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def build_schema() -> str:
    """The text of src/lrc/config/recipe_schema.json: a line a key."""
    found = schema.describe_schema(arguments.CLASSES)
    lines = [f"{json.dumps(key)}: {json.dumps(entry, ensure_ascii=False)}" for key, entry in found["keys"].items()]
    keys = ",\n  ".join(lines)
    return f'{{"versions": {json.dumps(found["versions"])},\n "keys": {{\n  {keys}}}}}\n'


def build_meanings() -> str:
    """The text of src/lrc/config/recipe_meanings.json: what an editor shows beside a key."""
    groups = _groups()
    placed = {field.name: _place(field, own, groups) for field, _, own in _keys()}
    meanings = {name: meaning for name, (title, meaning) in placed.items() if title}
    return json.dumps(meanings, ensure_ascii=False, indent=1) + "\n"


if __name__ == "__main__":
    (HERE / "recipes.md").write_text(build(), encoding="utf-8")
    source = HERE.parent / "src" / "lrc" / "config"
    target = source if source.is_dir() else HERE
    (target / schema.FILE).write_text(build_schema(), encoding="utf-8")
    (target / json_schema.MEANINGS).write_text(build_meanings(), encoding="utf-8")
