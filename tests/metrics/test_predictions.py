"""Outcomes of labelled questions: written, read again, and refused where they are something else."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from report_runs import OUTCOMES

from lrc.data.questions import Question
from lrc.metrics.predictions import (
    OUTCOMES_FILE,
    Outcome,
    name_models,
    read_outcomes,
    read_predictions,
    write_outcomes,
)
from lrc.runtime.errors import DataError


def test_outcomes_come_back_as_they_were(tmp_path: Path) -> None:
    blank = Question("7", "文", "問", ("甲", "乙", "", "丁"), answer=2)
    outcomes = [*OUTCOMES, Outcome(blank, (0.5, 0.5, 0.0, 0.0), 2, scores=(-0.7, -0.7, None, None))]
    write_outcomes(tmp_path / OUTCOMES_FILE, outcomes)
    assert read_outcomes(tmp_path / OUTCOMES_FILE) == outcomes


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ({"answer": 5}, "answer is 5, expected 1 to 4"),
        ({"answer": None}, "not all whole numbers"),
        ({"prediction": 0}, "prediction is 0, expected 1 to 4"),
        ({"probabilities": [1.0]}, "expected 4 from 0 to 1"),
        ({"probabilities": [float("nan"), 0, 0, 1]}, "expected 4 from 0 to 1"),
        ({"options": "一二三四"}, "not all texts"),
        ({"passage": 3}, "not all texts"),
        ({"scores": [None] * 4}, "scores are not finite"),
        ({"scores": [0.0, -1.0]}, "has 2 scores for 4 options"),
    ],
)
def test_wrong_line_is_named(tmp_path: Path, change: dict[str, Any], finding: str) -> None:
    path = tmp_path / OUTCOMES_FILE
    write_outcomes(path, OUTCOMES)
    first, *others = path.read_text().splitlines()
    path.write_text("\n".join([first, json.dumps(json.loads(others[0]) | change), *others]) + "\n")
    with pytest.raises(DataError, match=rf"{OUTCOMES_FILE}, line 2: .*{finding}.*; train again, or remove the file"):
        read_outcomes(path)


@pytest.mark.parametrize("prediction", [2.0, "2", True, 2.5, 5, -1])
def test_a_prediction_in_a_file_of_scores_is_the_number_of_an_option(tmp_path: Path, prediction: object) -> None:
    asked = Question("7", "文", "問", ("甲", "乙", "丙", "丁"), answer=2)
    path = tmp_path / "scores.jsonl"
    path.write_text(json.dumps({"id": "7", "scores": [-1, -2, -3, -4], "prediction": prediction}) + "\n")
    with pytest.raises(
        DataError, match=rf"question 7: prediction is {prediction!r}, expected 1 to 4; score t.json again"
    ):
        read_predictions(path, tmp_path / "t.json", [asked])


def test_an_option_without_text_is_not_chosen_whatever_its_score(tmp_path: Path) -> None:
    asked = Question("7", "文", "問", ("", "乙", "丙", ""), answer=2)
    path = tmp_path / "scores.jsonl"
    path.write_text(json.dumps({"id": "7", "scores": [-0.1, -3, -2, None]}) + "\n")
    (outcome,) = read_predictions(path, tmp_path / "t.json", [asked])
    assert outcome.prediction == 3 and outcome.scores == (None, -3, -2, None)
    odds = math.exp(-2 + 3)
    assert outcome.probabilities == pytest.approx((0, 1 / (1 + odds), odds / (1 + odds), 0))


def test_the_probabilities_of_a_file_of_scores_are_kept(tmp_path: Path) -> None:
    """They are at the temperature that was fitted, unlike the softmax of its scores."""
    asked = Question("7", "文", "問", ("甲", "乙"), answer=2)
    path = tmp_path / "scores.jsonl"
    path.write_text(json.dumps({"id": "7", "scores": [-4.0, -0.1], "probabilities": [0.3, 0.7], "prediction": 2}))
    (outcome,) = read_predictions(path, tmp_path / "t.json", [asked])
    assert (outcome.probabilities, outcome.confidence, outcome.prediction) == ((0.3, 0.7), 0.7, 2)


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (["runs/qwen2.5-lora", "runs/qwen2.5-qlora"], ["qwen2.5-lora", "qwen2.5-qlora"]),
        ([f"runs/a/{OUTCOMES_FILE}", "runs/b.jsonl"], ["a", "b"]),
        (["x/a/s.jsonl", "y/a/s.jsonl", "z/b/s.jsonl"], ["x/a/s", "y/a/s", "z/b/s"]),
        (["runs/a", "runs/a.jsonl"], ["a", "a.jsonl"]),
    ],
)
def test_models_are_named_by_what_distinguishes_them(sources: list[str], names: list[str]) -> None:
    assert name_models(list(map(Path, sources))) == names
    with pytest.raises(DataError, match=f"{sources[0]}: is given twice"):
        name_models(list(map(Path, [*sources, sources[0]])))
