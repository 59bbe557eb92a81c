"""Averaged adapter weights, against base weights to which the mean of the changes was added by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from small_runs import lrc, pairs, write_questions
from transformers import AutoModelForCausalLM, AutoTokenizer

from lrc.models.tiny import make_base

QUESTIONS = pairs(6)
ASKED = ("--template", "plain", "--answer-style", "text")


def make_adapter(base: Path, folder: Path, seed: int, **settings: object) -> Path:
    """An adapter whose two factors are random."""
    model = AutoModelForCausalLM.from_pretrained(base)
    torch.manual_seed(seed)
    with_adapter = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, **settings))
    with_adapter.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("average") / "base"
    make_base(folder, [one.passage for one in QUESTIONS])
    return folder


@pytest.fixture(scope="module")
def adapters(base: Path) -> list[Path]:
    """Of unequal ranks, scalings and modules; PEFT takes the kind of scaling from the first."""
    folder = base.parent
    return [
        make_adapter(base, folder / "c", 3, r=4, lora_alpha=6, use_rslora=True, target_modules=["q_proj", "v_proj"]),
        make_adapter(base, folder / "a", 1, r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"]),
        make_adapter(base, folder / "b", 2, r=6, lora_alpha=3, target_modules=["q_proj", "v_proj"]),
    ]


def add_mean(base: Path, adapters: list[Path], output: Path) -> Path:
    """The base with the mean of s·B·A added to each weight, computed from the files alone."""
    model = AutoModelForCausalLM.from_pretrained(base)
    weights = dict(model.named_parameters())
    for folder in adapters:
        settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        scaling = settings["lora_alpha"] / (settings["r"] ** 0.5 if settings["use_rslora"] else settings["r"])
        tensors = load_file(folder / "adapter_model.safetensors")
        for name, a in tensors.items():
            if ".lora_A." in name:
                b = tensors[name.replace(".lora_A.", ".lora_B.")]
                weight = weights[name.removeprefix("base_model.model.").replace(".lora_A", "")]
                weight.data += scaling * (b @ a) / len(adapters)
    model.save_pretrained(output)
    AutoTokenizer.from_pretrained(base).save_pretrained(output)
    return output


def scores(path: Path) -> list[list[float]]:
    return [json.loads(line)["scores"] for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_average_is_the_base_with_the_mean_of_the_changes(base: Path, adapters: list[Path], tmp_path: Path) -> None:
    data = write_questions(tmp_path / "t.json", QUESTIONS)
    named = [word for folder in adapters for word in ("--adapter", folder)]

    def ask(name: str, *words: str | Path) -> list[list[float]]:
        outputs = ("--output", tmp_path / f"{name}.csv", "--scores", tmp_path / f"{name}.jsonl")
        assert lrc("generate", "--data", data, *ASKED, *outputs, *words) == 0
        return scores(tmp_path / f"{name}.jsonl")

    by_hand = ask("by-hand", "--model", add_mean(base, adapters, tmp_path / "mean"))
    averaged = ask("averaged", "--model", base, *named, "--average-weights")
    assert torch.allclose(torch.tensor(averaged), torch.tensor(by_hand), atol=1e-4)
    said = ask("said", "--model", base, *named)  # what is averaged without the flag is what each says
    assert not torch.allclose(torch.tensor(averaged), torch.tensor(said), atol=1e-2)


ALL = ["q_proj", "v_proj", "down_proj"]


@pytest.mark.parametrize(
    "chosen",
    [
        [{"target_modules": ALL, "layers_to_transform": [0]}, {"target_modules": ALL}],
        [{"target_modules": ALL, "layers_to_transform": [0]}, {"target_modules": ALL, "layers_to_transform": [1]}],
        [{"target_modules": ALL, "exclude_modules": ["v_proj"]}, {"target_modules": ALL}],
        [{"target_modules": r".*\.(q|v)_proj"}, {"target_modules": ["v_proj"]}],  # a pattern beside names
        [{"target_modules": ["q_proj"]}, {"target_modules": ["down_proj"], "layers_to_transform": [1]}],
    ],
    ids=str,
)
def test_no_layer_of_any_adapter_is_left_out(base: Path, chosen: list[dict[str, Any]], tmp_path: Path) -> None:
    made = [
        make_adapter(base, tmp_path / f"adapter-{seed}", seed, r=4, lora_alpha=32 + seed, **settings)
        for seed, settings in enumerate(chosen)
    ]
    data = write_questions(tmp_path / "t.json", QUESTIONS)
    found = []
    for name, words in {
        "by-hand": ["--model", add_mean(base, made, tmp_path / "mean")],
        "averaged": ["--model", base, *(w for folder in made for w in ("--adapter", folder)), "--average-weights"],
        "untrained": ["--model", base],
    }.items():
        outputs = ("--output", tmp_path / f"{name}.csv", "--scores", tmp_path / f"{name}.jsonl")
        assert lrc("generate", "--data", data, *ASKED, *outputs, *words) == 0
        found.append(torch.tensor(scores(tmp_path / f"{name}.jsonl")))
    assert torch.allclose(found[1], found[0], atol=1e-4) and not torch.allclose(found[0], found[2], atol=1e-2)


@pytest.mark.parametrize("settings", [{"use_dora": True}, {"modules_to_save": ["lm_head"]}, {"bias": "lora_only"}])
def test_what_is_more_than_a_sum_is_refused(
    base: Path, adapters: list[Path], tmp_path: Path, settings: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_adapter(base, tmp_path / "d", 4, r=4, target_modules=["q_proj"], **settings)
    data = write_questions(tmp_path / "t.json", QUESTIONS)
    words = ("--model", base, "--adapter", adapters[0], "--adapter", other, "--average-weights", *ASKED)
    assert lrc("generate", *words, "--data", data, "--output", tmp_path / "a.csv") == 1
    told = capsys.readouterr().err
    assert f"{other}: it " in told and "cannot be averaged; leave --average-weights out" in told
    assert not (tmp_path / "a.csv").exists()


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_an_adapter_that_changes_the_base_answers_alone(
    base: Path, adapters: list[Path], tmp_path: Path, start: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = AutoModelForCausalLM.from_pretrained(base)
    settings = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"], init_lora_weights=start)
    get_peft_model(model, settings).save_pretrained(tmp_path / "d")
    words = ("--data", write_questions(tmp_path / "t.json", QUESTIONS), "--model", base, *ASKED)
    both = ("--adapter", tmp_path / "d", "--adapter", adapters[0])
    for averaged in ([], ["--average-weights"]):
        assert lrc("generate", *words, *both, *averaged, "--output", tmp_path / "a.csv") == 1
        told = capsys.readouterr().err
        assert f"{tmp_path / 'd'}: init_lora_weights is {start}, which changes the base, for the other adapters" in told
    # Untrained, it is the base itself.
    for name, adapter in (("alone", ("--adapter", tmp_path / "d")), ("base", ())):
        outputs = ("--output", tmp_path / f"{name}.csv", "--scores", tmp_path / f"{name}.jsonl")
        assert lrc("generate", *words, *adapter, *outputs) == 0
    alone, untrained = (torch.tensor(scores(tmp_path / f"{name}.jsonl")) for name in ("alone", "base"))
    assert torch.allclose(alone, untrained, atol=1e-4)


def test_one_adapter_is_no_average(base: Path, adapters: list[Path], tmp_path: Path) -> None:
    words = ("--model", base, "--adapter", adapters[0], "--average-weights", *ASKED)
    assert lrc("generate", *words, "--data", tmp_path / "none.json", "--output", tmp_path / "a.csv") == 1


def test_an_adapter_counts_once(
    base: Path, adapters: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = adapters[0].parent / "." / "x" / ".." / adapters[0].name
    (adapters[0].parent / "x").mkdir()
    named = [word for folder in (*adapters, same) for word in ("--adapter", folder)]
    words = ("--model", base, *named, *ASKED, "--data", write_questions(tmp_path / "t.json", QUESTIONS))
    assert lrc("generate", *words, "--output", tmp_path / "a.csv") == 1
    assert f"{same}: is given twice, and would count twice; give each --adapter once" in capsys.readouterr().err


@pytest.mark.parametrize("first", ["tokens", "plain"])
def test_an_adapter_of_single_tokens_may_come_first(first: str, base: Path, tmp_path: Path) -> None:
    make_adapter(base, tmp_path / "tokens", 1, r=4, target_modules=["q_proj"], trainable_token_indices=[40, 41, 42])
    make_adapter(base, tmp_path / "plain", 2, r=4, lora_alpha=16, target_modules=["v_proj"])
    data, found = write_questions(tmp_path / "t.json", QUESTIONS), []
    both = sorted(["tokens", "plain"], key=lambda name: name != first)
    for named in (both, ["tokens"], ["plain"]):
        words = [word for name in named for word in ("--adapter", tmp_path / name)]
        outputs = ("--output", tmp_path / f"{len(found)}.csv", "--scores", tmp_path / f"{len(found)}.jsonl")
        assert lrc("generate", "--data", data, *ASKED, "--model", base, *words, *outputs) == 0
        found.append(torch.tensor(scores(tmp_path / f"{len(found)}.jsonl")))
    assert torch.allclose(found[0], (found[1] + found[2]) / 2, atol=1e-4)
    assert not torch.allclose(found[1], found[2], atol=1e-3)
