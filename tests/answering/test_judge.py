"""Judge style: each option in a prompt of its own, 是 against 否, compared with plain forwards of texts made here."""

from __future__ import annotations

import json
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from one_step import Step, assert_same, config, gradients, tree_step, tree_trainer
from small_models import adapted, make_model, save_tokenizer
from small_runs import lrc, make_run, pairs, run, write_questions
from transformers import AutoTokenizer

from lrc.answering.scoring import Scorer
from lrc.config.run_record import RUN_FILE
from lrc.data.alpaca import Record, to_record
from lrc.data.questions import Question
from lrc.metrics.predictions import OUTCOMES_FILE
from lrc.packing.last_layer import prune_last_layer
from lrc.packing.tree import pack
from lrc.runtime.errors import RecipeError
from lrc.tokenization.prompt import Prompt, reordered
from lrc.tokenization.token_dataset import tokenize
from lrc.training.contrastive_loss import Objective, Option
from lrc.training.dataloader import SequenceSource
from lrc.training.trainer import Packing

CPU = torch.device("cpu")
BYTES = {"vocab_size": 260}
CHAT = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
OPTIONS = (
    ("甲", "乙丙", "丁", "戊己庚"),
    ("1", "2"),
    ("子", "", "丑", ""),
    ("一\n行", "甲乙", "甲"),
    ("同", "同", "異"),
)


