"""`lrc run`: from a workbook with answers and one without to a CSV, a step a command, resumable at each of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrc.config.accelerate_config import find_accelerate_config
from lrc.config.recipe import find_recipe, read_given
from lrc.config.recipe_choice import EMBEDDED, choose_recipe
from lrc.metrics.verdict import Verdict
from lrc.runtime.errors import DataError, OutputError
from lrc.runtime.findings import pad, wrap_line
from lrc.runtime.hub_connection import is_fetched
from lrc.runtime.locks import left_behind, locked, remove
from lrc.runtime.machine import look_at_machine
from lrc.runtime.outputs import new_file
from lrc.runtime.progress import notify
from lrc.runtime.steps import call
from lrc.runtime.system import command_line
from lrc.runtime.translation import _, localized

RECORD = "lrc_way.json"  # which recipe was taken for which files: the same when the command goes on
CANNOT_READ = _(
    "run: a tiny base with random weights, made on the spot, takes the place of a real one: it shows that every step "
    "works here; it cannot read, and its answers are guesses. `lrc doctor` says what a real one needs"
)
EMBEDDED_STEPS = "400"  # a workbook of any size takes minutes with them


@dataclass(frozen=True)
class RunOptions:
    """What is run on what, and where everything goes."""

    train: Path
    test: Path
    folder: Path
    recipe: str
    overrides: tuple[str, ...]
    accelerate_config: str | None
    validation_fraction: float
    on_error: str
    columns: str | None

    @property
    def embedded(self) -> bool:
        """Whether the base is made on the spot."""
        return self.recipe == EMBEDDED and "--model_name_or_path" not in self.keys

    @property
    def keys(self) -> set[str]:
        """The keys that are overridden on the command line."""
        return {word.partition("=")[0] for word in self.overrides}

    def data(self, part: str) -> Path:
        """A file that convert writes."""
        return self.folder / "data" / f"{self.train.stem}_{part}.json"

    @property
    def training(self) -> list[str]:
        """The keys that training gets besides the recipe."""
        paths = {"train_file": self.data("train"), "validation_file": self.data("validation")}
        paths["output_dir"] = self.folder / "adapter"
        if self.embedded:
            paths["model_name_or_path"] = self.folder / "base"
        words = [word for key, path in paths.items() for word in (f"--{key}", str(path))]
        if self.embedded and "--max_steps" not in self.keys:
            words += ["--max_steps", EMBEDDED_STEPS]
        return [*words, *self.overrides]


def run(
    train: Path,
    test: Path,
    *,
    output_dir: Path,
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    accelerate_config: str | None = None,
    validation_fraction: float = 0.2,
    on_error: str = "refuse",
    columns: str | None = None,
) -> int:
    """Run every step that is not done yet.

    Args:
        train: questions with answers.
        test: questions to answer.
        output_dir: gets `data/`, `adapter/`, `evaluation.json`, `answer.csv`, `scores.jsonl` and `report.html`.
        recipe: a YAML file or the name of a shipped one; None takes what suits this machine, and on going on what was
            taken first.
        overrides: `--key value` for any key of the recipe.

    Returns:
        0, or the exit status of the step that failed.

    Raises:
        LrcError: something is wrong that shows before the first step.
    """
    for file in (train, test):
        if not file.is_file():
            raise DataError(
                _("{file}: no such file; give a workbook with answers, then one to answer").format(file=file)
            )
    if recipe is not None:
        find_recipe(recipe)
    if accelerate_config is not None:
        find_accelerate_config(accelerate_config)
    _refuse_folder(output_dir, train, test, recipe)
    output_dir.mkdir(parents=True, exist_ok=True)
    with locked(output_dir / RECORD, output=output_dir):
        for part in left_behind(output_dir, RECORD):  # by a process that was killed
            remove(part)
        taken = recipe or _recipe(output_dir)
        way = RunOptions(
            train, test, output_dir, taken, tuple(overrides), accelerate_config, validation_fraction, on_error, columns
        )
        given = read_given(find_recipe(taken), way.training)
        _remember(way)
        if way.embedded:
            notify(CANNOT_READ)
        status = _go(way, given)
    if not status:
        _summary(way)
    return status


def _refuse_folder(folder: Path, train: Path, test: Path, recipe: str | None) -> None:
    """Refuse a folder that holds something else, or the way of other files or of another recipe."""
    before = _read(folder)
    if before is None:
        if folder.is_file() or (folder.is_dir() and any(path.name[0] != "." for path in folder.iterdir())):
            raise OutputError(
                _("{folder}: already exists, and `lrc run` did not begin it; choose another --output-dir").format(
                    folder=folder
                )
            )
        return
    if (before["train"], before["test"]) != (str(train), str(test)):
        raise OutputError(
            _("{folder}: belongs to {before} and {before2}; choose another --output-dir").format(
                folder=folder, before=before["train"], before2=before["test"]
            )
        )
    if recipe not in (None, before["recipe"]):
        cure = _("leave --recipe out to go on, or choose another --output-dir")
        raise OutputError(
            _("{folder}: was begun with the recipe {before}; {cure}").format(
                folder=folder, before=before["recipe"], cure=cure
            )
        )


def _recipe(folder: Path) -> str:
    """The recipe that was taken before, or suits this machine."""
    if before := _read(folder):
        return str(before["recipe"])
    notify(_("run: looking at this machine for a recipe that suits it; --recipe names another"))
    machine = look_at_machine()
    choice = choose_recipe(machine.device, machine.card_memory, machine.memory, machine.disk, is_fetched)
    if choice is None or not (machine.hub or is_fetched(choice.base)):
        return EMBEDDED
    return choice.recipe


def _read(folder: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return {key: found[key] for key in ("train", "test", "recipe")}
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _remember(way: RunOptions) -> None:
    record = {"train": str(way.train), "test": str(way.test), "recipe": way.recipe}
    if _read(way.folder) != record:
        with new_file(way.folder / RECORD, force=True) as file:
            file.write_text(json.dumps(record, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _go(way: RunOptions, given: dict[str, Any]) -> int:
    steps = list(_steps(way, given))
    for number, words in enumerate(steps, start=1):
        shown = command_line(words if words[0] == "python" else ["lrc", *words])
        notify(f"\n[{number}/{len(steps)}] $ {shown}")
        status = call(words)
        if words[0] == "check" and way.on_error == "skip" and status == 1:
            continue  # what it found is left out by convert
        if status:
            text = _("run: step {number} of {steps} ended with status {status}; the same command goes on from there")
            if words[0] == "check" and status == 1:
                text = _(
                    "run: step {number} of {steps} ended with status {status}; correct what it found, or leave such "
                    "rows out: the same command with --on-error skip"
                )
            notify(text.format(number=number, steps=len(steps), status=status))
            return status
        if words[0] == "convert" and not way.data("train").is_file():
            raise DataError(
                _("{train}: has no answers to learn from; give the workbook with 正確答案 first").format(
                    train=way.train
                )
            )
    return 0


def _steps(way: RunOptions, given: dict[str, Any]) -> Iterator[list[str]]:
    """The words of each step's command."""
    columns = ["--columns", way.columns] if way.columns else []
    folder, adapter = way.folder, str(way.folder / "adapter")
    yield ["check", str(way.train), str(way.test), *columns]
    split = ["--validation-fraction", str(way.validation_fraction), "--on-error", way.on_error]
    yield ["convert", str(way.train), "--output-dir", str(folder / "data"), *split, *columns]
    if way.embedded and not (folder / "base").is_dir():
        yield ["python", "-m", "lrc.models.tiny", str(way.data("train")), str(folder / "base")]
    launch = ["--accelerate-config", way.accelerate_config] if way.accelerate_config else []
    yield ["train", way.recipe, *launch, *way.training]
    # Base and adapter: merged they would take the base's whole memory, and answer alike.
    peft = given.get("use_peft", True)
    asked = ["--model", str(given["model_name_or_path"]), "--adapter", adapter] if peft else ["--model", adapter]
    figures = ["--output", str(folder / "evaluation.json")]
    yield ["evaluate", *asked, "--data", str(way.data("validation")), *figures]
    outputs = ["--output", str(folder / "answer.csv"), "--scores", str(folder / "scores.jsonl")]
    yield ["generate", *asked, "--data", str(way.test), *outputs, *columns]
    yield ["report", adapter, "--output", str(folder / "report.html")]


def _summary(way: RunOptions) -> None:
    figures = json.loads((way.folder / "evaluation.json").read_text(encoding="utf-8"))
    verdict = Verdict.from_figures(figures, figures["baselines"], figures["best_baseline"]["paired"])
    print("", *wrap_line(localized(verdict.tell(verdict.next_to_report))), sep="\n")
    if way.embedded:
        print(localized(_("The base was made on the spot and cannot read: these answers are guesses.")))
    for what, name in {_("answers"): "answer.csv", _("adapter"): "adapter", _("report"): "report.html"}.items():
        print(f"{pad(localized(what), 10)}{way.folder / name}")
