"""The wheels that a GPU machine without a network lacks, at the versions that lrc is tested with.

    python benchmarks/gpu_wheels.py FOLDER [--python 3.12] [--cuda 130] [NAME…]

There: `python -m pip install --no-index --no-deps --target SITE FOLDER/*.whl`, and SITE in PYTHONPATH. What is there
already (torch, triton, numpy, pyarrow …) is not carried; NAME… adds to what is. bitsandbytes comes with libraries for
every version of CUDA, 120 MB; its wheel is packed again with the one that is meant. lrc's own is among them.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What images that have torch, triton and transformers lack, or have in other versions than lrc needs.
MISSING = ["transformers", "trl", "datasets", "dill", "multiprocess", "xxhash", "peft", "accelerate", "huggingface_hub"]
MISSING += ["httpx2", "httpcore2", "truststore", "pandas", "openpyxl", "et_xmlfile", "python-calamine", "bitsandbytes"]
MISSING += ["click", "rich", "filelock", "packaging", "matplotlib", "psutil", "sentencepiece", "jinja2", "safetensors"]
MISSING += ["tokenizers"]  # which transformers wants in one version
MISSING += ["pytest", "pytest-xdist", "execnet", "iniconfig", "pluggy"]
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (39, 35, 34, 31, 28, 27, 26, 24, 17)]
PLATFORMS += ["manylinux2014_x86_64", "manylinux1_x86_64"]
LIBRARY = re.compile(r"bitsandbytes/libbitsandbytes_(?!cpu)\w+\.so")


def main() -> None:
    """Fetch the wheels, and say how large they are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--python", default="3.12")
    parser.add_argument("--cuda", default="130")
    flags = parser.parse_args()
    flags.folder.mkdir(parents=True, exist_ok=True)
    names = [*MISSING, *flags.names]
    pinned = pins()
    fetch([f"{name}=={pinned[_plain(name)]}" for name in names if name != "bitsandbytes"], flags.folder, flags.python)
    with tempfile.TemporaryDirectory() as scratch:
        fetch([f"bitsandbytes=={pinned['bitsandbytes']}"], Path(scratch), flags.python)
        (wheel,) = Path(scratch).glob("*.whl")
        with_one_library(wheel, flags.folder / wheel.name, flags.cuda)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(flags.folder), str(ROOT)],
        check=True,
    )
    wheels = sorted(flags.folder.glob("*.whl"))
    print(f"{len(wheels)} wheels, {sum(wheel.stat().st_size for wheel in wheels) / 1024**2:.1f} MiB in {flags.folder}")


def pins() -> dict[str, str]:
    """The tested version of each package, by its plain name."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return {_plain(name): version for name, _, version in (line.partition("==") for line in lines) if version}


def fetch(needed: list[str], folder: Path, python: str) -> None:
    """Download wheels for Linux on x86-64, and nothing that they need."""
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version", python, "--implementation", "cp", *platforms, "--dest", str(folder), *needed]
    subprocess.run(command, check=True)


def with_one_library(wheel: Path, target: Path, cuda: str) -> None:
    """Pack bitsandbytes' wheel again with the library of one version of CUDA, and that of the CPU."""
    kept = f"bitsandbytes/libbitsandbytes_cuda{cuda}.so"
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        if kept not in old.namelist():
            raise SystemExit(f"{wheel.name} has no {kept}; name another version by --cuda")
        lines, record = [], ""
        for name in old.namelist():
            if LIBRARY.fullmatch(name) and name != kept:
                continue
            if name.endswith(".dist-info/RECORD"):
                record = name
                continue
            content = old.read(name)
            new.writestr(old.getinfo(name), content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            lines.append(f"{name},sha256={digest},{len(content)}")
        new.writestr(record, "\n".join([*lines, f"{record},,"]) + "\n")


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
