"""What can be refused before the seconds in which torch and transformers are imported.

A recipe's keys and values, data that is missing, an `output_dir` that holds something else: all of it is looked at
again by the run itself, which knows more.
"""

from __future__ import annotations

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
from lrc.runtime.translation import _
from lrc.training.output_dir import another_run, refuse_taken
from lrc.training.resume import differences


def preflight(recipe: Path | None, overrides: Sequence[str] = ()) -> None:
    """Look at all of a run that can be looked at without torch.

    Raises:
        LrcError: something prevents the run.
    """
    given = read_given(recipe, overrides)
    files = _data_files(given)
    for role, file in files.items():
        if role == "pseudo_label_file" and not file.exists():
            raise DataError(no_file(file))
        _require_file(file, "lrc generate --scores" if role in ("soft_labels", "pseudo_labels") else "lrc convert")
    _refuse_another_run(given, files)
    if not given.get("model_revision"):  # what was fetched of another one is not looked for
        check_base(given["model_name_or_path"])


def preflight_or_exit(words: Sequence[str]) -> None:
    """The same for the words of `python -m lrc.sft`, whose process may be one of several: the first looks for all.

    What is wrong goes to stderr, and the status is 1.
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
    """Take `--config RECIPE` out of a command line."""
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
    """The files that would be read, by what a run calls them."""
    named, fold = train_roles(train_files(given["train_file"])), given.get("fold")
    named |= {"validation_file": given["validation_file"]} if given.get("validation_file") else {}
    if fold is not None:
        named = {role: fold_file(file, fold, role.partition("_")[0]) for role, file in named.items()}
    named |= {role: given[role] for role in ("soft_labels", "pseudo_labels", "pseudo_label_file") if given.get(role)}
    return {role: Path(file) for role, file in named.items()}


def _require_file(path: Path, writer: str) -> None:
    if path.exists():
        return
    if not path.parent.is_dir():
        raise DataError(_("{path}: no such file; `{writer}` writes it").format(path=path, writer=writer))
    near = get_close_matches(path.name, [other.name for other in path.parent.iterdir()], n=1)
    if near:
        text = _("{path}: no such file; did you mean {near}?")
        raise DataError(text.format(path=path, near=repr(str(path.with_name(near[0])))))
    raise DataError(_("{path}: no such file; `{writer}` writes it").format(path=path, writer=writer))


def _refuse_another_run(given: Mapping[str, Any], files: Mapping[str, Path]) -> None:
    if given.get("overwrite_output_dir"):
        return
    output = Path(given["output_dir"]).expanduser()
    refuse_taken(output, overwrite=False)
    found = read_run(output)
    if found is not None and (changed := differences(found, _plan_run(found, given, files))):
        raise another_run(output, changed)


def _plan_run(found: Run, given: Mapping[str, Any], files: Mapping[str, Path]) -> Run:
    """The run that would be trained; what is not known yet, as the number of processes, is as in the run found."""
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
