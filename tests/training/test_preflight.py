"""What stands in the way of a training is said before torch is imported, by both of training's doors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from lrc.config.run_record import RUN_FILE, Run
from lrc.runtime.errors import LrcError, OutputError
from lrc.runtime.outputs import checksum
from lrc.training.output_dir import refuse_sources_in
from lrc.training.preflight import preflight

HEAVY = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")
# Both doors as they are run, and all others.
DOORS = {
    "lrc train": ["lrc", "train"],
    "lrc.sft": ["lrc.sft", "--config"],
}
# One process, which has imported nothing, takes all command lines of a door in turn; each is told what it has imported.
PROGRAM = f"""
import io, json, runpy, sys
told = []
for module, *words in json.load(sys.stdin):
    before, sys.argv = set(sys.modules), [module, *words]
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in streams)
    code = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code or 0
    except BaseException as error:
        code = repr(error)
    said = [one.flush() or one.buffer.getvalue().decode() for one in (sys.stdout, sys.stderr)]
    sys.stdout, sys.stderr = streams
    told.append([code, *said, [name for name in {HEAVY} if name in set(sys.modules) - before]])
json.dump(told, sys.stdout)
"""
QUANTIZED = {"text4": {"quantization_config": "nf4"}, "inner4": {"text_config": {"quantization_config": ["nf4"]}}}
Told = tuple[int | str, str, str, list[str]]  # exit status or exception, stdout, stderr, what was imported


def ask(folder: Path, commands: list[list[str]]) -> list[Told]:
    """Run command lines, each a module and its words, in one fresh process without the Hub."""
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder)}
    command, given = [sys.executable, "-c", PROGRAM], json.dumps(commands)
    done = subprocess.run(command, input=given, capture_output=True, text=True, cwd=folder, env=offline)
    assert done.returncode == 0, done.stderr
    return [tuple(one) for one in json.loads(done.stdout)]


def make_recipe(folder: Path) -> Path:
    (folder / "m").mkdir()
    (folder / "m" / "config.json").write_text("{}")
    for name, config in QUANTIZED.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(config))
    (folder / "AI_train.json").write_text(json.dumps([{"instruction": "a", "input": "b", "output": "1"}]))
    (folder / "other").mkdir()
    (folder / "other" / "mine").write_text("mine")
    (folder / "scored").mkdir()
    (folder / "scored" / "validation_scores.jsonl").write_text("")
    path = folder / "r.yaml"
    lines = {"model_name_or_path": "m", "train_file": folder / "AI_train.json", "output_dir": folder / "run"}
    path.write_text("".join(f"{key}: {value}\n" for key, value in lines.items()))
    return path


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return make_recipe(tmp_path)


CASES = {
    "unknown key": (["--epochs", "3"], "command line: unknown key 'epochs'; did you mean 'num_train_epochs'?"),
    "type": (["--lora_r", "four"], 'command line: lora_r is "four", expected a whole number'),
    "rule": (["--fp16", "--bf16"], "r.yaml: fp16 and bf16 are both true; keep one"),
    "no data": (["--train_file", "{home}/AI_tran.json"], "{home}/AI_tran.json: no such file; did you mean"),
    "no second file": (
        ["--train_file", "{home}/AI_train.json", "{home}/AI_tran.json"],
        "{home}/AI_tran.json: no such file; did you mean",
    ),
    "a file twice": (
        ["--train_file", "{home}/AI_train.json", "{home}/AI_train.json"],
        "r.yaml: train_file names {home}/AI_train.json twice; name it once",
    ),
    "a file twice, by another path": (
        ["--train_file", "{home}/AI_train.json", "{home}/other/../AI_train.json"],
        "r.yaml: train_file names {home}/AI_train.json twice; name it once",
    ),
    "shares": (["--train_shares", "0.5", "0.5"], "r.yaml: train_shares has 2 parts for 1 file of train_file"),
    "no data at all": (
        ["--train_file", "{home}/data/AI_train.json"],
        "{home}/data/AI_train.json: no such file; name yours by --train_file, or make it: lrc convert AI.xlsx "
        "--output-dir {home}/data\n",
    ),
    "a folder of data": (["--train_file", "{home}/other"], "{home}/other: is a folder; give a file in it\n"),
    "a folder of scores": (
        ["--soft_labels", "{home}/scored", "--answer_style", "text", "--option_contrast", "1"],
        "{home}/scored: is a folder; give the scores in it: --soft_labels {home}/scored/validation_scores.jsonl\n",
    ),
    "no validation": (
        ["--validation_file", "{home}/data/AI_validation.json"],
        "{home}/data/AI_validation.json: no such file; name yours by --validation_file, or make it: lrc convert "
        "AI.xlsx --output-dir {home}/data\n",
    ),
    "no fold": (
        ["--train_file", "{home}/data/AI_train.json", "--fold", "2"],
        "{home}/data/AI_fold2_train.json: no such file; name yours by --train_file, or make it: lrc convert AI.xlsx "
        "--output-dir {home}/data --folds 5\n",
    ),
    "no whole file": (
        ["--train_file", "{home}/my data/mine.json"],
        "{home}/my data/mine.json: no such file; name yours by --train_file, or make it: lrc convert mine.xlsx "
        "--output-dir '{home}/my data' --validation-fraction 0\n",
    ),
    "no scores": (
        ["--answer_style", "judge", "--soft_labels", "{home}/s.jsonl"],
        "{home}/s.jsonl: no such file; `lrc generate --scores` writes it",
    ),
    "verdicts": (
        ["--answer_style", "judge", "--score_normalisation", "sum"],
        "r.yaml: score_normalisation is sum, but verdicts are scored as they are; remove it",
    ),
    "sample of nothing": (["--eval_questions", "9"], "r.yaml: eval_questions is given, but validation_file is not"),
    "base": (["--model_name_or_path", "mm"], "mm: no such folder and none that was fetched before; did you mean m?"),
    "revision of a folder": (
        ["--model_revision", "v9"],
        "m: is a folder, which has no revisions, but model_revision is v9; remove it, or name a base on the Hub\n",
    ),
    "quantization that is a text": (
        ["--model_name_or_path", "{home}/text4"],
        '{home}/text4/config.json: quantization_config is "nf4", expected a JSON object; download the file again, or ',
    ),
    "quantization that is a list": (
        ["--model_name_or_path", "inner4"],
        'inner4/config.json: quantization_config is ["nf4"], expected a JSON object; ',
    ),
    "optimizer": (
        ["--optim", "grokadamw"],
        "r.yaml: optim is grokadamw, but the package grokadamw is not installed; pip ",
    ),
    "base on the Hub": (
        ["--model_name_or_path", "owner/name"],
        "owner/name: no such folder and none that was fetched before; give a folder that holds a model",
    ),
    "output": (["--output_dir", "{home}/other"], "{home}/other: holds something that is not an lrc run; "),
    "output file": (["--output_dir", "{home}/r.yaml"], "{home}/r.yaml: is not a folder; choose another output_dir"),
}


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, dict[str, Told]]]:
    """The folder, and what each door says to each case."""
    path = make_recipe(tmp_path_factory.mktemp("refused"))
    home = str(path.parent)
    words = {case: [str(path), *(word.format(home=home) for word in given)] for case, (given, _) in CASES.items()}
    doors = {
        door: dict(zip(CASES, ask(path.parent, [[*begin, *words[case]] for case in CASES]), strict=True))
        for door, begin in DOORS.items()
    }
    return home, doors


@pytest.mark.parametrize("case", CASES)
def test_it_is_refused_in_a_line_before_torch(case: str, refused: tuple[str, dict[str, dict[str, Told]]]) -> None:
    home, doors = refused
    for told in doors.values():
        code, stdout, stderr, imported = told[case]
        assert (code, stdout, imported) == (1, "", []), stderr
        assert stderr.startswith(CASES[case][1].format(home=home)) and len(stderr.splitlines()) == 1


def test_data_is_no_recipe(recipe: Path) -> None:
    for name in ("AI_train.json", "a.xlsx", "a.csv"):
        path = recipe.parent / name
        if not path.exists():
            path.write_bytes(b"PK")
        with pytest.raises(LrcError) as refused:
            preflight(path)
        assert str(refused.value).startswith(f"{path}: is data, not a recipe; ")


def test_another_run_is_told_and_the_same_one_goes_on(recipe: Path) -> None:
    data = recipe.parent / "AI_train.json"
    facts = {"train_file": {"name": data.name, "sha256": checksum(data), "questions": 1}}
    run = Run("chinese-alpaca-2", "digit", True, {"model_name_or_path": "m", "world_size": 4}, facts)
    folder = recipe.parent / "run"
    folder.mkdir()
    (folder / RUN_FILE).write_text(json.dumps(asdict(run)))
    preflight(recipe)
    preflight(recipe, ["--row_tokens", "512"])
    preflight(recipe, ["--lora_r", "3", "--overwrite_output_dir"])
    preflight(recipe, ["--logging_steps", "3", "--lora_r", "16"])
    for words, what in (
        (["--lora_r", "3"], "lora_r was 16 and is 3 now"),
        (["--template", "plain"], "template was chinese-alpaca-2 and is plain now"),
    ):
        with pytest.raises(LrcError) as refused:
            preflight(recipe, words)
        assert str(refused.value).startswith(f"{folder}: holds another run ({what}); ")
    data.write_text("[]")
    with pytest.raises(LrcError, match=r"train_file was AI_train.json \(sha256 "):
        preflight(recipe)


def test_each_of_several_files_is_compared(recipe: Path) -> None:
    home = recipe.parent
    names = {"train_file": "AI_train.json", "train_file 2": "b.json", "soft_labels": "s.jsonl"}
    (home / "b.json").write_text("[1]")
    (home / "s.jsonl").write_text("{}")
    facts = {role: {"name": name, "sha256": checksum(home / name), "questions": 1} for role, name in names.items()}
    (home / "run").mkdir()
    own = {"model_name_or_path": "m", "answer_style": "judge", "world_size": 4}
    (home / "run" / RUN_FILE).write_text(json.dumps(asdict(Run("alpaca", "judge", False, own, facts))))
    words = ["--answer_style", "judge", "--template", "alpaca", "--soft_labels", str(home / "s.jsonl")]
    files = ["--train_file", str(home / "AI_train.json"), str(home / "b.json")]
    preflight(recipe, [*words, *files])
    with pytest.raises(LrcError, match=r"train_file 2 was b.json .* and is none now"):
        preflight(recipe, words)
    with pytest.raises(LrcError, match=r"train_shares was null and is \[0.5, 0.5\] now"):
        preflight(recipe, [*words, *files, "--train_shares", "0.5", "0.5"])
    (home / "s.jsonl").write_text("{ }")
    with pytest.raises(LrcError, match=r"soft_labels was s.jsonl \(sha256 "):
        preflight(recipe, [*words, *files])


VERBS: list[tuple[str, int, str]] = [
    ("check r.yaml --json", 0, ""),
    ("preview r.yaml --epochs 3", 1, "command line: unknown key 'epochs'; did you mean 'num_train_epochs'?"),
    ("preview r.yaml --gpu-memory 12", 1, "--gpu-memory: 12 has no unit; write 12GB"),
    ("sweep r.yaml", 1, "r.yaml: is a recipe, not a sweep; write a file with `recipe: r.yaml`, trials, search"),
    ("convert a.xlsx b.xlsx", 2, "Error: takes one file; run it once for each"),
    ("convert a.xlsx b.xlsx --output-dir o", 2, "Error: takes one file; run it once for each; a workbook without"),
    ("generate --model m --data AI_train.json --output there", 1, "there: already exists; choose another name"),
    ("evaluate --model m --data AI_train.json --output there", 1, "there: already exists; choose another name"),
    ("preview r.yaml --model_name_or_path text4", 1, "text4/config.json: quantization_config is "),
    ("preview r.yaml --model_revision v9", 1, "m: is a folder, which has no revisions, but model_revision is v9; "),
    ("generate --model text4 --data AI_train.json --output new.csv", 1, "text4/config.json: quantization_config is "),
    ("evaluate --model inner4 --data AI_train.json --output n.json", 1, "inner4/config.json: quantization_config is "),
    ("merge --adapter a --output-dir other", 1, "other: already exists; choose another name"),
    (
        "train --config a.yaml",
        2,
        "Error: --config: is in the place of RECIPE; keys of the recipe go last: lrc train RECIPE -",
    ),
    (
        "run a.xlsx --lora_r 4 --output-dir o",
        2,
        "Error: --lora_r: is in the place of TEST; keys of the recipe go last: lrc",
    ),
    ("preview -k", 2, "Error: -k: is in the place of RECIPE"),
    ("train qwen3-8b", 1, "qwen3-8b: no such recipe; did you mean 'qwen3-8b/lora' (LoRA of Qwen3-8B-Base on one"),
    ("train r.yaml --accelerate-config gpu", 1, "gpu: no such accelerate config; did you mean 'single_gpu' ("),
    ("train AI_train.json", 1, "AI_train.json: is data, not a recipe; give a YAML file or the name of a shipped"),
]


def test_every_verb_refuses_before_torch(recipe: Path) -> None:
    (recipe.parent / "there").write_text("there")
    (recipe.parent / "a").mkdir()
    (recipe.parent / "a" / "adapter_config.json").write_text("{}")
    found = ask(recipe.parent, [["lrc", *words.split()] for words, *_ in VERBS])
    for (words, code, line), (status, _, stderr, imported) in zip(VERBS, found, strict=True):
        assert (status, imported) == (code, []), (words, stderr)
        assert stderr.startswith(line) and len(stderr.splitlines()) == (code > 0), words


def test_overwriting_removes_neither_home_nor_other_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, runs = tmp_path / "home" / "mine", tmp_path / "runs"
    for folder in (mine, runs / "a", runs / "b" / "checkpoint-3"):
        folder.mkdir(parents=True)
    for place in (runs / "a", runs / "b", runs / "b" / "checkpoint-3"):
        (place / "lrc_run.json").write_text("{}")
    monkeypatch.setenv("HOME", str(mine))
    for folder, held in ((tmp_path / "home", mine), (runs, runs / "a"), (mine, mine)):
        with pytest.raises(OutputError, match=f"holds {held}, which overwrite_output_dir would remove"):
            refuse_sources_in(folder, [])
    refuse_sources_in(runs / "b", [])
