"""The model card: what was trained on what, how well it answers, and how to use it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from lrc.errors import ModelError
from lrc.fingerprint import read_json
from lrc.metrics import wilson
from lrc.outcomes import OUTCOMES_FILE, read_outcomes
from lrc.run import METRICS_FILE, Run, read_run
from lrc.scrub import is_local, scrub
from lrc.verdict import judge
from lrc.weights import ADAPTER_CONFIG

COMMIT = re.compile(r"[0-9a-f]{40}")
TAGS = ["lrc", "lora", "sft", "trl", "multiple-choice", "reading-comprehension"]
LIMITS = """- It chooses among given options; it does not explain, and does not say that no option is right.
- Accuracy on one set of questions says little about another. Where the right option often stands word for
  word in the passage, counting shared characters alone answers many: compare with such a baseline.
- What the base model has learnt, its mistakes and leanings included, is still there; its licence applies."""

REMOTE_CODE = (
    "Trained with `trust_remote_code: true`: code that came with the base model ran in training. lrc itself answers, "
    "merges and evaluates without such code."
)


def model_card(folder: Path, repo_id: str) -> ModelCard:
    """Write the card of an adapter or a merged model.

    Args:
        folder: holds the model, and what training left beside it.
        repo_id: the name it will have on the Hub.

    Returns:
        a card that huggingface_hub has parsed; its `model-index` holds the last `eval_accuracy`, if any.

    Raises:
        ModelError: the folder's files cannot be read.
    """
    run = read_run(folder)
    adapter = adapter_settings(folder)
    base, on_hub = base_name(run, adapter)
    result = _eval_result(folder, run)
    data = ModelCardData(
        base_model=base if on_hub else None,
        library_name="peft" if adapter else "transformers",
        license="other",  # Hub metadata for a licence that it does not list
        license_name="as-the-base-model",
        language="zh",
        pipeline_tag="text-generation",
        tags=TAGS,
        datasets=_hub_datasets(run),
        model_name=repo_id.rpartition("/")[2],
        eval_results=[result] if result else None,
    )
    sections = (
        _introduction(repo_id, base, adapter),
        _results(result, folder),
        _training(run),
        _use(repo_id, base, adapter),
        f"## Limits\n\n{LIMITS}",
    )
    body = "\n\n".join(section for section in sections if section)
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n")


def adapter_settings(folder: Path) -> dict[str, Any]:
    """The configuration of an adapter; empty for a merged model.

    Raises:
        ModelError: it is damaged.
    """
    path = folder / ADAPTER_CONFIG
    try:
        return read_json(path) if path.is_file() else {}
    except ValueError as error:
        raise ModelError(f"{path}: not an adapter's configuration ({error})") from error


def base_name(run: Run | None, adapter: dict[str, Any]) -> tuple[str | None, bool]:
    """The base model's name without any local path, and whether the Hub knows it."""
    recorded = run.base if run else {}
    if name := recorded.get("name"):
        # Of a folder its last part is recorded, and the revision that the recipe names; of the Hub always a commit.
        return str(name), "/" in name or COMMIT.fullmatch(str(recorded.get("revision"))) is not None
    name = adapter.get("base_model_name_or_path")
    return (scrub(name, "name_or_path"), not is_local(name)) if name else (None, False)


def _hub_datasets(run: Run | None) -> list[str] | None:
    name = run.recipe.get("dataset_name") if run else None
    return [name] if name and not is_local(name) else None


def _eval_result(folder: Path, run: Run | None) -> EvalResult | None:
    last = _last_evaluation(folder / METRICS_FILE)
    data = next((part for role, part in run.data.items() if "validation" in role), None) if run else None
    if last is None or not data:
        return None
    n, accuracy = int(data["questions"]), float(last["eval_accuracy"])
    low, high = wilson(round(accuracy * n), n)  # where the log has no interval, which is by passage
    return EvalResult(
        task_type="multiple-choice",
        task_name="Reading comprehension",
        dataset_type=Path(data["name"]).stem,
        dataset_name=data["name"],
        dataset_split="validation",
        dataset_revision=data["sha256"],
        metric_type="accuracy",
        metric_value=round(accuracy, 4),
        metric_args={
            "questions": n,
            "ci_low": round(last.get("eval_ci_low", low), 4),
            "ci_high": round(last.get("eval_ci_high", high), 4),
        },
    )


