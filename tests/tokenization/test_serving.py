"""What a merged model's folder tells other programs, read back as they read it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from chat_templates import ADDED, GRANITE, LLAMA3, MISTRAL, PARTS, QWEN3, chatml
from small_models import save_adapter, save_base, save_tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from lrc.commands.merge import merge
from lrc.config.run_record import RUN_FILE, Run, lists_options
from lrc.data.alpaca import to_record
from lrc.data.questions import Question
from lrc.models.loading import load_tokenizer
from lrc.tokenization.prompt import Prompt
from lrc.tokenization.serving import chat_template, conversation

RECORD = to_record(Question("7", "貓在<think>睡覺\"。'\\n", "誰在睡？{{ x }}", ("狗", "貓", "魚", "鳥"), 2))
QWEN25 = "{{ '<|im_start|>system\nYou are {{Q}}.<|im_end|>\n' }}" + chatml()
OWN = {"qwen3": QWEN3, "llama3": LLAMA3, "qwen2.5": QWEN25, "mistral": MISTRAL, "parts": PARTS}
WAYS = [("chat", name, "digit") for name in OWN]
WAYS += [
    (template, own, style)
    for template in ("alpaca", "plain", "chinese-alpaca-2")
    for own in ("qwen3", "adds BOS")
    for style in ("digit", "digit_after", "text", "judge")
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("base") / "base", hidden_size=16)


def add_bos(tokenizer: Any) -> None:
    """Have a tokenizer begin every text with BOS, as Llama's does."""
    first = [("<s>", tokenizer.bos_token_id)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=first)


def make_adapter(base: Path, folder: Path, template: str, own: str, style: str) -> Path:
    """An adapter with a tokenizer of its own, and a run that says how it was asked."""
    save_adapter(folder, base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["<think>", "</think>"])
    # To lrc the marks of chinese-alpaca-2 are text, as they were to that base.
    added = [name for name in ADDED if "INST" not in name or template == "chat"]
    tokenizer.add_special_tokens({"additional_special_tokens": added})
    tokenizer.chat_template = OWN.get(own)
    if own == "adds BOS":
        add_bos(tokenizer)
    tokenizer.save_pretrained(folder)
    date = Prompt(tokenizer, template, style).today
    Run(template, style, lists_options(style, template), {"max_length": 512}, chat_date=date).write(folder / RUN_FILE)
    return folder


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with rows for all the tokens that the adapters bring."""
    from transformers import AutoModelForCausalLM

    folder = save_base(tmp_path_factory.mktemp("wide") / "base", hidden_size=16)
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(288)
    model.save_pretrained(folder)
    return folder


def modelfile(folder: Path) -> dict[str, list[str]]:
    """The instructions of a Modelfile, read by Ollama's rules: a word, and a text that may stand in quotation marks."""
    found: dict[str, list[str]] = {}
    text = (folder / "Modelfile").read_text(encoding="utf-8")
    pattern = re.compile(r'^([A-Z]+) (?:"""(.*?)"""|(.*?))$', flags=re.DOTALL | re.MULTILINE)
    for word, long, short in pattern.findall(text):
        found.setdefault(word, []).append(long or short)
    return found


def go(template: str, values: dict[str, str]) -> str:
    """A Go template without any control structure, rendered."""

    def value(match: re.Match[str]) -> str:
        return json.loads(match[1]) if match[1].startswith('"') else values[match[1]]

    return re.sub(r"\{\{ (\S+) \}\}", value, template)


@pytest.mark.parametrize(("template", "own", "style"), WAYS)
def test_other_programs_prompt_a_merged_model_as_lrc_does(
    wide: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], template: str, own: str, style: str
) -> None:
    adapter = make_adapter(wide, tmp_path / "adapter", template, own, style)
    merge(adapter, tmp_path / "merged", base_model=str(wide), verify=False)
    assert "by itself" not in capfd.readouterr().err
    asked = Prompt(load_tokenizer(str(adapter)), template, style)
    judged = 3 if style == "judge" else None
    expected = asked.prompt(RECORD, judged)
    served = AutoTokenizer.from_pretrained(tmp_path / "merged")
    messages = conversation(asked, RECORD, judged)
    # The text is text here, as lrc has it: a server may read control tokens out of it.
    served.chat_control_tokens = asked.control
    settings = {"return_dict": False, "sanitize_control_tokens": True}
    assert served.apply_chat_template(messages, add_generation_prompt=True, **settings) == expected

    settings_of = modelfile(tmp_path / "merged")
    values = {".System": (settings_of.get("SYSTEM") or [""])[0], ".Prompt": _text(messages[-1]["content"])}
    shown = go(settings_of["TEMPLATE"][0], values)
    bos = asked.tokenizer.bos_token if own == "adds BOS" else ""  # by Ollama, as by any program that tokenizes
    assert f"{bos}{shown}" == f"{bos}{asked.text(RECORD, judged)}"
    end = "<|im_end|>" if template == "chat" else "</s>"
    assert (
        f"stop {json.dumps({'llama3': '<|eot|>', 'mistral': '</s>'}.get(own, end) if template == 'chat' else end)}"
        in (settings_of["PARAMETER"])
    )
    assert "num_ctx 512" in settings_of["PARAMETER"] and "temperature 0" in settings_of["PARAMETER"]
    generation = json.loads((tmp_path / "merged" / "generation_config.json").read_text())["eos_token_id"]
    assert asked.end in (generation if isinstance(generation, list) else [generation])
    # lrc's own prompt of the merged model is that of the adapter.
    assert Prompt(load_tokenizer(str(tmp_path / "merged")), template, style).prompt(RECORD, judged) == expected


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def test_a_template_that_prints_the_date_is_reported(
    wide: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    OWN["granite"] = GRANITE
    adapter = make_adapter(wide, tmp_path / "adapter", "chat", "granite", "digit")
    merge(adapter, tmp_path / "merged", base_model=str(wide), verify=False)
    assert "chat template: by itself it makes another prompt than lrc" in capfd.readouterr().err


def test_without_a_run_the_tokenizer_stays_as_it_is(
    base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    adapter = save_adapter(tmp_path / "adapter", base)
    merge(adapter, tmp_path / "merged", verify=False)
    assert "gets no Modelfile" in capfd.readouterr().err
    assert not (tmp_path / "merged" / "Modelfile").exists()


def test_the_page_shows_the_prompt_of_lrc(tmp_path: Path) -> None:
    """docs/serving.md: its message and its prompt are lrc's, and a server's tokens of that prompt are lrc's, too."""
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
    (request,) = re.findall(r"```json\n(.*?)```", page, flags=re.DOTALL)
    (shown,) = re.findall(r"```text\n(.*?)\n```", page, flags=re.DOTALL)
    options = ("刮鱗", "賣菜", "下棋", "看報")
    passage = "清晨的市場裡，賣魚的老伯一邊刮鱗，一邊聊著昨夜的風雨。"
    record = to_record(Question("1", passage, "老伯在做什麼？", options))
    save_tokenizer(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    add_bos(tokenizer)
    prompt = Prompt(tokenizer, "chinese-alpaca-2", "digit")
    assert prompt.text(record) == shown
    assert conversation(prompt, record) == json.loads(request)["messages"]
    assert prompt.prompt(record) == tokenizer(shown)["input_ids"]
    tokenizer.chat_template = chat_template(prompt)
    messages = json.loads(request)["messages"]
    assert tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False) == prompt.prompt(
        record
    )
