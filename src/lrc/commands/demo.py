"""The whole way on the sample workbook: what `make demo` runs.

The base is a tiny model with random weights, made on the spot. It can learn its training questions by heart, which
shows that the machinery learns; it cannot read, and its accuracy on held-out questions is chance.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.resources import files as packaged
from pathlib import Path
from typing import Any

from lrc.config.accelerate_config import find_accelerate_config
from lrc.config.recipe import find_recipe
from lrc.data.sources import read_records
from lrc.models.tiny import make_base
from lrc.runtime.errors import LrcError
from lrc.runtime.outputs import refuse_existing
from lrc.runtime.progress import notify
from lrc.runtime.system import command_line
from lrc.runtime.threads import share_cores

SETS = {"trained questions": "sample_train.json", "held-out questions": "sample_validation.json"}
BY_HEART = 0.9  # of the trained questions


def demo(folder: Path, *, force: bool = False) -> None:
    """Run convert, training, merge, generate and evaluate, each as the command that a user would give.

    Args:
        folder: where everything goes.

    Raises:
        LrcError: a command fails, or `folder` has something in it and `force` is false.
    """
    refuse_existing(folder, force=force)
    examples = Path(str(packaged("lrc.examples")))
    data, base, adapter, merged = (folder / name for name in ("data", "base", "adapter", "merged"))
    again = ["--force"] if force else []
    _run("convert", examples / "sample.xlsx", "--output-dir", data, *again)
    make_base(base, [record.input for record in read_records(data / SETS["trained questions"])], force=force)
    asked = ["--template", "chinese-alpaca-2", "--answer-style", "digit"]
    before = {
        name: _accuracy(base, data / file, folder / f"before_{file}", *asked, *again) for name, file in SETS.items()
    }
    _train(base, data, adapter, force=force)
    _run("merge", "--adapter", adapter, "--output-dir", merged, *again)
    after = {name: _accuracy(merged, data / file, folder / f"after_{file}", *again) for name, file in SETS.items()}
    _run(
        "generate",
        "--model",
        merged,
        "--data",
        examples / "sample_test.xlsx",
        "--output",
        folder / "answer.csv",
        *again,
    )
    _run("report", adapter, "--output", folder / "report.html", *again)
    _summary(folder, before, after)


def _train(base: Path, data: Path, adapter: Path, *, force: bool) -> None:
    config, recipe = find_accelerate_config("cpu"), find_recipe("tiny/lora")
    where: list[str | Path] = ["--model_name_or_path", base, "--output_dir", adapter]
    where += ["--train_file", data / SETS["trained questions"]]
    where += ["--validation_file", data / SETS["held-out questions"]]
    where += ["--overwrite_output_dir"] if force else []
    launch: list[str | Path] = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", config]
    shown = f"accelerate launch --config_file {config} -m lrc.sft --config {recipe}"
    _call([*launch, "-m", "lrc.sft", "--config", recipe, *where], f"{shown} {_join(where)}")


def _accuracy(model: Path, data: Path, output: Path, *flags: str) -> dict[str, Any]:
    _run("evaluate", "--model", model, "--data", data, "--output", output, *flags)
    figures: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
    return figures


def _run(*words: str | Path) -> None:
    _call([sys.executable, "-m", "lrc", *words], f"lrc {_join(words)}")


def _call(command: Sequence[str | Path], shown: str) -> None:
    notify(f"\n$ {shown}")
    environment = dict(os.environ)
    share_cores(environment)  # accelerate would give a CPU process one thread
    status = subprocess.run([str(word) for word in command], check=False, env=environment).returncode
    if status:
        raise LrcError(f"demo: `{shown}` ended with exit status {status}; see its message above")


def describe_accuracy(accuracy: float) -> str:
    """What the accuracy on the trained questions shows; it never claims what did not happen."""
    if accuracy < BY_HEART:
        return (
            "The training questions were not memorised, as they should have been: please report this, with\n"
            "your processor and the versions in adapter/lrc_run.json. The files below are complete all the same."
        )
    return (
        "This shows that training works: a tiny random model memorised its training questions.\n"
        "It cannot read, so on held-out questions it guesses. For real accuracy, use a real base model."
    )


def _join(words: Sequence[str | Path]) -> str:
    return command_line([str(word) for word in words])


def _summary(folder: Path, before: dict[str, Any], after: dict[str, Any]) -> None:
    print("\naccuracy             before    after")
    for name in SETS:
        print(f"{name:<20} {before[name]['accuracy']:.4f}    {after[name]['accuracy']:.4f}   n = {after[name]['n']}")
    print(f"{describe_accuracy(after['trained questions']['accuracy'])}\n")
    for what, name in {
        "adapter": "adapter",
        "merged model": "merged",
        "answers": "answer.csv",
        "report": "report.html",
    }.items():
        print(f"{what:<13} {folder / name}")
