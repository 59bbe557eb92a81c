"""Every verb under a hash seed and a locale, watched by an audit hook: the same bytes, and no connection tried."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from strikes import LONG

SAMPLE = Path(__file__).parents[2] / "examples" / "sample.xlsx"
# Without what keeps libraries off the network: lrc itself has to.
ONLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "CI")
WATCH = """
import os, sys

def watch(event, args):
    name = event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.getnameinfo")
    if name or event in ("socket.connect", "socket.sendto") and isinstance(args[1], tuple):
        with open(os.environ["CALLS"], "a") as file:
            file.write(f"{event} {args[1:] if not name else args}\\n")

sys.addaudithook(watch)
"""
RUN = """
import json, sys
from lrc import cli, sft

for words in json.loads(sys.argv[1]):
    try:
        sft.main(words[1:]) if words[0] == "train" else cli.main(words)
    except SystemExit as end:
        if end.code:
            sys.exit(f"{words}: {end.code}")
"""
SETTINGS = [
    {"PYTHONHASHSEED": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    {"PYTHONHASHSEED": "1", "LC_ALL": "zh_TW.UTF-8", "TZ": "Asia/Taipei"},
    {"PYTHONHASHSEED": "random", "LC_ALL": "C.UTF-8"},
]


def verbs(inputs: Path) -> list[list[str]]:
    """A run of every verb, from relative paths, as people give them."""
    model = ["--model", str(inputs / "base"), "--adapter", "a"]
    recipe = "recipe.yaml"
    return [
        ["check", str(SAMPLE), recipe],
        ["convert", str(SAMPLE), "--output-dir", "data", "--folds", "2"],
        ["train", "--config", recipe, "--train_file", "data/sample_train.json"],
        ["merge", "--adapter", "a", "--base-model", str(inputs / "base"), "--output-dir", "m", "--verify"],
        ["generate", *model, "--data", "data/sample_validation.json", "--output", "answer.csv", "--scores", "s.jsonl"],
        ["generate", "--model", "m", "--data", "data/sample_validation.json", "--output", "merged.csv"],
        ["evaluate", *model, "--data", "data/sample_validation.json", "--output", "metrics.json"],
        ["report", "a", "--output", "report.html"],
        ["publish", "--adapter", "a", "--repo-id", "someone/adapter", "--dry-run"],
    ]


@pytest.fixture(scope="module")
def runs(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The folders of the runs, a setting each; `calls` lists their network calls."""
    folders = []
    for setting in SETTINGS if LONG else SETTINGS[:2]:
        folder = tmp_path_factory.mktemp("run")
        (folder / "site").mkdir()
        recipe = (inputs / "recipe.yaml").read_text(encoding="utf-8")
        (folder / "recipe.yaml").write_text(f"{recipe}output_dir: a\n", encoding="utf-8")
        (folder / "site" / "sitecustomize.py").write_text(WATCH)
        kept = {key: value for key, value in os.environ.items() if key not in ONLINE}
        environment = kept | setting | {"PYTHONPATH": str(folder / "site"), "CALLS": str(folder / "calls")}
        command = [sys.executable, "-c", RUN, json.dumps(verbs(inputs))]
        told = subprocess.run(command, cwd=folder, env=environment, capture_output=True)
        assert told.returncode == 0, told.stderr.decode(errors="replace")
        folders.append(folder)
    return folders


@pytest.mark.fault("all", "local paths, online settings: no connection is tried")
def test_no_connection_is_tried(runs: list[Path]) -> None:
    for folder in runs:
        assert not (folder / "calls").exists(), (folder / "calls").read_text()


def test_the_watch_sees_a_connection(runs: list[Path], tmp_path: Path) -> None:
    code = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('127.0.0.1', 9))"
    environment = os.environ | {"PYTHONPATH": str(runs[0] / "site"), "CALLS": str(tmp_path / "calls")}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert "socket.connect" in (tmp_path / "calls").read_text()


# What holds the clock: how long evaluation and training took, in metrics and trainer state, and what covers these.
TIMED = ("metrics.jsonl", "trainer_state.json", "checkpoint_manifest.json", "report.html")


@pytest.mark.fault("all", "hash seed, locale and time zone: the same bytes")
def test_the_same_bytes(runs: list[Path]) -> None:
    first, *others = [
        {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.relative_to(folder).parts[0] not in ("site", "calls")
        }
        for folder in runs
    ]
    assert {"a/adapter_model.safetensors", "a/lrc_run.json", "m/model.safetensors", "answer.csv"} <= first.keys()
    for other in others:
        assert other.keys() == first.keys()
        different = [name for name in first if first[name] != other[name] and not name.endswith(TIMED)]
        assert not different, "\n".join(different)
