"""What examples/vllm_answers.py asks of vLLM: the ids that lrc trains on, and the answers that lrc gives."""

from __future__ import annotations

import csv
import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig
from small_models import adapted, save_base
from small_runs import lrc, pairs, write_questions
from transformers import AutoModelForCausalLM, AutoTokenizer

from lrc.config.run_record import RUN_FILE, Run
from lrc.data.alpaca import to_record
from lrc.data.questions import Question
from lrc.models.loading import load_tokenizer
from lrc.tokenization.prompt import Prompt

SCRIPT = Path(__file__).parents[2] / "examples" / "vllm_answers.py"


SHUFFLE = random.Random(0)
QUESTIONS = [
    Question(
        str(k),
        "".join(SHUFFLE.choices("山水火木金土日月", k=30 + k)),
        f"誰？{k}",
        tuple(SHUFFLE.sample("甲乙丙丁戊己庚辛", 4)),
        1,
    )
    for k in range(30)
]


def tell_digits_apart(base: Path, tuned: Any) -> None:
    """Give each digit the direction in which one of the first four questions differs from their mean.

    With random weights all questions, which end alike, would get the same answer.
    """
    prompt, records = Prompt(load_tokenizer(str(base)), "alpaca", "digit"), [to_record(one) for one in QUESTIONS[:4]]
    with torch.inference_mode():
        asked = [torch.tensor([prompt.prompt(record)]) for record in records]
        states = torch.stack([tuned(ids, output_hidden_states=True).hidden_states[-1][0, -1] for ids in asked])
    mean = torch.nn.functional.normalize(states.mean(0), dim=0)
    apart = states - states.mean(0)
    apart = torch.nn.functional.normalize(apart - (apart @ mean)[:, None] * mean, dim=1)
    model = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        for direction, candidate in zip(apart, prompt.candidates(records[0]), strict=True):
            model.lm_head.weight[int(candidate.tokens[-1])] = direction
    model.save_pretrained(base)


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("vllm_answers", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["vllm_answers"] = module  # for its dataclass
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, an adapter that was trained to answer with a digit, and questions."""
    where = tmp_path_factory.mktemp("vllm")
    base = save_base(where / "base")
    tuned = adapted(AutoModelForCausalLM.from_pretrained(base)).eval()
    tuned.save_pretrained(where / "adapter")
    tell_digits_apart(base, tuned)
    Run(template="alpaca", answer_style="digit", list_options=True, finished=True).write(where / "adapter" / RUN_FILE)
    write_questions(where / "q.json", QUESTIONS)
    return where


def test_the_ids_are_those_of_the_text(script: ModuleType, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    records = [to_record(question) for question in pairs(5, (3, 5))]
    asked = list(script.requests(records, Prompt(load_tokenizer(str(folder / "base")), "alpaca", "digit")))
    for request, record in zip(asked, records, strict=True):
        text = (
            "Below is an instruction that describes a task, paired with an input that provides further context. "
            "Write a response that appropriately completes the request.\n\n"
            f"### Instruction:\n{record.instruction}\n\n### Input:\n{record.input}\n\n### Response:\n"
        )
        assert request.prompt_token_ids == tokenizer(text)["input_ids"]
        assert {tokenizer.decode([token]): number for token, number in request.options.items()} == {
            str(number): number for number in (1, 2, 3, 4)
        }


@pytest.mark.parametrize(
    ("rank", "pattern", "limit"), [(4, {}, 8), (64, {}, 64), (65, {}, 128), (8, {"q_proj": 200, "v_proj": 4}, 256)]
)
def test_the_engine_makes_room_for_the_rank_of_the_adapter(
    rank: int, pattern: dict[str, int], limit: int, script: ModuleType, tmp_path: Path
) -> None:
    LoraConfig(r=rank, rank_pattern=pattern).save_pretrained(tmp_path)
    assert script.max_rank(tmp_path) == limit


def test_the_answers_are_those_of_generate(
    script: ModuleType, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM is played by transformers: what is allowed is chosen from, greedily."""
    from peft import PeftModel

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder / "base"), folder / "adapter").eval()
    given: dict[str, Any] = {}

    class LLM:
        def __init__(self, **settings: Any) -> None:
            given.update(settings)

        def generate(self, prompts: list[Any], sampling: list[Any], lora_request: Any) -> list[Any]:
            given["lora"] = lora_request
            return [self.answer(one["prompt_token_ids"], how) for one, how in zip(prompts, sampling, strict=True)]

        def answer(self, ids: list[int], how: Any) -> Any:
            assert (how.max_tokens, how.temperature) == (1, 0.0)
            with torch.inference_mode():
                logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
            best = max(how.allowed_token_ids, key=lambda token: float(logits[token]))
            return SimpleNamespace(outputs=[SimpleNamespace(token_ids=[best])])

    vllm, lora = ModuleType("vllm"), ModuleType("vllm.lora.request")
    vllm.LLM, vllm.SamplingParams = LLM, lambda **given: SimpleNamespace(**given)  # type: ignore[attr-defined]
    lora.LoRARequest = lambda *given: given  # type: ignore[attr-defined]
    for name, module in {"vllm": vllm, "vllm.lora": ModuleType("vllm.lora"), "vllm.lora.request": lora}.items():
        monkeypatch.setitem(sys.modules, name, module)
    words = ["--model", folder / "base", "--adapter", folder / "adapter", "--data", folder / "q.json"]
    monkeypatch.setattr(sys, "argv", ["vllm_answers.py", *map(str, words), "--output", str(tmp_path / "v.csv")])
    script.main()
    assert given["enable_prefix_caching"] is True and given["lora"] == ("adapter", 1, str(folder / "adapter"))
    assert lrc("generate", *words, "--output", tmp_path / "l.csv", "--dtype", "float32") == 0
    expected, found = (list(csv.reader((tmp_path / name).open(encoding="utf-8"))) for name in ("l.csv", "v.csv"))
    assert found == expected and [answer for _, answer in found[1:5]] == ["1", "2", "3", "4"]
