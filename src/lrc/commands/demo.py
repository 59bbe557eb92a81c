"""The whole way on the little world: what `make demo` runs.

The base is a megabyte that lrc ships: trained on stories of a little world (examples/build_demo_base.py), and never
shown a question. What it learns here is to answer them, and it is asked about passages whose words were kept from all
training. What the passages tell has to be read: all options stand in them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.resources import files as packaged
from pathlib import Path
from typing import Any

from lrc.config.accelerate_config import find_accelerate_config
from lrc.config.recipe import find_recipe
from lrc.metrics.verdict import spell
from lrc.runtime.errors import LrcError
from lrc.runtime.outputs import new_folder, refuse_existing
from lrc.runtime.progress import say
from lrc.runtime.system import command_line

RECIPE = "little-world/lora"
LEARNT, HELD_OUT = "little_world", "little_world_held_out"  # the workbooks
BASE = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
ASKED = ("--template", "plain", "--answer-style", "text")


def demo(folder: Path, *, force: bool = False) -> None:
    """Run convert, training, merge, generate and evaluate, each as the command that a user would give.

    Args:
        folder: where everything goes.

    Raises:
        LrcError: a command fails, or `folder` has something in it and `force` is false.
    """
    start = time.monotonic()
    refuse_existing(folder, force=force)
    world = Path(str(packaged("lrc.examples"))) / "little_world"
    data, base, adapter, merged = (folder / name for name in ("data", "base", "adapter", "merged"))
    again = ["--force"] if force else []
    with new_folder(base, force=force) as staged:
        for name in BASE:
            shutil.copy(world / name, staged / name)
    for name in (LEARNT, HELD_OUT):
        _run("convert", world / f"{name}.xlsx", "--output-dir", data, "--validation-fraction", "0", *again)
    held_out = data / f"{HELD_OUT}.json"
    before = _accuracy(base, held_out, folder / "before.json", *ASKED, *again)
    _train(base, data, adapter, force=force)
    _run("merge", "--adapter", adapter, "--output-dir", merged, *again)
    after = _accuracy(merged, held_out, folder / "after.json", *again)
    workbook = world / f"{HELD_OUT}.xlsx"
    _run("generate", "--model", merged, "--data", workbook, "--output", folder / "answer.csv", *again)
    _run("report", adapter, "--output", folder / "report.html", *again)
    print("\n".join(summary(folder, before, after, time.monotonic() - start)))


def _train(base: Path, data: Path, adapter: Path, *, force: bool) -> None:
    config, recipe = find_accelerate_config("cpu"), find_recipe(RECIPE)
    where: list[str | Path] = ["--model_name_or_path", base, "--output_dir", adapter]
    where += ["--train_file", data / f"{LEARNT}.json", "--validation_file", data / f"{HELD_OUT}.json"]
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
    say(f"\n$ {shown}")
    # accelerate would give a CPU process one thread.
    environment = {"OMP_NUM_THREADS": str(os.cpu_count()), **os.environ}
    status = subprocess.run([str(word) for word in command], check=False, env=environment).returncode
    if status:
        raise LrcError(f"demo: `{shown}` ended with exit status {status}; see its message above")


def _join(words: Sequence[str | Path]) -> str:
    return command_line([str(word) for word in words])


def summary(folder: Path, before: dict[str, Any], after: dict[str, Any], seconds: float) -> list[str]:
    """The lines at the end: accuracy before and after, beside what reads nothing; never what did not happen.

    Args:
        before: the figures of `lrc evaluate --output` of the base.
        after: those of the trained model, on the same questions.
    """
    lines = ["", f"{after['n']:.0f} questions on {after['passages']:.0f} held-out passages", ""]
    lines += [f"{name:<20}{spell(figures):>22}   reads nothing" for name, figures in after["baselines"].items()]
    lines += [f"{'before training':<20}{spell(before):>22}", f"{'after training':<20}{spell(after):>22}"]
    lines += ["", f"{after['verdict']}."]
    if "no evidence" in after["verdict"] or "may be chance" in after["verdict"]:
        lines.append(
            "It should have learnt to read here: please report this, with the versions in adapter/lrc_run.json."
        )
    else:
        lines.append("None of the names, things and places in these passages was in anything that was trained on.")
    lines.append(f"The whole way took {seconds / 60:.1f} minutes.\n")
    places = {"adapter": "adapter", "merged model": "merged", "answers": "answer.csv", "report": "report.html"}
    return [*lines, *(f"{what:<13} {folder / name}" for what, name in places.items())]
