"""What the benchmarks share: questions, a model, interleaved timing, and how a ratio is reported."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
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
    from lrc.workbook import read_workbook

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


def interleave(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Run the sides in turn; processor seconds (all threads) of each run. One run of each is thrown away first."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, run in sides.items():
            start = time.process_time()
            run()
            if turn:
                seconds[name].append(time.process_time() - start)
    return seconds


def report_ratio(what: str, slow: Sequence[float], fast: Sequence[float]) -> None:
    """Print how many times `fast` is faster: the median of the ratios round by round, and their range."""
    ratios = [a / b for a, b in zip(slow, fast, strict=True)]
    print(f"{what}: {statistics.median(ratios):.2f} times (min {min(ratios):.2f}, max {max(ratios):.2f})", flush=True)


def machine() -> str:
    """One line about this machine and this version."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    return f"{platform.machine()}, {os.cpu_count()} cores, commit {commit.strip() or 'unknown'}"
