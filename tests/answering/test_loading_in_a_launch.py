"""How the processes of a launch agree on bits and format before they answer, each on a GPU of its own.

The processes take turns here, again and again until what they gather is what they give; their GPUs are told by mocks
of torch's answers.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import make_model, save_base
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from lrc.answering import load
from lrc.answering.options import ScoringOptions
from lrc.config.run_record import Run
from lrc.models.answering_model import load_for_answering
from lrc.models.placement import Weights
from lrc.runtime.errors import MachineError
from lrc.runtime.memory import format_size

AMPERE, TURING = (8, 0), (7, 5)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("launch") / "base", dtype=torch.bfloat16)


def weights_of(base: Path) -> int:
    model = AutoModelForCausalLM.from_pretrained(base)
    return sum(parameter.numel() * 2 for parameter in model.parameters())


def load_together(
    base: Path,
    free: Sequence[int],
    monkeypatch: pytest.MonkeyPatch,
    capabilities: Sequence[tuple[int, int]] = (AMPERE, AMPERE),
    **options: Any,
) -> list[tuple[str, bool, Any]]:
    """What each process loads: the dtype that it computes in, whether in 4 bits, and the device map."""
    count, rank = len(free), 0
    given: list[list[Any]] = [[] for _ in free]  # what each process has given to be gathered, in turn
    before: list[list[Any]] = given
    loaded: list[Any] = [None] * count
    model = AutoModelForCausalLM.from_pretrained(base)

    def gather(own: list[Any]) -> list[Any]:
        given[rank].append(own[0])
        turn = len(given[rank]) - 1
        return [some[turn] if len(some) > turn else own[0] for some in before]

    def state() -> Any:
        return SimpleNamespace(
            device=torch.device("cuda", rank), num_processes=count, process_index=rank, is_main_process=rank == 0
        )

    def capture(name: str, adapters: Any, device: Any, bits: Any, dtype: str | None, places: Any, **_: Any) -> Any:
        computed = load.choose_dtype(load.load_config(name), device, dtype)
        if bits is not None:
            computed = str(bits.bnb_4bit_compute_dtype).removeprefix("torch.")
        loaded[rank] = (computed, bool(bits and bits.load_in_4bit), places)
        return model, []

    def has_bfloat16(including_emulation: bool = True) -> bool:
        return including_emulation or capabilities[rank] >= AMPERE

    monkeypatch.setattr(load, "processes", state)
    monkeypatch.setattr(load, "gather_object", gather)
    monkeypatch.setattr(load, "load_for_answering", capture)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)  # as on two machines, or with one visible to each
    monkeypatch.setattr("torch.cuda.is_bf16_supported", has_bfloat16)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda index=None: capabilities[rank])
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device=None: (free[rank], 1 << 40))
    for last in (False, False, True):  # there are two turns, the second of which depends on the first
        before, given = given, [[] for _ in free]
        for number in range(count):
            rank = number  # which the functions above read
            told = StringIO()
            with redirect_stderr(sys.stderr if last else told):
                load.load_scorer(str(base), ScoringOptions(template="plain", answer_style="digit", **options))
    assert given == before and {len(some) for some in given} == {2}
    return loaded


@pytest.mark.parametrize(
    ("shares", "four_bits", "number"),
    [((2.0, 2.0), False, None), ((2.0, 0.8), True, 1), ((0.9, 2.0), True, 0), ((0.9, 1.0, 0.8), True, 2)],
)
def test_one_card_without_room_has_all_answer_in_4_bits(
    base: Path,
    shares: Sequence[float],
    four_bits: bool,
    number: int | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    needed = weights_of(base)
    free = [int(needed * share) for share in shares]
    found = load_together(base, free, monkeypatch, [AMPERE] * len(free))
    assert found == [("bfloat16", four_bits, None)] * len(free)
    told = [line for line in capsys.readouterr().err.splitlines() if "4 bits" in line]
    if number is None:
        assert not told
    else:
        card = f"the GPU of process {number} has {format_size(free[number])} free"
        text = (
            f"its weights take {format_size(needed)}, and {card}; loading in 4 bits (--no-load-in-4bit turns this off)"
        )
        assert told == [f"{base}: {text}"]


def test_what_was_asked_for_stays(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scarce = int(weights_of(base) * 1.05)
    found = load_together(base, [scarce, scarce], monkeypatch, load_in_4bit=False)
    assert [four_bits for _, four_bits, _ in found] == [False, False]


@pytest.mark.parametrize("four_bits", [None, True, False])
def test_one_card_that_is_too_small_for_any_copy_is_refused(
    base: Path, four_bits: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda index: SimpleNamespace(is_integrated=0))
    monkeypatch.setattr("lrc.models.placement.WINDOWS", False)  # where a driver takes memory of the host, too
    monkeypatch.setattr("platform.release", lambda: "6.1.0")
    with pytest.raises(
        MachineError, match=rf"^{base}: its weights take .*, and the GPU of process \d has 1.0 kB free; "
    ):
        load_together(base, [1 << 30, 1000], monkeypatch, load_in_4bit=four_bits)


@pytest.mark.parametrize("four_bits", [None, True])
@pytest.mark.parametrize("capabilities", [(AMPERE, TURING), (TURING, AMPERE)])
def test_cards_of_two_generations_compute_in_what_both_have(
    base: Path,
    four_bits: bool | None,
    capabilities: Sequence[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = load_together(base, [1 << 30, 1 << 30], monkeypatch, capabilities, load_in_4bit=four_bits)
    assert found == [("float16", bool(four_bits), None)] * 2
    assert "; float16 is used in all of them" in capsys.readouterr().err


def load_alone(
    base: Path,
    free: Sequence[int],
    capabilities: Sequence[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
    **options: Any,
) -> tuple[str, bool, set[int]]:
    """What one process loads on a machine with several GPUs: the dtype, whether in 4 bits, and on which GPUs."""
    current, loaded, model = 0, [], AutoModelForCausalLM.from_pretrained(base)

    def set_device(index: int) -> None:
        nonlocal current
        current = index

    def capture(
        name: str, adapters: Any, device: Any, bits: Any, dtype: str | None, places: Any, trained: Any, **_: Any
    ) -> Any:
        computed = load.choose_dtype(load.load_config(name), device, dtype, trained)
        if bits is not None:
            computed = str(bits.bnb_4bit_compute_dtype).removeprefix("torch.")
        loaded.append((computed, bits is not None, set((places or {"": current}).values())))
        return model, []

    state = SimpleNamespace(device=torch.device("cuda"), num_processes=1, process_index=0, is_main_process=True)
    monkeypatch.setattr(load, "processes", lambda: state)
    monkeypatch.setattr(load, "load_for_answering", capture)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: len(free))
    monkeypatch.setattr("torch.cuda.set_device", set_device)
    monkeypatch.setattr(
        "torch.cuda.is_bf16_supported", lambda including_emulation=True: capabilities[current] >= AMPERE
    )
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda index=None: (free[current if index is None else index], 1))
    load.load_scorer(str(base), ScoringOptions(template="plain", answer_style="digit", **options))
    (found,) = loaded
    return found


@pytest.mark.parametrize(
    ("shares", "capabilities", "four_bits", "expected"),
    [
        ((9.0, 9.0), (AMPERE, TURING), None, ("bfloat16", False, {0})),
        ((0.1, 9.0), (AMPERE, TURING), None, ("float16", False, {1})),
        ((0.1, 9.0), (TURING, AMPERE), None, ("bfloat16", False, {1})),
        ((0.01, 9.0), (AMPERE, TURING), True, ("float16", True, {1})),
        ((0.8, 0.9), (AMPERE, TURING), None, ("float16", False, {0, 1})),
        ((0.9, 0.8), (AMPERE, TURING), None, ("float16", False, {0, 1})),
        ((0.8, 0.9), (AMPERE, (8, 9)), None, ("bfloat16", False, {0, 1})),
    ],
)
def test_the_card_that_is_used_decides_and_not_the_first(
    base: Path,
    shares: Sequence[float],
    capabilities: Sequence[tuple[int, int]],
    four_bits: bool | None,
    expected: tuple[str, bool, set[int]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Another process may hold the first card; and a second one may be of another generation."""
    free = [int(weights_of(base) * share) for share in shares]
    assert load_alone(base, free, capabilities, monkeypatch, load_in_4bit=four_bits) == expected
    mixed = len(expected[2]) > 1 and TURING in capabilities
    assert ("float16 is used in all of them" in capsys.readouterr().err) == mixed


