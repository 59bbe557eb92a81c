"""`lrc run`: the whole way, killed at each of its steps, comes to what nothing disturbed."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import types
from pathlib import Path
from typing import Any

import pytest
from driver import make_driver
from fork_server import Forked
from small_runs import lrc

from lrc.commands import run as way
from lrc.commands.run import RunOptions, print_summary
from lrc.config import shipped
from lrc.config.recipe_choice import SMALLEST

EXAMPLES = Path(__file__).parents[2] / "examples"
SUPPORT = str(Path(__file__).parents[1] / "support")
FILES = [EXAMPLES / "sample.xlsx", EXAMPLES / "sample_test.xlsx"]
STEPS = ["check", "convert", "python", "train", "evaluate", "generate", "report"]
SHORT = ["--max_steps", "8", "--save_strategy", "steps", "--save_steps", "2"]
PATIENCE = 240.0


def words(output: Path, *more: str | Path) -> list[str]:
    recipe = [] if "--recipe" in more else ["--recipe", "tiny/lora"]
    return ["run", *map(str, FILES), "--output-dir", str(output), *recipe, *map(str, more), *SHORT]


def go(command: list[str], log: Path, struck: str = "", delay: float = 0.0) -> tuple[int, str]:
    """Run it in a process of its own; its exit status and what it wrote."""
    program = f"import sys; sys.path.insert(0, {SUPPORT!r}); import struck_run; struck_run.main"
    process = Forked(["-c", f"{program}({command!r}, {struck!r}, {delay!r})"], log, {})
    process.join(PATIENCE)
    assert process.exitcode is not None, log.read_text("utf-8")
    return process.exitcode, log.read_text(encoding="utf-8", errors="replace")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("undisturbed")
    status, told = go(words(folder / "out"), folder / "log")
    assert status == 0, told
    return folder / "out", told


def outcome(output: Path) -> dict[str, object]:
    figures = json.loads((output / "evaluation.json").read_text("utf-8"))
    return {
        "adapter": (output / "adapter" / "adapter_model.safetensors").read_bytes(),
        "answers": (output / "answer.csv").read_bytes(),
        "scores": (output / "scores.jsonl").read_bytes(),
        "accuracy": figures["accuracy"],
    }


@pytest.mark.parametrize(
    ("right", "best", "p_value", "following"),
    [
        (30, 20, 0.01, "lrc app --model a/base --adapter out/adapter"),
        (22, 20, 0.4, "lrc evaluate --model a/base --adapter out/adapter --data MORE.xlsx"),
        (20, 20, 1.0, "lrc run a.xlsx b.xlsx --recipe RECIPE --output-dir out-2"),
    ],
)
def test_the_last_line_is_the_command_for_what_the_verdict_says(
    right: int,
    best: int,
    p_value: float,
    following: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    part = {"ci_low": 0.1, "ci_high": 0.9, "n": 40, "passages": 40, "n_effective": 40}
    test = {"difference": (right - best) / 40, "p_value": p_value}
    figures = {"accuracy": right / 40, **part, "baselines": {"majority": {"accuracy": best / 40, **part}}}
    Path("out").mkdir()
    Path("out/evaluation.json").write_text(json.dumps(figures | {"best_baseline": {"paired": test}}))
    given = {"model_name_or_path": "a/base"}
    options = RunOptions(Path("a.xlsx"), Path("b.xlsx"), Path("out"), "qwen3-8b/lora", (), None, 0.2, "refuse", None)
    print_summary(options, given)
    assert capsys.readouterr().out.splitlines()[-1] == f"next: {following}"


def test_the_whole_way_on_the_embedded_base(undisturbed: tuple[Path, str]) -> None:
    output, told = undisturbed
    shown = re.findall(r"^\[(\d)/7\] \$ (?:lrc )?(\w+)", told, flags=re.MULTILINE)
    assert shown == [(str(number), step) for number, step in enumerate(STEPS, start=1)]
    # A step names no command of its own.
    assert re.findall("^next[: ].*", told, flags=re.MULTILINE) == ["next: lrc doctor"] == told.splitlines()[-1:]
    with (output / "answer.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12 and all(row["Answer"] in "1234" for row in rows)
    # The accuracy is that of the questions that were held out.
    figures, run = (
        json.loads((output / name).read_text("utf-8")) for name in ("evaluation.json", "adapter/lrc_run.json")
    )
    assert figures["n"] == run["data"]["validation_file"]["questions"] < run["data"]["train_file"]["questions"]
    assert figures["accuracy"] == run["validation"]["accuracy"] and run["validation"]["shared_passages"] == 0
    assert (output / "report.html").read_text("utf-8").startswith("<!DOCTYPE html>")
    assert "cannot read: these answers are guesses" in " ".join(told.splitlines()[-6:])


def test_killed_at_every_step_it_goes_on_to_the_same(undisturbed: tuple[Path, str], tmp_path: Path) -> None:
    output = tmp_path / "out"
    for struck in STEPS:
        for delay in (0.0, 0.3) if struck in ("convert", "train", "generate") else (0.1,):
            status, told = go(words(output), tmp_path / "log", struck, delay)
            assert status == -signal.SIGKILL, (struck, told)
    status, told = go(words(output), tmp_path / "log")
    assert status == 0, told
    assert outcome(output) == outcome(undisturbed[0])
    assert {path.name for path in output.iterdir()} == {path.name for path in undisturbed[0].iterdir()}


def test_a_way_that_is_done_does_nothing_again(undisturbed: tuple[Path, str], tmp_path: Path) -> None:
    output = undisturbed[0]
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()}
    command = [os.path.relpath(word) if word in map(str, FILES) else word for word in words(output)]
    status, told = go(command, tmp_path / "log")
    assert status == 0 and told.count("nothing to do") == 5, told
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()} == before


def test_a_way_goes_on_in_another_session(
    undisturbed: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Kaggle: the folder is copied out and back, the cache is gone, and the last steps are not made yet."""
    output = undisturbed[0]
    shutil.copytree(output, tmp_path / "saved", copy_function=shutil.copyfile)
    shutil.move(output, tmp_path / "original")
    try:
        shutil.copytree(tmp_path / "saved", output, copy_function=shutil.copyfile)
        for lost in ("report.html", "answer.csv", "scores.jsonl"):
            (output / lost).unlink()
        for name in ("HF_HOME", "HF_DATASETS_CACHE"):
            monkeypatch.setenv(name, str(tmp_path / "new"))
        status, told = go(words(output), tmp_path / "log")
        assert status == 0 and outcome(output) == outcome(tmp_path / "original"), told
    finally:
        shutil.rmtree(output)
        shutil.move(tmp_path / "original", output)


