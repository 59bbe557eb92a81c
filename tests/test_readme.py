"""Every command of the README is run, in its order, but those of make and those marked GPU or Hub."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lrc.datafile import read_records
from lrc.tinybase import make_base

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    """The lines of the README's bash blocks, continued lines joined."""
    blocks = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def runnable() -> list[list[str]]:
    lines = [line for line in commands() if not re.search(r"#.*\b(GPU|Hub)\b", line) and not line.startswith("make ")]
    return [shlex.split(line, comments=True) for line in lines]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The user's folder: the sample under the README's names, and an adapter where the README's training puts it."""
    shutil.copy(ROOT / "examples" / "sample.xlsx", tmp_path / "AI.xlsx")
    shutil.copy(ROOT / "examples" / "sample_test.xlsx", tmp_path / "AI1000.xlsx")
    records = read_records(tmp_path / "AI.xlsx")
    make_base(tmp_path / "base", [record.input for record in records])
    run([sys.executable, "-m", "lrc", "convert", "AI.xlsx", "--output-dir", "stand_in"], tmp_path)
    train = ["train", "tiny/lora", "--model_name_or_path", "base", "--train_file", "stand_in/AI_train.json"]
    train += ["--validation_file", "stand_in/AI_validation.json", "--output_dir", "runs/chinese-alpaca-2-13b"]
    run([sys.executable, "-m", "lrc", *train, "--max_steps", "2"], tmp_path)
    return tmp_path


def run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, (command, done.stderr[-2000:])


def test_the_readme_has_commands_of_every_step() -> None:
    verbs = {words[1] for words in runnable() if words[0] == "lrc"}
    assert {"check", "convert", "merge", "generate", "publish"} <= verbs


def test_every_command_runs(folder: Path) -> None:
    for words in runnable():
        assert words[0] == "lrc", words
        run([sys.executable, "-m", *words], folder)
