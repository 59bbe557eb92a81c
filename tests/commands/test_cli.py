"""The command line's promises: 2 for wrong usage, 1 and a line for what the user can put right, never a traceback."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

import lrc
from lrc.cli import SAFE, cli, main
from lrc.config.arguments import DataArguments
from lrc.runtime.findings import wrap_line

HEADER = "ID,文章,問題,選項1,選項2,選項3,選項4,正確答案\n"


@pytest.fixture(autouse=True)
def keep_signals() -> Iterator[None]:
    """`main` takes SIGTERM for itself."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    path = tmp_path / "some.csv"
    path.write_text(HEADER + "1,文一,問一,甲,乙,丙,丁,2\n2,文二,問二,甲,乙,丙,丁,1\n", encoding="utf-8")
    return path


def status(*words: str | Path) -> int:
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return int(end.value.code or 0)


@pytest.mark.parametrize(
    "words",
    [
        ["trian"],
        ["convert"],
        ["convert", "a.xlsx"],
        ["convert", "a.xlsx", "--output-dir", "out", "--layout", "columns"],
        ["convert", "a.xlsx", "--output-dir", "out", "--validation-fraction", "1"],
        ["convert", "a.xlsx", "--output-dir", "out", "--folds", "1"],
        ["check"],
        ["train"],
        ["merge", "--adapter", "a", "--output-dir", "b", "--forse"],
        ["generate", "--model", "m", "--data", "d"],
        ["generate", "--model", "m", "--data", "d", "--output", "o", "--votes", "0"],
        ["evaluate", "--data", "d"],
        ["evaluate", "--data", "d", "--model", "m", "--predictions", "p"],
        ["evaluate", "--data", "d", "--predictions", "p", "--predictions", "q", "--predictions", "r"],
        ["publish", "--repo-id", "me/it"],
        ["publish", "--repo-id", "me/it", "--adapter", "a", "--merged", "m"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert status(*words) == 2
    told = capsys.readouterr()
    (line,) = told.err.splitlines()
    assert line.startswith("Error: ") and line.endswith(" --help)") and told.out == ""


@pytest.mark.parametrize(
    "words",
    [
        ["--scores", "scores.jsonl"],
        ["--passage-blind"],
        ["--adapter", "missing"],
        ["--votes", "4"],
        ["--votes", "1"],
        ["--template", "plain"],
        ["--answer-style", "digit"],
        ["--list-options"],
        ["--no-list-options"],
        ["--row-tokens", "64"],
        ["--score-normalisation", "sum"],
        ["--load-in-4bit"],
        ["--no-load-in-4bit"],
    ],
    ids=" ".join,
)
def test_predictions_go_with_no_flag_that_asks_a_model(
    words: list[str], labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = tmp_path / "answer.csv"
    answers.write_text("ID,Answer\n1,2\n2,2\n", encoding="utf-8")
    assert status("evaluate", "--predictions", answers, "--data", labelled, *words) == 2
    told = capsys.readouterr()
    (line,) = told.err.splitlines()
    assert line.startswith("Error: --predictions runs no model; give --model, or leave out ") and told.out == ""
    assert words[0] in line and "--data" not in line


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--output-dir", ["convert", "some.csv", "--output-dir", ""]),
        ("--output-dir", ["merge", "--adapter", "a", "--output-dir", "", "--force"]),
        ("--adapter", ["merge", "--adapter", "", "--output-dir", "out"]),
        ("--base-model", ["merge", "--adapter", "a", "--output-dir", "out", "--base-model="]),
        ("--output", ["generate", "--model", "m", "--data", "d", "--output", " "]),
        ("--model", ["generate", "--model", "", "--data", "d", "--output", "o"]),
        ("--output-dir", ["demo", "--output-dir", ""]),
        ("FOLDER", ["init", "", "--force"]),
        ("RECIPE", ["train", ""]),
    ],
)
def test_an_empty_name_is_not_the_current_folder(
    option: str,
    words: list[str],
    labelled: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert status(*words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert option in line and "is empty; give a " in line
    assert list(tmp_path.iterdir()) == [labelled]


@pytest.mark.parametrize(
    "words",
    [
        ["convert", "missing.xlsx", "--output-dir", "out"],
        ["train", "missing.yaml"],
        ["train", "tiny/lora", "--accelerate-config", "missing"],
        ["merge", "--adapter", "missing", "--output-dir", "out"],
        ["generate", "--model", "missing", "--data", "missing.json", "--output", "answer.csv"],
        ["evaluate", "--predictions", "missing.csv", "--data", "missing.xlsx"],
        ["publish", "--repo-id", "me/it", "--adapter", "missing", "--dry-run"],
    ],
    ids=lambda words: words[0],
)
def test_a_missing_file_is_1_and_a_line(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert status(*words) == 1
    told = capsys.readouterr()
    assert len([line for line in told.err.splitlines() if "missing" in line]) == 1, told.err
    assert "Traceback" not in told.err and told.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["missing.xlsx", "missing.csv", "missing.json", "missing.yaml"])
def test_check_gives_a_missing_file_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status("check", name) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("error: ")]
    assert name in line


def test_a_missing_column_is_1_and_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "some.csv"
    path.write_text(HEADER.replace(",問題", "") + "1,文,甲,乙,丙,丁,2\n", encoding="utf-8")
    assert status("convert", path, "--output-dir", tmp_path / "out") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("some.csv") and "問題" in line
    assert not (tmp_path / "out").exists()


def test_an_unknown_key_of_a_recipe_is_1_and_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "qlora.yaml"
    recipe.write_text("model_name_or_path: b\ntrain_file: t\noutput_dir: o\nlora_rnak: 8\n", encoding="utf-8")
    assert status("check", recipe) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "lora_rnak" in line]
    assert "qlora.yaml, line 4" in line and "did you mean 'lora_r'?" in line


def test_convert_and_evaluate_end_with_0(labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["convert", str(labelled), "--output-dir", str(tmp_path / "out"), "--validation-fraction", "0"])
    (tmp_path / "answer.csv").write_text("ID,Answer\n1,2\n2,2\n", encoding="utf-8")
    data = tmp_path / "out/some.json"
    main(
        ["evaluate", "--predictions", str(tmp_path / "answer.csv"), "--data", str(data)]
        + ["--output", str(tmp_path / "metrics.json")]
    )
    figures = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert (figures["accuracy"], figures["n"]) == (0.5, 2)
    assert figures["ci_low"] < 0.5 < figures["ci_high"]
    lines = capsys.readouterr().out.splitlines()
    lines = lines[next(place for place, line in enumerate(lines) if line.startswith("50.0% ")) :]
    assert "baseline" in lines[0]  # the verdict, after what convert says
    headings = [line for line, above in zip(lines[1:], lines, strict=False) if not above]
    assert [heading.split()[0] for heading in headings] == ["questions", "Baselines", "By", "How", "By"]
    assert any(line.startswith("accuracy  ") for line in lines)
    # Which answers the two questions have is the fixture's; both were answered with 2.
    assert [line.split()[4:] for line in lines if line.startswith("where ")] == [["0", "1"], ["0", "1"]]


def test_an_output_that_exists_is_kept(labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["convert", str(labelled), "--output-dir", str(tmp_path / "out"), "--validation-fraction", "0"]
    main(words)
    (tmp_path / "out/some.json").write_text("mine", encoding="utf-8")
    capsys.readouterr()
    assert status("evaluate", "--predictions", tmp_path / "out/some.json", "--data", labelled) == 1
    answers = tmp_path / "answer.csv"
    answers.write_text("ID,Answer\n1,2\n2,2\n", encoding="utf-8")
    evaluate = ["evaluate", "--predictions", answers, "--data", labelled, "--output", tmp_path / "m.json"]
    (tmp_path / "m.json").write_text("mine", encoding="utf-8")
    assert status(*evaluate) == 1
    assert "--force" in capsys.readouterr().err.splitlines()[-1]
    assert (tmp_path / "m.json").read_text(encoding="utf-8") == "mine"
    main([*map(str, evaluate), "--force"])
    assert json.loads((tmp_path / "m.json").read_text(encoding="utf-8"))["n"] == 2


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["-h"], ["train", "--help"]])
def test_help_and_version_end_with_0(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        main(words)
    except SystemExit as end:
        assert not end.code
    told = capsys.readouterr()
    assert told.err == "" and told.out


def test_the_module_runs_as_the_command_does() -> None:
    told = subprocess.run([sys.executable, "-m", "lrc", "--version"], capture_output=True, text=True)
    assert (told.returncode, told.stdout) == (0, f"lrc, version {lrc.__version__}\n")
    wrong = subprocess.run([sys.executable, "-m", "lrc", "nothing"], capture_output=True, text=True)
    assert wrong.returncode == 2 and "Traceback" not in wrong.stderr


def test_train_help_names_lrcs_own_keys(capsys: pytest.CaptureFixture[str]) -> None:
    main(["train", "--help"])
    text = capsys.readouterr().out
    for key in fields(DataArguments):
        assert key.name in text


def test_the_list_of_commands_cuts_no_sentence(capsys: pytest.CaptureFixture[str]) -> None:

    main(["--help"])
    listed = " ".join(capsys.readouterr().out.partition("Commands:")[2].split())
    for name, command in cli.commands.items():
        first = " ".join((command.help or "").split("\n\n")[0].split())
        assert f"{name} {first}" in listed and "..." not in listed


def test_lines_wrap_at_words_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "warning: AI.xlsx: percent signs lost, 69 times (rows 129, 198); the first: 選項2 is 0.364"
    assert wrap_line(line) == [line]  # in a pipe
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "48")
    pieces = wrap_line(line)
    assert len(pieces) > 1 and all(len(piece) <= 48 for piece in pieces)
    assert " ".join(" ".join(pieces).split()) == line


# A command line of each verb, and what its last line says at Ctrl-C: what is safe, and which command goes on.
INTERRUPTED = {
    "check a.xlsx": "run the same command again",
    "convert a.xlsx --output-dir b": "nothing half-written",
    "preview tiny/lora": "run the same command again",
    "train tiny/lora": "checkpoints are kept, and the same command goes on",
    "sweep a.yaml": "finished trials are kept, and the same command goes on",
    "merge --adapter a --output-dir b": "nothing half-written",
    "generate --model m --data d --output o": "kept beside the output, and the same command goes on",
    "evaluate --model m --data d --output o": "kept beside it, and the same command goes on",
    "vote a.jsonl --data d": "run the same command again",
    "publish --adapter a --repo-id b/c": "not seen on the Hub; run the same command again",
    "report a": "run the same command again",
    "init": "run the same command again",
    "schema": "run the same command again",
    "doctor": "run the same command again",
    "completion bash": "run the same command again",
    "demo": "--force",
    "app --model m": "",
    "run a.xlsx b.xlsx --output-dir c": "what is done stays, and the same command goes on from there",
}


def test_the_list_has_every_verb() -> None:
    assert {words.split()[0] for words in INTERRUPTED} >= set(cli.commands) & {*SAFE, "check", "preview", "vote"}
    assert set(SAFE) <= set(cli.commands)


@pytest.mark.parametrize("words", INTERRUPTED)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_says_what_is_safe_and_what_goes_on(
    words: str, number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(*_: object, **__: object) -> None:
        signal.raise_signal(number)

    monkeypatch.setattr(cli.commands[words.split()[0]], "callback", work)
    monkeypatch.setattr("lrc.cli.check_installed", lambda **_: None)
    assert status(*words.split()) == 128 + number
    (line,) = filter(None, capsys.readouterr().err.splitlines())  # after Ctrl-C on the terminal, click ends its line
    how = "interrupted" if number == signal.SIGINT else "terminated"
    assert line.startswith(f"lrc: {how}") and INTERRUPTED[words] in line
    assert bool(INTERRUPTED[words]) == (";" in line)


def test_while_imports_are_made_a_signal_ends_at_once() -> None:
    code = (
        "import os, signal, time\nfrom lrc.cli import importing\n"
        "with importing():\n    os.kill(os.getpid(), signal.SIGINT)\n    time.sleep(20)\n    print('still here')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "nothing was begun; run the same command again\nlrc: interrupted\n"
