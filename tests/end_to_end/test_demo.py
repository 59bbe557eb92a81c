"""The stories of `lrc demo`, the base that was trained on them, and what is said of it. All of it: `make demo`."""

from __future__ import annotations

import json
import re
from collections import Counter
from importlib.resources import files as packaged
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from lrc.examples import outings
from transformers import AutoModelForCausalLM

from lrc import sft
from lrc.commands.demo import RECIPE, demo, describe_gain
from lrc.config.recipe import find_recipe
from lrc.data.alpaca import dump_records, to_record
from lrc.data.questions import Question
from lrc.metrics.baselines import BASELINES, credit
from lrc.models.loading import load_tokenizer
from lrc.runtime.errors import OutputError

BASE = Path(str(packaged("lrc.examples"))) / "demo_base"
LARGEST = 3_000_000  # bytes, of what a wheel carries for the demo


ONE_PERSON = [
    r"(..)沒有[去帶].+，而是[去帶]了(.+)",
    r"原本想[去帶].+的(..)，後來[去帶]了(.+)",
    r"(..)[去帶]了(.+)，沒有[去帶].+",
]


def solve(passage: str, question: str) -> set[str]:
    """All that the person of a question went to or took, from the text alone."""
    found: set[tuple[str, ...]] = set()
    for sentence in filter(None, passage.split("。")):
        if listed := re.fullmatch(r"(.+)分別[去帶]了(.+)", sentence):
            found |= set(zip(listed[1].split("、"), listed[2].split("、"), strict=True))
            continue
        (told,) = filter(None, (re.fullmatch(pattern, sentence) for pattern in ONE_PERSON))
        found.add(told.groups())
    return {what for who, what in found if question.startswith(who)}


@pytest.fixture(scope="module")
def asked() -> list[Question]:
    """Questions that neither the base nor the demo has seen."""
    found = outings.questions(77, 120)
    return [
        Question(str(number), one.passage, one.question, tuple(one.options), one.answer)
        for number, one in enumerate(found)
    ]


def test_each_question_has_one_answer_and_it_is_what_the_passage_tells(asked: list[Question]) -> None:
    assert len(asked) > 300
    for one in asked:
        assert one.answer and len(set(one.options)) == 4 and all(option in one.passage for option in one.options)
        assert solve(one.passage, one.question) == {one.options[one.answer - 1]}
    places = Counter(one.answer for one in asked)
    assert all(places[number] > len(asked) / 8 for number in range(1, 5))


def test_no_baseline_answers_them(asked: list[Question]) -> None:
    answers = [one.answer or 0 for one in asked]
    for name, choose in BASELINES.items():
        assert sum(credit(choose(asked), answers)) / len(asked) < 0.45, name


def test_no_passage_is_both_trained_on_and_in_the_test_workbook() -> None:
    labelled, test = ({one.passage for one in outings.questions(*made)} for made in outings.WORKBOOKS.values())
    assert len(labelled) > 200 and not labelled & test


def test_the_tokenizer_of_the_base_gives_back_what_it_read(asked: list[Question]) -> None:
    tokenizer = load_tokenizer(BASE)
    texts = [f"文章：{one.passage}\n問題：{one.question}\n答案：" for one in asked]
    for text in [*texts, "別的字，abc 123\n🙂"]:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == text
    assert {len(tokenizer(option)["input_ids"]) for one in asked for option in one.options} == {1}
    ids = tokenizer("<s>公園", add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert tokenizer.bos_token_id not in ids


def test_the_base_tells_again_what_a_new_passage_tells(asked: list[Question]) -> None:
    tokenizer, random, right = load_tokenizer(BASE), Random(78), []
    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32).eval()
    for _ in range(60):
        passage = outings.write_passage(random)
        for fact in passage.facts:
            ids = [tokenizer.bos_token_id, *tokenizer(f"{passage.text}\n{fact.stated}")["input_ids"]]
            with torch.inference_mode():
                told = tokenizer.decode(model(torch.tensor([ids])).logits[0, -1].argmax())
            right.append({told} == solve(passage.text, fact.stated))
    assert sum(right) / len(right) > 0.9
    assert sum(file.stat().st_size for file in BASE.iterdir()) < LARGEST


def test_the_recipe_lowers_the_loss_of_the_base_in_a_few_steps(asked: list[Question], tmp_path: Path) -> None:
    data, output = tmp_path / "t.json", tmp_path / "run"
    data.write_text("".join(dump_records([to_record(one) for one in asked[:96]])), encoding="utf-8")
    given: dict[str, Any] = {
        "model_name_or_path": BASE,
        "train_file": data,
        "validation_file": "null",
        "output_dir": output,
        "max_steps": 6,
        "logging_steps": 1,
    }
    sft.main(["--config", str(find_recipe(RECIPE)), *(str(word) for key in given for word in (f"--{key}", given[key]))])
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 6 and losses[-1] < 0.7 * losses[0]


def test_the_summary_has_both_accuracies_the_best_baseline_and_the_verdict() -> None:
    before = {"accuracy": 0.25, "ci_low": 0.2, "ci_high": 0.3, "n": 150, "passages": 50, "n_effective": 120}
    after: dict[str, Any] = before | {"accuracy": 0.9, "ci_low": 0.85, "ci_high": 0.95}
    after["baselines"] = {"sliding window": before | {"accuracy": 0.31}, "majority": before}
    after["best_baseline"] = {"paired": {"difference": 0.59, "p_value": 1e-9}}
    lines = describe_gain(before, after).splitlines()
    assert [line.split()[-2:] for line in lines[:5] if "%" in line] == [
        ["25.0%", "(20.0–30.0)"],
        ["90.0%", "(85.0–95.0)"],
        ["31.0%", "(20.0–30.0)"],
    ]
    assert "150" in lines[1] and lines[4].startswith("baseline, sliding window  ")
    assert "59.0 points above the best baseline (sliding window)" in "".join(lines[5:])


@pytest.mark.parametrize("mine", ["workbooks/mine.xlsx", "base/adapter/notes.txt"])
def test_force_removes_nothing_that_a_demo_does_not_write(mine: str, tmp_path: Path) -> None:
    (tmp_path / mine).parent.mkdir(parents=True)
    (tmp_path / mine).write_text("mine")
    with pytest.raises(OutputError, match=f"holds {Path(mine).parts[1]}, which would be removed with it"):
        demo(tmp_path, force=True)
    assert (tmp_path / mine).read_text() == "mine"
