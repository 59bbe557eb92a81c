"""The model card: what was trained on what, how accurate it is, and how to use it."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from importlib.resources import files as packaged
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import Environment, StrictUndefined

from lrc import DISTRIBUTION
from lrc.config.run_record import DIGIT_STYLES, Run, read_run
from lrc.data.alpaca import to_record
from lrc.data.questions import Question
from lrc.metrics.predictions import OUTCOMES_FILE, read_outcomes
from lrc.metrics.verdict import describe_size
from lrc.models.fingerprint import TOKENIZER_FILES
from lrc.models.loading import load_tokenizer, tokenizer_backend
from lrc.models.weights import ADAPTER_CONFIG
from lrc.reporting.scrub import is_local, scrub, scrub_recipe
from lrc.reporting.summary import validation_figures
from lrc.runtime.errors import LrcError, ModelError
from lrc.runtime.json_objects import read_json
from lrc.runtime.translation import _
from lrc.tokenization.prompt import VERDICTS, Prompt

CARD = "README.md"
COMMIT = re.compile(r"[0-9a-f]{40}")
HUB = "https://huggingface.co"
TAGS = ["lrc", "lora", "sft", "trl", "multiple-choice", "reading-comprehension"]
SAMPLE = Question("1", "小明買了三枝筆和一本書。", "小明買了幾枝筆？", ("一枝", "兩枝", "三枝", "四枝"))
_PARTS = Question("1", "\ue001", "\ue002", ("\ue003", "\ue004"))  # placeholders that can be found in a prompt


def write_card(folder: Path, name: str, run: Run, prompt: Prompt) -> None:
    """Write a card into the folder of a model, in place of PEFT's template.

    Args:
        folder: of the model.
        name: of the model.
        run: that trained it, as far as it is known by now.
        prompt: of the training.
    """
    (folder / CARD).write_text(str(model_card(folder, name, run, prompt)), encoding="utf-8")


def model_card(folder: Path, repo_id: str, run: Run | None = None, prompt: Prompt | None = None) -> ModelCard:
    """Make the card of an adapter or a merged model.

    Args:
        folder: of the model, with the files that training left in it.
        repo_id: its name on the Hub, or that of its folder.
        run: that trained it; None reads it from the folder.
        prompt: of the training; None reads it from the folder.

    Returns:
        The card, parsed by huggingface_hub; its `model-index` has the accuracy on the validation questions, if any.

    Raises:
        ModelError: the folder's files cannot be read.
    """
    run, adapter = run or read_run(folder), adapter_settings(folder)
    base, on_hub = base_name(run, adapter)
    results = _results(folder, run)
    data = ModelCardData(
        base_model=base if on_hub else None,
        library_name="peft" if adapter else "transformers",
        license="other",  # Hub metadata for a licence that it does not list
        license_name="as-the-base-model",
        license_link=f"{HUB}/{base}" if base and on_hub else None,
        language="zh",
        language_bcp47=[f"zh-{run.launch['script']}"] if run and "script" in run.launch else None,
        pipeline_tag="text-generation",
        tags=TAGS,
        datasets=_hub_datasets(run),
        model_name=repo_id.rpartition("/")[2],
        eval_results=[_eval_result(results)] if results else None,
    )
    prompt = prompt or _prompt(folder, run)
    code = _sample(repo_id, base or "BASE_MODEL", run, prompt, adapter=bool(adapter))
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
    environment.globals["fence"] = _fence
    environment.filters |= {"cell": _cell, "size": describe_size, "share": lambda value: f"{value:.4f}"}
    published = "/" in repo_id
    place, of = "model" if published else shlex.quote(repo_id), shlex.quote(base or "BASE_MODEL")
    text = environment.from_string(packaged(__package__).joinpath("card.md").read_text(encoding="utf-8")).render(
        metadata=data.to_yaml().strip(),
        name=repo_id.rpartition("/")[2],
        repo_id=repo_id,
        what_answers=_what_answers(adapter, f"[{base}]({HUB}/{base})" if base and on_hub else base),
        base=base,
        distribution=DISTRIBUTION,
        launch=scrub(run.launch) if run else {},
        rendered=_render(prompt) if run and prompt else "",
        results=results,
        run=run,
        recipe=scrub_recipe(run) if run else {},
        published=published,
        flags=f"--model {of} --adapter {place}" if adapter else f"--model {place}",
        code=code,
    )
    return ModelCard(text.rstrip() + "\n")


def adapter_settings(folder: Path) -> dict[str, Any]:
    """The configuration of an adapter; empty for a merged model.

    Raises:
        ModelError: it is damaged, or names no method.
    """
    path = folder / ADAPTER_CONFIG
    settings = read_json(path) if path.is_file() else None
    if settings is not None and not settings.get("peft_type"):
        reason = _("{name} is missing").format(name="peft_type")
        text = _("{path}: not an adapter's configuration ({reason}); copy it again, or train again")
        raise ModelError(text.format(path=path, reason=reason))
    return settings or {}


def base_name(run: Run | None, adapter: dict[str, Any]) -> tuple[str | None, bool]:
    """The base model's name without any local path, and whether it is a name on the Hub."""
    recorded = run.base if run else {}
    if name := recorded.get("name"):
        # For a folder, its last part and the recipe's revision are recorded; for a model on the Hub, always a commit.
        return str(name), "/" in name or COMMIT.fullmatch(str(recorded.get("revision"))) is not None
    name = adapter.get("base_model_name_or_path")
    return (scrub(name, "name_or_path"), not is_local(name)) if name else (None, False)


