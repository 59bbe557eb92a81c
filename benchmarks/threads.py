"""A small training on a CPU beside busy processes: OpenMP threads that spin for each other, or that sleep.

    python benchmarks/threads.py [--busy 0 1 2] [--rounds 2] [--steps 60] [--products]

Each side is `lrc train tiny/lora` on the sample, `--steps` steps, in a process of its own, all sides in turn; wall time
and processor time count from its start to its end. Busy processes do nothing but count.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import ROOT, machine

CORES = str(os.cpu_count())
# libgomp's own count where nothing is said.
SIDES = {
    "spin": {"OMP_NUM_THREADS": CORES, "GOMP_SPINCOUNT": "300000"},
    "sleep": {"OMP_NUM_THREADS": CORES, "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": ""},
    "one thread": {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": ""},
}

PRODUCTS = """
import sys, time, torch
a = torch.randn(192, 192)
for _ in range(20):
    a @ a
wall, processor = time.perf_counter(), time.process_time()
for _ in range(400):
    torch.nn.functional.silu(a @ a)
print(f"{sys.argv[1]}: {time.perf_counter() - wall:.2f} s, {time.process_time() - processor:.2f} processor seconds")
"""


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2], help="busy processes beside it")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--sides", nargs="+", default=list(SIDES), choices=list(SIDES))
    parser.add_argument("--products", action="store_true", help="time 400 small products instead, beside what runs")
    flags = parser.parse_args()
    print(machine())
    if flags.products:
        for side in flags.sides * flags.rounds:
            given = {key: value for key, value in {**os.environ, **SIDES[side]}.items() if value}
            subprocess.run([sys.executable, "-c", PRODUCTS, side], check=True, env=given)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        for busy in flags.busy:
            others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
            try:
                for _ in range(flags.rounds):
                    for side in flags.sides:
                        wall, processor = run(folder, flags.steps, SIDES[side])
                        print(f"{busy} busy, {side}: {wall:.1f} s, {processor:.1f} processor seconds", flush=True)
            finally:
                for other in others:
                    other.kill()


def prepare(folder: Path) -> None:
    """The sample's questions, and a base of its characters."""
    from lrc.data.sources import read_records
    from lrc.models.tiny import make_base

    sample = ROOT / "examples/sample.xlsx"
    subprocess.run([sys.executable, "-m", "lrc", "convert", sample, "--output-dir", folder / "data"], check=True)
    make_base(folder / "base", [record.input for record in read_records(folder / "data/sample_train.json")])


def run(folder: Path, steps: int, environment: dict[str, str]) -> tuple[float, float]:
    """Wall and processor seconds of one training."""
    words = ["-m", "lrc.sft", "--config", ROOT / "recipes/tiny/lora.yaml", "--use_cpu", "--max_steps", steps]
    words += ["--model_name_or_path", folder / "base", "--train_file", folder / "data/sample_train.json"]
    words += ["--validation_file", "null", "--output_dir", folder / "adapter", "--overwrite_output_dir"]
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    given = {key: value for key, value in {**os.environ, **environment}.items() if value}
    command = [sys.executable, *map(str, words)]
    subprocess.run(command, check=True, env=given, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic() - start, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
