"""`lrc train RECIPE --folds K`: trains a run for each fold, and measures the out-of-fold accuracy."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lrc.config.accelerate_config import find_accelerate_config
from lrc.config.recipe import find_recipe, read_given, read_recipe
from lrc.config.rules import train_files
from lrc.config.run_record import read_run
from lrc.metrics.predictions import Outcome, write_outcomes
from lrc.metrics.verdict import describe_size, judge, spell
from lrc.runtime.errors import RecipeError, no_file
from lrc.runtime.findings import pad, print_lines
from lrc.runtime.launch_variables import refuse_leftovers
from lrc.runtime.locks import left_behind, locked, remove
from lrc.runtime.outputs import new_file
from lrc.runtime.progress import notify, show_command
from lrc.runtime.steps import call
from lrc.runtime.system import command_line
from lrc.runtime.translation import _, localized
from lrc.training.folds import FIGURES_FILE, FOLDS_FILE, SCORES_FILE, Folds
from lrc.training.preflight import preflight

# Keys of a recipe that do not go together with folds, and what to do instead.
REFUSED = {
    "fold": _("--folds makes the folds itself; remove it"),
    "resume_from_checkpoint": _("each fold goes on from its own checkpoint; remove it"),
    "push_to_hub": _("several adapters would get one name; publish those that you want by lrc publish"),
    "soft_labels": _("they belong to the whole file and are no use to a fold; remove them"),
}
HELD_OUT = "held_out_validation.json"  # stands for the `validation_file` of each fold while the recipe is checked
# Keys with which the evaluations of a run decide about its result, and for which of their values.
CHOOSING: dict[str, Callable[[Any], Any]] = {
    "load_best_model_at_end": bool,
    "early_stopping_patience": bool,
    "score_normalisation": lambda value: value == "auto",
}


def train_folds(recipe: str, accelerate_config: str | None, overrides: Sequence[str], count: int) -> int:
    """Train a run for each fold that is not finished yet, then print the out-of-fold accuracy.

    Args:
        recipe: a YAML file, or the name of a shipped one; its `output_dir` is the folder of the folds.
        accelerate_config: for all runs; None takes one that suits this machine.
        overrides: `--key value` for any key of the recipe.
        count: the number of folds.

    Returns:
        0, or the exit status of the run that failed.

    Raises:
        LrcError: something is found to be wrong before the first run.
    """
    refuse_leftovers()
    path = find_recipe(recipe)
    if accelerate_config is not None:
        find_accelerate_config(accelerate_config)
    named = str(read_recipe(path).values.get("validation_file") or HELD_OUT)
    given = read_given(path, ["--validation_file", named, *overrides])
    folds = _folds(given, count)
    over = bool(given.get("overwrite_output_dir"))
    folds.refuse_other(overwrite=over)
    folds.folder.mkdir(parents=True, exist_ok=True)
    with locked(folds.folder / FOLDS_FILE, output=folds.folder):
        for part in left_behind(folds.folder, FOLDS_FILE):  # by killed processes
            remove(part)
        folds.write()
        words = [[*overrides, *folds.overrides(fold)] for fold in range(count)]
        for one in words:
            preflight(path, one)
        for fold, one in enumerate(words):
            if not over and (found := read_run(folds.output_dir(fold))) is not None and found.finished:
                text = _("fold {fold} of {count}: {folder} is finished")
                notify(text.format(fold=fold + 1, count=count, folder=folds.output_dir(fold)))
            elif status := _train(fold, folds, ["train", recipe, *_launch(accelerate_config), *one]):
                return status
        outcomes = folds.outcomes()
        write_outcomes(folds.folder / SCORES_FILE, outcomes, force=True)
        _conclude(folds, outcomes, given)
    return 0


def _folds(given: Mapping[str, Any], count: int) -> Folds:
    """The folds that a recipe's keys ask for.

    Raises:
        RecipeError: a key does not go together with folds.
    """
    refused = _("--folds: {key} is given; {cure}")
    findings: list[str] = [
        refused.format(key=key, cure=cure) for key, cure in REFUSED.items() if _is_set(given.get(key))
    ]
    files = train_files(given["train_file"])
    if len(files) > 1:
        text = _("--folds: train_file has {count} files; give one, which is dealt into folds")
        findings.append(text.format(count=len(files)))
    elif not Path(files[0]).is_file():
        findings.append(no_file(Path(files[0])))
    if findings:
        raise RecipeError(*findings)
    if given["validation_file"] != HELD_OUT:
        text = _("--folds: {file} is not used; each run is evaluated on the fold that it holds out")
        notify(text.format(file=given["validation_file"]))
    return Folds(Path(given["output_dir"]).expanduser(), Path(files[0]), count, given.get("seed", 42))


def _is_set(value: Any) -> bool:
    return value is not None and value is not False and value != "auto"


def _launch(accelerate_config: str | None) -> list[str]:
    return ["--accelerate-config", accelerate_config] if accelerate_config else []


def _train(fold: int, folds: Folds, words: list[str]) -> int:
    """Train a fold's run, and return its exit status."""
    which = {"fold": fold + 1, "count": folds.count}
    show_command(_("\nfold {fold} of {count}: $ {command}").format(**which, command=f"lrc {command_line(words)}"))
    status = call(words)
    if status:
        text = _("fold {fold} of {count}: ended with status {status}; the same command goes on from there")
        notify(text.format(**which, status=status))
    return status


def _conclude(folds: Folds, outcomes: Sequence[Outcome], given: Mapping[str, Any]) -> None:
    """Write and print the out-of-fold accuracy."""
    verdict = judge([one.question for one in outcomes], [one.prediction for one in outcomes])
    figures = {"verdict": str(verdict), **verdict.figures, "folds": folds.count}
    with new_file(folds.folder / FIGURES_FILE, force=True) as file:
        file.write_text(json.dumps(figures, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    share = _("{share}, {size}: each question answered by the run that held it out")
    print_lines(_("out of fold: {verdict}").format(verdict=verdict.text))
    print_lines(share.format(share=spell(verdict.figures), size=describe_size(verdict.figures)))
    if choices := tuple(key for key, chooses in CHOOSING.items() if chooses(given.get(key))):
        text = _("{keys}: each run chose by the questions that it held out, so that this accuracy is somewhat too high")
        print_lines(text.format(keys=choices))
    for what, name in {_("scores"): SCORES_FILE, _("figures"): FIGURES_FILE}.items():
        print(f"{pad(localized(what), 10)}{folds.folder / name}")
    if given.get("use_peft", True):
        model = str(given["model_name_or_path"])
        adapters = " ".join(f"--adapter {command_line([str(folds.output_dir(fold))])}" for fold in range(folds.count))
        asked = f"lrc generate --model {command_line([model])} {adapters}"
        command = f"{asked} --data TEST --output answer.csv"
        print(localized(_("all adapters together: {command}").format(command=command)))
