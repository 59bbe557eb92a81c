"""What a model's folder alone tells is said before torch is imported, with the nearest name."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from small_runs import lrc, make_run, pairs

PROGRAM = """
import sys
from lrc.cli import main
try:
    main({words!r})
finally:
    heavy = [name for name in ("torch", "transformers", "peft", "accelerate") if name in sys.modules]
    print("imported:", *heavy, file=sys.stderr)
"""
ASKED = ["--template", "plain", "--answer-style", "digit"]
RUN = {"template": "plain", "answer_style": "digit", "list_options": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders that look like a base, a merged model, and an adapter on that base."""
    home = tmp_path_factory.mktemp("models")
    files = {
        "runs/my-base/config.json": {},
        "merged-model/config.json": {},
        "merged-model/lrc_run.json": RUN,
        "adapter/adapter_config.json": {"base_model_name_or_path": "runs/my-base"},
        "adapter/lrc_run.json": RUN,
        "elsewhere/adapter_config.json": {"base_model_name_or_path": "/gone/base"},
        "empty/notes.json": {},
        "answer.csv": {},
    }
    for name, content in files.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(json.dumps(content), encoding="utf-8")
    (home / "q.csv").write_text("ID,文章,問題,選項1,選項2\n1,文,問,甲,乙\n", encoding="utf-8")
    return home


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["evaluate", "--predictions", "ids.csv", "--data", "right.csv"], "ids.csv: "),
        (["evaluate", "--predictions", "high.csv", "--data", "right.csv"], "Answer is 3, expected 1 to 2"),
        (["evaluate", "--predictions", "two.csv", "--data", "q.csv"], "give a labelled file"),
        (["evaluate", "--predictions", "two.csv", "--data", "bad.csv"], "正確答案 is 9"),
        (["evaluate", "--model", "runs/my-base", *ASKED, "--data", "q.csv"], "give a labelled file"),
        (["evaluate", "--model", "runs/my-base", *ASKED, "--data", "bad.csv"], "正確答案 is 9"),
        (["generate", "--model", "runs/my-base", *ASKED, "--data", "bad.csv", "--output", "new.csv"], "正確答案 is 9"),
        (
            ["generate", "--model", "runs/my-base", *ASKED, "--data", "twice.csv", "--output", "new.csv"],
            "give each row its own",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_with_questions_or_answers_is_said_without_torch(
    folder: Path, words: list[str], line: str
) -> None:
    head = "ID,文章,問題,選項1,選項2,正確答案\n"
    for name, content in {
        "right.csv": f"{head}1,文,問,甲,乙,2\n2,文二,問,甲,乙,1\n",
        "bad.csv": f"{head}1,文,問,甲,乙,9\n",
        "twice.csv": "ID,文章,問題,選項1,選項2\n1,文,問,甲,乙\n1,文二,問,甲,乙\n",
        "ids.csv": "ID,Answer\n1,2\n3,2\n",
        "high.csv": "ID,Answer\n1,3\n2,2\n",
        "two.csv": "ID,Answer\n1,2\n",
    }.items():
        (folder / name).write_text(content, encoding="utf-8")
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(words=words)], cwd=folder, capture_output=True, text=True
    )
    *_, said, imported = told.stderr.splitlines()
    assert told.returncode == 1 and line in said and imported == "imported:", told.stderr


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--model", "nosuchfolder"], "nosuchfolder: no such folder"),
        (["--model", "merged-modle"], "did you mean merged-model?"),
        (["--model", "runs/mybase", *ASKED], "did you mean runs/my-base?"),
        (["--model", "./rums/my-base", *ASKED], "did you mean runs/my-base?"),
        (["--model", "./gone", *ASKED], "./gone: no such folder"),
        (["--model", "owner/name", *ASKED], "owner/name: no such folder and none that was fetched before"),
        (
            ["--model", "adapter"],
            "adapter: is an adapter, not a model; write --model runs/my-base --adapter adapter",
        ),
        (["--model", "elsewhere"], "elsewhere: is an adapter, not a model; write --model BASE --adapter elsewhere"),
        (["--model", "empty", *ASKED], "empty: no config.json; name a folder that holds a model"),
        (["--model", "runs", *ASKED], "runs: no config.json; did you mean runs/my-base?"),
        (["--model", "answer.csv", *ASKED], "answer.csv: is a file; name the folder that it is in"),
        (
            ["--model", "runs/my-base"],
            "runs/my-base: has no lrc_run.json that says how it was trained; give --template",
        ),
        (["--model", "runs/my-base", "--adapter", "adaptor"], "adaptor: no such folder; did you mean adapter?"),
        (
            ["--model", "runs/my-base", "--adapter", "merged-model"],
            "merged-model: is a model, not an adapter; write --model merged-model without --adapter",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_line_without_torch(folder: Path, words: list[str], line: str) -> None:
    words = ["generate", "--data", "q.csv", *words, "--output", "new.csv"]
    program = PROGRAM.format(words=words)
    told = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True)
    said, imported = told.stderr.splitlines()
    assert told.returncode == 1 and line in said, told.stderr
    assert imported == "imported:"
    assert not (folder / "new.csv").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["merge", "--adapter", "adaptor", "--output-dir", "new.csv"],
            "adaptor: no such folder; did you mean adapter?",
        ),
        (
            ["merge", "--adapter", "merged-model", "--output-dir", "new.csv"],
            "merged-model: is a model, not an adapter; name the folder of a trained adapter",
        ),
        (
            ["generate", "--model", "merged-model", "--data", "q.csv", "--output", "new.csv", "--scores", "answer.csv"],
            "answer.csv: already exists",
        ),
        (
            ["evaluate", "--model", "merged-model", "--data", "q.csv", "--output", "new.csv", "--scores", "answer.csv"],
            "answer.csv: already exists",
        ),
        (["demo", "--output-dir", "runs"], "runs: already exists"),
        (["evaluate", "--predictions", "anwser.csv", "--data", "q.csv"], "did you mean answer.csv?"),
        (["evaluate", "--predictions", "answer.csv", "--data", "qq.csv"], "did you mean q.csv?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_not_there_is_told_without_torch(folder: Path, words: list[str], line: str) -> None:
    program = PROGRAM.format(words=words)
    told = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True)
    said, imported = told.stderr.splitlines()
    assert told.returncode == 1 and line in said, told.stderr
    assert imported == "imported:"


