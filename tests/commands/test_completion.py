"""`lrc completion`: the script of a shell, tried in a real bash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# What bash does when a user presses tab: it sets COMP_WORDS and COMP_CWORD, and calls the registered function.
PRESS_TAB = """
eval "$(lrc completion bash)" || exit 1
registered=$(complete -p lrc) || exit 1
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
function=${registered#*-F }; ${function%% *} lrc 2>/dev/null
printf '%s\\n' "${COMPREPLY[@]}"
"""


def complete(folder: Path, *words: str) -> list[str]:
    """What bash offers in place of the last of `words`."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash on this machine")
    program = folder / "lrc"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m lrc "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    command = [bash, "--norc", "-c", PRESS_TAB, "bash", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_bash_completes_verbs(tmp_path: Path) -> None:
    assert complete(tmp_path, "lrc", "ev") == ["evaluate"]
    assert {"app", "check", "convert", "init", "train"} <= set(complete(tmp_path, "lrc", ""))


def test_bash_completes_flags_and_their_values(tmp_path: Path) -> None:
    assert complete(tmp_path, "lrc", "convert", "--val") == ["--validation-fraction"]
    assert complete(tmp_path, "lrc", "convert", "--on-error", "s") == ["skip"]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("lrc conv", "convert\t把活頁簿轉成 Alpaca JSON，並依文章分割。"),
        ("lrc convert --see", "--seed\t分割用的隨機種子。"),
    ],
)
def test_fish_shows_what_it_offers_in_the_readers_language(words: str, offered: str) -> None:
    asked = {"_LRC_COMPLETE": "fish_complete", "COMP_WORDS": words, "COMP_CWORD": words.split()[-1]}
    environment = {**os.environ, **asked, "LRC_LANG": "zh_TW", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([sys.executable, "-m", "lrc"], env=environment, capture_output=True, encoding="utf-8")
    assert done.stdout == f"plain,{offered}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_script_registers_lrc(shell: str) -> None:
    done = subprocess.run([sys.executable, "-m", "lrc", "completion", shell], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    assert "_LRC_COMPLETE" in done.stdout and f"{shell}_complete" in done.stdout


def test_the_shell_itself_accepts_the_script() -> None:
    script = subprocess.run([sys.executable, "-m", "lrc", "completion", "bash"], capture_output=True, text=True).stdout
    if shutil.which("bash") is None:
        pytest.skip("no bash on this machine")
    assert subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True).returncode == 0


def test_another_shell_is_wrong_usage() -> None:
    done = subprocess.run([sys.executable, "-m", "lrc", "completion", "tcsh"], capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
