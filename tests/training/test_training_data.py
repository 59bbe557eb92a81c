"""What is told of validation questions that say little about new ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from small_runs import make_run, pairs, run, write_questions

from lrc.data.questions import Question
from lrc.training import run as run_module

TRAIN = pairs(8)  # two questions about each of four passages
APART = [replace(one, id=f"v{one.id}", passage=f"另一篇：{one.passage}") for one in TRAIN[:4]]
WIDE = replace(TRAIN[2], id="wide", passage=TRAIN[2].passage.replace("1", "１") + "\n", question="別的？")


@pytest.mark.parametrize(
    ("validation", "more", "told"),
    [
        (APART, [], None),
        ([*APART, TRAIN[5], WIDE], [], "the passages of 2 of its 6 questions (first 5)"),
        (APART, APART[:1], "the passages of 2 of its 4 questions (first v0)"),
        (TRAIN, [], "is the training data, so its accuracy says nothing about new questions"),
    ],
    ids=["apart", "some", "in the second file", "the same file"],
)
def test_validation_on_what_is_trained_on_is_told(
    validation: list[Question],
    more: list[Question],
    told: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "_train", stop)
    folder, files = make_run(tmp_path, TRAIN, validation, use_cpu=True), [tmp_path / "t_train.json"]
    if more:
        files.append(write_questions(tmp_path / "more.json", [replace(one, question="誰？") for one in more]))
    assert run(folder, tmp_path / "a", "--train_file", *map(str, files)) == 130
    lines = [line.partition("t_validation.json: ")[2] for line in capsys.readouterr().err.splitlines()]
    said = [line for line in lines if line.startswith(("the passages of", "is the training data"))]
    assert [line.partition(" are trained on")[0] for line in said] == ([told] if told else [])