@pytest.mark.parametrize(
    "words",
    [
        ["preview", "tiny/lora", "--model_name_or_path"],
        ["train", "tiny/lora", "--train_file", "a.json", "--validation_file", "a.json", "--model_name_or_path"],
        ["generate", "--data", "q.csv", "--output", "new.csv", *ASKED, "--model"],
        ["evaluate", "--data", "labelled.csv", *ASKED, "--model"],
    ],
    ids=lambda words: words[0],
)
def test_a_base_that_cannot_be_fetched_is_told_without_torch(folder: Path, words: list[str]) -> None:
    """Nobody answers at the Hub's address, as on a machine without a network that does not know it has none."""
    (folder / "a.json").write_text("[]", encoding="utf-8")
    (folder / "labelled.csv").write_text("ID,文章,問題,選項1,選項2,正確答案\n1,文,問,甲,乙,2\n", encoding="utf-8")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        hub = f"http://127.0.0.1:{closed.getsockname()[1]}"
    environment = {**os.environ, "HF_ENDPOINT": hub, "HF_HUB_OFFLINE": "0"}
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(words=[*words, "owner/name"])],
        cwd=folder,
        capture_output=True,
        text=True,
        env=environment,
    )
    *asked, said, imported = told.stderr.splitlines()
    assert asked == [f"{hub}: does not answer; continuing offline, with what was downloaded before"]
    assert told.returncode == 1 and said.startswith("owner/name: no such folder and none that was fetched before; ")
    assert imported == "imported:"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("num_processes: 2\n".encode("utf-16"), "is not UTF-8 text; save it as UTF-8"),  # as PowerShell writes it
        (b"num_processes: [2\n", "line 2: "),
        (b"- 2\n", "is not a mapping"),
    ],
)
def test_an_accelerate_config_that_is_no_yaml(
    content: bytes, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_bytes(content)
    assert lrc("train", "tiny/lora", "--accelerate-config", tmp_path / "mine.yaml") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mine.yaml") and said in line


def test_an_accelerate_config_of_another_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path, pairs(4), template="plain", answer_style="digit", output_dir=str(tmp_path / "out"))
    (tmp_path / "mine.yaml").write_text("num_processes: 1\nnum_procs: 2\n", encoding="utf-8")
    assert lrc("train", run / "recipe.yaml", "--accelerate-config", tmp_path / "mine.yaml") == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "mine.yaml: accelerate cannot read it" in last and "distributed_type" in last