def _hub_datasets(run: Run | None) -> list[str] | None:
    name = run.recipe.get("dataset_name") if run else None
    return [name] if name and not is_local(name) else None


def _results(folder: Path, run: Run | None) -> dict[str, Any] | None:
    """The figures on the validation questions; None without any."""
    if run is None:
        return None
    figures = _figures(folder, run)
    if not figures:
        return None
    data: dict[str, Any] = next((part for role, part in run.data.items() if "validation" in role), {})
    sums = [part.get("sha256") for part in run.data.values()]
    name, checksum = data.get("name", "validation"), data.get("sha256")
    return {"name": name, "sha256": checksum, "trained_on": sums.count(checksum) > 1, **figures}


def _figures(folder: Path, run: Run) -> dict[str, Any]:
    """The figures that the run recorded; older releases' intervals are not by passage, so these are computed again."""
    if "verdict" in run.validation:
        return run.validation
    return validation_figures(read_outcomes(folder / OUTCOMES_FILE)) or run.validation


def _eval_result(results: dict[str, Any]) -> EvalResult:
    low, high = round(results["ci_low"], 4), round(results["ci_high"], 4)
    baseline = {"baseline": results["baseline"], "baseline_accuracy": round(results["baseline_accuracy"], 4)}
    # Not as a revision, since the file is in no repository.
    checksum = {"sha256": results["sha256"]} if results["sha256"] else {}
    return EvalResult(
        task_type="multiple-choice",
        task_name="Reading comprehension",
        dataset_type=Path(results["name"]).stem,
        dataset_name=results["name"],
        dataset_split="validation",
        metric_type="accuracy",
        metric_value=round(results["accuracy"], 4),
        metric_args={"questions": results["n"], "ci_low": low, "ci_high": high, **baseline, **checksum},
    )


def _what_answers(adapter: dict[str, Any], base: str | None) -> str:
    """The beginning of the sentence that says what the model is."""
    if not adapter:
        return f"A model made from {base or 'a base'} that answers"
    rank = f" of rank {adapter['r']}" if adapter.get("r") else ""
    return f"A LoRA adapter{rank} that makes {base or 'its base'} answer"


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _sample(repo_id: str, base: str, run: Run | None, prompt: Prompt | None, *, adapter: bool) -> str:
    """Python code that scores the options of a question with transformers only, with the token ids of training.

    Empty if the prompt of the training is not known, or the tokenizer by itself does not give those ids.
    """
    if run is None or prompt is None or (ids := _ids_expression(prompt)) is None:
        return ""
    model = f"AutoModelForCausalLM.from_pretrained({_quote(base if adapter else repo_id)})"
    tokenizer = "AutoTokenizer" if tokenizer_backend(prompt.tokenizer) == "tokenizers" else "SentencePieceBackend"
    scoring = (
        _write_judging(prompt, ids)
        if prompt.answer_style == "judge"
        else _write_scoring(prompt, ids, run.score_normalisation)
    )
    lines = [
        "import torch",
        *(["from peft import PeftModel"] if adapter else []),
        f"from transformers import AutoModelForCausalLM, {tokenizer}",
        "",
        f"tokenizer = {tokenizer}.from_pretrained({_quote(repo_id)})",
        f"model = PeftModel.from_pretrained({model}, {_quote(repo_id)})" if adapter else f"model = {model}",
        "model.eval()",
        f"passage, question = {_quote(SAMPLE.passage)}, {_quote(SAMPLE.question)}",
        f"options = {json.dumps(SAMPLE.options, ensure_ascii=False)}",
        *([_write_list(prompt)] if prompt.list_options else []),
        *scoring,
        "answer = 1 + scores.index(max(scores))",
        "print(answer, options[answer - 1])",
    ]
    return "\n".join(lines)


def _write_list(prompt: Prompt) -> str:
    """Python code for the list of options in the prompt."""
    line = "{option}＝{number}" if prompt.answer_style == "digit_after" else "{number}: {option}"
    return f'listed = "\\n".join(f"{line}" for number, option in enumerate(options, start=1))'


