"""Validation questions that are shortened to `max_length` are counted, split and compared by their whole passages."""

from __future__ import annotations

import json
from contextlib import redirect_stderr
from pathlib import Path

import pytest
from small_runs import lrc, make_run, run

from lrc.data.questions import Question
from lrc.metrics.baselines import BASELINES, credit

KEYS = {
    "template": "plain",
    "answer_style": "text",
    "max_length": 64,
    "max_steps": 1,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "save_strategy": "no",
}


def long_passages(count: int, first: int = 0) -> list[Question]:
    """Two questions about each passage, each about another sentence of it, which is what a shortened one keeps."""
    made = []
    for number in range(first, first + count):
        sentences = [
            f"{number}號的{who}住在{where}{number}街。"
            for who, where in zip("甲乙丙丁戊己庚", "東西南北上中下", strict=True)
        ]
        passage = "".join(sentences)
        for part, (who, where) in enumerate((("甲", "東"), ("庚", "下"))):
            options = tuple(f"{one}{number}街" for one in ("東", "西", "北", "下"))
            made.append(
                Question(
                    f"{number}-{part}", passage, f"{number}號的{who}住在哪裡？", options, "東西北下".index(where) + 1
                )
            )
    return made


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shortened")
    made = make_run(
        folder, long_passages(6), [*long_passages(5, first=10), *long_passages(1)], **KEYS, eval_questions=5
    )
    with (folder / "told").open("w", encoding="utf-8") as told, redirect_stderr(told):
        assert run(made, folder / "run", "--eval_strategy", "steps", "--eval_steps", "1") == 0
    return folder


def test_outcomes_intervals_and_baselines_are_those_of_the_whole_passages(trained: Path) -> None:
    asked = json.loads((trained / "t_validation.json").read_text("utf-8"))
    lines = [json.loads(line) for line in (trained / "run" / "validation_scores.jsonl").read_text("utf-8").splitlines()]
    assert [line["passage"] for line in lines] == [one["passage"] for one in asked]
    found = json.loads((trained / "run" / "lrc_run.json").read_text("utf-8"))["validation"]
    assert (found["n"], found["passages"]) == (12, 6)
    questions = [*long_passages(5, first=10), *long_passages(1)]
    answers = [question.answer or 0 for question in questions]
    whole = {name: sum(credit(choose(questions), answers)) / 12 for name, choose in BASELINES.items()}
    assert found["baseline_accuracy"] == pytest.approx(float(max(whole.values())))
    assert found["shared_passages"] == 2  # though each question keeps another part of it


def test_the_sample_has_whole_passages(trained: Path) -> None:
    log = [json.loads(line) for line in (trained / "run" / "metrics.jsonl").read_text("utf-8").splitlines()]
    (sampled,) = {line["eval_accuracy"] for line in log if "eval_accuracy" in line}
    (every,) = {line["eval_all_accuracy"] for line in log if "eval_all_accuracy" in line}
    assert sampled * 4 % 1 == 0  # two passages with two questions each fit five
    assert "evaluating on 4 of its 12 questions" in (trained / "told").read_text("utf-8")
    assert every == pytest.approx(
        json.loads((trained / "run" / "lrc_run.json").read_text("utf-8"))["validation"]["accuracy"]
    )


def test_other_commands_know_the_questions_again(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = trained / "scores.jsonl"
    asked = ["--model", trained / "base", "--adapter", trained / "run", "--data", trained / "t_validation.json"]
    assert lrc("evaluate", *asked, "--scores", scores) == 0
    data = ["--data", trained / "t_validation.json"]
    assert lrc("compare", trained / "run", scores, *data) == 0
    assert lrc("vote", trained / "run", scores, *data) == 0
    assert "another" not in capsys.readouterr().err
