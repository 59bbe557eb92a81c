"""Pseudo-labels: which questions get one, and that a run learns them and says so in run file and card."""

from __future__ import annotations

import json
from math import exp
from pathlib import Path
from random import Random

import pytest
from small_runs import lrc, make_run, pairs, run, write_questions

from lrc.data.pseudo_labels import assign_labels
from lrc.data.questions import Question
from lrc.data.soft_labels import SoftLabels
from lrc.runtime.errors import DataError


def unanswered(count: int, name: str = "u") -> list[Question]:
    return [Question(one.id, one.passage, one.question, one.options, None) for one in pairs(count, name=name)]


def write_scores(path: Path, ids: list[str], scores: list[list[float]]) -> Path:
    lines = [{"id": name, "scores": line} for name, line in zip(ids, scores, strict=True)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_only_questions_above_the_threshold_get_their_best_option(tmp_path: Path) -> None:
    random, questions = Random(1), unanswered(40)
    scores = [[random.uniform(-6, 0) for _ in range(4)] for _ in questions]
    data = write_questions(tmp_path / "t.json", questions)
    path = write_scores(tmp_path / "s.jsonl", [one.id for one in questions], scores)
    expected = {}
    for question, line in zip(questions, scores, strict=True):
        whole = sum(exp(score) for score in line)
        best = max(range(4), key=lambda place: line[place])
        if exp(line[best]) / whole >= 0.8:
            expected[question.id] = best + 1
    assert 3 < len(expected) < 37
    found, tied = assign_labels(data, path, 0.8)
    assert not tied
    assert {one.id: one.question.answer for one in found if one.question} == expected
    assert {one.id: one.output for one in found} == {name: str(number) for name, number in expected.items()}


def test_an_option_without_text_gets_no_probability_whatever_its_score(tmp_path: Path) -> None:
    asked = [Question(name, f"{name} 的文章", "誰？", ("", "乙", "丙", "丁"), None) for name in "ab"]
    data = write_questions(tmp_path / "t.json", asked)
    scores = write_scores(tmp_path / "s.jsonl", ["a", "b"], [[9.0, 0.0, 2.0, 0.0], [9.0, 1.0, 1.0, 1.0]])
    assert exp(2) / (exp(2) + 2) > 0.7  # of the three with text
    assert [(one.id, one.output) for one in assign_labels(data, scores, 0.7)[0]] == [("a", "3")]


def test_a_tie_gets_no_label_and_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = unanswered(3)
    data = write_questions(tmp_path / "test.json", asked)
    lines = [[5.0, 5.0 + 1e-9, -9.0, -9.0], [0.0, 0.0, 9.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    scores = write_scores(tmp_path / "s.jsonl", [one.id for one in asked], lines)
    found, tied = assign_labels(data, scores, 0.4)
    assert [(one.id, one.output) for one in found] == [("u1", "3")] and tied == ["u0"]  # 1/4 is too improbable
    with pytest.raises(DataError, match="reach(es)? 0.4, the most probable options tie; give scores"):
        assign_labels(data, write_scores(tmp_path / "t.jsonl", ["u0", "u1", "u2"], [lines[0], *lines[2:] * 2]), 0.4)
    folder = make_run(tmp_path, pairs(2, name="t"), **KEYS, use_cpu=True, max_steps=1, save_strategy="no")
    words = ("--pseudo_labels", str(scores), "--pseudo_label_file", str(data), "--pseudo_label_threshold", "0.4")
    assert run(folder, tmp_path / "a", *words) == 0
    told = capsys.readouterr().err
    assert "1 question with a probability" in told and "whose most probable options tie" in told and ": u0\n" in told


def test_the_probability_is_the_one_that_the_file_gives(tmp_path: Path) -> None:
    """`lrc generate --scores` writes scores as they are, and probabilities at the temperature that was fitted."""
    asked = unanswered(3)
    data, path = write_questions(tmp_path / "t.json", asked), tmp_path / "s.jsonl"
    logits, temperature = [[0.0, 0.0, 4.0, 0.0], [0.0, 12.0, 0.0, 0.0], [0.0, 0.0, 0.0, 9999.0]], 3.0

    def line(one: Question, scores: list[float]) -> dict[str, object]:
        weights = [exp((score - max(scores)) / temperature) for score in scores]
        return {"id": one.id, "scores": scores, "probabilities": [weight / sum(weights) for weight in weights]}

    lines = [line(one, scores) for one, scores in zip(asked, logits, strict=True)]
    assert exp(4) / (exp(4) + 3) > 0.9 > exp(4 / 3) / (exp(4 / 3) + 3)
    path.write_text("".join(json.dumps(one) + "\n" for one in lines), encoding="utf-8")
    assert [(one.id, one.output) for one in assign_labels(data, path, 0.9)[0]] == [("u1", "2"), ("u2", "4")]
    for wrong in ([0.5, 0.5], [2.0, 0.0, 0.0, 0.0], "1000", [None] * 4):
        path.write_text(json.dumps({**lines[0], "probabilities": wrong}), encoding="utf-8")
        with pytest.raises(DataError, match=r"line 1: probabilities are .*, expected 4 from 0 to 1"):
            assign_labels(data, path, 0.9)


def test_the_soft_labels_of_the_training_file_leave_a_pseudo_label_as_it_is(tmp_path: Path) -> None:
    train = pairs(4)
    data = write_questions(tmp_path / "t.json", train)
    scores = write_scores(tmp_path / "s.jsonl", [one.id for one in train], [[0.0, 0.0, 0.0, 9.0]] * 4)
    labels = SoftLabels.read(scores, [data], 1.0, 1.0)
    pseudo = write_questions(tmp_path / "p.json", unanswered(2))
    sure = write_scores(tmp_path / "q.jsonl", ["u0", "u1"], [[0.0, 9.0, 0.0, 0.0]] * 2)
    assert labels.target(assign_labels(pseudo, sure, 0.9)[0][0]) == (0.0, 1.0, 0.0, 0.0)


KEYS = {"template": "plain", "answer_style": "judge", "lora_r": 8, "learning_rate": 0.02, "lora_dropout": 0.0}


def test_a_run_trains_on_pseudo_labels_and_records_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = unanswered(8)
    # What is told of the test is learnt: 3 of every question but the last two, of which nobody is sure.
    write_questions(tmp_path / "test.json", asked)
    lines = [[0.0, 0.0, 9.0, 0.0]] * 6 + [[0.0, 0.0, 1.0, 0.0]] * 2
    scores = write_scores(tmp_path / "vote.jsonl", [one.id for one in asked], lines)
    again = [Question(one.id, one.passage, one.question, one.options, 3) for one in asked[:6]]
    keys = {**KEYS, "num_train_epochs": 12, "use_cpu": True, "save_strategy": "no"}
    folder = make_run(tmp_path, pairs(2, name="t"), again, **keys)
    words = ("--pseudo_labels", str(scores), "--pseudo_label_file", str(tmp_path / "test.json"))
    assert run(folder, tmp_path / "a", *words, "--pseudo_label_threshold", "0.95") == 0
    told = capsys.readouterr().err
    assert f"pseudo-labels of {scores}: 6 questions with a probability of 0.95 or more are trained on" in told
    outcomes = (tmp_path / "a" / "validation_scores.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["prediction"] for line in outcomes] == [3] * 6
    noted = json.loads((tmp_path / "a" / "lrc_run.json").read_text(encoding="utf-8"))
    assert noted["data"]["pseudo_label_file"]["questions"] == 6 and noted["data"]["pseudo_labels"]["questions"] == 8
    assert noted["recipe"]["pseudo_label_threshold"] == 0.95 and str(tmp_path) not in json.dumps(noted["data"])
    card = (tmp_path / "a" / "README.md").read_text(encoding="utf-8")
    assert "**Pseudo-labels**: 6 questions of test.json" in card and "vote.jsonl, probability\n0.95 or more" in card
    assert run(folder, tmp_path / "a", *words, "--pseudo_label_threshold", "0.95") == 0  # the same run, finished
    planned = ("--json", "-n", "0", *words, "--pseudo_label_threshold", "0.95", "--output_dir", tmp_path / "a")
    capsys.readouterr()
    assert lrc("preview", folder / "recipe.yaml", *planned) == 0
    plan = json.loads(capsys.readouterr().out)["tokens"]
    logged = [json.loads(line) for line in (tmp_path / "a" / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert plan["questions"] == 2 + 6 and plan["steps"] == max(line["step"] for line in logged)
    assert run(folder, tmp_path / "a", *words, "--pseudo_label_threshold", "0.5") == 1
    assert "pseudo_label_threshold was 0.95" in capsys.readouterr().err
    assert lrc("report", tmp_path / "a") == 0 and "vote.jsonl" in (tmp_path / "a" / "report.html").read_text("utf-8")


def test_files_that_change_while_they_are_read_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise the run would be recorded as one on the new content."""
    questions = unanswered(4)
    data = write_questions(tmp_path / "t.json", questions)
    scores = write_scores(tmp_path / "s.jsonl", [one.id for one in questions], [[0.0, -9.0, -9.0, -9.0]] * 4)

    def assign(path: Path, labels: Path, threshold: float) -> object:
        found = assign_labels(path, labels, threshold)
        write_scores(scores, [one.id for one in questions], [[-9.0, 0.0, -9.0, -9.0]] * 4)
        return found

    monkeypatch.setattr("lrc.training.training_data.assign_labels", assign)
    folder = make_run(tmp_path, pairs(2, name="t"), **KEYS, use_cpu=True, max_steps=1, save_strategy="no")
    words = ["--pseudo_label_file", str(data), "--pseudo_labels", str(scores)]
    assert run(folder, tmp_path / "a", *words) == 1
    assert f"{scores}: was changed while it was read; run again" in capsys.readouterr().err


def test_what_cannot_be_labelled_is_refused(tmp_path: Path) -> None:
    answered = write_questions(tmp_path / "a.json", pairs(2))
    sure = write_scores(tmp_path / "s.jsonl", ["0", "1"], [[0.0, 9.0, 0.0, 0.0]] * 2)
    with pytest.raises(DataError, match="2 questions have an answer, first 0; pseudo-labels are for those"):
        assign_labels(answered, sure, 0.9)
    data = write_questions(tmp_path / "u.json", unanswered(2, name=""))
    with pytest.raises(DataError, match=r"no question has an option of probability 1 or more, the highest has 1\.000"):
        assign_labels(data, sure, 1.0)
    with pytest.raises(DataError, match="has no scores of 2 questions"):
        assign_labels(write_questions(tmp_path / "v.json", unanswered(2, name="x")), sure, 0.9)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--pseudo_labels", "s.jsonl"], "pseudo_labels and pseudo_label_file go together"),
        (["--pseudo_label_file", "t.xlsx"], "pseudo_labels and pseudo_label_file go together"),
        (["--pseudo_label_threshold", "1.5"], "pseudo_label_threshold is 1.5, expected 0 to 1"),
        (["--pseudo_labels", "none.jsonl", "--pseudo_label_file", "t_train.json"], "none.jsonl: No such file"),
        (["--pseudo_labels", "t_train.json", "--pseudo_label_file", "none.xlsx"], "none.xlsx: No such file"),
    ],
)
def test_what_does_not_go_together_is_refused(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run(tmp_path, pairs(2), **KEYS, use_cpu=True)
    monkeypatch.chdir(tmp_path)
    assert lrc("train", folder / "recipe.yaml", "--output_dir", "a", *words) == 1
    assert said.lower() in capsys.readouterr().err.lower()
    assert not (tmp_path / "a").exists()
