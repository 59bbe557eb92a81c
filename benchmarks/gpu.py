"""What a GPU does with lrc, in some minutes: right, how fast, in how much memory.

    python benchmarks/gpu.py --out DIR [--stages facts sft …] [--device cpu] [--limit 300]

Every stage runs in a process of its own with a limit of its own, and writes a JSON line a finding to
DIR/findings.jsonl; what it says goes to DIR/log.txt. A table comes last, and into DIR/table.md. Stages that prove
something run beside each other, those that time something one after the other. With `--device cpu` all of it runs in
toy sizes, to be known to work before a GPU is at hand. Models have random weights, and passages random tokens of the
lengths that the reference workbook has; no network is needed. `--limit` ends the whole: a stage that has no time
left is named and left out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TextIO

HERE = Path(__file__).resolve().parent
# Seconds that a stage may take; the stages of a line run beside each other.
TOGETHER = [
    {"facts": 60},
    {"equality": 240, "memoryless": 160},
    {"sft": 240, "resume": 240},
    {"stored": 300},
    {"launches": 300, "commands": 300, "plans": 140},
    {"attention": 90},
    {"steps": 200},
    {"profile": 60},
    {"rivals": 150},
    {"memory": 60},
    {"recipes": 200},
    {"answering": 60},
    {"compiled": 90},
]
STAGES = [name for group in TOGETHER for name in group]


def main() -> None:
    """Run the stages that the flags name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--stages", nargs="+", default=STAGES, choices=STAGES, metavar="STAGE", help=", ".join(STAGES))
    parser.add_argument("--limit", type=float, default=3600.0, help="seconds for all stages")
    parser.add_argument(
        "--only", nargs="*", default=[], help="of a stage that times several sides, those of these names"
    )
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    flags.out.mkdir(parents=True, exist_ok=True)
    if flags.stage:
        from gpu_stages import run_stage

        run_stage(flags.stage, flags.device, flags.out, flags.only)
        return
    end = time.monotonic() + flags.limit
    with (flags.out / "log.txt").open("a", encoding="utf-8") as log:
        for group in TOGETHER:
            chosen = {name: limit for name, limit in group.items() if name in flags.stages}
            run_together(chosen, flags, end, log)
    text = table(read(flags.out / "findings.jsonl"))
    (flags.out / "table.md").write_text(text, encoding="utf-8")
    print(text)


def run_together(stages: dict[str, float], flags: argparse.Namespace, end: float, log: TextIO) -> None:
    """Start these stages, and wait until each has ended or its time is over."""
    started: dict[str, tuple[subprocess.Popen[bytes], float]] = {}
    for name, limit in stages.items():
        left = end - time.monotonic()
        if left < 15:
            note(flags.out, name, ended="left out: no time was left", seconds=0.0)
            continue
        command = [sys.executable, __file__, "--out", str(flags.out), "--device", flags.device, "--stage", name]
        command += ["--only", *flags.only]
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=environment())
        patience = limit if flags.device == "cuda" else 5 * limit
        started[name] = process, time.monotonic() + min(patience, left)
    begun = time.monotonic()
    with ThreadPoolExecutor(max(len(started), 1)) as pool:
        ends = [pool.submit(note_end, flags.out, name, *one, begun) for name, one in started.items()]
    for end_of_stage in ends:
        end_of_stage.result()


def note_end(out: Path, name: str, process: subprocess.Popen[bytes], until: float, begun: float) -> None:
    """Wait until a stage has ended or its time is over, and note which, and after how many seconds."""
    try:
        code = process.wait(timeout=max(until - time.monotonic(), 0.1))
        ended = "done" if code == 0 else f"failed, status {code}"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait()
        ended = "stopped: its time was over"
    note(out, name, ended=ended, seconds=round(time.monotonic() - begun, 1))


def environment() -> dict[str, str]:
    """That of a stage: nothing from the network, few threads for each of many processes, what is said at once."""
    added = {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"}
    # Of eight tests at once, each took all 16 cores for its float64 on the CPU; none ended in two minutes.
    added |= {"TORCHINDUCTOR_COMPILE_THREADS": "2", "OMP_NUM_THREADS": "2"}
    return {**os.environ, **added, "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}


def note(out: Path, stage: str, **found: Any) -> None:
    """Keep a finding, and show it."""
    line = json.dumps({"stage": stage, **found})
    print(line, flush=True)
    with (out / "findings.jsonl").open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """All findings."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def table(findings: Sequence[dict[str, Any]]) -> str:
    """The findings for people: a table a stage, but for equality, of which the worst cases and failures are shown."""
    parts = []
    for stage in STAGES:
        mine = [{k: v for k, v in one.items() if k != "stage"} for one in findings if one["stage"] == stage]
        if stage == "equality":
            mine = _worst(mine)
        if mine:
            parts.append(f"### {stage}\n\n" + "\n".join(_line(one) for one in mine))
    return "\n\n".join(parts) + "\n"


def _worst(cases: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each family, format and form the case whose tree is furthest from the truth."""
    worst: dict[tuple[Any, ...], dict[str, Any]] = {}
    for one in cases:
        key = (one.get("family"), one.get("dtype"), one.get("form"), "tree" in one)
        known = worst.get(key)
        if known is None or _error(one) > _error(known):
            worst[key] = one
    return [{k: v for k, v in one.items() if k != "case"} for one in worst.values()]


def _error(one: dict[str, Any]) -> float:
    return float(one["tree"][1]) if "tree" in one else float(one.get("answers", 0.0))


def _line(one: dict[str, Any]) -> str:
    return "- " + ", ".join(f"{name} {_short(value)}" for name, value in one.items())


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return " / ".join(map(_short, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


if __name__ == "__main__":
    main()
