"""`lrc run`: from a workbook with answers and one without to a CSV; each step is a command, and can be resumed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lrc.commands.options import ColumnNames
from lrc.config.accelerate_config import find_accelerate_config
from lrc.config.recipe import find_recipe, read_given, read_recipe
from lrc.config.recipe_choice import EMBEDDED, SMALLEST, Choice, choose_recipe
from lrc.config.shipped import shipped_files
from lrc.data.sources import read_questions_to_answer, require_file
from lrc.metrics.verdict import Verdict, verdict_of
from lrc.runtime.errors import DataError, MachineError, OutputError
from lrc.runtime.findings import pad, print_lines, print_next
from lrc.runtime.finished_outputs import BESIDE
from lrc.runtime.hub_connection import is_fetched
from lrc.runtime.locks import left_behind, locked, remove
from lrc.runtime.machine import Machine, look_at_machine, why_card_unused
from lrc.runtime.memory import format_size
from lrc.runtime.outputs import new_file
from lrc.runtime.progress import notify, show_command
from lrc.runtime.steps import call
from lrc.runtime.system import command_line
from lrc.runtime.translation import Message, _, localized

RECORD = "lrc_way.json"  # the recipe and the files of this folder, for resuming
CANNOT_READ = _(
    "run: a tiny base with random weights, made on the spot, takes the place of a real one: it shows that every step "
    "works here; it cannot read, and its answers are guesses. `lrc doctor` says what a real one needs"
)
BASE = "model_name_or_path"
EMBEDDED_STEPS = "400"  # which take minutes, whatever the size of the workbook


@dataclass(frozen=True)
class RunOptions:
    """The arguments of `run`, with the recipe that was chosen."""

    train: Path
    test: Path
    folder: Path
    recipe: str
    overrides: tuple[str, ...]
    accelerate_config: str | None
    validation_fraction: float
    on_error: str
    columns: str | None

    @cached_property
    def embedded(self) -> bool:
        """Whether a tiny base is made on the spot: the recipe is the shipped one, or a copy of it with its base."""
        files = (shipped_files("recipes")[EMBEDDED], find_recipe(self.recipe))
        ours, theirs = (read_recipe(file).values for file in files)
        return ours[BASE] == theirs.get(BASE) and f"--{BASE}" not in self.keys

    @property
    def keys(self) -> set[str]:
        """The keys that are overridden on the command line, with their dashes."""
        return _keys(self.overrides)

    def data(self, part: str) -> Path:
        """A file that `lrc convert` writes: the part is `train` or `validation`."""
        return self.folder / "data" / f"{self.train.stem}_{part}.json"

    @property
    def training(self) -> list[str]:
        """The command-line keys that `lrc train` gets besides the recipe."""
        paths = {"train_file": self.data("train"), "validation_file": self.data("validation")}
        paths["output_dir"] = self.folder / "adapter"
        if self.embedded:
            paths[BASE] = self.folder / "base"
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
    """Run all steps; those that are already done have nothing to do.

    Args:
        train: questions with answers.
        test: questions to answer.
        output_dir: for `data/`, `adapter/`, `evaluation.json`, `answer.csv`, `scores.jsonl` and `report.html`.
        recipe: a YAML file, or the name of a shipped one; None takes the one that was used before, or else one that
            suits this machine.
        overrides: `--key value` for any key of the recipe.
        accelerate_config: see `lrc train`.
        validation_fraction: see `lrc convert`.
        on_error: see `lrc convert`.
        columns: see `lrc convert`, as on its command line.

    Returns:
        0, or the exit status of the step that failed.

    Raises:
        LrcError: something is found to be wrong before the first step.
    """
    for file in (train, test):
        require_file(file)
    if recipe is not None:
        find_recipe(recipe)
    if accelerate_config is not None:
        find_accelerate_config(accelerate_config)
    _refuse_folder(output_dir, train, test, recipe)
    if before := _read(output_dir):  # a command is the same one where its words are
        train, test = Path(before["train"]), Path(before["test"])
    taken = recipe or (before["recipe"] if before else _choose(overrides))
    options = RunOptions(
        train, test, output_dir, taken, tuple(overrides), accelerate_config, validation_fraction, on_error, columns
    )
    given = read_given(find_recipe(taken), options.training)
    output_dir.mkdir(parents=True, exist_ok=True)
    with locked(output_dir / RECORD, output=output_dir):
        for part in left_behind(output_dir, RECORD):  # by killed processes
            remove(part)
        _remember(options)
        (output_dir / BESIDE).mkdir(exist_ok=True)
        if options.embedded:
            notify(CANNOT_READ)
        status = _go(options, given)
    if not status:
        print_summary(options, given)
    return status


def _refuse_folder(folder: Path, train: Path, test: Path, recipe: str | None) -> None:
    """Refuse a folder that holds something else, or that was started with other files or another recipe."""
    before = _read(folder)
    if before is None:
        if folder.is_file() or (folder.is_dir() and any(path.name[0] != "." for path in folder.iterdir())):
            raise OutputError(
                _("{folder}: already exists, and `lrc run` did not begin it; choose another --output-dir").format(
                    folder=folder
                )
            )
        return
    if not (_is_same(train, before["train"]) and _is_same(test, before["test"])):
        raise OutputError(
            _("{folder}: belongs to {before} and {before2}; choose another --output-dir").format(
                folder=folder, before=before["train"], before2=before["test"]
            )
        )
    if recipe not in (None, before["recipe"]) and (folder / "adapter").exists():
        cure = _("leave --recipe out to go on, or choose another --output-dir")
        raise OutputError(
            _("{folder}: was begun with the recipe {before}; {cure}").format(
                folder=folder, before=before["recipe"], cure=cure
            )
        )


def _is_same(file: Path, before: str) -> bool:
    """Whether a file is the one of before, perhaps by another path, such as an absolute one."""
    return str(file) == before or Path(before).is_file() and file.samefile(before)


def _keys(overrides: Sequence[str]) -> set[str]:
    return {word.partition("=")[0] for word in overrides}


def _choose(overrides: Sequence[str]) -> str:
    """A recipe that suits this machine, and whose base can be had; the base may be one's own.

    Raises:
        MachineError: there is none.
    """
    notify(_("run: looking at this machine for a recipe that suits it; --recipe names another"))
    machine = look_at_machine()
    if machine.device == "cpu":
        if line := why_card_unused():
            text = _("{line}; or train on the CPU with a recipe that you name: --recipe {recipe}")
            raise MachineError(text.format(line=line, recipe=SMALLEST))
        notify(_("run: torch sees no GPU here, so everything is computed on the CPU, which may take hours"))
    own = f"--{BASE}" in _keys(overrides)
    there = (lambda base: True) if own else is_fetched
    about = (machine.device, machine.card_memory, machine.memory, machine.disk, there)
    if choice := choose_recipe(*about, online=bool(machine.hub)):
        return choice.recipe
    if own:
        return SMALLEST
    raise MachineError(_why_none(machine, choose_recipe(*about)))


def _why_none(machine: Machine, suiting: Choice | None) -> Message:
    """Why no recipe was chosen, and what to do.

    Args:
        machine: this one.
        suiting: what would suit it if bases could be downloaded.
    """
    if suiting is None:
        text = _(
            "run: this machine has too little memory or disk for the smallest base ({memory} and {disk} are free); "
            "free some, or name a recipe with --recipe; `--recipe {embedded}` tries the steps with a base that cannot "
            "read"
        )
        free = {"memory": format_size(machine.memory), "disk": format_size(machine.disk)}
        return text.format(**free, embedded=EMBEDDED)
    why = _("HF_HUB_OFFLINE is set") if machine.hub is None else _("the Hub cannot be reached")
    text = _(
        "run: {recipe} suits this machine, but its base {base} was never downloaded, and {why}; connect, or name a "
        "folder with a base: --model_name_or_path FOLDER; `--recipe {embedded}` tries the steps with a base that "
        "cannot read"
    )
    return text.format(recipe=suiting.recipe, base=suiting.base, why=why, embedded=EMBEDDED)


def _read(folder: Path) -> dict[str, str] | None:
    """The record of a folder; None if `lrc run` did not begin it."""
    try:
        whole = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        found = {key: whole[key] for key in ("train", "test", "recipe")}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return found if all(isinstance(text, str) for text in found.values()) else None


def _remember(options: RunOptions) -> None:
    record = {"train": str(options.train), "test": str(options.test), "recipe": options.recipe}
    if _read(options.folder) != record:
        with new_file(options.folder / RECORD, force=True) as file:
            file.write_text(json.dumps(record, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _go(options: RunOptions, given: dict[str, Any]) -> int:
    steps = list(_steps(options, given))
    for number, words in enumerate(steps, start=1):
        shown = command_line(words if words[0] == "python" else ["lrc", *words])
        show_command(f"\n[{number}/{len(steps)}] $ {shown}")
        status = call(words)
        if (words[0], status, options.on_error) == ("check", 1, "skip") and _can_be_answered(options):
            continue  # convert leaves out what it found
        if status:
            known = {"number": number, "steps": len(steps), "test": options.test, "train": options.train}
            notify(_how_to_go_on(options, words[0], status).format(status=status, **known))
            return status
        if words[0] == "convert" and not options.data("train").is_file():
            raise DataError(
                _("{train}: has no answers to learn from; give the workbook with 正確答案 first").format(
                    train=options.train
                )
            )
    return 0


def _how_to_go_on(options: RunOptions, verb: str, status: int) -> Message:
    """What to do after a step that failed."""
    if (verb, status) != ("check", 1):
        return _("run: step {number} of {steps} ended with status {status}; the same command goes on from there")
    if not _can_be_answered(options):
        return _(
            "run: {test} has to be corrected first, since all of its questions are answered; --on-error skip "
            "leaves out rows of {train} only"
        )
    return _(
        "run: step {number} of {steps} ended with status {status}; correct what it found, or leave such "
        "rows out: the same command with --on-error skip"
    )


def _can_be_answered(options: RunOptions) -> bool:
    """Whether `lrc generate`, hours later, would take TEST; what is wrong with it was printed by `lrc check`."""
    columns = ColumnNames().convert(options.columns, None, None) if options.columns else None
    try:
        read_questions_to_answer(options.test, columns=columns, report=lambda findings: None)
    except DataError:
        return False
    return True


def _steps(options: RunOptions, given: dict[str, Any]) -> Iterator[list[str]]:
    """The arguments of each step's command."""
    columns = ["--columns", options.columns] if options.columns else []
    folder, adapter = options.folder, str(options.folder / "adapter")
    yield ["check", str(options.train), str(options.test), *columns]
    split = ["--validation-fraction", str(options.validation_fraction), "--on-error", options.on_error]
    yield ["convert", str(options.train), "--output-dir", str(folder / "data"), *split, *columns]
    if options.embedded and not (folder / "base").is_dir():
        yield ["python", "-m", "lrc.models.tiny", str(options.data("train")), str(folder / "base")]
    launch = ["--accelerate-config", options.accelerate_config] if options.accelerate_config else []
    yield ["train", options.recipe, *launch, *options.training]
    asked = _model(options, given)
    figures = ["--output", str(folder / "evaluation.json")]
    yield ["evaluate", *asked, "--data", str(options.data("validation")), *figures]
    outputs = ["--output", str(folder / "answer.csv"), "--scores", str(folder / "scores.jsonl")]
    yield ["generate", *asked, "--data", str(options.test), *outputs, *columns]
    yield ["report", adapter, "--output", str(folder / "report.html")]


