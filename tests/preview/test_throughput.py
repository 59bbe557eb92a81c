"""Speed and memory on a card that is not here, against what one H100 was measured to do (docs/results.md)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from peft import LoraConfig
from small_models import PROJECTIONS
from transformers import BitsAndBytesConfig, LlamaConfig, MixtralConfig

from lrc.config.accelerate_config import Topology
from lrc.preview.memory_plan import GIB, Planner
from lrc.preview.meta_model import ModelSpec, count_static_memory
from lrc.preview.throughput import operations_a_token, tokens_a_second
from lrc.preview.workload import supposed_row
from lrc.runtime.cards import read_gpu

ONE = Topology("single_gpu", device="cuda")
H100, _ = read_gpu("H100")
T4, _ = read_gpu("T4")


def spec(size: str, dtype: torch.dtype = torch.bfloat16, *, bits: int = 16, nested: bool = False) -> ModelSpec:
    """The models of benchmarks/gpu.py, as docs/results.md names them."""
    hidden, inner, layers, heads = {
        "1.3B": (4096, 11008, 4, 32),
        "7B": (4096, 11008, 32, 32),
        "13B": (5120, 13824, 40, 40),
    }[size]
    config = LlamaConfig(
        vocab_size=55296,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        attn_implementation="sdpa",
    )
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=nested,
        bnb_4bit_compute_dtype=dtype,
    )
    adapter = LoraConfig(r=8, lora_alpha=16, target_modules=PROJECTIONS, task_type="CAUSAL_LM")
    return ModelSpec(config, dtype, adapter, nf4 if bits == 4 else None, None, False, dtype, "cuda", "auto", (9, 0))


@pytest.mark.parametrize(
    ("build", "tokens", "measured", "apart"),
    [
        (replace(spec("13B", torch.float16, bits=4, nested=True), checkpointing=True), 1186, 8.62, 0.03),
        (replace(spec("7B", bits=4), checkpointing=True), 3751, 6.47, 0.05),
        (spec("7B", bits=4), 3751, 25.13, 0.12),
    ],
    ids=["13B", "7B checkpointed", "7B"],
)
def test_the_plan_of_what_was_measured(build: ModelSpec, tokens: int, measured: float, apart: float) -> None:
    plan = Planner().plan(build, supposed_row(tokens), ONE, "adamw_torch")
    assert (plan.total - plan.overhead) / GIB == pytest.approx(measured, rel=apart)
    assert plan.total / GIB > measured


@pytest.mark.parametrize(
    ("build", "rows", "measured"),
    [
        (spec("7B", bits=4), 4096, 10_370),
        (spec("7B"), 4096, 9_910),
        (spec("1.3B"), 4096, 84_900),
        (replace(spec("7B"), checkpointing=True), 16384, 7_180),
        (spec("7B", bits=4), 1280, 4_540),
        (replace(spec("13B", torch.float16, bits=4), checkpointing=True), 1186, 1_860),
    ],
)
def test_speeds_that_were_measured_are_not_exceeded(build: ModelSpec, rows: int, measured: float) -> None:
    found = tokens_a_second(build, count_static_memory(build), H100, ONE, rows)
    assert found is not None and 0.6 * measured < found < 1.03 * measured


def test_operations_by_hand() -> None:
    build = spec("7B")
    weights = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    norms = 65 * 4096
    model = count_static_memory(build)
    assert operations_a_token(build, model) == 4 * (weights + norms)
    assert operations_a_token(replace(build, checkpointing=True), model) == 6 * (weights + norms)
    assert operations_a_token(replace(build, adapter=None), model) == 6 * (weights + norms)
    two = replace(ONE, name="multi_gpu", kind="DDP", processes=2)
    alone = tokens_a_second(build, model, T4, ONE, 8192)
    assert alone == pytest.approx(0.26 * 65e12 / (4 * (weights + norms)))
    assert tokens_a_second(build, model, T4, two, 8192) == pytest.approx(2 * (alone or 0))


def test_nothing_is_claimed_where_nothing_is_known() -> None:
    build = spec("1.3B")
    model = count_static_memory(build)
    assert tokens_a_second(replace(build, dtype=torch.float32, autocast=None), model, T4, ONE, 4096) is None
    assert tokens_a_second(build, model, T4, replace(ONE, shards_weights=True), 4096) is None
    mixture = MixtralConfig(vocab_size=100, hidden_size=32, intermediate_size=64, num_hidden_layers=1)
    assert operations_a_token(replace(build, config=mixture), model) is None
