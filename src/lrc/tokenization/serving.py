"""Lets other programs prompt a merged model as lrc does: writes a chat template, and a Modelfile for Ollama."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any, NamedTuple

from lrc.config.run_record import Run
from lrc.data.alpaca import Record, to_record
from lrc.data.questions import Question
from lrc.runtime.errors import RecipeError
from lrc.runtime.translation import _
from lrc.tokenization.prompt import TEMPLATES, Prompt

CHAT_TEMPLATE, MODELFILE = "chat_template.jinja", "Modelfile"
TOKENIZER_CONFIG, GENERATION_CONFIG = "tokenizer_config.json", "generation_config.json"
MARK = "\ue000lrc\ue000"  # takes the place of the user's message; private use characters, which no template contains
CONTENT = "{instruction}\n{input}"  # of the user's message, in templates without a system message for the instruction
DEFAULT_SYSTEM = {
    "chinese-alpaca-2": "You are a helpful assistant. 你是一个乐于助人的助手。",
    "alpaca": "{instruction}",
}
CONTEXT = 4096  # tokens, if the recipe has no max_length
# An upper limit; the end token comes long before.
ANSWER_TOKENS = {"digit": 16, "digit_after": 16, "judge": 16, "text": 256}
# The variables with which lrc renders a chat template, as defaults for the template itself.
SETTINGS = {
    "enable_thinking": lambda prompt: "false",
    "date_string": lambda prompt: json.dumps(prompt.chat.today.strftime("%d %b %Y")),
}


class PromptFrame(NamedTuple):
    """The fixed parts of a prompt: `before`, system message, `between`, user's message, `after`."""

    before: str
    system: str  # the default system message; empty if the template has none
    between: str
    after: str


def write_for_servers(folder: Path, prompt: Prompt, run: Run) -> None:
    """Write chat template and Modelfile into a merged model's folder, and add the end token to its generation config.

    Args:
        folder: holds the tokenizer, and may hold a generation_config.json.
        prompt: the prompt of the run, with the folder's tokenizer.
        run: for the length of its questions.

    Raises:
        RecipeError: the prompt cannot be written into a Modelfile; then nothing is written.
    """
    texts = {CHAT_TEMPLATE: chat_template(prompt), MODELFILE: modelfile(prompt, run)}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    _edit_json(folder / TOKENIZER_CONFIG, lambda settings: settings.pop("chat_template", None))
    _edit_json(folder / GENERATION_CONFIG, lambda settings: _add_eos(settings, prompt.end))


def _edit_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Edit a JSON file, if it exists; it is only written if something changes."""
    if not path.is_file():
        return
    settings = json.loads(path.read_text(encoding="utf-8"))
    before = json.dumps(settings)
    change(settings)
    if json.dumps(settings) != before:
        path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _add_eos(settings: dict[str, Any], end: int) -> None:
    """Add the token that ends lrc's answers to the EOS tokens, which a base may lack."""
    known = settings.get("eos_token_id")
    ends = known if isinstance(known, list) else [] if known is None else [known]
    if end not in ends:
        settings["eos_token_id"] = [*ends, end]


def conversation(prompt: Prompt, record: Record, judged: int | None = None) -> list[dict[str, Any]]:
    """The messages that `chat_template` renders as lrc's prompt.

    Args:
        judged: in style judge, the number of the option that the prompt asks about.
    """
    instruction, body = prompt.texts(record, judged)
    if prompt.template == "alpaca":
        return [{"role": "system", "content": instruction}, {"role": "user", "content": body}]
    text = body if prompt.template == "plain" else CONTENT.format_map({"instruction": instruction, "input": body})
    return [{"role": "user", "content": prompt.chat.turn(text) if prompt.chat else text}]


