"""`lrc train --folds`: every question held out once, whole passages, each fold a run; resumed, not repeated."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from small_runs import lrc, make_run, write_questions

from lrc import sft
from lrc.commands import train_folds
from lrc.data.questions import Question
from lrc.training.folds import Folds

CHARACTERS = "天地玄黃宇宙洪荒日月盈昃辰宿列張寒來暑往秋收冬藏閏餘成歲律呂調陽雲騰致雨露結為霜金生麗水玉出崑岡"
FOLDS = 3


def questions(passages: int = 7) -> list[Question]:
    """Passages with nothing in common, of which each has one to three questions."""
    random, made = Random(0), []
    for number in range(passages):
        passage = "".join(random.choices(CHARACTERS, k=60))
        for _ in range(number % 3 + 1):
            made.append(Question(f"q{len(made)}", passage, "哪一個？", ("甲", "乙", "丙", "丁"), len(made) % 4 + 1))
    return made


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders that were trained into; each run in this process, by the entrypoint that `lrc train` starts."""
    started: list[str] = []

    def call(words: Sequence[str]) -> int:
        assert words[0] == "train"
        started.append(words[-1])
        try:
            sft.main(["--config", *words[1:]])
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    monkeypatch.setattr(train_folds, "call", call)
    return started


def made(folder: Path, **keys: Any) -> tuple[str, ...]:
    make_run(folder, questions(), max_steps=1, per_device_train_batch_size=2, save_strategy="no", **keys)
    return ("train", str(folder / "recipe.yaml"), "--folds", str(FOLDS), "--output_dir", str(folder / "out"))


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_every_question_is_held_out_once_with_its_whole_passage(
    tmp_path: Path, trained: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words, all_of_them = made(tmp_path), questions()
    assert lrc(*words) == 0
    out = tmp_path / "out"
    assert trained == [str(out / f"fold{fold}") for fold in range(FOLDS)]
    held_out: list[str] = []
    for fold in range(FOLDS):
        train = read(out / "data" / f"t_train_fold{fold}_train.json")
        validation = read(out / "data" / f"t_train_fold{fold}_validation.json")
        assert {one["id"] for one in train} | {one["id"] for one in validation} == {one.id for one in all_of_them}
        assert not {one["passage"] for one in train} & {one["passage"] for one in validation}
        held_out += [one["id"] for one in validation]
        run = read(out / f"fold{fold}" / "lrc_run.json")
        assert run["finished"] and run["data"]["train_file"]["questions"] == len(train)
        assert (out / f"fold{fold}" / "adapter_model.safetensors").is_file()
    assert sorted(held_out) == sorted(one.id for one in all_of_them)

    answers = {one.id: one.answer for one in all_of_them}
    lines = [json.loads(line) for line in (out / "out_of_fold_scores.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["id"] for line in lines] == held_out
    share = sum(line["prediction"] == answers[line["id"]] for line in lines) / len(lines)
    figures = read(out / "out_of_fold.json")
    assert figures["accuracy"] == pytest.approx(share) and figures["n"] == len(answers) and figures["passages"] == 7
    told = capsys.readouterr().out
    assert f"out of fold: {100 * share:.1f}%" in told and f"--adapter {out / 'fold2'}" in told
    assert "chose by" not in told


def test_passages_that_are_nearly_the_same_are_held_out_together(tmp_path: Path) -> None:
    """One with another last character, one with a title before it, and an excerpt."""
    asked = questions(9)
    text = asked[0].passage
    for number, other in enumerate((f"{text[:-1]}龘", f"第一課{text}", text[:40])):
        asked.append(Question(f"near{number}", other, "哪一個？", ("甲", "乙", "丙", "丁"), 1))
    folds = Folds(tmp_path / "out", write_questions(tmp_path / "t.json", asked), FOLDS, 42)
    folds.write()
    homes = [
        fold
        for fold in range(FOLDS)
        for one in read(folds.validation_file(fold))
        if one["id"] == "q0" or one["id"].startswith("near")
    ]
    assert len(homes) == 4 and len(set(homes)) == 1


def test_what_is_said_of_a_question_is_what_the_model_that_held_it_out_says(
    tmp_path: Path, trained: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    stopping = {"eval_strategy": "steps", "eval_steps": 1, "early_stopping_patience": 9}
    assert lrc(*made(tmp_path, learning_rate=0.01, **stopping)) == 0
    assert "early_stopping_patience: each run chose by the questions that it held out" in capsys.readouterr().out
    out, asked = tmp_path / "out", tmp_path / "asked.jsonl"
    data = out / "data" / "t_train_fold1_validation.json"
    model = ("--model", tmp_path / "base", "--adapter", out / "fold1")
    assert lrc("generate", *model, "--data", data, "--output", tmp_path / "a.csv", "--scores", asked) == 0
    of_fold = {line["id"]: line for line in map(json.loads, asked.read_text(encoding="utf-8").splitlines())}
    said = map(json.loads, (out / "out_of_fold_scores.jsonl").read_text(encoding="utf-8").splitlines())
    mine = [line for line in said if line["id"] in of_fold]
    assert len(mine) == len(of_fold) > 0
    for line in mine:
        assert line["scores"] == pytest.approx(of_fold[line["id"]]["scores"], abs=1e-4)


def test_the_same_command_trains_only_what_is_missing(
    tmp_path: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words, run_it = made(tmp_path), train_folds.call
    monkeypatch.setattr(train_folds, "call", lambda words: 7 if words[-1].endswith("fold1") else run_it(words))
    assert lrc(*words) == 7
    assert "fold 2 of 3: ended with status 7; the same command goes on from there" in capsys.readouterr().err
    first = (tmp_path / "out/fold0/adapter_model.safetensors").stat().st_mtime_ns
    assert not (tmp_path / "out/out_of_fold.json").exists()

    monkeypatch.setattr(train_folds, "call", run_it)
    assert lrc(*words) == 0
    assert [Path(one).name for one in trained] == ["fold0", "fold1", "fold2"]
    assert (tmp_path / "out/fold0/adapter_model.safetensors").stat().st_mtime_ns == first
    assert (tmp_path / "out/out_of_fold.json").is_file()


def test_other_folds_are_not_overwritten_unless_asked(
    tmp_path: Path, trained: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = made(tmp_path)
    assert lrc(*words) == 0
    trained.clear()
    assert lrc(*words, "--seed", "7") == 1
    assert "holds other folds (another seed); choose another output_dir" in capsys.readouterr().err
    fewer = [("2" if word == str(FOLDS) else word) for word in words]
    assert lrc(*fewer) == 1 and not trained
    assert "another folds" in capsys.readouterr().err
    before = json.loads((tmp_path / "out/folds.json").read_text(encoding="utf-8"))
    del before["clustering"]  # as lrc wrote it when an excerpt could stand in another fold than its passage
    (tmp_path / "out/folds.json").write_text(json.dumps(before), encoding="utf-8")
    assert lrc(*words) == 1 and not trained
    assert "holds other folds (another version of lrc, which kept other passages together)" in capsys.readouterr().err
    assert lrc(*fewer, "--overwrite_output_dir") == 0
    assert len(trained) == 2 and not (tmp_path / "out/fold2").exists()
    assert read(tmp_path / "out/out_of_fold.json")["folds"] == 2


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--fold", "0"), "--folds: fold is given; --folds makes the folds itself; remove it"),
        (("--train_file", "a.json", "b.json"), "--folds: train_file has 2 files; give one"),
        (("--resume_from_checkpoint", "x"), "--folds: resume_from_checkpoint is given"),
        (("--train_file", "nowhere.json"), "nowhere.json: "),
        (("--learning_rate", "much"), "learning_rate"),
    ],
)
def test_what_does_not_go_together_is_refused_first(
    tmp_path: Path, trained: list[str], capsys: pytest.CaptureFixture[str], more: tuple[str, ...], told: str
) -> None:
    assert lrc(*made(tmp_path), *more) == 1
    assert told in capsys.readouterr().err
    assert not trained and not (tmp_path / "out").exists()


def test_more_folds_than_passages_are_refused(
    tmp_path: Path, trained: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [("8" if word == str(FOLDS) else word) for word in made(tmp_path)]
    assert lrc(*words) == 1
    told = capsys.readouterr().err
    assert (
        "7 passages (near-duplicates and parts of one another are one), too few for 8 folds; use fewer --folds" in told
    )
    assert not trained
