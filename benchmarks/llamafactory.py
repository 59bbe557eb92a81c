"""Training with packed trees against LLaMA-Factory, each in its own environment.

    python benchmarks/llamafactory.py [--environment DIR] [--questions 24] [--rounds 1] [--batch 6]

LLaMA-Factory pins older libraries, so it gets a virtual environment (`--environment`, made there if it is absent: some
GB). Model, questions and settings are those of training.py, and so are the token ids: it reads them as its own
tokenized data set, in the same order. It trains on the CPU in float32, without gradient checkpointing (which is its
default, and slower). The two take turns; processor seconds are those of the training loop alone. LoRA's A is drawn by
each library itself, so losses may differ after the first step.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import venv
import warnings
from importlib.machinery import ModuleSpec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

from bench import TOKENIZER, interleave, llama, machine, report_ratio, report_speed

VERSION = "0.9.5"
TORCH = "2.13.0"


def main() -> None:
    """Run the comparison; in the other environment, LLaMA-Factory's side of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", type=Path, default=Path(".llamafactory"))
    parser.add_argument("--questions", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--step", type=int, default=24, help="questions an optimizer step")
    parser.add_argument("--vocab-size", type=int, default=55296)
    parser.add_argument("--row-tokens", type=int)
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    warnings.simplefilter("ignore")
    if flags.train:
        train(flags.train, flags)
    else:
        compare(flags)


def compare(flags: argparse.Namespace) -> None:
    """Let lrc and LLaMA-Factory train in turn and print the ratio."""
    from training import RANK, make_side, trl_trainer, workbook_records

    if not flags.environment.exists():
        install(flags.environment)
    records = workbook_records(flags.questions)
    side = make_side("lrc", records, flags)
    seconds: dict[str, list[float]] = {"lrc": [], "LLaMA-Factory": []}
    with TemporaryDirectory() as name:
        folder = Path(name)
        llama(flags.vocab_size).save_pretrained(folder / "model")
        shutil.copytree(TOKENIZER, folder / "model", dirs_exist_ok=True)
        rows = list(trl_trainer(records, flags, 1).train_dataset)
        (folder / "rows.json").write_text(json.dumps(rows))
        (folder / "rank").write_text(str(RANK))
        for _ in range(flags.rounds):
            seconds["lrc"] += interleave({"lrc": side.run}, 1, warm_up=False)["lrc"]
            found = _in_environment(flags, folder)
            seconds["LLaMA-Factory"].append(found["seconds"])
    print(machine())
    losses = {"lrc": side.loss, "LLaMA-Factory": found["loss"]}
    for name, taken in seconds.items():
        report_speed(name, taken, flags.questions * flags.rounds, side.separate * flags.rounds)
        print(f"    loss {losses[name]:.5f}")
    report_ratio(f"lrc against LLaMA-Factory {VERSION}", seconds["LLaMA-Factory"], seconds["lrc"], target=(">=", 4.0))


def install(folder: Path) -> None:
    """Make the environment."""
    venv.create(folder, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--quiet"]
    subprocess.run([*pip, "install", f"llamafactory=={VERSION}", f"torch=={TORCH}"], check=True)
    # Builds for a GPU, which may not load beside the torch that is installed; text needs neither.
    subprocess.run([*pip, "uninstall", "--yes", "torchvision", "torchaudio"], check=True)


def _in_environment(flags: argparse.Namespace, folder: Path) -> dict[str, Any]:
    python = flags.environment / "bin" / "python"
    words = [str(python), __file__, "--train", str(folder), "--batch", str(flags.batch), "--step", str(flags.step)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def train(folder: Path, flags: argparse.Namespace) -> None:
    """LLaMA-Factory's side: one epoch over the rows that lie in the folder; prints seconds and loss."""
    # This file's own folder comes first in the path, and this file has the name of the package.
    sys.path.remove(str(Path(__file__).resolve().parent))
    # LLaMA-Factory imports torchaudio whether there is audio or not; an empty module does for text.
    sys.modules["torchaudio"] = ModuleType("torchaudio")
    sys.modules["torchaudio"].__spec__ = ModuleSpec("torchaudio", None)
    from datasets import Dataset
    from llamafactory.train.tuner import run_exp
    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.start = time.process_time()

        def on_train_end(self, *_: Any, **__: Any) -> None:
            self.seconds = time.process_time() - self.start

    rows = json.loads((folder / "rows.json").read_text())
    for row in rows:
        row["attention_mask"] = [1] * len(row["input_ids"])
    Dataset.from_list(rows).save_to_disk(folder / "tokens")
    clock = Clock()
    settings = {
        "stage": "sft",
        "do_train": True,
        "model_name_or_path": str(folder / "model"),
        "dataset": "tokens",  # it asks for a name, and reads no more of it
        "tokenized_path": str(folder / "tokens"),
        "template": "llama2_zh",
        "finetuning_type": "lora",
        "lora_rank": int((folder / "rank").read_text()),
        "lora_alpha": 16,
        "lora_dropout": 0.0,
        "lora_target": "all",
        "disable_shuffling": True,
        "disable_gradient_checkpointing": True,
        "per_device_train_batch_size": flags.batch,
        "gradient_accumulation_steps": flags.step // flags.batch,
        "num_train_epochs": 1,
        "learning_rate": 1.0e-4,
        "output_dir": str(folder / "output"),
        "overwrite_output_dir": True,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
    }
    run_exp(settings, callbacks=[clock])
    results = json.loads((folder / "output" / "train_results.json").read_text())
    print(json.dumps({"seconds": clock.seconds, "loss": results["train_loss"]}))


if __name__ == "__main__":
    main()
