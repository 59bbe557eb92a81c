"""The card's numbers are those of the questions that were scored, and its Python asks as training did."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from small_runs import lrc, make_run, run, write_questions
from transformers import AutoTokenizer

from lrc.commands.merge import merge
from lrc.config.run_record import Run
from lrc.data.alpaca import to_record
from lrc.data.questions import Question
from lrc.metrics.accuracy import accuracy
from lrc.models.loading import load_tokenizer
from lrc.reporting.model_card import SAMPLE, model_card
from lrc.tokenization.prompt import Prompt

OPTIONS = ("甲乙丙丁戊己庚", "甲", "12 34", "在台北工作的小明")
QUESTIONS = [
    Question(str(i), f"第{i // 2}章。小明在台北工作。", f"誰？{i}", OPTIONS[i % 4 :] + OPTIONS[: i % 4], i * 7 % 4 + 1)
    for i in range(12)
]
LONG = [Question("long", "很長。" * 200, "誰？", OPTIONS, 1)]
CHAT = (
    "{{ bos_token }}{{ strftime_now('%Y-%m-%d') }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
KINDS: dict[str, tuple[str, ...]] = {
    "chinese-alpaca-2": ("--answer_style", "digit", "--template", "chinese-alpaca-2"),
    "alpaca": ("--answer_style", "text", "--template", "alpaca", "--score_normalisation", "token"),
    "plain": ("--answer_style", "text", "--template", "plain", "--score_normalisation", "auto"),
    "chat": ("--answer_style", "digit", "--template", "chat"),
    "digit_after": ("--answer_style", "digit_after", "--template", "plain"),
    "judge": ("--answer_style", "judge", "--template", "alpaca"),
    "judge-chat": ("--answer_style", "judge", "--template", "chat", "--list_options", "true"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_run(
        tmp_path_factory.mktemp("card"),
        QUESTIONS,
        [*QUESTIONS, *LONG],
        lora_target_modules=["q_proj", "down_proj"],
        max_steps=2,
        learning_rate=3.0e-3,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        max_length=400,
        on_too_long="skip",
    )
    tokenizer = AutoTokenizer.from_pretrained(made / "base")

    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(made / "base")
    return made


@pytest.fixture(scope="module", params=KINDS)
def trained(request: pytest.FixtureRequest, folder: Path) -> Path:
    assert run(folder, folder / request.param, *KINDS[request.param]) == 0
    return folder / request.param


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_numbers_are_those_of_the_questions_that_were_scored(trained: Path, tmp_path: Path) -> None:
    scored = lines(trained / "validation_scores.jsonl")
    right = sum(line["prediction"] == line["answer"] for line in scored)
    assert len(scored) == 12  # the long one was left out
    merge(trained, tmp_path / "merged")
    for place in (trained, tmp_path / "merged"):
        card = ModelCard(str(model_card(place, f"someone/{place.name}")))
        (result,) = card.data.eval_results
        assert result.metric_value == round(right / 12, 4)
        assert result.metric_args["questions"] == 12
        assert result.metric_args["baseline"] in ("majority", "longest option", "bigram overlap", "sliding window")
        figures = accuracy(
            [line["prediction"] for line in scored], [line["answer"] for line in scored], [i // 2 for i in range(12)]
        )
        low, high = figures["ci_low"], figures["ci_high"]
        assert f"| {low:.4f} to {high:.4f} |" in card.text
        assert f"{right / 0.12:.1f}% (" in card.text.partition("## Results")[2]  # the verdict
        assert "n = 12 in 6 passages" in card.text
        assert f"t_validation.json, 12 | {right / 12:.4f} |" in card.text
        assert "pip install lora-reading-comprehension\n" in card.text and "pip install lrc" not in card.text
        assert "\n\n## Use\n\n" in card.text and "what was trained on" not in card.text
        assert "The passages of 12 of these questions were trained on, too, so this accuracy may be" in card.text
        assert card.data.language == "zh" and card.data.license == "other"


def test_of_a_run_that_was_validated_on_its_training_file_the_card_says_so(tmp_path: Path) -> None:
    recorded = Run("plain", "text", False, finished=True, step=2)
    one, same, other = ({"name": name, "sha256": name[0], "questions": 2} for name in ("a.json", "a2.json", "b.json"))
    figures = {**accuracy([1, 2], [1, 1], "ab"), "baseline": "majority", "baseline_accuracy": 1.0, "verdict": "50%"}
    whole = replace(recorded, data={"train_file": one, "validation_file": same}, validation=figures)
    assert "The validation file is what was trained on" in str(model_card(tmp_path, "someone/a", run=whole))
    # A release that did not count shared passages says nothing of them.
    apart = replace(recorded, data={"train_file": one, "validation_file": other}, validation=figures)
    text = str(model_card(tmp_path, "someone/a", run=apart))
    assert "trained on" not in text.partition("## Results")[2].partition("## Training")[0]


def test_the_folder_and_its_checkpoints_hold_that_card_and_not_pefts(trained: Path) -> None:
    card = (trained / "README.md").read_text(encoding="utf-8")
    assert ModelCard(card).data.eval_results[0].metric_args["questions"] == 12
    for place in (trained, trained / "checkpoint-1", trained / "checkpoint-2"):
        text = (place / "README.md").read_text(encoding="utf-8")
        assert "More Information Needed" not in text and str(trained.parent) not in text
        assert ModelCard(text).data.library_name == "peft"
        assert "trained with\nlrc (`lora-reading-comprehension`)." in text


def test_it_shows_the_prompt_the_command_the_hardware_and_the_day(trained: Path, folder: Path) -> None:
    text = (trained / "README.md").read_text(encoding="utf-8")  # that of the adapter's own folder
    (prompt,) = re.findall(r"```text\n(.*?)\n```", text, re.DOTALL)
    # What training saw of the same question, read back from its ids.
    record = to_record(replace(SAMPLE, answer=3))
    recorded = json.loads((trained / "lrc_run.json").read_text(encoding="utf-8"))
    asked = Prompt(
        load_tokenizer(str(trained)), recorded["template"], recorded["answer_style"], recorded["list_options"]
    )
    sequence = asked.supervised_sequences(record)[0]
    whole = asked.tokenizer.decode([int(token) for token in sequence.tokens])
    squeezed = "".join(prompt.split())
    # Without the answer: of a verdict only the tokens up to the first that differs are trained, half a character maybe.
    assert squeezed[-60:-2] in "".join(whole.split())
    assert ("否" if "judge" in trained.name else "3" if "digit" in recorded["answer_style"] else "三枝") in prompt[-4:]
    launch = recorded["launch"]
    assert launch["date"] in text and launch["hardware"] in text and launch["command"] in text
    assert launch["command"].startswith(f"lrc train recipe.yaml --output_dir {trained.name} --answer_style ")
    assert str(folder) not in text and launch["script"] == "Hant"
    data = ModelCard(text).data
    assert data.language == "zh" and data.language_bcp47 == ["zh-Hant"]


def test_its_python_asks_as_training_did(trained: Path, folder: Path, tmp_path: Path, capsys: Any) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", str(model_card(trained, "someone/adapter")), re.DOTALL)
    code = code.replace('"someone/adapter"', repr(str(trained))).replace('"base"', repr(str(folder / "base")))
    data = write_questions(tmp_path / "questions.json", [SAMPLE])
    words = ["generate", "--model", folder / "base", "--adapter", trained, "--data", data]
    assert lrc(*words, "--output", tmp_path / "a.csv", "--scores", tmp_path / "scores.jsonl") == 0
    (wanted,) = lines(tmp_path / "scores.jsonl")
    capsys.readouterr()
    found: dict[str, Any] = {}
    exec(code, found)
    answer = wanted["prediction"]
    assert capsys.readouterr().out == f"{answer} {SAMPLE.options[answer - 1]}\n"
    assert found["answer"] == answer
    # The scores are lrc's but for a number that they share, which normalising over the options takes away.
    gaps = [ours - theirs for ours, theirs in zip(found["scores"], wanted["scores"], strict=True)]
    assert gaps == pytest.approx([gaps[0]] * 4, abs=1e-4)
    assert "2024-07-26" in code or "chat" not in trained.name


def test_the_merged_models_python_runs_too(folder: Path, tmp_path: Path, capsys: Any) -> None:
    trained = folder / "chinese-alpaca-2"
    if not (trained / "adapter_config.json").is_file():
        assert run(folder, trained, *KINDS["chinese-alpaca-2"]) == 0
    merge(trained, tmp_path / "merged")
    card = str(model_card(tmp_path / "merged", "someone/merged"))
    assert re.search(r"^A model made from \S+ that answers Chinese multiple-choice", card, re.MULTILINE)
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    capsys.readouterr()
    exec(code.replace('"someone/merged"', repr(str(tmp_path / "merged"))), {})
    assert capsys.readouterr().out.split()[1] in SAMPLE.options
