"""What `lrc convert` costs: against pandas and openpyxl reading the same workbook, and as the questions grow.

    python benchmarks/converting.py ratio AI.xlsx --rounds 5
    python benchmarks/converting.py growth AI.xlsx --times 1 --times 10 --times 100 --change 0.02

`ratio` runs both as whole processes, in turns: convert reads, finds near-duplicates, splits and writes; pandas reads.
`growth` repeats the workbook as CSV, with a share of each copy's characters changed: 0 repeats the passages, 0.02
makes near-duplicates of them, 0.3 other passages. It prints time and peak memory of the whole process.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import numpy as np

from lrc.data.questions import Question
from lrc.data.tables.workbook import read_workbook

PANDAS = "import pandas, sys; pandas.read_excel(sys.argv[1], engine='openpyxl')"


@click.group()
def main() -> None:
    """Time and memory of `lrc convert`."""


@main.command()
@click.argument("workbook", type=click.Path(path_type=Path, exists=True))
@click.option("--rounds", default=5, show_default=True)
def ratio(workbook: Path, rounds: int) -> None:
    """Convert WORKBOOK, and read it with pandas, in turns."""
    taken: dict[str, list[float]] = {"convert": [], "pandas": []}
    for _ in range(rounds):
        taken["convert"].append(_convert(workbook)[0])
        taken["pandas"].append(_run([sys.executable, "-c", PANDAS, str(workbook)])[0])
    for name, seconds in taken.items():
        print(f"{name:<8} {min(seconds):.2f} to {max(seconds):.2f} s")
    ratios = [fast / slow for fast, slow in zip(taken["convert"], taken["pandas"], strict=True)]
    print(f"convert / pandas with openpyxl: {min(ratios):.2f} to {max(ratios):.2f}")


@main.command()
@click.argument("workbook", type=click.Path(path_type=Path, exists=True))
@click.option("--times", multiple=True, type=int, default=[1, 10], show_default=True)
@click.option("--change", default=0.02, show_default=True, help="Share of characters changed in each copy.")
def growth(workbook: Path, times: Sequence[int], change: float) -> None:
    """Convert WORKBOOK repeated so many times."""
    questions = read_workbook(workbook).questions
    for count in times:
        with tempfile.TemporaryDirectory() as folder:
            table = Path(folder) / "repeated.csv"
            _write(table, questions, count, change)
            megabytes = table.stat().st_size / 1e6
            seconds, busy, peak = _convert(table)
        size = f"{count * len(questions):>9,} rows, {megabytes:,.0f} MB, change {change}"
        print(f"{size}: {seconds:.1f} s ({busy:.1f} s of a core), peak {peak / 1e9:.2f} GB", flush=True)


def _convert(file: Path) -> tuple[float, float, int]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "lrc", "--quiet", "convert", str(file)]
        return _run([*command, "--output-dir", str(Path(folder) / "out"), "--on-error", "skip"])


def _run(command: list[str]) -> tuple[float, float, int]:
    """Run a process; give its seconds, those of a core that it used, and its peak memory in bytes."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: failed")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def _write(path: Path, questions: Sequence[Question], count: int, change: float) -> None:
    header = ["ID", "文章", "問題", *(f"選項{number}" for number in range(1, 5)), "正確答案"]
    generator = np.random.default_rng(0)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for copy in range(count):
            passages = dict(_varied([q.passage for q in questions], change if copy else 0.0, generator))
            writer.writerows([q.id, passages[q.passage], q.question, *q.options, q.answer] for q in questions)


def _varied(passages: Sequence[str], change: float, generator: np.random.Generator) -> Iterator[tuple[str, str]]:
    """Each distinct passage, and itself with a share of its characters replaced by others of all passages."""
    distinct = list(dict.fromkeys(passages))
    text = "".join(distinct)
    codes = np.frombuffer(text.encode("utf-32-le"), dtype="<u4").copy()
    places = np.flatnonzero(generator.random(len(codes)) < change)
    codes[places] = generator.choice(codes, len(places))
    varied, start = codes.tobytes().decode("utf-32-le"), 0
    for passage in distinct:
        yield passage, varied[start : start + len(passage)]
        start += len(passage)


if __name__ == "__main__":
    main()
