"""Checks that need no torch, so that mistakes are reported before the seconds that its import takes.

They cover a recipe's keys and values, missing data, and an `output_dir` that holds something else. The run itself
checks all this again, and knows more.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from lrc.answering.options import check_base
from lrc.config.recipe import read_given
from lrc.config.rules import fold_file, train_files
from lrc.config.run_record import FILES, NOT_RECORDED, Run, lists_options, read_run, train_roles
from lrc.config.schema import shipped_schema
from lrc.runtime.errors import DataError, LrcError, RecipeError, no_file
from lrc.runtime.exit_status import is_first, several_processes
from lrc.runtime.launch_variables import check_launch
from lrc.runtime.outputs import checksum
from lrc.runtime.progress import escape_unencodable
from lrc.runtime.system import command_line
from lrc.runtime.translation import _
from lrc.training.output_dir import another_run, refuse_taken
from lrc.training.resume import differences

_CONVERTED = re.compile(r"(?P<stem>.+?)(_fold(?P<fold>\d+))?_(train|validation)")  # the names that convert gives


def preflight(recipe: Path | None, overrides: Sequence[str] = ()) -> None:
    """Check whatever can be checked of a run without torch.

    Args:
        recipe: the recipe's file; None if all keys are in `overrides`.
        overrides: `--key value` words, as on the command line.

    Raises:
        LrcError: something prevents the run.
    """
    given = read_given(recipe, overrides)
    files = _data_files(given)
    for role, file in files.items():
        if role == "pseudo_label_file" and not file.exists():
            raise DataError(no_file(file))
        _require_file(file, role)
    _refuse_another_run(given, files)
    check_base(given["model_name_or_path"], given.get("model_revision"))


def preflight_or_exit(words: Sequence[str]) -> None:
    """Check the arguments of `python -m lrc.sft`; of several processes, only the first does.

    Errors are printed on stderr, and the process exits with status 1.
    """
    escape_unencodable()
    try:
        check_launch()
        if not several_processes() or is_first():
            preflight(*split_config_flag(words))
    except LrcError as error:
        print(*error.lines(), sep="\n", file=sys.stderr, flush=True)
        sys.exit(1)


def split_config_flag(words: Sequence[str]) -> tuple[Path | None, list[str]]:
    """Split a command line into the recipe of `--config RECIPE` (None without it) and all other words.

    Raises:
        RecipeError: nothing follows `--config`.
    """
    words = list(words)
    for i, word in enumerate(words):
        if word.startswith("--config="):
            return _recipe_file(word.partition("=")[2]), words[:i] + words[i + 1 :]
        if word == "--config":
            return _recipe_file(*words[i + 1 : i + 2]), words[:i] + words[i + 2 :]
    return None, words


def _recipe_file(name: str = "") -> Path:
    if not name.strip():
        raise RecipeError(_("--config: no recipe follows; give a YAML file"))
    return Path(name)


def _data_files(given: Mapping[str, Any]) -> dict[str, Path]:
    """The files that the run would read, by their roles in the run file."""
    named, fold = train_roles(train_files(given["train_file"])), given.get("fold")
    named |= {"validation_file": given["validation_file"]} if given.get("validation_file") else {}
    if fold is not None:
        named = {role: fold_file(file, fold, role.partition("_")[0]) for role, file in named.items()}
    named |= {role: given[role] for role in ("soft_labels", "pseudo_labels", "pseudo_label_file") if given.get(role)}
    return {role: Path(file) for role, file in named.items()}


def _require_file(path: Path, role: str) -> None:
    if path.is_dir():
        raise DataError(_folder_for_file(path, role))
    if path.exists():
        return
    names = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    if near := get_close_matches(path.name, names, n=1):
        text = _("{path}: no such file; did you mean {near}?")
        raise DataError(text.format(path=path, near=repr(str(path.with_name(near[0])))))
    if role in ("soft_labels", "pseudo_labels"):
        raise DataError(
            _("{path}: no such file; `{writer}` writes it").format(path=path, writer="lrc generate --scores")
        )
    text = _("{path}: no such file; name yours by --{key}, or make it: {command}")
    raise DataError(text.format(path=path, key=role.partition(" ")[0], command=_convert(path)))


def _folder_for_file(path: Path, role: str) -> str:
    """What to say of a folder, such as that of a run, where a file is wanted."""
    from lrc.metrics.predictions import answers_of  # numpy is not needed otherwise

    if role in ("soft_labels", "pseudo_labels") and answers_of(path).is_file():
        text = _("{path}: is a folder; give the scores in it: --{key} {file}")
        return text.format(path=path, key=role, file=answers_of(path))
    return _("{file}: is a folder; give a file in it").format(file=path)


def _convert(path: Path) -> str:
    """The command that makes a file of a workbook, whose name tells the workbook's."""
    named = _CONVERTED.fullmatch(path.stem)
    stem, fold = (named["stem"], named["fold"]) if named else (path.stem, None)
    words = ["lrc", "convert", f"{stem}.xlsx", "--output-dir", str(path.parent)]
    words += ["--folds", str(max(int(fold) + 1, 5))] if fold else []
    return command_line(words if named else [*words, "--validation-fraction", "0"])


def _refuse_another_run(given: Mapping[str, Any], files: Mapping[str, Path]) -> None:
    if given.get("overwrite_output_dir"):
        return
    output = Path(given["output_dir"]).expanduser()
    refuse_taken(output, overwrite=False)
    found = read_run(output)
    if found is not None and (changed := differences(found, _plan_run(found, given, files))):
        raise another_run(output, changed)


def _plan_run(found: Run, given: Mapping[str, Any], files: Mapping[str, Path]) -> Run:
    """The run that would be trained; what is not known yet, such as the number of processes, is copied from `found`."""
    values = {key: known.default for key, known in shipped_schema().items()} | dict(given)
    listed = values["list_options"]
    data = {
        role: {**found.data.get(role, {}), "name": file.name, "sha256": checksum(file)} for role, file in files.items()
    }
    recipe = {key: value for key, value in given.items() if key not in {*NOT_RECORDED, *FILES}}
    return replace(
        found,
        template=values["template"],
        answer_style=values["answer_style"],
        list_options=lists_options(values["answer_style"], values["template"]) if listed is None else listed,
        recipe=recipe | {"world_size": found.recipe.get("world_size")},
        data=data,
    )
