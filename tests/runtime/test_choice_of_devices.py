"""What lrc makes of the devices that a machine has, told by mocks of torch's answers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_models import make_model
from token_trees import sequence
from transformers import BitsAndBytesConfig, LlamaConfig

from lrc.commands import train
from lrc.models.answering_model import load_for_answering
from lrc.models.placement import (
    ROOM,
    Placement,
    Weights,
    check_main_memory,
    list_parts,
    place_copies,
    place_model,
    spread,
)
from lrc.models.quantization import quantization_config
from lrc.packing.log_probs import sequence_scores
from lrc.runtime.errors import MachineError
from lrc.runtime.memory import format_size

MIB = 1024**2


@pytest.mark.parametrize(("count", "wanted"), [(1, []), (2, []), (8, ["--num_processes", "8"])])
def test_training_takes_all_gpus(count: int, wanted: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    monkeypatch.setattr("torch.accelerator.device_count", lambda: count)
    launched: list[list[str]] = []
    monkeypatch.setattr(train, "preflight", lambda *_: None)  # the data of the demo need not be there
    monkeypatch.setattr(train, "_launch", lambda words: launched.append(list(words)) or 0)
    train.train("tiny/lora", None, [])
    assert launched[0][2:-4] == wanted
    assert [word.rpartition("/")[2] for word in launched[0][:2]] == [
        "--config_file",
        "single_gpu.yaml" if count == 1 else "multi_gpu.yaml",
    ]


def cards(monkeypatch: pytest.MonkeyPatch, *free: int, integrated: bool = False) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: len(free))
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda index: (free[index], 2 * free[index]))
    found = SimpleNamespace(is_integrated=int(integrated))
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda index: found)
    monkeypatch.setattr("lrc.models.placement.WINDOWS", False)  # where a driver takes memory of the host, too
    monkeypatch.setattr("platform.release", lambda: "6.1.0")


def placed(quantization: BitsAndBytesConfig | None = None, *, may_quantize: bool = True) -> Placement:
    return place_model("the/base", Weights(CONFIG, torch.bfloat16, quantization), may_quantize=may_quantize)


CONFIG = LlamaConfig(
    vocab_size=1000, hidden_size=256, intermediate_size=512, num_hidden_layers=6, num_attention_heads=4
)
LAYER, TABLE = 4 * 256**2 + 3 * 256 * 512, 1000 * 256  # weights
NEEDED = 2 * (6 * LAYER + 2 * TABLE + 13 * 256)  # bytes in 16 bits


def test_what_is_needed_is_counted() -> None:
    found = list(list_parts(CONFIG, torch.bfloat16, 16))
    assert sum(part.nbytes for part in found) == NEEDED
    assert [part.name for part in found if part.is_layer] == [f"model.layers.{k}" for k in range(6)]
    four = sum(part.nbytes for part in list_parts(CONFIG, torch.bfloat16, 4))
    assert four == pytest.approx(0.5625 * 6 * LAYER + 4 * TABLE + 26 * 256, rel=1e-6)


@pytest.mark.parametrize(
    ("shares", "four_bits", "places", "told"),
    [
        ((10,), False, None, ""),
        ((1.2,), False, None, ""),
        ((1.05,), True, None, "loading in 4 bits (--no-load-in-4bit turns this off)"),
        ((0.5,), True, None, "loading in 4 bits"),
        ((0.8, 0.8), False, {0, 1}, "divided over 2 GPUs"),
        ((0.5, 0.5, 0.5), False, {0, 1, 2}, "divided over 3 GPUs"),
        ((0.45, 0.3), True, None, "loading in 4 bits"),
        ((0.3, 0.3), True, {0, 1}, "loading in 4 bits"),
        ((0.2, 0.9, 0.2), False, {0, 1, 2}, "divided over 3 GPUs"),
        ((0.1, 0.9, 0.4), False, {1, 2}, "divided over 2 GPUs"),
        ((0.2, 0.45), True, None, "loading in 4 bits"),
        ((0.39, 0.01), True, None, "loading in 4 bits"),
        ((0.37, 0.0), True, None, "loading in 4 bits"),  # without room to spare
    ],
)
def test_a_model_that_does_not_fit_is_divided_or_asked_in_4_bits(
    shares: tuple[float, ...],
    four_bits: bool,
    places: set[int] | None,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cards(monkeypatch, *(int(NEEDED * share) for share in shares))
    found = placed()
    assert (found.four_bits, found.device_map and set(found.device_map.values())) == (four_bits, places)
    assert told in found.notice and bool(told) == bool(found.notice)


@pytest.mark.parametrize("free", [(0.2, 5.0), (0.0, 1.2, 1.3), (0.5, 0.5, 1.2)])
def test_a_gpu_that_holds_the_whole_is_taken_where_the_first_does_not(
    free: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    cards(monkeypatch, *(int(NEEDED * share) for share in free))
    found = placed()
    assert (found.four_bits, found.device_map, found.first) == (False, None, free.index(max(free)))
    assert f"GPU 0 has {format_size(int(NEEDED * free[0]))} free: GPU {found.first} is used" in found.notice


def test_what_was_asked_for_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    cards(monkeypatch, int(NEEDED * 1.05))
    assert placed(may_quantize=False) == Placement()
    cards(monkeypatch, NEEDED // 2)
    assert placed(BitsAndBytesConfig(load_in_4bit=True), may_quantize=False) == Placement()


# Without the scales of the quantized weights, which nested quantization makes smaller.
LEAST = int(0.5 * 6 * LAYER + 4 * TABLE + 26 * 256)


def test_what_fits_nowhere_in_4_bits_is_refused_and_nothing_else_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrc.models.placement.available_memory", lambda: 0)
    cards(monkeypatch, LEAST)
    assert placed().four_bits
    cards(monkeypatch, LEAST - 1)
    with pytest.raises(MachineError) as refused:
        placed()
    four = sum(part.nbytes for part in list_parts(CONFIG, torch.bfloat16, 4))
    sizes = f"{format_size(NEEDED)} in bfloat16 and {format_size(four)} in 4 bits"
    assert str(refused.value) == (
        f"the/base: its weights take {sizes}, and GPU 0 has {format_size(LEAST - 1)} free; "
        "use a card such as RTX 2060 6GB, or several, or use an adapter of a smaller base"
    )
    for asked, least in ((BitsAndBytesConfig(load_in_4bit=True), LEAST), (None, NEEDED)):
        cards(monkeypatch, least)
        assert placed(asked, may_quantize=False) == Placement()
        cards(monkeypatch, least - 1)
        with pytest.raises(
            MachineError, match=r"^the/base: its weights take [\d.]+ MB, and GPU 0 has [\d.]+ MB free; "
        ) as no:
            placed(asked, may_quantize=False)
        assert ("; leave --no-load-in-4bit out, use a card such as" in str(no.value)) == (asked is None)


def test_several_cards_are_refused_only_if_they_do_not_hold_it_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrc.models.placement.available_memory", lambda: 1 << 40)
    layer, rest = LAYER // 2 + 2 * 2 * 256, 4 * TABLE + 2 * 256
    assert rest + 6 * layer == LEAST
    for held in range(1, 6):  # layers on the second card, and the rest on the first
        cards(monkeypatch, rest + (6 - held) * layer, held * layer)
        found = placed()
        assert found.four_bits and found.device_map is not None
        assert list(found.device_map.values()).count(1) == held
        cards(monkeypatch, rest + (6 - held) * layer, held * layer - 1)
        with pytest.raises(
            MachineError, match=r" in 4 bits, and GPU 0 has .*, GPU 1 has .* free; use a card such as .*, or"
        ) as no:
            placed()
        assert "answer on the CPU with CUDA_VISIBLE_DEVICES=-1" in str(no.value)


def test_what_takes_memory_of_the_host_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    cards(monkeypatch, 1000, integrated=True)
    assert placed().four_bits
    cards(monkeypatch, 1000)
    monkeypatch.setattr("platform.release", lambda: "5.15.153.1-microsoft-standard-WSL2")
    assert placed().four_bits


def test_copies_are_refused_if_one_has_no_room_in_4_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = Weights(CONFIG, torch.bfloat16)
    cards(monkeypatch, 1)
    assert place_copies("the/base", weights, [NEEDED * 2, LEAST], may_quantize=True).four_bits
    with pytest.raises(MachineError, match=r" in 4 bits, and the GPU of process 1 has .* free; use a card such as"):
        place_copies("the/base", weights, [NEEDED * 2, LEAST - 1], may_quantize=True)
    cards(monkeypatch, 1, 1)
    with pytest.raises(
        MachineError, match=r" free; start it without a launcher, which divides it over all GPUs, use a"
    ):
        place_copies("the/base", weights, [1, 1], may_quantize=True)
    cards(monkeypatch, 1)
    assert place_copies("the/base", weights, [NEEDED], may_quantize=False) == Placement()
    with pytest.raises(MachineError, match=r"^the/base: its weights take .*; leave --no-load-in-4bit out, use a card"):
        place_copies("the/base", weights, [NEEDED - 1], may_quantize=False)


def test_main_memory_is_compared_with_the_weights_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    free = NEEDED
    monkeypatch.setattr("lrc.models.placement.available_memory", lambda: free)
    whole, four = Weights(CONFIG, torch.bfloat16), Weights(CONFIG, torch.bfloat16).in_four_bits()
    assert check_main_memory("the/base", whole, mapped=False) == ""
    free = LEAST
    told = check_main_memory("the/base", whole, mapped=True)
    sizes = f"its weights take {format_size(NEEDED)}, and {format_size(LEAST)} of memory are free"
    assert told == f"{sizes}: they are read again and again"
    with pytest.raises(MachineError) as refused:
        check_main_memory("the/base", whole, mapped=False)
    cure = "close other programs, give --load-in-4bit, or use an adapter of a smaller base"
    assert str(refused.value) == f"the/base: {sizes}; {cure}"
    assert check_main_memory("the/base", four, mapped=False) == ""
    free -= 1
    with pytest.raises(MachineError, match=r"; close other programs, or use an adapter of a smaller base$"):
        check_main_memory("the/base", four, mapped=False)


def test_no_card_gets_more_than_it_has_room_for() -> None:
    whole = list(list_parts(CONFIG, torch.bfloat16, 16))
    takes = {part.name: part.nbytes for part in whole}
    free = [NEEDED // 2, NEEDED // 3, NEEDED // 3]
    found = spread(whole, free)
    assert found is not None and found.keys() == takes.keys()
    for card, has in enumerate(free):
        assert sum(takes[name] for name, place in found.items() if place == card) <= ROOM * has
    order = [found[f"model.layers.{k}"] for k in range(6)]
    assert order[:-1] == sorted(order[:-1]) and order[-1] == 0
    assert spread(whole, [NEEDED // 2, NEEDED // 4]) is None


def test_a_small_first_card_gets_layers_only() -> None:
    whole = list(list_parts(CONFIG, torch.bfloat16, 16))
    takes = {part.name: part.nbytes for part in whole}
    free = [int(NEEDED * 0.4), int(NEEDED * 0.95)]
    found = spread(whole, free, roomiest=1)
    assert found is not None and found.keys() == takes.keys() and set(found.values()) == {0, 1}
    for card, has in enumerate(free):
        assert sum(takes[name] for name, place in found.items() if place == card) <= ROOM * has
    order = [found[f"model.layers.{k}"] for k in range(6)]
    assert order[:-1] == sorted(order[:-1], reverse=True) and order[-1] == 1
    assert found["lm_head"] == found["model.embed_tokens"] == 1


@pytest.mark.parametrize(
    ("capability", "family", "recipe", "asked", "computed"),
    [
        ((7, 5), "llama", {"dtype": "bfloat16"}, None, "float16"),
        ((7, 5), "llama", {}, None, "float16"),
        ((7, 5), "gemma3_text", {"dtype": "bfloat16"}, None, "float32"),
        ((7, 5), "gemma3_text", {}, None, "float32"),
        ((7, 5), "gemma2", {"dtype": "float16"}, None, "float32"),
        ((7, 5), "llama", {"dtype": "bfloat16"}, "float32", "float32"),
        ((8, 0), "gemma3_text", {"dtype": "float16"}, None, "bfloat16"),
        ((8, 0), "llama", {"dtype": "float16"}, None, "float16"),
        ((8, 0), "llama", {"dtype": "auto"}, "auto", "bfloat16"),
        ((9, 0), "llama", {"dtype": "bfloat16"}, "float16", "float16"),
    ],
)
def test_4_bit_weights_are_computed_with_in_a_format_of_the_device_and_the_family(
    capability: tuple[int, int],
    family: str,
    recipe: dict[str, str],
    asked: str | None,
    computed: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation=True: capability >= (8, 0))
    found = quantization_config(recipe, torch.device("cuda"), load_in_4bit=True, family=family, dtype=asked)
    assert found is not None and found.bnb_4bit_compute_dtype == getattr(torch, computed)


@pytest.mark.parametrize(
    ("units", "recipe", "computed"),
    [
        (True, {"dtype": "bfloat16"}, "bfloat16"),
        (True, {"dtype": "float16"}, "bfloat16"),  # as a training does here
        (True, {"dtype": "float32"}, "float32"),
        (True, {"lora_r": 4}, "float32"),  # the default
        (True, {}, "float32"),
        (False, {"dtype": "bfloat16"}, "float32"),
        (False, {"dtype": "float16"}, "float32"),
    ],
)
def test_4_bit_weights_are_computed_with_on_a_cpu_as_in_training(
    units: bool, recipe: dict[str, Any], computed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": units}, raising=False)
    found = quantization_config(recipe, torch.device("cpu"), load_in_4bit=True, family="llama")
    assert found is not None and found.bnb_4bit_compute_dtype == getattr(torch, computed)


def test_4_bit_weights_are_computed_with_in_no_format_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation=True: including_emulation)
    for family, dtype in (("llama", "bfloat16"), ("gemma3_text", "float16")):
        with pytest.raises(MachineError, match=f"--dtype: {dtype}, but .*; give float32"):
            quantization_config({}, torch.device("cuda"), load_in_4bit=True, family=family, dtype=dtype)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3", "mistral"])
def test_a_divided_model_answers_as_a_whole_one(family: str, tmp_path: Path) -> None:
    """A part of the layers lies elsewhere, here on the disk: accelerate's hooks fetch them as they would from a GPU."""
    make_model(family).save_pretrained(tmp_path)
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(tmp_path)
    whole = list(list_parts(config, torch.float32, 16))
    needed = sum(part.nbytes for part in whole)
    found = spread(whole, [int(needed / ROOM * 0.8), needed])
    assert found is not None and set(found.values()) == {0, 1}
    places = {name: ("cpu", "disk")[place] for name, place in found.items()}
    sequences = [sequence([5, 6, 7, 8, *range(9, 9 + k)], [3 + k]) for k in range(1, 6)]
    cpu = torch.device("cpu")
    divided, _ = load_for_answering(str(tmp_path), [], cpu, places=places)
    alone, _ = load_for_answering(str(tmp_path), [], cpu)
    assert len(divided.hf_device_map) == len(places)
    expected = sequence_scores(alone, sequences, cpu, 64)
    assert sequence_scores(divided, sequences, cpu, 64) == pytest.approx(expected, abs=1e-5)
