"""The contrast: options in a packed row are compared as they would be one by one, and learnt to be chosen."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from one_step import Step, assert_same, config, gradients, tree_step, tree_trainer
from small_models import adapted, make_model
from small_runs import lrc, make_run, pairs, run
from token_trees import VOCABULARY, sequence

from lrc.data.questions import Question
from lrc.metrics.predictions import OUTCOMES_FILE
from lrc.packing.tree import TokenSequence, pack
from lrc.training.contrastive_loss import Objective, Option
from lrc.training.trainer import Packing

TEMPERATURE = 0.5


def contrast(counts: tuple[int, ...] = (4, 3, 4, 2, 4)) -> list[list[TokenSequence]]:
    """A question for each count: its right answer with an end, and so many options; two questions share a prompt."""
    random = np.random.default_rng(5)

    def tokens(count: int) -> list[int]:
        return random.integers(3, VOCABULARY, count).tolist()

    passage, made = tokens(40), []
    prompts = [passage + tokens(5) for _ in counts]
    prompts[1] = prompts[0]
    for place, (count, prompt) in enumerate(zip(counts, prompts, strict=True)):
        right = place % count
        texts = [tokens(2 + k) for k in range(count)]
        options = [
            Option(sequence(prompt, text).tokens, len(prompt), (place, 0), 1.5 + len(text), k == right)
            for k, text in enumerate(texts)
        ]
        made.append([sequence(prompt, [*texts[right], 1]), *options])
    return made


def separate(model: Any, questions: list[list[TokenSequence]], part: float) -> Step:
    """The two parts of the loss from their definitions, each sequence in a forward of its own."""
    model.train()

    def log_prob(one: TokenSequence) -> torch.Tensor:
        logits = model(input_ids=torch.from_numpy(one.tokens)[None], use_cache=False).logits[0].float()
        wanted = torch.from_numpy(one.tokens[one.prompt_length :])
        return logits[one.prompt_length - 1 : -1].log_softmax(-1).gather(1, wanted[:, None]).sum()

    words = sum(len(first.tokens) - first.prompt_length for first, *_ in questions)
    total = torch.zeros(())
    for first, *options in questions:
        scores = torch.stack([log_prob(one) / one.length / TEMPERATURE for one in options])
        right = next(k for k, one in enumerate(options) if one.right)
        total = total - (1 - part) * log_prob(first) / words
        total = total - part * scores.log_softmax(0)[right] / len(questions)
    total.backward()
    return float(total.detach()), gradients(model)


@pytest.mark.parametrize("row_tokens", [4096, 20], ids=["one row", "a row a prompt"])
@pytest.mark.parametrize("part", [0.4, 1.0])
@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_loss_and_gradients_are_those_of_separate_options(
    family: str, part: float, row_tokens: int, tmp_path: Path
) -> None:
    questions = contrast()
    trainer = tree_trainer(
        adapted(make_model(family)),
        [first for first, *_ in questions],
        [0] * len(questions),
        config(tmp_path, per_device_train_batch_size=len(questions)),
        source=lambda key: questions[key[0]],
        objective=Objective(part, TEMPERATURE),
        packing=Packing(row_tokens=row_tokens),
    )
    assert_same(tree_step(trainer), separate(adapted(make_model(family)), questions, part))


def test_the_options_of_a_prompt_are_never_parted() -> None:
    sequences = [one for question in contrast() for one in question]
    rows = pack(sequences, 1)
    homes: dict[bytes, set[int]] = {}
    for number, row in enumerate(rows):
        for owner in row.owners.tolist():
            one = sequences[owner]
            homes.setdefault(one.tokens[: one.prompt_length].tobytes(), set()).add(number)
    assert len(homes) == len(rows) == 4
    assert all(len(numbers) == 1 for numbers in homes.values())


def accuracy(folder: Path) -> float:
    """Of a run, on its validation questions."""
    outcomes = [json.loads(line) for line in (folder / OUTCOMES_FILE).read_text(encoding="utf-8").splitlines()]
    return sum(one["prediction"] == one["answer"] for one in outcomes) / len(outcomes)


TEXT = {"template": "plain", "answer_style": "text", "lora_r": 8, "learning_rate": 0.02, "lora_dropout": 0.0}


def test_a_run_learns_to_choose(tmp_path: Path) -> None:
    train = [replace(question, answer=3) for question in pairs(12, range(1, 4))]
    keys = {"num_train_epochs": 12, "option_contrast": 1.0, "score_normalisation": "token", "use_cpu": True}
    folder = make_run(tmp_path, train, train, **TEXT, **keys, save_strategy="no", eval_strategy="no")
    assert run(folder, tmp_path / "before", "--max_steps", "1", "--learning_rate", "1e-30") == 0
    assert accuracy(tmp_path / "before") < 0.5
    assert run(folder, tmp_path / "a") == 0
    assert accuracy(tmp_path / "a") == 1.0


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (["--option_contrast", "1.5"], "option_contrast is 1.5, expected 0 to 1"),
        (["--option_contrast", "0.5", "--answer_style", "digit", "--template", "alpaca"], "set answer_style: text"),
        (["--option_contrast", "0.5", "--contrast_temperature", "0"], "contrast_temperature is 0.0, expected more"),
        (["--option_contrast", "0.5", "--tree_packing", "false"], "tree_packing is false; set it to 0"),
    ],
)
def test_what_does_not_go_together_is_refused(
    override: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(tmp_path, pairs(4), **TEXT, use_cpu=True)
    assert run(folder, tmp_path / "a", *override) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def alone(question: Question) -> Question:
    """The question with its right option as the only one that can be chosen."""
    assert question.answer
    return replace(
        question, options=tuple("" if k + 1 != question.answer else o for k, o in enumerate(question.options))
    )


def test_questions_with_nothing_to_compare_are_named_or_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions = pairs(4)
    keys = {**TEXT, "use_cpu": True, "max_steps": 1, "save_strategy": "no", "option_contrast": 1.0}
    some = make_run(tmp_path / "some", [alone(questions[0]), *questions[1:]], **keys)
    assert run(some, tmp_path / "a") == 0
    told = capsys.readouterr().err
    assert "1 question has fewer than two options to choose from" in told and f": {questions[0].id}\n" in told
    assert run(some, tmp_path / "b", "--option_contrast", "0.5") == 0
    assert "fewer than two" not in capsys.readouterr().err

    none = make_run(tmp_path / "none", [alone(question) for question in questions], **keys)
    assert run(none, tmp_path / "c") == 1
    assert "no question has two options to choose from" in capsys.readouterr().err
    asked = make_run(tmp_path / "asked", questions, [alone(question) for question in questions], **keys)
    assert run(asked, tmp_path / "d") == 1
    assert "t_validation.json: none of the 4 questions to evaluate on has two options" in capsys.readouterr().err
    idle = [
        alone(replace(question, passage=f"{number}{question.passage}")) for number, question in enumerate(questions)
    ]
    drawn = make_run(tmp_path / "drawn", questions, [*idle, questions[0]], **keys)
    assert run(drawn, tmp_path / "e", "--eval_questions", "1") == 1
    told = capsys.readouterr().err
    assert "that eval_questions takes has two options" in told and "raise eval_questions" in told
    assert not any((tmp_path / name).exists() for name in "cde")
    words = ["--validation_file", "null", "-n", "0", "--output_dir", tmp_path / "c"]
    assert lrc("preview", none / "recipe.yaml", *words) == 1  # as the training does
    assert "no question has two options to choose from" in capsys.readouterr().err
