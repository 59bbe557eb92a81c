"""Chat templates of many makes, with what is to become of each decided by hand."""

from __future__ import annotations

import copy
import pickle
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from chat_templates import (
    ADDED,
    ASK,
    EMPTY_THOUGHT_ONLY_WHEN_ASKED,
    GEMMA,
    GLM,
    GRANITE,
    LLAMA3,
    LOOP,
    MISTRAL,
    PARTS,
    QWEN3,
    chatml,
)
from small_models import save_tokenizer
from small_runs import pairs, write_questions
from transformers import AutoTokenizer
from transformers.utils import chat_template_utils

from lrc.data.alpaca import to_record
from lrc.data.questions import Question
from lrc.runtime.errors import DataError, RecipeError
from lrc.tokenization.chat_template import DATE, Chat
from lrc.tokenization.max_length import LengthPolicy
from lrc.tokenization.prompt import Prompt
from lrc.tokenization.token_dataset import read_corpus

RECORD = to_record(Question("7", "貓在睡覺。", "誰在睡？", ("狗", "貓", "魚", "鳥"), 2))
TEXT = f"{RECORD.instruction}\n{RECORD.input}"
# What the prompt is, by hand, and the token that ends the answer.
ACCEPTED = {
    "chatml": (chatml(), f"<|im_start|>user\n{TEXT}<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>"),
    "qwen3": (
        QWEN3,
        f"<|im_start|>user\n{TEXT}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
        "<|im_end|>",
    ),
    "an empty thought only when asked": (
        EMPTY_THOUGHT_ONLY_WHEN_ASKED,
        f"<|im_start|>user\n{TEXT}<|im_end|>\n<|im_start|>assistant\n<think></think>\n",
        "<|im_end|>",
    ),
    "llama3": (
        LLAMA3,
        "<s><|im_start|>system\n\nToday Date: 26 Jul 2024\n\n<|eot|>"
        f"<|im_start|>user\n\n{TEXT}<|eot|><|im_start|>assistant\n\n",
        "<|eot|>",
    ),
    "granite": (
        GRANITE,
        f"Today is July 26, 2024.\n<|im_start|>user\n{TEXT}<|im_end|>\n<|im_start|>assistant\n",
        "<|im_end|>",
    ),
    "gemma": (GEMMA, f"<s><start_of_turn>user\n{TEXT}<end_of_turn>\n<start_of_turn>model\n", "<end_of_turn>"),
    "mistral": (MISTRAL, f"<s>[INST] {TEXT} [/INST]", "</s>"),
    "glm, whose turns end where the next begins": (GLM, f"[INST]<|user|>\n{TEXT}<|im_start|>assistant\n", "<|user|>"),
    "a thought that is closed, in marks of its own": (
        chatml(ask=ASK.replace("assistant\n", "assistant\n◁think▷◁/think▷")),
        f"<|im_start|>user\n{TEXT}<|im_end|>\n<|im_start|>assistant\n◁think▷◁/think▷",
        "<|im_end|>",
    ),
    "a word that thinking is off": (
        chatml("m['content'] ~ ('<|no_think|>' if m['role'] == 'user' else '')"),
        f"<|im_start|>user\n{TEXT}<|no_think|><|im_end|>\n<|im_start|>assistant\n",
        "<|im_end|>",
    ),
    "parts": (PARTS, f"<|im_start|>user\n{TEXT}<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>"),
    "always leads up to an answer": (
        chatml(ask="{{ '<|im_start|>assistant\n' }}"),
        f"<|im_start|>user\n{TEXT}<|im_end|>\n<|im_start|>assistant\n",
        "<|im_end|>",
    ),
}
REFUSED = {
    "ignores add_generation_prompt": (chatml(ask=""), "ignores add_generation_prompt"),
    "drops the text": (chatml("'' if m['role'] == 'user' else m['content']"), "does not keep the text"),
    "cuts it": (chatml("m['content'][:2000]"), "does not keep the text"),
    "cuts its beginning": (chatml("m['content'][-30000:]"), "does not keep the text"),
    "takes one line": (chatml("m['content'].split('\n')[0]"), "does not keep the text"),
    "joins its lines": (chatml("m['content'] | replace('\n', ' ')"), "does not keep the text"),
    "collapses its spaces": (chatml("m['content'].split() | join(' ')"), "does not keep the text"),
    "lower-cases it": (chatml("m['content'] | lower"), "does not keep the text"),
    "escapes it": (chatml("m['content'] | tojson"), "does not keep the text"),
    "escapes HTML": (chatml("m['content'] | e"), "does not keep the text"),
    "reads another key": (chatml("m['text']"), "does not keep the text"),
    "lower-cases the answer": (
        chatml("m['content'] | lower if m['role'] == 'assistant' else m['content']"),
        "renders a prompt differently",
    ),
    "raises": ("{{ raise_exception('no\nuser') }}", r"cannot be rendered \(no\)"),
    "wants a system turn": (
        "{% if messages[0]['role'] != 'system' %}{{ raise_exception('give a system') }}{% endif %}" + chatml(),
        r"cannot be rendered \(give a system\)",
    ),
    "is no template": ("{% for m in messages %}", "cannot be rendered"),
    "divides by nothing": ("{{ 1 // 0 }}", "cannot be rendered"),
    "adds what does not go together": (chatml("m['content'] + 1"), "cannot be rendered"),
    "draws": ("{{ ['a', 'b'] | random }}" + chatml(), "differently each time"),
    "draws rarely": ("{{ range(50) | random }}" + chatml(), "differently each time"),
    "opens a thinking block": (
        chatml(ask=ASK.replace("assistant\n", "assistant\n<think>\n")),
        "opens a thinking block",
    ),
    "opens a thinking block in brackets": (
        chatml(ask=ASK.replace("assistant\n", "assistant\n[THINK]")),
        "opens a thinking block",
    ),
    **{
        f"opens and never closes {mark}": (
            "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}"
            + mark
            + "{% endif %}{{ m['content'] }}<|im_end|>\n{% endfor %}"
            + ASK.replace("assistant\n", f"assistant\n{mark}"),
            "opens a thinking block",
        )
        for mark in ("◁think▷", "<|START_THINKING|>", "<|reasoning|>", "<Thought>")
    },
    "breaks long lines": (chatml("m['content'] | wordwrap(80)"), "does not keep the text"),
    "takes other commas": (chatml("m['content'] | replace('，', ',')"), "does not keep the text"),
    "has another assistant": (chatml(ask=ASK.replace("assistant", "model")), "renders a prompt differently"),
    "ends by words": (chatml(loop=LOOP.replace("<|im_end|>", "</turn>")), "ends a turn with '</turn>'"),
    "ends by nothing": ("{% for m in messages %}{{ m['content'] }}\n{% endfor %}", "ends a turn with"),
    "ends by an unmarked token": (chatml(loop=LOOP.replace("<|im_end|>", "<|stop|>")), "does not mark as special"),
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    made = AutoTokenizer.from_pretrained(folder)
    made.add_special_tokens({"additional_special_tokens": ADDED})
    made.add_tokens(["<think>", "</think>", "<|stop|>"])
    return made


def with_template(tokenizer: Any, template: str) -> Any:
    made = copy.deepcopy(tokenizer)
    made.chat_template = template
    return made


@pytest.mark.parametrize("name", ACCEPTED)
def test_suitable_templates(tokenizer: Any, name: str) -> None:
    template, wanted, end = ACCEPTED[name]
    made = with_template(tokenizer, template)
    prompt = Prompt(made, "chat", "digit")
    ids = made(wanted, add_special_tokens=False)["input_ids"]
    assert prompt.prompt(RECORD) == ids
    assert prompt.text(RECORD) == wanted
    assert prompt.end == made.convert_tokens_to_ids(end)
    # transformers itself, asked for the same, by whatever name the content goes
    content = [{"type": "text", "text": TEXT}] if name == "parts" else TEXT
    turns = [{"role": "user", "content": content}]
    settings = {"return_dict": False, "enable_thinking": False}
    if name != "granite":  # which prints today
        asked = made.apply_chat_template(turns, add_generation_prompt=True, date_string="26 Jul 2024", **settings)
        assert ids == asked
    trained = prompt.sequence(RECORD).tokens.tolist()
    lead = " " if name == "mistral" else ""
    answer = [*made(f"{lead}2", add_special_tokens=False)["input_ids"], prompt.end]
    assert trained == [*ids, *answer]
    # What is scored is written as what is trained.
    options = RECORD.question.options
    for style, texts in (("digit", range(1, len(options) + 1)), ("text", options)):
        scored = [one.tokens[one.prompt_length :].tolist() for one in Prompt(made, "chat", style).candidates(RECORD)]
        assert scored == [made(f"{lead}{text}", add_special_tokens=False)["input_ids"] for text in texts]
    left_out = ("an empty thought only when asked", "a thought that is closed, in marks of its own")
    if name not in ("granite", "glm, whose turns end where the next begins", *left_out):
        turns.append({"role": "assistant", "content": [{"type": "text", "text": "2"}] if name == "parts" else "2"})
        whole = made.apply_chat_template(turns, date_string="26 Jul 2024", **settings)
        assert whole[: len(trained)] == trained


@pytest.mark.parametrize("name", REFUSED)
def test_unsuitable_templates_are_refused(tokenizer: Any, name: str) -> None:
    template, fault = REFUSED[name]
    with pytest.raises(RecipeError, match=f"^chat template: .*{fault}.*; choose template alpaca or plain") as refused:
        Prompt(with_template(tokenizer, template), "chat", "digit")
    assert len(refused.value.lines()) == 1


def test_a_template_is_checked_once_and_each_prompt_again(tokenizer: Any) -> None:
    cuts_thoughts = chatml("m['content'].split('</think>')[-1]")
    prompt = Prompt(with_template(tokenizer, cuts_thoughts), "chat", "digit")
    prompt.prompt(RECORD)
    for passage in ("甲</think>乙", "丙 </think>\n丁"):
        with pytest.raises(DataError, match="does not keep the question"):
            prompt.prompt(to_record(Question("7", passage, "誰？", ("狗", "貓"), 2)))
    raises = "{% if '禁' in messages[0]['content'] %}{{ raise_exception('never') }}{% endif %}" + chatml()
    with pytest.raises(DataError, match=r"cannot be rendered \(never\)"):
        Prompt(with_template(tokenizer, raises), "chat", "digit").prompt(
            to_record(Question("7", "禁", "誰？", ("a", "b"), 2))
        )


@pytest.mark.parametrize("template", [LLAMA3, GRANITE, "{{ strftime_now('%Y-%m-%d %H:%M') }}" + chatml()])
def test_no_prompt_depends_on_the_day(tokenizer: Any, template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def today(year: int) -> None:
        class Then(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> Any:
                return cls(year, 5, 17)

        monkeypatch.setattr(chat_template_utils, "datetime", Then)

    made, prompts = with_template(tokenizer, template), []
    for year in (1999, 2033):
        today(year)
        prompt = pickle.loads(pickle.dumps(Prompt(made, "chat", "digit")))  # noqa: S301, as it comes to a worker
        prompts.append(prompt.prompt(RECORD))
        assert prompt.today == DATE == "2024-07-26"
        assert any("prints a date, which is 2024-07-26" in note for note in prompt.notes)
    assert prompts[0] == prompts[1]
    other = Prompt(made, "chat", "digit", today="2025-12-01")  # what a run file says
    assert re.search("2025", other.text(RECORD)) and not re.search("2025", prompt.text(RECORD))


def test_tokens_are_cached_by_the_date(tokenizer: Any, tmp_path: Path) -> None:
    path, made = write_questions(tmp_path / "t.json", pairs(2)), with_template(tokenizer, GRANITE)

    def reused(today: str) -> bool:
        prompt = Prompt(made, "chat", "digit", today=today)
        return read_corpus(path, prompt, LengthPolicy(), stage="questions").reused

    assert [reused("2024-07-26"), reused("2024-07-26"), reused("2025-01-01")] == [False, True, False]


def test_decisions_about_the_template_are_reported(tokenizer: Any) -> None:
    assert "thinking is switched off" in Chat(with_template(tokenizer, QWEN3), []).notes[0]
    assert Chat(with_template(tokenizer, PARTS), []).notes == ["chat template: takes the content of a turn in parts"]
    assert Chat(with_template(tokenizer, chatml()), []).notes == []
    assert Prompt(with_template(tokenizer, chatml()), "plain", "digit").notes == []


def test_control_tokens_in_parts_stay_text(tokenizer: Any) -> None:
    made = with_template(tokenizer, PARTS)
    prompt = Prompt(made, "chat", "digit")
    control = to_record(Question("7", "甲<|im_end|>乙<think>", "誰？", ("狗", "貓"), 2))
    special = set(made.added_tokens_decoder) - {256, 257}
    mine = [i for i in prompt.prompt(control) if i in special]
    assert mine == [i for i in prompt.prompt(RECORD) if i in special]


def test_the_tokenizer_is_not_changed(tokenizer: Any) -> None:
    made = with_template(tokenizer, QWEN3)
    Prompt(made, "chat", "digit")
    assert made.chat_control_tokens is None and made.chat_template == QWEN3
