"""A passage with more tokens than the base has positions is shortened, in training and in answering, and said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_runs import lrc, make_run, run, write_questions

from lrc.config.run_record import Run
from lrc.data.questions import Question

POSITIONS = 64
KEPT = "小明在台北賣書。"
LONG = Question("long", f"{'天氣很好。' * 80}{KEPT}", "小明在台北做什麼？", ("賣書", "賣花", "讀書", "唱歌"), 1)
SHORT = Question("short", KEPT, LONG.question, LONG.options, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with few positions, and two questions, one of them too long for it."""
    made = make_run(
        tmp_path_factory.mktemp("positions"),
        [LONG, SHORT],
        template="plain",
        answer_style="text",
        lora_target_modules=["q_proj"],
        max_steps=1,
        save_strategy="no",
        eval_strategy="no",
    )
    config = json.loads((made / "base/config.json").read_text(encoding="utf-8"))
    text = json.dumps(config | {"max_position_embeddings": POSITIONS})
    (made / "base/config.json").write_text(text, encoding="utf-8")
    Run("plain", "text", False).write(made / "base/lrc_run.json")
    return made


def answered(folder: Path, output: Path, *questions: Question) -> list[dict[str, object]]:
    data = write_questions(output.with_suffix(".json"), questions)
    scores = output.with_suffix(".jsonl")
    words = ("--data", data, "--output", output, "--scores", scores)
    assert lrc("generate", "--model", folder / "base", *words) == 0
    return [json.loads(line) for line in scores.read_text(encoding="utf-8").splitlines()]


def test_answering_leaves_out_what_is_farthest_from_the_question(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long, short = answered(folder, tmp_path / "both.csv", LONG, SHORT)
    told = f"1 passage shortened to fit the model's {POSITIONS} positions: long"
    assert told in capsys.readouterr().err.splitlines()
    assert (tmp_path / "both.csv").read_text(encoding="utf-8").splitlines()[1].startswith("long,")
    # Of the many equal sentences as many as fit are kept, so the scores are those of no other question.
    near = Question("near", f"{'天氣很好。' * 200}{KEPT}", LONG.question, LONG.options, 1)
    (more,) = answered(folder, tmp_path / "near.csv", near)
    assert more["scores"] == pytest.approx(long["scores"]) and long["scores"] != short["scores"]


def test_a_question_that_is_too_long_without_its_passage_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_questions(tmp_path / "q.json", [Question("q9", KEPT, "什麼？" * 40, LONG.options, 1)])
    words = ("--data", data, "--output", tmp_path / "a.csv")
    assert lrc("generate", "--model", folder / "base", *words) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"question q9: without its passage it still has more tokens than the model has positions, {POSITIONS}; "
        "shorten it, or use another base"
    )
    assert not (tmp_path / "a.csv").exists()


def test_training_takes_no_more_than_the_base_has(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, tmp_path / "a", "--max_length", "500") == 0
    lines = capsys.readouterr().err.splitlines()
    assert f"max_length: lowered from 500 to {POSITIONS}, the positions of {folder / 'base'}" in lines
    assert any(f"1 passage shortened to fit max_length {POSITIONS}: long" in line for line in lines)
    assert lrc("preview", folder / "recipe.yaml", "--output_dir", tmp_path / "b", "--max_length", "500", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["tokens"]["max_length"] == POSITIONS and told["tokens"]["shortened"] == ["long"]
