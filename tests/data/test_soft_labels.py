"""Soft labels: the loss is the cross entropy with the mixture that the keys say, whatever the order of the options."""

from __future__ import annotations

import json
from dataclasses import replace
from math import exp, log
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import lrc, make_run, pairs, run, write_questions

from lrc.config.run_record import RUN_FILE
from lrc.data.alpaca import to_record
from lrc.data.soft_labels import SoftLabels
from lrc.packing.tree import pack
from lrc.runtime.errors import DataError
from lrc.tokenization.prompt import Prompt
from lrc.tokenization.token_dataset import tokenize
from lrc.training.contrastive_loss import Option, OptionContrast
from lrc.training.dataloader import SequenceSource

QUESTIONS = pairs(6)
STYLES = [("judge", 1), ("text", 1), ("text", 3)]


def write_scores(path: Path, count: int = 6) -> Path:
    """Scores in another order than the questions: option k of question i has i + k² / 3."""
    lines = [{"id": str(i), "scores": [i + k * k / 3 for k in range(4)]} for i in reversed(range(count))]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def wanted(place: int, weight: float, temperature: float) -> list[float]:
    """The target of each option of a question, in its own order."""
    chances = [exp((place + k * k / 3) / temperature) for k in range(4)]
    return [weight * one / sum(chances) + (1 - weight) * (k == place % 4) for k, one in enumerate(chances)]


class Bytes:
    """A tokenizer with a token a byte."""

    chat_template = chat_control_tokens = bos_token_id = None
    eos_token_id, added_tokens_decoder = 1, {}

    def __call__(self, text: str, **settings: Any) -> dict[str, list[int]]:
        return {"input_ids": [byte + 2 for byte in text.encode()]}


@pytest.mark.parametrize(("style", "orders"), STYLES)
def test_the_loss_is_the_cross_entropy_with_the_mixture(style: str, orders: int, tmp_path: Path) -> None:
    data, scores = write_questions(tmp_path / "t.json", QUESTIONS), write_scores(tmp_path / "s.jsonl")
    labels, records = SoftLabels.read(scores, [data], 0.7, 2.0), [to_record(question) for question in QUESTIONS]
    prompt = Prompt(Bytes(), "plain", style, True if orders > 1 else None)
    dataset = tokenize(records, prompt, stage="t")
    draw = SequenceSource(dataset, records, prompt, orders, 5, "sum", supervised=False, soft_labels=labels)
    sequences = [one for place in range(6) for one in draw((place, 0))]
    (row,) = pack(sequences, 100_000)
    contrast = OptionContrast.of(row, sequences)
    assert contrast is not None
    log_probs = torch.randn(len(row.owners), generator=torch.Generator().manual_seed(0))

    expected = 0.0
    for question_key in {one.question_key for one in sequences if isinstance(one, Option)}:
        own = [
            (i, one) for i, one in enumerate(sequences) if isinstance(one, Option) and one.question_key == question_key
        ]
        score: dict[str, float] = {}
        for i, one in own:
            text = next(t for t in "甲乙丙丁" if ends_with(one, t, style))
            total = sum(log_probs[row.owners == i].tolist())
            score[text] = score.get(text, 0.0) + (-total if one.negated else total)
        whole = log(sum(exp(value / 0.5) for value in score.values()))
        targets = wanted(question_key[0], 0.7, 2.0)
        expected -= sum(targets["甲乙丙丁".index(text)] * (value / 0.5 - whole) for text, value in score.items())
    assert float(contrast.loss(log_probs, 0.5)) == pytest.approx(expected, rel=1e-5)


