"""`lrc demo`: runs the whole pipeline on made-up stories.

It uses a small base that lrc ships. That was trained on such stories by examples/build_demo_base.py, and has never seen
a question: answering is what the adapter has to teach it.
"""

from __future__ import annotations

import json
import shutil
from importlib import import_module
from importlib.resources import files as packaged
from pathlib import Path
from typing import Any

from lrc.metrics.verdict import NAMES, describe_size, spell, verdict_of
from lrc.runtime.errors import LrcError
from lrc.runtime.findings import pad, wrap_line
from lrc.runtime.outputs import new_folder, refuse_existing
from lrc.runtime.progress import show_command
from lrc.runtime.steps import call
from lrc.runtime.system import command_line
from lrc.runtime.translation import _, localized

RECIPE = "outings/lora"
ASKED = ("--template", "plain", "--answer-style", "text", "--score-normalisation", "sum")  # as in the recipe


def demo(folder: Path, *, force: bool = False) -> None:
    """Run convert, training, merge, generate, evaluate and report, each as the command that a user would give.

    Args:
        folder: where everything goes.
        force: overwrite what an earlier demo left there.

    Raises:
        LrcError: a command fails, or `folder` has something in it and `force` is false.
    """
    refuse_existing(folder, force=force)
    workbooks, data, base, adapter, merged = (
        folder / name for name in ("workbooks", "data", "base", "adapter", "merged")
    )
    again = ["--force"] if force else []
    outings, shipped = import_module("lrc.examples.outings"), _base_files()
    with new_folder(workbooks, force=force, own=outings.WORKBOOKS) as staged:
        outings.write_workbooks(staged)
    with new_folder(base, force=force, own=[file.name for file in shipped]) as staged:
        for file in shipped:
            shutil.copyfile(file, staged / file.name)
    _run("convert", workbooks / "outings.xlsx", "--output-dir", data, *again)
    held_out = data / "outings_validation.json"
    before = _figures(base, held_out, folder / "before.json", *ASKED, *again)
    _train(base, data, adapter, force=force)
    _run("merge", "--adapter", adapter, "--output-dir", merged, *again)
    after = _figures(merged, held_out, folder / "after.json", *again)
    asked = workbooks / "outings_test.xlsx"
    _run("generate", "--model", merged, "--data", asked, "--output", folder / "answer.csv", *again)
    _run("report", adapter, "--output", folder / "report.html", *again)
    print(describe_gain(before, after))
    for what, place in {
        _("adapter"): "adapter",
        _("merged model"): "merged",
        _("answers"): "answer.csv",
        _("report"): "report.html",
    }.items():
        print(f"{pad(localized(what), 14)}{folder / place}")


def _base_files() -> list[Path]:
    return list(Path(str(packaged("lrc.examples"))).joinpath("demo_base").iterdir())


def _train(base: Path, data: Path, adapter: Path, *, force: bool) -> None:
    where: list[str | Path] = ["--model_name_or_path", base, "--output_dir", adapter]
    where += ["--train_file", data / "outings_train.json"]
    where += ["--validation_file", data / "outings_validation.json"]
    where += ["--overwrite_output_dir"] if force else []
    _run("train", RECIPE, "--accelerate-config", "cpu", *where)


def _figures(model: Path, data: Path, output: Path, *flags: str) -> dict[str, Any]:
    _run("evaluate", "--model", model, "--data", data, "--output", output, *flags)
    figures: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
    return figures


def _run(*command: str | Path) -> None:
    words = [str(word) for word in command]
    shown = command_line(["lrc", *words])
    show_command(f"\n$ {shown}")
    status = call(words)
    if status:
        text = _("demo: `{command}` ended with exit status {status}; see its message above")
        raise LrcError(text.format(command=shown, status=status))


def describe_gain(before: dict[str, Any], after: dict[str, Any]) -> str:
    """The accuracy on held-out questions before and after training and that of the best baseline, with a verdict."""
    verdict = verdict_of(after)
    name, best = next(iter(after["baselines"].items()))
    shares = {
        _("before training"): before,
        _("after training"): after,
        _("baseline, {name}").format(name=NAMES.get(name, name)): best,
    }
    lines = [localized(_("held-out questions, {size}").format(size=describe_size(after)))]
    lines += [f"{pad(localized(what), 26)}{spell(figures)}" for what, figures in shares.items()]
    return "\n".join(["", *lines, "", *wrap_line(localized(verdict.tell(verdict.next_to_report))), ""])