def test_what_is_another_way_is_refused_before_the_first_step(
    undisturbed: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = undisturbed[0]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for command, said in {
        ("run", str(FILES[1]), str(FILES[0]), "--output-dir", str(output)): "belongs to",
        tuple(words(output, "--recipe", "qwen3-8b/qlora")): "was begun with the recipe tiny/lora",
        tuple(words(tmp_path / "mine")): "did not begin it",
        tuple(words(tmp_path / "new", "--recipe", "qwen3-9b/qlora")): "no such recipe",
        (*words(tmp_path / "new"), "--lora_rnak", "4"): "did you mean 'lora_r",
        ("run", str(EXAMPLES / "Sample.xlsx"), str(FILES[1]), "--output-dir", str(tmp_path / "new")): "did you mean",
    }.items():
        assert lrc(*command) == 1
        told = capsys.readouterr()
        assert said in told.err and "[1/" not in told.err, told.err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("machine", "said"),
    [
        ({}, "qwen2.5-1.5b/lora suits this machine, but its base Qwen/Qwen2.5-1.5B was never downloaded, and the Hub"),
        (
            {"hub": None},
            "and HF_HUB_OFFLINE is set; connect, or name a folder with a base: --model_name_or_path FOLDER",
        ),
        (
            {"memory": 2**30, "hub": True},
            "too little memory or disk for the smallest base (1.1 GB and 1.1 TB are free)",
        ),
    ],
)
def test_a_base_that_cannot_be_had_is_refused_and_no_guessing_one_takes_its_place(
    machine: dict[str, Any],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    about = {"device": "cpu", "card_memory": 0, "memory": 64 * 2**30, "disk": 2**40, "hub": False}
    monkeypatch.setattr(way, "look_at_machine", lambda: types.SimpleNamespace(**(about | machine)))
    monkeypatch.setattr(way, "is_fetched", lambda base: False)
    assert lrc("run", *FILES, "--output-dir", tmp_path / "out") == 1
    told = capsys.readouterr().err
    assert said in told and "`--recipe tiny/lora` tries the steps with a base that cannot read" in told
    assert not list(tmp_path.iterdir())


def test_a_base_that_is_there_is_taken_without_a_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = {"device": "cpu", "card_memory": 0, "memory": 64 * 2**30, "disk": 2**40, "hub": None}
    monkeypatch.setattr(way, "look_at_machine", lambda: types.SimpleNamespace(**about))
    monkeypatch.setattr(way, "is_fetched", lambda base: base == "Qwen/Qwen2.5-0.5B")
    called: list[list[str]] = []
    monkeypatch.setattr(way, "call", lambda step: called.append(step) or (3 if step[0] == "train" else lrc(*step)))
    assert lrc("run", *FILES, "--output-dir", tmp_path / "out") == 3
    assert called[-1][:2] == ["train", "qwen2.5-0.5b/lora"]


def test_a_card_that_torch_cannot_use_is_not_passed_over_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    about = {"device": "cpu", "card_memory": 0, "memory": 64 * 2**30, "disk": 2**40, "hub": True}
    monkeypatch.setattr(way, "look_at_machine", lambda: types.SimpleNamespace(**about))
    called: list[list[str]] = []
    monkeypatch.setattr(way, "call", lambda step: called.append(step) or 3)
    assert lrc("run", *FILES, "--output-dir", tmp_path / "out") == 3
    assert "torch sees no GPU here, so everything is computed on the CPU" in capsys.readouterr().err
    make_driver(tmp_path, monkeypatch)
    assert lrc("run", *FILES, "--output-dir", tmp_path / "other") == 1
    told = capsys.readouterr().err
    assert "there is an NVIDIA card" in told and f"--recipe {SMALLEST}" in told and not (tmp_path / "other").exists()
    # As soon as the card can be used: nothing was trained yet, so that another recipe can be named.
    assert lrc("run", *FILES, "--output-dir", tmp_path / "out", "--recipe", "qwen3-8b/qlora") == 3
    assert json.loads((tmp_path / "out" / "lrc_way.json").read_text())["recipe"] == "qwen3-8b/qlora"


def test_an_edited_copy_of_a_recipe_is_not_passed_over_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped._tell_of_copy.cache_clear()
    assert lrc("init", ".") == 0
    copy = Path("recipes/tiny/lora.yaml")
    copy.write_text(copy.read_text("utf-8") + "\n# a remark changes nothing\n", encoding="utf-8")
    words = [*map(str, FILES), "--output-dir", "out", "--lora_rnak", "4"]  # refused after the recipe is found
    capsys.readouterr()
    assert lrc("run", *words, "--recipe", "tiny/lora") == 1
    assert "has other values" not in capsys.readouterr().err
    copy.write_text(copy.read_text("utf-8").replace("lora_r: ", "lora_r: 1"), encoding="utf-8")
    shipped._tell_of_copy.cache_clear()  # which tells once in a process
    assert lrc("run", *words, "--recipe", "tiny/lora") == 1
    told = capsys.readouterr().err
    said = f"{copy}: has other values than the recipe that lrc ships, which is used; give this path to use the copy"
    assert told.count(said) == 1
    shipped._tell_of_copy.cache_clear()
    for other in (copy, "qwen3-8b/qlora"):
        assert lrc("run", *words, "--recipe", other) == 1
        assert "has other values" not in capsys.readouterr().err


@pytest.mark.parametrize("record", ['{"train": 1, "test": [], "recipe": "tiny/lora"}', "[" * 200_000, "[]"], ids=len)
def test_a_damaged_record_is_that_of_no_way(tmp_path: Path, capsys: pytest.CaptureFixture[str], record: str) -> None:
    (tmp_path / "lrc_way.json").write_text(record)
    assert lrc(*words(tmp_path)) == 1
    assert "already exists, and `lrc run` did not begin it" in capsys.readouterr().err


def test_workbooks_in_the_wrong_order_are_told_by_their_answers(tmp_path: Path) -> None:
    command = ["run", str(FILES[1]), str(FILES[0]), "--output-dir", str(tmp_path / "out"), "--recipe", "tiny/lora"]
    status, told = go(command, tmp_path / "log")
    assert status == 1 and "give the workbook with 正確答案 first" in told.splitlines()[-1]


@pytest.mark.parametrize("recipe", ["tiny\\lora", "tiny/lora.yaml", "mine/recipes/tiny/lora.yaml"])
def test_the_embedded_base_is_made_however_its_recipe_is_named(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert lrc("init", "mine") == 0
    called: list[list[str]] = []

    def call(step: list[str]) -> int:
        called.append(step)
        return lrc(*step) if step[0] in ("check", "convert") else 3

    monkeypatch.setattr(way, "call", call)
    assert lrc("run", *FILES, "--output-dir", "out", "--recipe", recipe) == 3
    assert called[-1] == [
        "python",
        "-m",
        "lrc.models.tiny",
        *(str(Path("out", name)) for name in ("data/sample_train.json", "base")),
    ]


@pytest.mark.parametrize(
    ("header", "rows", "status"),
    [
        ("ID,文章,選項1,選項2", "1,甲,丙,丁", 1),  # no question
        ("ID,文章,問題,選項1,選項2", "1,甲,乙,丙,丁\n1,甲,戊,丙,丁", 1),  # an id twice
        (
            "ID,短文,問題,選項1,選項2",
            "1,甲,乙,丙,丁\n2,甲,,丙,丁",
            3,
        ),  # a column that is named, a question that is empty
    ],
)
def test_a_test_that_cannot_be_answered_ends_it_before_hours_of_training_even_where_rows_are_skipped(
    header: str,
    rows: str,
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    train = [
        "ID,短文,問題,選項1,選項2,正確答案",
        *(f"{number},{number}甲,乙,丙,丁,1" for number in range(9)),
        "9,癸,乙,丙,丁,7",
    ]
    Path("train.csv").write_text("\n".join(train), encoding="utf-8")
    Path("test.csv").write_text(f"{header}\n{rows}\n", encoding="utf-8")
    if "短文" not in header:
        Path("train.csv").write_text("\n".join(train).replace("短文", "文章"), encoding="utf-8")
    monkeypatch.setattr(way, "call", lambda step: lrc(*step) if step[0] in ("check", "convert") else 3)
    more = ["--columns", "文章=短文"] if "短文" in header else []
    skip = ["--recipe", "tiny/lora", "--on-error", "skip", "--output-dir", "out", *more]
    assert lrc("run", "train.csv", "test.csv", *skip) == status
    assert ("test.csv has to be corrected first" in capsys.readouterr().err) == (status == 1)


@pytest.mark.parametrize(
    ("machine", "recipe"),
    [
        ({"device": "cuda", "card_memory": 16 * 2**30}, "qwen3-8b/qlora"),
        ({}, "qwen2.5-1.5b/lora"),
        ({"memory": 0}, SMALLEST),
    ],
)
def test_a_base_of_ones_own_is_trained_with_a_recipe_for_the_machine_without_the_hub_as_well(
    machine: dict[str, Any], recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Kaggle with internet off: the base is a dataset."""
    about = {"device": "cpu", "card_memory": 0, "memory": 64 * 2**30, "disk": 2**20, "hub": False}
    monkeypatch.setattr(way, "look_at_machine", lambda: types.SimpleNamespace(**(about | machine)))
    called: list[list[str]] = []
    monkeypatch.setattr(way, "call", lambda step: called.append(step) or (3 if step[0] == "train" else lrc(*step)))
    assert lrc("run", *FILES, "--output-dir", tmp_path / "out", "--model_name_or_path=mine/base") == 3
    assert called[-1][:2] == ["train", recipe] and called[-1][-1] == "--model_name_or_path=mine/base"


def test_a_step_that_fails_gives_its_status_and_how_to_go_on(tmp_path: Path) -> None:
    broken = tmp_path / "broken.csv"
    broken.write_text("ID,文章,問題,選項1,選項2,選項3,選項4,正確答案\n1,甲,乙,丙,丁,戊,己,9\n", encoding="utf-8")
    command = ["run", str(broken), str(FILES[1]), "--output-dir", str(tmp_path / "out"), "--recipe", "tiny/lora"]
    status, told = go(command, tmp_path / "log")
    assert status == 1 and "step 1 of 7 ended with status 1; correct what it found, or leave such rows out" in told