def _model(options: RunOptions, given: Mapping[str, Any]) -> list[str]:
    """The flags that name the trained model, not merged: that would take as much disk as the base, and answer alike."""
    adapter = str(options.folder / "adapter")
    if given.get("use_peft", True):
        return ["--model", str(given["model_name_or_path"]), "--adapter", adapter]
    return ["--model", adapter]


def print_summary(options: RunOptions, given: Mapping[str, Any]) -> None:
    """Print the verdict on the finished run, its files, and the next command.

    Args:
        options: of the run.
        given: the keys of its recipe.
    """
    figures = json.loads((options.folder / "evaluation.json").read_text(encoding="utf-8"))
    verdict = verdict_of(figures)
    print_lines("", verdict.tell(verdict.next_to_report))
    if options.embedded:
        print_lines(_("The base was made on the spot and cannot read: these answers are guesses."))
    for what, name in {_("answers"): "answer.csv", _("adapter"): "adapter", _("report"): "report.html"}.items():
        print(f"{pad(localized(what), 10)}{options.folder / name}")
    print_next(_next(options, _model(options, given), verdict))


def _next(options: RunOptions, asked: Sequence[str], verdict: Verdict) -> str:
    """The command for the next step that the verdict names."""
    if options.embedded:
        return "lrc doctor"
    if verdict.kind == "not above":
        files = [str(options.train), str(options.test)]
        return command_line(["lrc", "run", *files, "--recipe", "RECIPE", "--output-dir", f"{options.folder}-2"])
    if verdict.kind == "above":
        return command_line(["lrc", "app", *asked])
    return command_line(["lrc", "evaluate", *asked, "--data", "MORE.xlsx"])
