"""What the benchmarks share: questions, a model, interleaved timing, and how a ratio is reported."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# The reference run's workbooks and tokenizer; they may not be redistributed, so they are looked for beside the clone.
SHARED = Path(os.environ.get("LRC_SHARED_DATA", ROOT.parent / "shared" / "data"))
TOKENIZER = SHARED / "chinese-llama-2-tokenizer"


def shared_questions(name: str, count: int | None = None) -> list[Any]:
    """The first questions of a real workbook, bad rows left out; ends the benchmark where it is absent."""
    from lrc.data.tables.workbook import read_workbook

    path = SHARED / name
    if not path.exists():
        raise SystemExit(f"{path} is absent; set LRC_SHARED_DATA to the folder of the reference run's workbooks")
    return list(read_workbook(path).questions)[:count]


def llama(vocab_size: int, *, layers: int = 8, width: int = 512) -> Any:
    """A Llama with seeded random weights in float32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        intermediate_size=width * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 64,
        max_position_embeddings=4096,
    )
    return LlamaForCausalLM(config)


def interleave(sides: dict[str, Callable[[], Any]], rounds: int, *, warm_up: bool = True) -> dict[str, list[float]]:
    """Run the sides in turn; processor seconds (all threads) of each run. The first, a warm-up, is thrown away."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + warm_up):
        for name, run in sides.items():
            start = time.process_time()
            run()
            if turn >= warm_up:
                seconds[name].append(time.process_time() - start)
    return seconds


def report_speed(name: str, seconds: Sequence[float], questions: int, tokens: int, peak: float | None = None) -> None:
    """Print the pace of one side over all its rounds.

    Args:
        questions: that it answered or learnt in all rounds.
        tokens: that these have, computed one by one: the useful ones.
        peak: MiB above the loaded model, where it was measured.
    """
    memory = "" if peak is None else f"; peak {peak:,.0f} MiB above the model"
    total = sum(seconds)
    print(f"{name}: {questions / total:.2f} questions, {tokens / total:,.0f} useful tokens a processor second{memory}")


def report_ratio(
    what: str,
    slow: Sequence[float],
    fast: Sequence[float],
    unit: str = "times",
    target: tuple[str, float] | None = None,
) -> None:
    """Print how many times `fast` is faster over all rounds, the least and the most of a round, and about the target.

    Args:
        target: `>=` or `<=`, and what the ratio is meant to reach with the default flags.
    """
    ratios = [a / b for a, b in zip(slow, fast, strict=True)]
    ratio = sum(slow) / sum(fast)
    line = f"{what}: {ratio:.2f} {unit} (min {min(ratios):.2f}, max {max(ratios):.2f})"
    if target is not None:
        reached = ratio >= target[1] if target[0] == ">=" else ratio <= target[1]
        line += f"; target {target[0]} {target[1]:g}, {'reached' if reached else 'not reached'}"
    print(line, flush=True)


def peak_in_process(side: str) -> float:
    """Run this benchmark's command again in a process of its own for the peak memory of one side; see `rise`."""
    # Before this process has loaded anything: Linux counts a parent's pages into the peak of its child.
    done = subprocess.run([sys.executable, *sys.argv, "--peak-of", side], stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.split()[-1])


def rise(run: Callable[[], Any]) -> float:
    """MiB by which a run raises the peak of this process's memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def machine() -> str:
    """One line about this machine and this version."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    return f"{platform.machine()}, {os.cpu_count()} cores, commit {commit.strip() or 'unknown'}"
