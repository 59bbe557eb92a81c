"""How much faster lrc reads a workbook than pandas does with openpyxl, taken in turns on one machine.

    python benchmarks/reading.py AI.xlsx --rounds 5

Prints the shortest and the longest time of each, in seconds, and the ratio of the medians. Both are measured warm:
imports are done before. pandas only gets as far as a frame of cells, where lrc has cleaned questions and findings.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import click
import pandas

from lrc.data.tables.workbook import read_workbook


@click.command()
@click.argument("workbook", type=click.Path(path_type=Path, exists=True))
@click.option("--rounds", default=5, show_default=True)
def main(workbook: Path, rounds: int) -> None:
    """Read WORKBOOK with both, in turns."""
    ways: dict[str, Callable[[], object]] = {
        "pandas.read_excel(engine='openpyxl')": lambda: pandas.read_excel(workbook, engine="openpyxl"),
        "lrc.data.tables.workbook.read_workbook": lambda: read_workbook(workbook),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, read in ways.items():
            start = time.perf_counter()
            read()
            seconds[name].append(time.perf_counter() - start)
    for name, taken in seconds.items():
        print(f"{name:<40} {min(taken):.2f} to {max(taken):.2f} s")
    slow, fast = (statistics.median(taken) for taken in seconds.values())
    print(f"ratio of the medians {slow / fast:.1f}")


if __name__ == "__main__":
    main()
