"""Time and memory of reading, tokenizing, packing and the first training step, at 1, 10 and 100 times a workbook.

    python benchmarks/scale.py AI.xlsx --tokenizer FOLDER            # 1 and 10 times
    python benchmarks/scale.py AI.xlsx --tokenizer FOLDER --hundred  # and 100 times

Each copy of the workbook has passages of its own, so that nothing gets shared that was not shared before. A size is
measured in a process of its own. `memory` is what the process holds by itself at the most (anonymous memory, sampled
20 times a second); pages of memory-mapped files, which the system takes back when it needs them, are told apart as
`mapped`. Workers are added up. The model is a Llama of 2 layers and width 64 with random weights: what is measured is
what grows with the data.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench import TOKENIZER, llama, machine

STEP = 8  # questions


def main() -> None:
    """Measure every size in a process of its own."""
    flags = _flags()
    if flags.data is not None:
        print(json.dumps(_measure(flags)))
        return
    print(machine())
    with TemporaryDirectory(dir=flags.scratch) as scratch:
        for times in (1, 10, 100) if flags.hundred else (1, 10):
            data = Path(scratch) / f"{times}.json"
            count = _write(flags.workbook, data, times)
            for turn in ("new", "cached"):
                _print(f"{times}× {turn}", count, data, _run(flags, data, Path(scratch) / f"cache-{times}"))
            data.unlink()


def _print(what: str, count: int, data: Path, found: dict[str, Any]) -> None:
    seconds = ", ".join(f"{name} {value:.1f} s" for name, value in found["seconds"].items())
    memory = ", ".join(f"{name} {value / 1e9:.2f} GB" for name, value in found["memory"].items())
    print(f"{what}: {count} questions, {data.stat().st_size / 1e9:.2f} GB; {seconds}; {memory}", flush=True)


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workbook", type=Path)
    parser.add_argument("--tokenizer", type=Path, default=TOKENIZER)
    parser.add_argument("--hundred", action="store_true", help="also 100 times, which takes minutes and 8 GB of disk")
    parser.add_argument("--scratch", type=Path, help="where data and cache go meanwhile; default: the system's folder")
    parser.add_argument("--processes", type=int, help="that tokenize; default: the machine's")
    parser.add_argument("--orders", type=int, default=1, help="option orders that are trained")
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _write(workbook: Path, path: Path, times: int) -> int:
    """Write copies of the workbook's questions as Alpaca JSON; their number."""
    from lrc.data.alpaca import dump_records, to_record
    from lrc.data.tables.workbook import read_workbook

    questions = read_workbook(workbook).questions

    def copies() -> Iterator[Any]:
        for k in range(times):
            for question in questions:
                passage = f"第{k}份。{question.passage}" if k else question.passage
                yield to_record(replace(question, passage=passage))

    with path.open("w", encoding="utf-8") as file:
        file.writelines(dump_records(copies()))
    return times * len(questions)


def _run(flags: argparse.Namespace, data: Path, cache: Path) -> dict[str, Any]:
    words = [sys.executable, __file__, str(flags.workbook), "--tokenizer", str(flags.tokenizer), "--data", str(data)]
    words += ["--orders", str(flags.orders)]
    if flags.processes:
        words += ["--processes", str(flags.processes)]
    environment = {**os.environ, "HF_DATASETS_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _measure(flags: argparse.Namespace) -> dict[str, Any]:
    """What one process takes from the file to the end of its first step."""
    from lrc.models.loading import load_tokenizer
    from lrc.tokenization.max_length import LengthPolicy
    from lrc.tokenization.prompt import Prompt
    from lrc.tokenization.token_dataset import read_corpus
    from lrc.training.dataloader import SequenceSource
    from lrc.training.trainer import TreeTrainer

    tokenizer = load_tokenizer(str(flags.tokenizer))
    prompt = Prompt(tokenizer, "chinese-alpaca-2", "digit")
    model = llama(len(tokenizer), layers=2, width=64)
    seconds: dict[str, float] = {}
    with _watched() as peak:
        before = dict(peak)
        with _timed(seconds, "tokenize"):
            corpus = read_corpus(
                flags.data, prompt, LengthPolicy(1024, "shorten"), stage="tokenize", processes=flags.processes
            )
        with TemporaryDirectory() as folder:
            trainer = TreeTrainer(
                model=model,
                args=_arguments(folder),
                peft_config=None,
                processing_class=tokenizer,
                train_dataset=corpus.dataset,
                source=SequenceSource(corpus.dataset, corpus.records, prompt, flags.orders, 0),
                validation=None,
            )
            with _timed(seconds, "deal out and pack the first step"):
                next(iter(trainer.get_train_dataloader()))
            if corpus.count < 20_000:
                with _timed(seconds, "pack an epoch"):
                    for _ in trainer.get_train_dataloader():
                        pass
            with _timed(seconds, "first step"):
                trainer.train()
    return {"seconds": seconds, "memory": {"before": before["memory"], **peak}}


def _arguments(folder: str) -> Any:
    from lrc.config.arguments import TrainingArguments

    return TrainingArguments(
        output_dir=folder, max_steps=1, per_device_train_batch_size=STEP, report_to="none", save_strategy="no"
    )


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - start


@contextmanager
def _watched() -> Iterator[dict[str, int]]:
    """The most bytes that this process and its children hold while the block runs; Linux only."""
    peak = _held()
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            for name, value in _held().items():
                peak[name] = max(peak[name], value)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        ended.set()
        watcher.join()


def _held() -> dict[str, int]:
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    held = {"memory": 0, "mapped": 0}
    for process in ("self", *children):
        try:
            status = Path(f"/proc/{process}/smaps_rollup").read_text()
        except OSError:  # ended since
            continue
        fields = dict(line.split(":", 1) for line in status.splitlines()[1:])
        # Proportional: what a worker shares with the process that it was forked from counts once.
        anonymous, shared = (int(fields[name].split()[0]) * 1024 for name in ("Pss_Anon", "Pss_File"))
        held["memory"] += anonymous
        held["mapped"] += shared
    return held


if __name__ == "__main__":
    main()