def chat_template(prompt: Prompt) -> str:
    """A Jinja chat template that renders `conversation` as lrc's prompt, with the answer as the assistant's turn.

    For `template: chat` it is the tokenizer's own, with thinking off and the date of the run as defaults.
    """
    if prompt.chat is not None:
        own: str = prompt.chat.tokenizer.get_chat_template()
        return (
            "".join(
                f"{{%- if {name} is not defined %}}{{%- set {name} = {value(prompt)} %}}{{%- endif %}}"
                for name, value in SETTINGS.items()
                if name in own
            )
            + own
        )
    parts = _split_prompt(prompt)
    # A tokenizer may not mark its control tokens; `prompt` then finds them by these comments.
    control = "".join(f"{{#- {name} -#}}" for name in prompt.control if "#}" not in name)
    bos = "{{- bos_token -}}" if prompt.bos else ""
    return (
        f"{control}{bos}"
        f"{{%- set said = namespace(system={_quote(parts.system)}) -%}}"
        "{%- for message in messages -%}"
        "{%- if message['role'] == 'system' -%}{%- set said.system = message['content'] -%}"
        "{%- elif message['role'] == 'user' -%}"
        f"{{{{- {_quote(parts.before)} + said.system + {_quote(parts.between)} }}}}"
        f"{{{{- message['content'] + {_quote(parts.after)} -}}}}"
        "{%- else -%}{{- message['content'] + eos_token -}}{%- endif -%}"
        "{%- endfor -%}"
    )


def modelfile(prompt: Prompt, run: Run) -> str:
    """A Modelfile for Ollama: the prompt as a Go template, the stop token, and greedy decoding. Ollama adds the BOS."""
    parts = _split_prompt(prompt)
    system = "{{ .System }}" if parts.system else ""
    template = (
        f"{_escape_go(parts.before)}{system}{_escape_go(parts.between)}{{{{ .Prompt }}}}{_escape_go(parts.after)}"
    )
    lines = [
        "# For Ollama, in this folder: ollama create NAME -f Modelfile",
        "# After a conversion to GGUF write the file's name behind FROM.",
        "FROM .",
        f'TEMPLATE """{template}"""',
        *([f'SYSTEM """{parts.system}"""'] if parts.system else []),
        f"PARAMETER stop {json.dumps(end_token(prompt), ensure_ascii=False)}",
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1",
        f"PARAMETER num_predict {ANSWER_TOKENS[prompt.answer_style]}",
        f"PARAMETER num_ctx {run.recipe.get('max_length') or CONTEXT}",
    ]
    return "\n".join(lines) + "\n"


def end_token(prompt: Prompt) -> str:
    """The text of the token that ends an answer."""
    return str(prompt.tokenizer.convert_ids_to_tokens(prompt.end))


def differs(tokenizer: Any, prompt: Prompt) -> bool:
    """Whether a tokenizer with the result of `chat_template` gives other ids for a question than lrc's prompt."""
    record = to_record(Question("1", "貓在睡覺。", "誰在睡？", ("狗", "貓", "魚", "鳥"), 2))
    judged = 1 if prompt.answer_style == "judge" else None
    # Changed, so that it is compiled again: lrc has changed the date in the one that transformers keeps.
    other = copy(tokenizer)
    other.chat_template = f"{tokenizer.get_chat_template()}{{# #}}"
    try:
        ids = other.apply_chat_template(
            conversation(prompt, record, judged), add_generation_prompt=True, return_dict=False
        )
    except Exception:  # a template may raise anything
        return True
    return list(ids) != prompt.prompt(record, judged)


def _split_prompt(prompt: Prompt) -> PromptFrame:
    if prompt.chat is not None:
        before, _, after = prompt.chat.text(MARK).partition(MARK)
        return PromptFrame(
            before.removeprefix(prompt.tokenizer.bos_token or "") if prompt.bos else before, "", "", after
        )
    head, _, after = TEMPLATES[prompt.template].replace(CONTENT, "{input}").partition("{input}")
    system = DEFAULT_SYSTEM.get(prompt.template, "")
    before, _, between = head.partition(system) if system else (head, "", "")
    record = to_record(Question("1", "", "", ("", ""), 1))
    judged = 1 if prompt.answer_style == "judge" else None
    return PromptFrame(before, system.replace("{instruction}", prompt.texts(record, judged)[0]), between, after)


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _escape_go(text: str) -> str:
    """Escape text for a Go template between the triple quotes of a Modelfile.

    Raises:
        RecipeError: it contains triple quotes.
    """
    if '"""' in text:
        raise RecipeError(_('the prompt holds """, which a Modelfile cannot'))
    return text.replace("{{", '{{ "{{" }}')
