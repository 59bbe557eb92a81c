"""The memory plan: sizes that can be reckoned by hand, what dividing does to them, and what makes a run fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from small_models import FAMILIES, PROJECTIONS, SIZES, make_model
from transformers import BitsAndBytesConfig, LlamaConfig

from lrc.config.accelerate_config import ZERO_BUCKET, Topology, read_topology, use_small_buckets
from lrc.packing.last_layer import prune_last_layer
from lrc.packing.log_probs import target_log_probs
from lrc.preview.memory_plan import GIB, OVERHEAD, Planner, bytes_on_device
from lrc.preview.meta_model import ModelSpec, count_static_memory, peak_of_row, why_not_shared
from lrc.preview.suggestions import Setting, suggest_changes
from lrc.preview.workload import supposed_row
from lrc.runtime.errors import ModelError, RecipeError
from lrc.runtime.memory import read_memory

ONE = Topology("single_gpu", device="cuda")
NF4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float16)


def lora(**settings: object) -> LoraConfig:
    fields = {"r": 4, "lora_alpha": 8, "target_modules": PROJECTIONS, "task_type": "CAUSAL_LM"}
    return LoraConfig(**(fields | settings))  # type: ignore[arg-type]


def llama(**sizes: int) -> LlamaConfig:
    fields = {
        "vocab_size": 1000,
        "hidden_size": 128,
        "intermediate_size": 320,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
    }
    return LlamaConfig(**(fields | sizes))


REFERENCE = ModelSpec(
    llama(hidden_size=5120, num_hidden_layers=40, intermediate_size=13824, vocab_size=55296, num_attention_heads=40,
          num_key_value_heads=40),
    torch.float16, lora(lora_dropout=0.05), NF4, None, True, torch.float16, "cuda",
)  # fmt: skip
SMALL = ModelSpec(llama(), torch.float32, lora())


def test_the_reference_run_fits_on_12_gb() -> None:
    planner = Planner()
    model = planner.model(REFERENCE)
    projections, tables = 40 * (4 * 5120**2 + 3 * 5120 * 13824), 2 * 55296 * 5120
    norms = 81 * 5120
    assert model.parameters == projections + tables + norms
    # NF4: half a byte a weight and a float32 scale for 64 of them; embeddings, head and norms stay in 16 bits.
    assert model.weights == projections // 2 + projections // 64 * 4 + 2 * (tables + norms)
    plan = planner.plan(REFERENCE, supposed_row(2302), ONE, "adamw_torch")
    assert plan.adapter == plan.gradients == 4 * model.trained and plan.optimizer == 8 * model.trained
    assert model.trained == 40 * 4 * (4 * 2 * 5120 + 3 * (5120 + 13824))
    assert 8 * GIB < plan.total < 12 * GIB


@pytest.mark.parametrize(
    ("quantization", "each"),
    [
        (BitsAndBytesConfig(load_in_8bit=True), 1 + 4 / 128),
        (NF4, 0.5 + 4 / 64),
        (BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_use_double_quant=True), 0.5 + (1 + 4 / 256) / 64),
        (None, 4),
    ],
)
def test_weights_by_quantization(quantization: BitsAndBytesConfig | None, each: float) -> None:
    build = ModelSpec(llama(intermediate_size=128), torch.float32, lora(), quantization)
    projections, others = 4 * 7 * 128**2, 2 * 1000 * 128 + 9 * 128
    assert count_static_memory(build).weights == pytest.approx(projections * each + 4 * others, abs=64)


def test_without_an_adapter_all_is_trained_and_in_the_optimizer() -> None:
    plan = Planner().plan(replace(SMALL, adapter=None), supposed_row(64), Topology("cpu"), "adamw_torch")
    assert plan.weights == 0
    assert (plan.gradients, plan.optimizer) == (plan.adapter, 2 * plan.adapter)


@pytest.mark.parametrize("family", [*FAMILIES, "checkpointing"])
def test_what_autograd_keeps_is_what_it_really_keeps(family: str) -> None:
    """The tensors saved on the meta device are those that a forward on the CPU saves."""
    name = "llama" if family == "checkpointing" else family
    kind, config, settings = FAMILIES[name]
    build = ModelSpec(config(**{**SIZES, **settings}), torch.float32, lora(), checkpointing=family == "checkpointing")
    row = supposed_row(96)
    activations, logits = peak_of_row(build, row)
    from peft import get_peft_model

    model = get_peft_model(make_model(name), lora())
    prune_last_layer(model)
    model.train()
    if build.checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    saved: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    row = replace(row, input_ids=row.input_ids % SIZES["vocab_size"], targets=row.targets % SIZES["vocab_size"])
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        target_log_probs(model, row, torch.device("cpu"))
    assert sum(saved.values()) <= activations + logits
    if not build.checkpointing:
        assert activations + logits < 1.36 * sum(saved.values())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_every_layer_adds_as_much(checkpointing: bool) -> None:
    """Two depths give the line: 5 layers are counted by themselves, 9 from 3 and 5."""
    row, build = supposed_row(200), replace(SMALL, checkpointing=checkpointing)
    three, five, nine = (sum(peak_of_row(build.of_depth(depth), row)) for depth in (3, 5, 9))
    assert nine == five + 2 * (five - three) and five > three


def test_checkpointing_and_shorter_rows_hold_less() -> None:
    long, short = supposed_row(800), supposed_row(200)
    deep = SMALL.of_depth(12)
    held_whole, held_again = (sum(peak_of_row(replace(deep, checkpointing=c), long)) for c in (False, True))
    assert held_again < held_whole / 3
    assert sum(peak_of_row(deep, short)) < held_whole / 3


def test_dividing() -> None:
    row, planner = supposed_row(64), Planner()
    whole = planner.plan(SMALL, row, ONE, "adamw_torch")
    ddp = planner.plan(SMALL, row, Topology("a", "DDP", 4, "cuda"), "adamw_torch")
    assert (ddp.weights, ddp.optimizer, ddp.gradients) == (whole.weights, whole.optimizer, 2 * whole.gradients)
    zero2 = planner.plan(SMALL, row, Topology("a", "ZeRO-2", 4, "cuda", True, True), "adamw_torch")
    assert (zero2.weights, zero2.optimizer) == (whole.weights, whole.optimizer // 4)
    assert zero2.gradients == whole.gradients // 4 + 2 * ZERO_BUCKET * 4
    layer = planner.model(SMALL).largest_layer
    fsdp = planner.plan(SMALL, row, Topology("a", "FSDP", 4, "cuda", True, True, True), "adamw_torch")
    head = 1000 * 128 * 4  # accelerate keeps it gathered from forward to backward
    assert fsdp.weights == whole.weights // 4 + 2 * layer + head and fsdp.adapter == whole.adapter // 4
    away = Topology("a", "ZeRO-3", 1, "cuda", True, True, True, True, True)
    offloaded = planner.plan(SMALL, row, away, "adamw_torch")
    assert (offloaded.weights, offloaded.optimizer) == (2 * layer, 0)


def test_optimizers() -> None:
    names = ("adamw_torch_fused", "adamw_torch_8bit", "paged_adamw_8bit", "adafactor", "lion_32bit")
    assert [bytes_on_device(name) for name in names] == [8, 2, 0, 0, 4]
    assert bytes_on_device("adamw_torch", element_size=2) == 4


def test_the_cheapest_change_comes_first_and_does_fit() -> None:
    planner, deep = Planner(), SMALL.of_depth(5)  # as deep as is counted by itself
    setting = Setting(deep, ONE, "adamw_torch", 800, supposed_row)
    now = planner.plan(deep, supposed_row(800), ONE, "adamw_torch").total - OVERHEAD
    first = suggest_changes(setting, OVERHEAD + now * 9 // 10, planner)
    assert first is not None and first.changes == ("gradient_checkpointing: true",)
    again = replace(setting, build=replace(deep, checkpointing=True))
    total = planner.plan(again.build, supposed_row(800), ONE, "adamw_torch").total
    second = suggest_changes(again, total - 1000, planner)
    assert second is not None and second.changes == ("row_tokens: 400",) and second.plan.total < total
    base = planner.model(deep).weights
    capacity = OVERHEAD + base
    several = suggest_changes(setting, capacity, planner)
    assert several is not None and several.plan.total <= capacity
    assert suggest_changes(setting, OVERHEAD, planner) is None


def test_zero_has_small_buckets_and_they_are_counted() -> None:
    accelerates = {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "none"}}}
    use_small_buckets(accelerates)
    zero = accelerates["zero_optimization"]
    assert (zero["reduce_bucket_size"], zero["allgather_bucket_size"]) == (ZERO_BUCKET, ZERO_BUCKET)
    own = {"zero_optimization": {"stage": 2, "reduce_bucket_size": 7, "allgather_bucket_size": "auto"}}
    use_small_buckets(own)
    assert own["zero_optimization"]["reduce_bucket_size"] == 7
    assert own["zero_optimization"]["allgather_bucket_size"] == "auto"
    planner, row = Planner(), supposed_row(64)
    two = replace(ONE, name="multi_gpu", kind="DDP", processes=2)
    zero2 = replace(ONE, name="deepspeed_zero2", kind="ZeRO-2", processes=2, shards_gradients=True)
    ddp, divided = (planner.plan(SMALL, row, how, "adamw_torch") for how in (two, zero2))
    assert ddp.gradients == 2 * ddp.adapter
    assert divided.gradients == ddp.adapter // 2 + 2 * ZERO_BUCKET * 4  # in float32


def test_how_configs_divide(tmp_path: Path) -> None:
    zero = read_topology("deepspeed_zero2", device="cpu", gpu_assumed=False)
    assert (zero.kind, zero.device) == ("ZeRO-2", "cuda")
    assert (zero.shards_optimizer, zero.shards_gradients, zero.shards_weights) == (True, True, False)
    two = read_topology("multi_gpu", device="cpu", gpu_assumed=True)
    assert (two.kind, two.processes, two.device) == ("DDP", 2, "cuda")
    assert read_topology("cpu_2", device="cpu", gpu_assumed=False).device == "cpu"
    assert read_topology(None, device="cpu", gpu_assumed=True).name == "single_gpu"
    path = tmp_path / "mine.yaml"
    path.write_text(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: FSDP\nmixed_precision: 'no'\nnum_processes: 4\n"
        "fsdp_config: {fsdp_version: 2, fsdp_reshard_after_forward: true, fsdp_offload_params: true}\n"
    )
    fsdp = read_topology(str(path), device="cuda", gpu_assumed=False)
    assert fsdp.shards_weights and fsdp.offloads_weights and fsdp.processes == 4


@pytest.mark.parametrize(
    ("text", "size"), [("12GB", 12 * GIB), ("12 GiB", 12 * GIB), ("1.5g", GIB * 3 // 2), ("512MB", GIB // 2)]
)
def test_sizes_of_memory(text: str, size: int) -> None:
    assert read_memory(text) == size


@pytest.mark.parametrize("text", ["twelve", "12 cards", "0GB", "-1GB", ""])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(RecipeError, match="is not a memory size; write 12GB"):
        read_memory(text)


def test_an_adapter_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ModelError, match="no_such_proj"):
        count_static_memory(replace(SMALL, adapter=lora(target_modules=["no_such_proj"])))


def test_why_rows_are_no_trees() -> None:
    assert why_not_shared(SMALL) is None
    assert "does not support tree masks" in str(why_not_shared(replace(SMALL, attention="flex_attention")))


@pytest.mark.parametrize("text", ["12", "12KB", "0.001MB", "24.5"])
def test_a_size_that_no_device_has(text: str) -> None:
    with pytest.raises(RecipeError, match=rf"--gpu-memory: {text} (has no unit|is less than 1MB); write [\d.]+GB$"):
        read_memory(text)