def _last_evaluation(path: Path) -> dict[str, float] | None:
    if not path.is_file():
        return None
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        found = [line for line in lines if "eval_accuracy" in line]
    except (ValueError, TypeError) as error:
        raise ModelError(f"{path}: not JSON lines ({error}); remove the file, or restore it") from error
    return found[-1] if found else None


def _introduction(repo_id: str, base: str | None, adapter: dict[str, Any]) -> str:
    kind = "A LoRA adapter" if adapter else "A merged model"
    rank = f" of rank {adapter['r']}" if adapter.get("r") else ""
    return (
        f"# {repo_id.rpartition('/')[2]}\n\n{kind}{rank} that makes {base or 'its base'} answer Chinese "
        "multiple-choice reading comprehension, trained with lrc."
    )


def _results(result: EvalResult | None, folder: Path) -> str:
    """The verdict on the answers that training left in the folder, and the table."""
    if result is None:
        return ""
    args, outcomes = result.metric_args or {}, read_outcomes(folder / OUTCOMES_FILE)
    table = _table(
        "" if outcomes else "Results",
        ("questions", "accuracy", "95% interval"),
        [
            (
                f"{result.dataset_name}, {args['questions']}",
                result.metric_value,
                f"{args['ci_low']} to {args['ci_high']}",
            )
        ],
    )
    if not outcomes:
        return table
    verdict = judge([outcome.question for outcome in outcomes], [outcome.prediction for outcome in outcomes])
    return f"## Results\n\n{verdict}; the questions of a passage count as one cluster in intervals.\n\n{table}"


def _training(run: Run | None) -> str:
    if run is None:
        return "## Training\n\nNothing was recorded beside this model about its training."
    data = [(role, part["name"], part["questions"], f"`{part['sha256']}`") for role, part in run.data.items()]
    style = {"template": run.template, "answer_style": run.answer_style, "list_options": run.list_options}
    recipe = {**style, **scrub(run.recipe)}
    if "model_name_or_path" in recipe and run.base.get("name"):
        recipe["model_name_or_path"] = run.base["name"]
    return "\n\n".join(
        (
            "## Training",
            _table("", ("data (not published)", "file", "questions", "sha256"), data),
            _table("", ("recipe", "value"), [(f"`{key}`", f"`{recipe[key]}`") for key in sorted(recipe)]),
            *([REMOTE_CODE] if recipe.get("trust_remote_code") else []),
            "Versions: " + ", ".join(f"{name} {version}" for name, version in sorted(run.versions.items())),
        )
    )


def _use(repo_id: str, base: str | None, adapter: dict[str, Any]) -> str:
    base = base or "BASE_MODEL"
    flags = f"--model {base} --adapter model" if adapter else "--model model"
    fetch = f"hf download {repo_id} --local-dir model"
    answer = f"{fetch}\nlrc generate {flags} --data questions.xlsx --output answer.csv"
    first = "from peft import PeftModel\n" if adapter else ""
    load = f'model = AutoModelForCausalLM.from_pretrained("{base if adapter else repo_id}")\n'
    wrap = f'model = PeftModel.from_pretrained(model, "{repo_id}").eval()\n' if adapter else ""
    return (
        "## Use\n\nTo answer a workbook, with the prompt and the scoring it was trained with:\n\n"
        f"```bash\n{answer}\n```\n\nIn Python (the prompt is a sample):\n\n```python\n{first}"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{repo_id}")\n{load}{wrap}'
        'inputs = tokenizer("文章：小明買了三枝筆。\\n問題：他買了什麼？\\n答案：", return_tensors="pt")\n'
        "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=8)[0]))\n```"
    )


def _table(title: str, head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    cells = [head, ("---",) * len(head), *rows]
    lines = [
        "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in cells
    ]
    return "\n".join([f"## {title}\n", *lines] if title else lines)
