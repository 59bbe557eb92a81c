"""What other programs need to ask a merged model as lrc asks it: a chat template, and a Modelfile for Ollama."""

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
MARK = "\ue000lrc\ue000"  # stands for the user's message; of the private use area, so that no template holds it
CONTENT = "{instruction}\n{input}"  # of the user's message, where the template has no other place for the instruction
DEFAULT_SYSTEM = {
    "chinese-alpaca-2": "You are a helpful assistant. 你是一个乐于助人的助手。",
    "alpaca": "{instruction}",
}
CONTEXT = 4096  # tokens, where the run does not say how long its questions were
ANSWER_TOKENS = {"digit": 16, "judge": 16, "text": 256}  # at most; the end token comes long before
# How lrc renders a chat template, as what the template itself sets where a server says nothing else.
SETTINGS = {
    "enable_thinking": lambda prompt: "false",
    "date_string": lambda prompt: json.dumps(prompt.chat.today.strftime("%d %b %Y")),
}


class PromptFrame(NamedTuple):
    """A prompt around what a user sends: `before`, the system message, `between`, the user's message, `after`."""

    before: str
    system: str  # by default
    between: str
    after: str


def write_for_servers(folder: Path, prompt: Prompt, run: Run) -> None:
    """Put chat template, Modelfile and the end of an answer into a merged model's folder.

    Args:
        folder: with tokenizer and generation_config.json, where there is one.
        prompt: of the folder's tokenizer, as the run asks.

    Raises:
        RecipeError: the prompt cannot be written into a Modelfile; nothing is written then.
    """
    texts = {CHAT_TEMPLATE: chat_template(prompt), MODELFILE: modelfile(prompt, run)}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    _edit_json(folder / TOKENIZER_CONFIG, lambda settings: settings.pop("chat_template", None))
    _edit_json(folder / GENERATION_CONFIG, lambda settings: _end_with(settings, prompt.end))


def _edit_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a JSON file where it is there; its bytes stay where nothing differs."""
    if not path.is_file():
        return
    settings = json.loads(path.read_text(encoding="utf-8"))
    before = json.dumps(settings)
    change(settings)
    if json.dumps(settings) != before:
        path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _end_with(settings: dict[str, Any], end: int) -> None:
    """Have generation end where lrc's answers end, which a base may not do."""
    known = settings.get("eos_token_id")
    ends = known if isinstance(known, list) else [] if known is None else [known]
    if end not in ends:
        settings["eos_token_id"] = [*ends, end]


def conversation(prompt: Prompt, record: Record, judged: int | None = None) -> list[dict[str, Any]]:
    """The messages that `chat_template` renders as lrc's prompt.

    Args:
        judged: in judge style, the number of the option that is asked about.
    """
    instruction, body = prompt.texts(record, judged)
    if prompt.template == "alpaca":
        return [{"role": "system", "content": instruction}, {"role": "user", "content": body}]
    text = body if prompt.template == "plain" else CONTENT.format_map({"instruction": instruction, "input": body})
    return [{"role": "user", "content": prompt.chat.turn(text) if prompt.chat else text}]


def chat_template(prompt: Prompt) -> str:
    """A chat template (Jinja) that renders `conversation` as lrc's prompt, with the answer as the next turn.

    Of a run with `template: chat` it is the tokenizer's own, with thinking off and the date of the run as defaults.
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
    # By these comments a tokenizer that does not mark its control tokens still tells lrc which they are.
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
    """A Modelfile for Ollama: the same prompt as a Go template, where an answer ends, and greedy decoding.

    Ollama itself puts the BOS there.
    """
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
    """The token that ends an answer, as it is written."""
    return str(prompt.tokenizer.convert_ids_to_tokens(prompt.end))


def differs(tokenizer: Any, prompt: Prompt) -> bool:
    """Whether a tokenizer with `chat_template` makes other ids of a question than lrc does."""
    record = to_record(Question("1", "貓在睡覺。", "誰在睡？", ("狗", "貓", "魚", "鳥"), 2))
    judged = 1 if prompt.answer_style == "judge" else None
    # Another text, so that it is compiled anew: lrc changes the date in the one that transformers keeps.
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
    """Text as it is in a Go template, and between the three quotation marks of a Modelfile.

    Raises:
        RecipeError: it holds three quotation marks.
    """
    if '"""' in text:
        raise RecipeError(_('the prompt holds """, which a Modelfile cannot'))
    return text.replace("{{", '{{ "{{" }}')