def test_a_family_that_overflows_takes_the_room_of_float32(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a Turing card beside the first, Gemma 3 computes in float32 and takes twice as much: then in 4 bits."""
    model = make_model("gemma3").bfloat16()
    model.resize_token_embeddings(260)
    model.save_pretrained(tmp_path / "gemma")
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "gemma")
    needed = weights_of(tmp_path / "gemma")
    for room, four_bits in ((3.0, False), (1.5, True)):
        free = [needed // 10, int(needed * room)]
        found = load_alone(tmp_path / "gemma", free, (AMPERE, TURING), monkeypatch)
        assert found == ("float32", four_bits, {1})


@pytest.mark.parametrize(
    ("stored", "trained", "capability", "expected"),
    [
        ("float32", "bfloat16", AMPERE, "bfloat16"),
        ("float32", "bfloat16", TURING, "float16"),
        ("float32", "float16", AMPERE, "float16"),
        ("float32", "float32", AMPERE, "float32"),
        ("float32", "auto", AMPERE, "float32"),
        ("float32", None, AMPERE, "float32"),
        ("bfloat16", "float32", AMPERE, "bfloat16"),
    ],
)
def test_a_base_in_float32_answers_in_the_16_bits_that_it_was_trained_in(
    stored: str,
    trained: str | None,
    capability: tuple[int, int],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has to fit the card that it was trained on: float32 would take twice the memory, or end in 4 bits."""
    folder = save_base(tmp_path, dtype=getattr(torch, stored))
    given = {} if trained is None else {"dtype": trained}
    monkeypatch.setattr(load, "runs_of", lambda *_: [Run("plain", "digit", True, recipe=given)])
    free = int(weights_of(folder) * 1.2)  # of 16 bits; in float32 it would not fit
    dtype, four_bits, _places = load_alone(folder, [2 * free], [capability], monkeypatch)
    assert (dtype, four_bits) == (expected, False)
    if expected != "float32":
        assert load_alone(folder, [free], [capability], monkeypatch) == (expected, False, {0})


@pytest.fixture(scope="module")
def nf4(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base as bitsandbytes' 4-bit repositories have it."""
    folder = tmp_path_factory.mktemp("stored") / "nf4"
    wide = save_base(folder.parent / "wide", dtype=torch.bfloat16, hidden_size=256)
    quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    AutoModelForCausalLM.from_pretrained(
        wide, dtype=torch.bfloat16, quantization_config=quantization, device_map={"": "cpu"}
    ).save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def held_by(model: Any) -> int:
    """The bytes of a loaded model, with what bitsandbytes keeps beside its weights."""
    states = [state for one in model.parameters() if (state := getattr(one, "quant_state", None)) is not None]
    return sum(one.nbytes for one in model.parameters()) + sum(one.absmax.nbytes + one.code.nbytes for one in states)


def test_a_base_in_4_bits_on_the_disk_is_counted_as_it_is_there(nf4: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(nf4, dtype=torch.bfloat16, device_map={"": "cpu"})
    weights = Weights(model.config, torch.bfloat16, None, nf4)
    counted = weights.parts()
    assert sum(part.nbytes for part in counted) == pytest.approx(held_by(model), rel=0.02)
    assert sum(part.nbytes for part in weights.parts(least=True)) < held_by(model)
    for part in counted:
        if part.is_layer:
            assert part.nbytes == pytest.approx(held_by(model.get_submodule(part.name)), rel=0.02)
    places = {part.name: "cpu" for part in counted}  # every module has a place
    divided, _ = load_for_answering(str(nf4), [], torch.device("cpu"), places=places)
    assert {one.device.type for one in divided.parameters()} == {"cpu"}


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ((1.2,), {0}),
        ((1.05,), {0}),
        ((0.5, 1.2), {1}),
        ((0.9, 0.8), {0, 1}),
        ((0.8, 0.9), {0, 1}),
    ],
)
def test_a_base_in_4_bits_on_the_disk_is_placed_as_others(
    nf4: Path, shares: Sequence[float], expected: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = held_by(AutoModelForCausalLM.from_pretrained(nf4, dtype=torch.bfloat16, device_map={"": "cpu"}))
    free = [int(held * share) for share in shares]
    dtype, four_bits, places = load_alone(nf4, free, [AMPERE] * len(free), monkeypatch)
    assert (dtype, four_bits, places) == ("bfloat16", False, expected)  # no bitsandbytes configuration is passed


def test_a_base_in_4_bits_on_the_disk_that_fits_nowhere_is_refused(nf4: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda index: SimpleNamespace(is_integrated=0))
    held = held_by(AutoModelForCausalLM.from_pretrained(nf4, dtype=torch.bfloat16, device_map={"": "cpu"}))
    with pytest.raises(
        MachineError, match=r": its weights take .*, and GPU 0 has .*, GPU 1 has .* free; use a card"
    ) as no:
        load_alone(nf4, [held // 3, held // 3], [AMPERE, AMPERE], monkeypatch)
    assert "--no-load-in-4bit" not in str(no.value) and "in 4 bits" not in str(no.value)


@pytest.mark.parametrize(("share", "expected"), [(0.9, {0, 1}), (1.2, {0})])
def test_a_base_that_is_dequantized_is_counted_in_16_bits(
    base: Path, share: float, expected: set[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An FP8 base takes twice its files."""
    fp8 = shutil.copytree(base, tmp_path / "fp8")
    config = json.loads((fp8 / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    (fp8 / "config.json").write_text(json.dumps(config))
    free = int(weights_of(base) * share)
    assert load_alone(fp8, [free, free], [AMPERE, AMPERE], monkeypatch) == ("bfloat16", False, expected)


def test_files_with_other_names_are_divided_by_their_size(nf4: Path, tmp_path: Path) -> None:
    """As where a model of text was saved out of one that sees."""
    other = shutil.copytree(nf4, tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    renamed = {f"sees.{name.removeprefix('model.')}": tensor for name, tensor in tensors.items()}
    save_file(renamed, other / "model.safetensors", {"format": "pt"})
    config = load.load_config(str(other))
    known, found = (Weights(config, torch.bfloat16, None, folder).parts() for folder in (nf4, other))
    assert [part.name for part in found] == [part.name for part in known]
    total = sum(tensor.nbytes for tensor in tensors.values())
    assert sum(part.nbytes for part in found) == pytest.approx(total, rel=0.01)
