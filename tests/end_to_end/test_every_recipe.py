"""Every recipe that ships is started for two steps, as it is, on a tiny random base of its own architecture."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from questions import ask
from safetensors.torch import load_file
from small_models import SIZES, save_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from lrc import sft
from lrc.config.recipe import load_recipe
from lrc.config.run_record import read_run
from lrc.data.alpaca import dump_records, to_record
from lrc.models.from_recipe import load_base_model
from lrc.runtime.errors import RecipeError

ROOT = Path(__file__).parents[2]
RECIPES = sorted(ROOT.glob("recipes/**/*.yaml"))
IN_4_BITS = [path for path in RECIPES if yaml.safe_load(path.read_text(encoding="utf-8")).get("load_in_4bit")]
# What a base is, by the beginning of its name: the model_type of its config.json.
BASES = {
    "demo/base": "llama",
    "demo-gemma/base": "gemma3_text",
    "google/gemma-3-1b-": "gemma3_text",
    "hfl/chinese-alpaca-2-": "llama",
    "MediaTek-Research/Breeze-7B-": "mistral",
    "openbmb/MiniCPM5-1B-": "llama",
    "Qwen/Qwen2.5-": "qwen2",
    "Qwen/Qwen3-": "qwen3",
    "taide/Llama3-TAIDE-": "llama",
    "yentinglin/Llama-3-Taiwan-": "llama",
}
SETTINGS = {"qwen3": {"head_dim": 8}, "gemma3_text": {"head_dim": 8, "sliding_window": 64}}
CHAT = (
    "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


@dataclass(frozen=True)
class StandIn:
    """A recipe's YAML, and the keys that put a tiny base and a few questions in the place of the real ones."""

    path: Path
    given: dict[str, Any]
    overrides: dict[str, Any]

    @property
    def words(self) -> list[str]:
        return [word for key, value in self.overrides.items() for word in (f"--{key}", str(value))]


def model_type(name: str) -> str:
    for beginning, kind in BASES.items():
        if name.startswith(beginning):
            return kind
    pytest.fail(f"{name}: no entry of BASES says what architecture this base has; add one")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of a base of each architecture, with random weights."""
    folders = {}
    for kind in sorted(set(BASES.values())):
        folders[kind] = folder = tmp_path_factory.mktemp(kind)
        save_tokenizer(folder)
        config = AutoConfig.for_model(kind, **SIZES, **SETTINGS.get(kind, {}))
        config.save_pretrained(folder)  # it decides the tokenizer's class, which may have a token more
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.chat_template = CHAT
        tokenizer.save_pretrained(folder)
        torch.manual_seed(0)
        config.vocab_size = len(tokenizer)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folders


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight questions."""
    file = tmp_path_factory.mktemp("data") / "t.json"
    records = [to_record(ask(row, answer=row % 4 + 1)) for row in range(2, 10)]
    file.write_text("".join(dump_records(records)), encoding="utf-8")
    return file


def named(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


@pytest.fixture
def stand_in(request: pytest.FixtureRequest, bases: dict[str, Path], data: Path, tmp_path: Path) -> StandIn:
    given = yaml.safe_load(request.param.read_text(encoding="utf-8"))
    base = bases[model_type(given["model_name_or_path"])]
    overrides = {"model_name_or_path": base, "train_file": data, "output_dir": tmp_path / "run", "max_steps": 2}
    if "validation_file" in given:
        overrides["validation_file"] = data
    if "expected_vocab_size" in given:
        overrides["expected_vocab_size"] = len(AutoTokenizer.from_pretrained(base))
    if given.get("dtype") not in (None, "auto"):
        overrides["dtype"] = "float32"  # which a CPU computes in
    for key in ("eval_steps", "save_steps", "logging_steps"):  # of a run of two steps
        if key in given:
            overrides[key] = 2 if key != "logging_steps" else 1
    return StandIn(request.param, given, overrides)


@pytest.mark.parametrize("stand_in", RECIPES, ids=named, indirect=True)
def test_it_trains_two_steps(stand_in: StandIn) -> None:
    sft.main(["--config", str(stand_in.path), *stand_in.words])
    given, output = stand_in.given, Path(stand_in.overrides["output_dir"])
    told = read_run(output)
    assert told is not None and told.finished
    assert (told.template, told.answer_style) == (given["template"], given["answer_style"])
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2]
    assert bool([line for line in lines if "eval_accuracy" in line]) == ("validation_file" in given)
    adapter = load_file(output / "adapter_model.safetensors")
    adapted = [name for name in adapter if "lora_B" in name]
    # Each module that the recipe names is one of this architecture, in each of its layers.
    assert len(adapted) == len(given["lora_target_modules"]) * SIZES["num_hidden_layers"]
    for module in given["lora_target_modules"]:
        assert any(adapter[name].any() for name in adapted if f".{module}." in name), module
    for module in given.get("lora_modules_to_save", []):
        assert [name for name in adapter if module in name], module
    assert all(tensor.isfinite().all() for tensor in adapter.values())


@pytest.mark.parametrize("stand_in", IN_4_BITS, ids=named, indirect=True)
def test_a_4_bit_recipe_is_in_4_bits(stand_in: StandIn) -> None:
    base = load_base_model(load_recipe(stand_in.path, stand_in.words))
    linear = [module for name, module in base.named_modules() if name.endswith("_proj")]
    assert len(linear) == 7 * SIZES["num_hidden_layers"]
    assert {type(module).__name__ for module in linear} == {"Linear4bit"}
    assert {module.compute_dtype for module in linear} == {torch.float32}
    assert {module.weight.quant_type for module in linear} == {stand_in.given["bnb_4bit_quant_type"]}
    nested = {module.weight.quant_state.nested for module in linear}
    assert nested == {bool(stand_in.given.get("use_bnb_nested_quant"))}


@pytest.mark.parametrize("stand_in", IN_4_BITS, ids=named, indirect=True)
def test_fsdp_finds_4_bit_weights_that_it_can_divide(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    recipe = load_recipe(stand_in.path, stand_in.words)
    weights = [module.weight for name, module in load_base_model(recipe).named_modules() if name.endswith("_proj")]
    computed_in = torch.bfloat16 if recipe.training.bf16 else torch.float16 if recipe.training.fp16 else torch.float32
    assert {weight.dtype for weight in weights} == {computed_in}
    with pytest.raises(RecipeError, match="bnb_4bit_quant_storage is uint8, expected "):
        load_base_model(load_recipe(stand_in.path, [*stand_in.words, "--bnb_4bit_quant_storage", "uint8"]))


def test_a_base_without_an_entry_is_named() -> None:
    with pytest.raises(pytest.fail.Exception, match="other/base: no entry of BASES"):
        model_type("other/base")
