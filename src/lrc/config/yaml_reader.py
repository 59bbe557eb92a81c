"""Reads YAML strictly: one mapping of plain values, without anchors and tags, with each key once.

Scalars follow the core schema of YAML 1.2, not PyYAML's 1.1: `2e-4` is a number; `yes` and `1:30` are text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lrc.runtime.errors import RecipeError, describe_os_error
from lrc.runtime.library_errors import describe_error
from lrc.runtime.secrets import SECRET
from lrc.runtime.translation import _

MAX_BYTES = 1_000_000


@dataclass(frozen=True)
class YamlMapping:
    """The content of a YAML file, and the line of each key, from 1."""

    name: str
    values: dict[str, Any]
    lines: dict[str, int]

    def place(self, key: str) -> str:
        """The place of a key, such as `qlora.yaml, line 7`; the file alone for one that it does not have."""
        if key not in self.lines:
            return self.name
        return _("{file}, line {line}").format(file=self.name, line=self.lines[key])


def read_mapping(path: Path) -> YamlMapping:
    """Read a YAML file with one mapping.

    Raises:
        RecipeError: the file is missing, too large, or not such a mapping; it has a tag, an anchor, an alias or a
            duplicate key; or it has something that looks like an access token, which the message does not repeat.
    """
    text = _read_text(path)
    refuse_tokens(path.name, text)
    try:
        loader = _StrictLoader(text)
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise RecipeError(_("{file}: is not a mapping; write one `key: value` a line").format(file=path.name))
        lines = {key.value: key.start_mark.line + 1 for key, _value in node.value}
        return YamlMapping(path.name, loader.construct_document(node), lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise RecipeError(
            _("{place}: {text}").format(
                place=_place(path.name, mark), text=_add_cure(error.problem or error.context or "")
            )
        ) from None
    except yaml.YAMLError as error:
        raise RecipeError(_("{file}: {reason}").format(file=path.name, reason=describe_error(error))) from None
    except (RecursionError, ValueError):
        raise RecipeError(
            _("{file}: is nested too deeply, or holds a number that is too long").format(file=path.name)
        ) from None


def refuse_tokens(place: str, text: str) -> None:
    """Refuse text with something that looks like an access token; the message does not repeat it.

    Args:
        place: where the text is from, for the message.
        text: of a file, or a word of the command line.

    Raises:
        RecipeError: there is one.
    """
    for number, line in enumerate(text.splitlines(), start=1):
        if SECRET.search(line):
            where = _("{file}, line {line}").format(file=place, line=number) if "\n" in text else place
            raise RecipeError(
                _("{where}: holds an access token or password; remove it, and use `hf auth login` or HF_TOKEN").format(
                    where=where
                )
            )


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses tags, anchors, aliases, merges and duplicate keys; scalars as in YAML 1.2."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if getattr(event, "anchor", None) is not None:
            raise yaml.MarkedYAMLError(
                problem=_("has an anchor or alias (& or *); write the value out"), problem_mark=event.start_mark
            )
        if getattr(event, "tag", None) is not None:
            raise yaml.MarkedYAMLError(problem=_("has a tag (!); write a plain value"), problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: dict[str, int] = {}
        for key, _value in node.value:
            name, line = key.value, key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or not key.tag.endswith(":str") or name == "<<":
                raise yaml.MarkedYAMLError(
                    problem=_("a key is not a name; write `key: value`"), problem_mark=key.start_mark
                )
            if name in seen:
                problem = _("{name} appears here and in line {line}; keep one").format(name=name, line=seen[name])
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen[name] = line
        return node


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?(?:(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)", "-+.0123456789"),
):
    # An empty scalar is looked up under the empty string.
    _starts = ["" if start == "\0" else start for start in _first]
    _StrictLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})$"), _starts)


def _read_text(path: Path) -> str:
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise RecipeError(_("{path}: is a pipe or a device; save it as a file").format(path=path))
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise RecipeError(
            _("{path}: {reason}; give a YAML file").format(path=path, reason=describe_os_error(error))
        ) from error
    if len(content) > MAX_BYTES:
        raise RecipeError(
            _("{file}: is larger than {max_bytes:,} bytes; is it a recipe?").format(file=path.name, max_bytes=MAX_BYTES)
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise RecipeError(_("{file}: is not UTF-8 text; save it as UTF-8").format(file=path.name)) from None


def _add_cure(problem: str) -> str:
    """Add a cure to an error message of PyYAML."""
    if "; " in problem:
        return problem
    cures = {
        "'\\t'": _("write spaces for the tab"),
        "another document": _("keep one"),
        "end of stream": _("close the quote"),
        "escape character": _("write single quotes, or / in place of \\"),
    }
    cure = next((cure for sign, cure in cures.items() if sign in problem), _("write `key: value`"))
    return _("{text}; {cure}").format(text=describe_error(problem), cure=cure)


def _place(file: str, mark: yaml.Mark | None) -> str:
    return _("{file}, line {line}").format(file=file, line=mark.line + 1) if mark else file