def _write_judging(prompt: Prompt, ids: str) -> list[str]:
    """Python code for the log-odds of each option's being right, each in a prompt of its own."""
    (*start, right), wrong = prompt.verdicts[0], prompt.verdicts[1][-1]
    tail = f" + {start}" if start else ""
    return [
        "",
        "",
        "def score(option):",
        f"    prompt = f{_quote(_pattern(prompt))}",
        f"    ids = {ids.format('prompt')}{tail}",
        "    with torch.no_grad():",
        "        logits = model(input_ids=torch.tensor([ids])).logits[0, -1].float()",
        f"    return (logits[{right}] - logits[{wrong}]).item()  # {VERDICTS[0]} against {VERDICTS[1]}",
        "",
        "",
        "scores = [score(option) for option in options]",
    ]


def _write_scoring(prompt: Prompt, ids: str, normalisation: str) -> list[str]:
    """Python code for the log-likelihood of each option after the same prompt."""
    digit = prompt.answer_style in DIGIT_STYLES
    divisor = "" if digit else {"character": " / len(answer)", "token": " / len(tail)"}.get(normalisation, "")
    answer = f'f"{prompt.lead}{{answer}}"' if prompt.lead else "answer"
    return [
        f"prompt = f{_quote(_pattern(prompt))}",
        f"ids = {ids.format('prompt')}",
        "",
        "",
        "def score(answer):",
        f"    tail = {_ENCODED[_splits(prompt)].format(answer)}",
        "    with torch.no_grad():",
        "        logits = model(input_ids=torch.tensor([ids + tail])).logits[0, len(ids) - 1 : -1]",
        f"    return logits.float().log_softmax(-1)[range(len(tail)), tail].sum().item(){divisor}",
        "",
        "",
        "scores = [score(str(number)) for number in range(1, len(options) + 1)]"
        if digit
        else "scores = [score(option) for option in options]",
    ]


_ENCODED = {
    False: 'tokenizer({}, add_special_tokens=False)["input_ids"]',
    True: 'tokenizer({}, add_special_tokens=False, split_special_tokens=True)["input_ids"]',
}


def _prompt(folder: Path, run: Run | None) -> Prompt | None:
    """The prompt of the training, from the files of the folder; None if it has no run file or no tokenizer."""
    if run is None or not any((folder / name).is_file() for name in TOKENIZER_FILES):
        return None
    try:
        return Prompt(load_tokenizer(str(folder)), run.template, run.answer_style, run.list_options, run.chat_date)
    except LrcError:  # lrc cannot use the model either, and will say why
        return None


def _render(prompt: Prompt) -> str:
    """The text of a sample question as the model sees it, followed by the answer that it learns to write."""
    record = to_record(replace(SAMPLE, answer=3))
    judged = _choose_judged(prompt)
    text = prompt.text(record, judged)
    if judged is not None:
        return f"{text}{prompt.lead}{VERDICTS[1]}"  # it is about the first option, which is wrong
    answer = "3" if prompt.answer_style in DIGIT_STYLES else SAMPLE.options[2]
    return f"{text}{prompt.lead}{answer}"


def _fence(text: str) -> str:
    """A code fence that does not occur in the text."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    return "`" * max(3, longest + 1)


def _choose_judged(prompt: Prompt) -> int | None:
    """In judge style, the option about which the prompt asks; otherwise None."""
    return 1 if prompt.answer_style == "judge" else None


def _pattern(prompt: Prompt) -> str:
    """The prompt as the content of an f-string."""
    text = prompt.text(to_record(_PARTS), _choose_judged(prompt)).replace("{", "{{").replace("}", "}}")
    listed = "\ue003＝1\n\ue004＝2" if prompt.answer_style == "digit_after" else "1: \ue003\n2: \ue004"
    parts = {listed: "{listed}", "\ue001": "{passage}", "\ue002": "{question}", "\ue003": "{option}"}
    for part, name in parts.items():
        text = text.replace(part, name)
    return text


def _splits(prompt: Prompt) -> bool:
    """Whether control tokens in the text count as plain text; in a chat template they do not."""
    return prompt.template != "chat"


def _ids_expression(prompt: Prompt) -> str | None:
    """Python code for the ids of a prompt, with `{}` for its text; None if it does not give those of the training."""
    record, judged, tokenizer = to_record(SAMPLE), _choose_judged(prompt), prompt.tokenizer
    splits = {"split_special_tokens": True} if _splits(prompt) else {}
    found = tokenizer(prompt.text(record, judged), add_special_tokens=False, **splits)["input_ids"]
    bos = {"": [], "[tokenizer.bos_token_id] + ": [tokenizer.bos_token_id]}
    wanted = prompt.prompt(record, judged)
    start = next((start for start, ids in bos.items() if [*ids, *found] == wanted), None)
    return None if start is None else f"{start}{_ENCODED[_splits(prompt)]}"


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
