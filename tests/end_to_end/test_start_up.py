"""Help comes at once: no command imports anything heavy before it has something to do."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lrc.cli import cli

HEAVY = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "bitsandbytes",
    "pandas",
    "numpy",
    "openpyxl",
)
PROGRAM = """
import sys
from lrc.cli import main
try:
    main({words!r})
finally:
    print("imported:", *(name for name in {heavy!r} if name in sys.modules), file=sys.stderr)
"""


def run(*words: str) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(words=list(words), heavy=HEAVY)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)


@pytest.mark.parametrize("words", [(), *((verb,) for verb in sorted(cli.commands))], ids=" ".join)
def test_help_imports_nothing_heavy(words: tuple[str, ...]) -> None:
    told = run(*words, "--help")
    assert told.returncode == 0
    assert told.stdout.startswith(f"Usage: lrc {' '.join(words)}".rstrip())
    assert told.stderr == "imported:\n"


def test_the_version_imports_nothing_heavy() -> None:
    told = run("--version")
    assert told.stdout.startswith("lrc, version ") and told.stderr == "imported:\n"


def test_wrong_usage_imports_nothing_heavy() -> None:
    told = run("merge", "--adapter", "a")
    assert told.returncode == 2 and told.stderr.endswith("imported:\n")


def test_the_test_would_see_it() -> None:
    program = PROGRAM.format(words=["--help"], heavy=("click",))
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert told.stderr == "imported: click\n"


def test_every_command_and_flag_says_what_it_does() -> None:
    for verb, command in cli.commands.items():
        assert command.help, verb