def records(count: int = 10) -> list[Record]:
    """Two questions a passage; among them blank options, equal ones, one that begins another, and a line break."""
    asked = []
    for i in range(count):
        options = OPTIONS[i % len(OPTIONS)]
        answer = [k for k, option in enumerate(options, start=1) if option][i % 2]
        asked.append(Question(str(i), f"第{i // 2}章。" * (1 + i % 4 // 2), f"問{i}", options, answer))
    return [to_record(question) for question in asked]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    made = AutoTokenizer.from_pretrained(folder)
    made.chat_template = CHAT
    return made


def written(record: Record, option: str, template: str = "plain", listed: bool = False) -> list[int]:
    """The ids of one option's prompt, written out by hand: a token is a byte, numbered as GPT-2's alphabet sorts."""
    question = record.question
    lines = [question.passage, f"問題：{question.question}"]
    if listed:
        lines += [f"{k}: {one}".replace("\n", " ") for k, one in enumerate(question.options, start=1)]
    body = "\n".join([*lines, f"答案：{option}".replace("\n", " "), "這個答案正確嗎？"])
    instruction = "請根據以下輸入回答選擇題:\n"
    if template == "plain":
        return ids_of(f"文章：{body}答：")
    if template == "chat":
        return [*ids_of(f"<|user|>{instruction}\n{body}請回答是或否。"), 257, *ids_of("<|assistant|>")]
    before = (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n### Instruction:\n"
    )
    return ids_of(f"{before}{instruction}\n\n### Input:\n{body}請回答是或否。\n\n### Response:\n")


def ids_of(text: str) -> list[int]:
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]  # bytes that stand for themselves as characters
    hidden = [byte for byte in range(256) if byte not in shown]
    characters = {byte: byte for byte in shown} | {byte: 256 + k for k, byte in enumerate(hidden)}
    places = {byte: place for place, byte in enumerate(sorted(characters, key=characters.__getitem__))}
    return [places[byte] for byte in text.encode()]


YES, NO = ids_of("是")[0], ids_of("否")[0]  # where a token is a byte, the first byte is what tells them apart


def verdicts(model: Any, record: Record, *asking: Any) -> list[torch.Tensor]:
    """log p(是) and log p(否) of each option that has text, each in a forward of its own."""
    found = []
    for option in filter(None, record.question.options):
        ids = torch.tensor([written(record, option, *asking)])
        found.append(model(input_ids=ids, use_cache=False).logits[0, -1].log_softmax(-1)[[YES, NO]])
    return found


@pytest.mark.parametrize("listed", [False, True], ids=["unlisted", "listed"])
@pytest.mark.parametrize("template", ["plain", "alpaca", "chat"])
@pytest.mark.parametrize("family", ["llama", "gemma3", "qwen3-window"])
def test_scores_are_the_log_odds_of_separate_forwards(tokenizer: Any, family: str, template: str, listed: bool) -> None:
    model, asked = make_model(family, **BYTES).eval(), records()
    with torch.inference_mode():
        odds = [[(yes - no).item() for yes, no in verdicts(model, record, template, listed)] for record in asked]
    prune_last_layer(model)
    found = Scorer(model, Prompt(tokenizer, template, "judge", listed), CPU, row_tokens=700)(asked)
    for record, score, wanted in zip(asked, found, odds, strict=True):
        has_text = [bool(option) for option in record.question.options]
        log_probs = np.full(len(has_text), -np.inf)
        log_probs[has_text] = np.array(wanted) - np.logaddexp.reduce(wanted)
        assert np.array(score.likelihoods)[has_text] == pytest.approx(wanted, abs=1e-5)
        assert score.log_probs == pytest.approx(log_probs.tolist(), abs=1e-5)
        assert score.prediction == int(np.argmax(log_probs)) + 1


def separate_step(model: Any, asked: list[Record], part: float, temperature: float) -> Step:
    """Both parts of the loss from their definitions: listwise over log-odds, and the verdict on every option."""
    model.train()
    listwise, pointwise = [], []
    for record in asked:
        numbers = [k for k, option in enumerate(record.question.options, start=1) if option]
        right, found = numbers.index(record.question.answer), verdicts(model, record)
        odds = torch.stack([yes - no for yes, no in found])
        listwise.append(-(odds / temperature).log_softmax(0)[right])
        pointwise += [-(yes if k == right else no) for k, (yes, no) in enumerate(found)]
    total = part * torch.stack(listwise).mean() + (1 - part) * torch.stack(pointwise).mean()
    total.backward()
    return float(total.detach()), gradients(model)


@pytest.mark.parametrize("row_tokens", [4096, 60], ids=["one row", "a row a question"])
@pytest.mark.parametrize("part", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_loss_and_gradients_are_those_of_separate_options(
    tokenizer: Any, family: str, part: float, row_tokens: int, tmp_path: Path
) -> None:
    asked, prompt = records(), Prompt(tokenizer, "plain", "judge")
    contrasted = "character" if part else None
    draw = SequenceSource(tokenize(asked, prompt, stage="t"), asked, prompt, 1, 0, contrasted, supervised=part < 1)
    trainer = tree_trainer(
        adapted(make_model(family, **BYTES)),
        [prompt.sequence(record) for record in asked],
        [0] * len(asked),
        config(tmp_path, per_device_train_batch_size=len(asked)),
        source=draw,
        objective=Objective(part, 0.5),
        packing=Packing(row_tokens=row_tokens),
    )
    # The reference is in float64. What options have in common gets gradients that nearly cancel: hence the tolerance.
    loss, wanted = separate_step(adapted(make_model(family, **BYTES)).double(), asked, part, 0.5)
    assert_same(tree_step(trainer), (loss, {name: one.float() for name, one in wanted.items()}), 3e-5)


def test_the_options_of_a_question_are_never_parted(tokenizer: Any) -> None:
    asked, prompt = records(), Prompt(tokenizer, "plain", "judge")
    draw = SequenceSource(tokenize(asked, prompt, stage="t"), asked, prompt, 1, 0, "character", supervised=False)
    sequences = [one for place in range(len(asked)) for one in draw((place, 0))]
    assert all(isinstance(one, Option) for one in sequences)
    rows = pack(sequences, 1)
    assert len(rows) == len(asked)
    for row in rows:
        assert len({sequences[owner].question_key for owner in row.owners.tolist()}) == 1
        # A row holds what its options have in common once, and asks the head at one position an option's text.
        texts = {sequences[owner].inputs.tobytes() for owner in row.owners.tolist()}
        assert len(row.heads) == len(texts)


def test_the_order_of_the_options_is_nothing_to_it(tokenizer: Any) -> None:
    model = make_model("gemma3", **BYTES).eval()
    scorer, record = Scorer(model, Prompt(tokenizer, "plain", "judge"), CPU), records()[0]
    (score,), (turned,) = scorer([record]), scorer([reordered(record, (2, 0, 3, 1))])
    assert [turned.log_probs[k] for k in (1, 3, 0, 2)] == pytest.approx(list(score.log_probs), abs=1e-6)
    with pytest.raises(RecipeError, match="--votes is 4, but this model's prompt lists no options"):
        Scorer(model, Prompt(tokenizer, "plain", "judge"), CPU, votes=4)


def test_answers_while_training_are_scored_as_they_are_imitated(tokenizer: Any) -> None:
    model, asked = make_model("llama", **BYTES).eval(), records(5)
    scores = Scorer(model, Prompt(tokenizer, "plain", "judge"), CPU, with_answers=True)(asked)
    for record, score in zip(asked, scores, strict=True):
        numbers = [k for k, option in enumerate(record.question.options, start=1) if option]
        with torch.inference_mode():
            found = zip(numbers, verdicts(model, record), strict=True)
            wanted = sum((yes if k == record.question.answer else no).item() for k, (yes, no) in found)
        assert score.answer_log_prob == pytest.approx(wanted, abs=1e-4)


class Alike:
    """A tokenizer to which every character that it has not seen is one and the same token."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __getattr__(self, name: str) -> Any:
        if name == "tokenizer":  # while it is copied
            raise AttributeError(name)
        return getattr(self.tokenizer, name)

    def __call__(self, text: str, **settings: Any) -> Any:
        return {"input_ids": [0] * len(text)}


def test_a_tokenizer_that_writes_both_verdicts_alike_is_refused(tokenizer: Any) -> None:
    with pytest.raises(RecipeError, match="writes 是 and 否 alike; use text"):
        Prompt(Alike(tokenizer), "plain", "judge")


def test_a_verdict_follows_what_a_conversation_has_before_its_answers(tokenizer: Any) -> None:
    spaced = copy(tokenizer)
    spaced.chat_template = (
        "{% for m in messages %}{% if m.role == 'user' %}<|user|>{{ m.content }}<|assistant|>"
        "{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"
    )
    (record,) = records(1)
    asked = Prompt(spaced, "chat", "judge")
    for one, option in zip(asked.candidates(record), record.question.options, strict=True):
        prompt = ids_of(f"<|user|>請根據以下輸入回答選擇題:\n\n{record.question.passage}\n問題：問0\n答案：{option}\n")
        prompt += ids_of("這個答案正確嗎？請回答是或否。<|assistant|>")
        (right, wrong), shared = (ids_of(f" {verdict}") for verdict in "是否"), 0
        while right[shared] == wrong[shared]:
            shared += 1
        assert one.tokens.tolist() == [*prompt, *right[: shared + 1]]
        assert asked.negate(one).tokens.tolist() == [*prompt, *wrong[: shared + 1]]


def test_only_what_differs_between_the_verdicts_is_scored(tokenizer: Any) -> None:
    """As with sentencepiece, which writes a ▁ before both: it belongs to the prompt."""

    class Marked(Alike):
        def __call__(self, text: str, **settings: Any) -> Any:
            ids = self.tokenizer(text, **settings)["input_ids"]
            return {"input_ids": [32, *ids] if text in ("是", "否") else ids}

    record = records()[0]
    one = Prompt(Marked(tokenizer), "plain", "judge").candidates(record)[0]
    assert one.prompt_length == len(one.tokens) - 1
    assert one.tokens.tolist() == [*written(record, "甲"), 32, YES]


JUDGE = {"template": "plain", "answer_style": "judge", "lora_r": 8, "learning_rate": 0.02, "lora_dropout": 0.0}


def test_a_run_learns_to_choose_and_every_verb_asks_as_it_was_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = [replace(question, answer=3) for question in pairs(12, range(1, 4))]
    keys = {"num_train_epochs": 12, "use_cpu": True, "save_strategy": "no", "eval_strategy": "no"}
    folder = make_run(tmp_path, train, train, **JUDGE, **keys)
    assert run(folder, tmp_path / "before", "--max_steps", "1", "--learning_rate", "1e-30") == 0
    assert run(folder, tmp_path / "a") == 0
    before, after = (read_outcomes(tmp_path / name) for name in ("before", "a"))
    assert accuracy(before) < 0.5 and accuracy(after) == 1.0
    noted = json.loads((tmp_path / "a" / RUN_FILE).read_text(encoding="utf-8"))
    assert (noted["answer_style"], noted["list_options"]) == ("judge", False)

    data = write_questions(tmp_path / "asked.json", train)
    assert lrc("merge", "--adapter", tmp_path / "a", "--output-dir", tmp_path / "merged") == 0
    for model in (["--model", folder / "base", "--adapter", tmp_path / "a"], ["--model", tmp_path / "merged"]):
        scores = tmp_path / f"{len(model)}.jsonl"
        assert (
            lrc("generate", *model, "--data", data, "--output", tmp_path / f"{len(model)}.csv", "--scores", scores) == 0
        )
        lines = [json.loads(line) for line in scores.read_text(encoding="utf-8").splitlines()]
        for line, outcome in zip(lines, after, strict=True):
            assert line["scores"] == pytest.approx(outcome["scores"], abs=1e-4)
    capsys.readouterr()
    flags = ["--adapter", tmp_path / "a", "--data", data, "--score-normalisation", "token"]
    assert lrc("evaluate", "--model", folder / "base", *flags) == 1
    assert "--score-normalisation is token, but verdicts are scored as they are" in capsys.readouterr().err
    assert lrc("publish", "--adapter", tmp_path / "a", "--repo-id", "a/b", "--dry-run") == 0
    assert "judge" in capsys.readouterr().out


def read_outcomes(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / OUTCOMES_FILE).read_text(encoding="utf-8").splitlines()]


def accuracy(outcomes: list[dict[str, Any]]) -> float:
    return sum(one["prediction"] == one["answer"] for one in outcomes) / len(outcomes)


def test_preview_shows_every_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run(tmp_path, pairs(4), **JUDGE, use_cpu=True)
    assert lrc("preview", folder / "recipe.yaml", "-n", "1", "--json", "--output_dir", tmp_path / "a") == 0
    document = json.loads(capsys.readouterr().out)
    shown = document["tokens"]["examples"]
    verdict, *others = [one["ids"][-1] for one in shown]
    assert len(others) == 3 and len(set(others)) == 1 and verdict not in others
    assert [sum(one["mask"]) for one in shown] == [1, 1, 1, 1]
    assert document["prompt"] == {"template": "plain", "answer_style": "judge", "list_options": False}
    assert document["tokens"]["supervised_tokens"] > 0