def test_questions_of_two_files_that_count_alike_keep_their_own_labels(tmp_path: Path) -> None:
    first = pairs(3)
    second = [replace(one, question=f"何時？{one.id}") for one in first]
    files = [write_questions(tmp_path / f"{name}.json", some) for name, some in (("a", first), ("b", second))]
    lines = [[float(place == k) * 3 for k in range(4)] for place in (0, 1, 2, 3, 2, 1)]
    scores = tmp_path / "s.jsonl"
    ids = [one.id for one in (*first, *second)]
    scores.write_text(
        "".join(json.dumps({"id": name, "scores": line}) + "\n" for name, line in zip(ids, lines, strict=True))
    )
    labels = SoftLabels.read(scores, files, 1.0, 1.0)
    for question, line in zip((*first, *second), lines, strict=True):
        chances = [exp(one) for one in line]
        assert labels.target(to_record(question)) == pytest.approx([one / sum(chances) for one in chances])


def ends_with(one: Option, text: str, style: str) -> bool:
    """Whether a sequence is about the option: its completion, or what is judged in its prompt."""
    written = bytes(int(token) - 2 for token in one.tokens).decode(errors="replace")
    return f"答案：{text}" in written if style == "judge" else written.endswith(text)


TEXT = {"template": "plain", "answer_style": "judge", "lora_r": 8, "learning_rate": 0.02, "lora_dropout": 0.0}


def test_a_run_learns_soft_labels_and_records_them(tmp_path: Path) -> None:
    train = pairs(8)
    folder = make_run(tmp_path, train, train, **TEXT, num_train_epochs=12, use_cpu=True, save_strategy="no")
    scores = tmp_path / "scores.jsonl"  # which say 4 of every question
    lines = [{"id": question.id, "scores": [0.0, 0.0, 0.0, 9.0]} for question in train]
    scores.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert run(folder, tmp_path / "a", "--soft_labels", str(scores), "--soft_label_weight", "1") == 0
    outcomes = (tmp_path / "a" / "validation_scores.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["prediction"] for line in outcomes] == [4] * 8
    noted = json.loads((tmp_path / "a" / RUN_FILE).read_text(encoding="utf-8"))
    assert noted["data"]["soft_labels"] == {"name": "scores.jsonl", "questions": 8, "sha256": digest(scores)}
    assert str(tmp_path) not in json.dumps(noted["data"])
    assert lrc("report", tmp_path / "a") == 0 and "scores.jsonl" in (tmp_path / "a" / "report.html").read_text("utf-8")


def digest(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--soft_labels", "SCORES", "--option_contrast", "0"], "soft_labels are a target of the contrast"),
        (["--soft_labels", "SCORES", "--soft_label_weight", "1.5"], "soft_label_weight is 1.5, expected 0 to 1"),
        (["--soft_labels", "none.jsonl"], "none.jsonl: No such file"),
        (["--soft_labels", "FEW"], "has no scores of 3 questions"),
    ],
)
def test_what_does_not_go_together_is_refused(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(tmp_path, QUESTIONS, **TEXT, use_cpu=True)
    names = {"SCORES": write_scores(tmp_path / "s.jsonl"), "FEW": write_scores(tmp_path / "few.jsonl", 3)}
    assert run(folder, tmp_path / "a", *[str(names.get(word, word)) for word in words]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_questions_that_only_their_passages_distinguish_are_refused(tmp_path: Path) -> None:
    """As in two files that both count from 1: each would be trained on the soft labels of the other one."""
    alike = [replace(QUESTIONS[0], id="1", passage=passage) for passage in ("甲文。", "乙文。")]
    files = [write_questions(tmp_path / f"{number}.json", [one]) for number, one in enumerate(alike)]
    scores = tmp_path / "s.jsonl"
    lines = [{"id": "1", "scores": [one, 0.0, 0.0, 0.0]} for one in (9.0, -9.0)]
    scores.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with pytest.raises(DataError, match="two training questions have the id 1, and differ in their passages only"):
        SoftLabels.read(scores, files, 0.5, 1.0)
    same = write_questions(tmp_path / "same.json", [alike[0]])
    assert len(SoftLabels.read(scores, [files[0], same], 0.5, 1.0).probabilities) == 1
