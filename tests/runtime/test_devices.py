"""What a machine lacks becomes what it has, and it is said; training and answering obey one rule."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers.utils import is_torch_bf16_gpu_available

from lrc.packing import attention
from lrc.packing.attention import why_no_flex
from lrc.runtime import devices as dtypes
from lrc.runtime.errors import MachineError

on_cpu = pytest.mark.skipif(dtypes.device_type() != "cpu", reason="asks what a CPU does")


@on_cpu
def test_half_precision_becomes_float32_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    settled, notices = dtypes.apply_device_support({"fp16": True, "dtype": "float16", "lora_r": 4})
    assert settled == {"fp16": False, "dtype": "float32", "lora_r": 4, "use_cpu": True}
    assert [line.partition(":")[0] for line in notices] == ["fp16", "dtype"]


@pytest.mark.parametrize("unit", ["avx512_bf16", "amx_bf16", "bf16", None])
def test_a_recipe_in_float16_becomes_bfloat16_on_a_cpu_that_has_it(
    unit: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a base that is stored in float16 is answered with."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {unit: True}, raising=False)
    taken = "bfloat16" if unit else "float32"
    found, notices = dtypes.apply_device_support({"fp16": True, "dtype": "float16", "use_cpu": True})
    assert (found["fp16"], found.get("bf16", False), found["dtype"]) == (False, unit is not None, taken)
    assert [line.endswith(f"; {taken} is used") for line in notices] == [True, True]
    assert dtypes.answering_dtype("float16", "cpu", "llama")[0] == taken


@on_cpu
def test_bfloat16_stays_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for has, kept in ((True, True), (False, False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=has: {"avx512_bf16": has}, raising=False)
        assert dtypes.apply_device_support({"bf16": True}).values["bf16"] is kept


def test_the_launcher_can_ask_for_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert dtypes.apply_device_support({}).values["use_cpu"] is True


def test_float32_needs_no_units() -> None:
    assert (
        dtypes.supported("float32", "cpu") and dtypes.apply_device_support({"dtype": "auto"}).values["dtype"] == "auto"
    )


@pytest.fixture
def _turing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a T4, as torch describes one: bfloat16 is there, but emulated."""
    monkeypatch.setattr("torch.accelerator.current_accelerator", lambda check_available=False: torch.device("cuda"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation=True: including_emulation)


def base(folder: Path, family: str) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": family}))
    return str(folder)


@pytest.mark.usefixtures("_turing")
@pytest.mark.parametrize(
    ("family", "asked", "settled"),
    [
        ("llama", {"bf16": True, "dtype": "bfloat16"}, (False, True, "float16")),
        ("qwen3", {"fp16": True, "dtype": "float16"}, (None, True, "float16")),
        ("gemma3_text", {"bf16": True, "dtype": "bfloat16"}, (False, None, "float32")),
        ("gemma3_text", {"fp16": True, "dtype": "float16"}, (None, False, "float32")),
        ("llama", {"dtype": "float32"}, (None, None, "float32")),
    ],
)
def test_a_turing_gpu_computes_in_float16(
    family: str, asked: dict[str, Any], settled: tuple[Any, ...], tmp_path: Path
) -> None:
    found, notices = dtypes.apply_device_support({**asked, "model_name_or_path": base(tmp_path, family)})
    assert (found.get("bf16"), found.get("fp16"), found["dtype"]) == settled
    changed = {key for key, value in asked.items() if found[key] != value}
    assert {line.partition(":")[0] for line in notices} == changed
    assert all(line.endswith(f"; {settled[2]} is used") for line in notices)


@pytest.mark.usefixtures("_turing")
@pytest.mark.parametrize(
    ("asked", "stored", "scaled"),
    [
        ({"dtype": "bfloat16"}, "bfloat16", True),  # becomes float16 here
        ({"dtype": "float16"}, "float16", True),
        ({"dtype": "float16", "load_in_4bit": True}, "bfloat16", True),
        ({"dtype": "auto"}, "float16", True),
        ({"dtype": "auto"}, "bfloat16", True),
        ({"dtype": "auto"}, "float32", False),
        ({"dtype": "float32"}, "float16", False),
        ({}, "float16", False),  # float32 is the default
        ({"dtype": "float16", "fp16": False}, "float16", False),  # taken at its word
    ],
)
def test_weights_in_float16_get_a_gradient_scaler(
    asked: dict[str, Any], stored: str, scaled: bool, tmp_path: Path
) -> None:
    """Without one, gradients below 6e-8 become 0 in silence."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "torch_dtype": stored}))
    found, notices = dtypes.apply_device_support({**asked, "model_name_or_path": str(tmp_path)})
    assert bool(found.get("fp16")) == scaled
    assert scaled == any(line.startswith("fp16: is set to true") for line in notices)


@pytest.fixture
def _ampere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.accelerator.current_accelerator", lambda check_available=False: torch.device("cuda"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation=True: True)


@pytest.mark.usefixtures("_ampere")
@pytest.mark.parametrize("family", ["gemma2", "gemma3_text", "t5gemma"])
def test_what_overflows_float16_is_mixed_with_bfloat16_where_there_are_units(family: str, tmp_path: Path) -> None:
    asked = {"fp16": True, "dtype": "float16", "model_name_or_path": base(tmp_path, family)}
    found, notices = dtypes.apply_device_support(asked)
    assert (found["fp16"], found["bf16"], found["dtype"]) == (False, True, "bfloat16")
    assert all(line.endswith(f"{family} overflows float16; bfloat16 is used") for line in notices) and len(notices) == 2


@pytest.mark.usefixtures("_ampere")
@pytest.mark.parametrize(
    ("processes", "capabilities", "settled"),
    [
        ("1", [(8, 0), (7, 5)], "bfloat16"),
        ("2", [(8, 0), (7, 5)], "float16"),
        ("2", [(8, 0), (9, 0)], "bfloat16"),
    ],
)
def test_gpus_of_several_kinds_compute_in_what_all_of_a_launch_have(
    processes: str, capabilities: list[tuple[int, int]], settled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", processes)
    monkeypatch.setattr("torch.cuda.device_count", lambda: len(capabilities))
    monkeypatch.setattr("torch.cuda.get_device_capability", capabilities.__getitem__)
    asked = {"bf16": True, "dtype": "bfloat16", "model_name_or_path": base(tmp_path, "llama")}
    found, _notices = dtypes.apply_device_support(asked)
    assert (found["bf16"], found.get("fp16", False)) == (settled == "bfloat16", settled == "float16")
    assert found["dtype"] == settled


@pytest.mark.usefixtures("_turing")
@pytest.mark.parametrize(
    ("stored", "family", "taken"),
    [
        ("bfloat16", "llama", "float16"),
        ("float16", "llama", "float16"),
        ("bfloat16", "gemma3_text", "float32"),
        ("float16", "gemma3_text", "float32"),
        ("float32", "llama", "float32"),
    ],
)
def test_a_turing_gpu_answers_in_the_format_that_it_trains_in(stored: str, family: str, taken: str) -> None:
    assert dtypes.answering_dtype(stored, "cuda", family)[0] == taken


@pytest.mark.parametrize("units", [True, False])
@pytest.mark.parametrize("stored", ["float32", "float16", "bfloat16"])
def test_a_cpu_answers_in_bfloat16_where_it_has_units(
    stored: str, units: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": units}, raising=False)
    fast = units and stored != "float32"
    assert dtypes.answering_dtype(stored, "cpu", "llama")[0] == ("bfloat16" if fast else "float32")
    assert dtypes.answering_dtype(stored, "cpu", "llama", "float32")[0] == "float32"
    with pytest.raises(MachineError, match=r"--dtype: float16, but this machine does not support float16 \(cpu\)"):
        dtypes.answering_dtype(stored, "cpu", "llama", "float16")


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("google/gemma-3-1b-it", "gemma3"),
        ("google/gemma-3n-E2B-it", "gemma3"),
        ("unsloth/gemma-2-2b-it-bnb-4bit", "gemma2"),
        ("someone/Taiwan-Gemma-3-4b", "gemma3"),
        ("google/gemma-4-E4B-it", "gemma4"),
        ("google/t5gemma-b-b-ul2", "t5gemma"),
        ("google/gemma-2b-it", ""),
        ("google/gemma-7b", ""),
        ("google/gemma-1.1-2b-it", ""),
        ("google/recurrentgemma-2b", ""),
        ("hfl/chinese-alpaca-2-7b", ""),
    ],
)
def test_a_name_on_the_hub_tells_its_family(name: str, family: str) -> None:
    assert dtypes.family_of(name) == family


def test_a_base_that_was_fetched_tells_its_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base(tmp_path, "gemma2")
    fetched = {"someone/strange-name": str(tmp_path / "config.json")}
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda name, file: fetched.get(name))
    assert dtypes.family_of("someone/strange-name") == "gemma2"
    assert dtypes.family_of("someone/gemma-3-1b") == "gemma3"


DEVICES = {
    # What torch says of each: type, compute capability, whether it is ROCm, and whether units or system have bfloat16.
    "sm_61": ("cuda", (6, 1), False, None),
    "sm_70": ("cuda", (7, 0), False, None),
    "sm_75": ("cuda", (7, 5), False, None),
    "sm_80": ("cuda", (8, 0), False, None),
    "sm_89": ("cuda", (8, 9), False, None),
    "sm_90": ("cuda", (9, 0), False, None),
    "sm_100": ("cuda", (10, 0), False, None),
    "sm_120": ("cuda", (12, 0), False, None),
    "gfx942": ("cuda", (9, 4), True, None),
    "gfx90a": ("cuda", (9, 0), True, None),
    "gfx1100": ("cuda", (11, 0), True, None),
    "gfx1201": ("cuda", (12, 0), True, None),
    "gfx1030": ("cuda", (10, 3), True, None),
    "gfx906": ("cuda", (9, 0), True, None),
    "xpu": ("xpu", None, False, True),
    "old xpu": ("xpu", None, False, False),
    "mps": ("mps", None, False, True),
    "old mps": ("mps", None, False, False),
}


def be(name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have torch describe another device; its type."""
    kind, capability, rocm, units = DEVICES[name]
    monkeypatch.setattr("torch.accelerator.current_accelerator", lambda check_available=False: torch.device(kind))
    monkeypatch.setattr("torch.cuda.is_available", lambda: kind == "cuda")
    monkeypatch.setattr("torch.version.hip", "6.4" if rocm else None)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 0)
    properties = SimpleNamespace(
        major=capability and capability[0], has_bfloat16_conversions=units, gcnArchName=f"{name}:sramecc+:xnack-"
    )
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: properties)
    monkeypatch.setattr("torch.xpu.is_available", lambda: kind == "xpu")
    monkeypatch.setattr("torch.xpu.get_device_properties", lambda *device: properties)
    imports = "transformers.utils.import_utils"
    monkeypatch.setattr(f"{imports}.is_torch_xpu_available", lambda *_: kind == "xpu")
    monkeypatch.setattr(f"{imports}.is_torch_mps_available", lambda *_: kind == "mps")
    monkeypatch.setattr("torch.backends.mps.is_macos_or_newer", lambda *version: bool(units))
    return kind


@pytest.fixture
def _nothing_cached() -> Iterator[None]:
    is_torch_bf16_gpu_available.cache_clear()
    yield
    is_torch_bf16_gpu_available.cache_clear()


@pytest.mark.usefixtures("_nothing_cached")
@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_each_device_gets_a_dtype_that_it_computes_fast_in(
    name: str, family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = be(name, monkeypatch)
    old = name in ("sm_61", "sm_70", "sm_75", "gfx1030", "gfx906", "old xpu", "old mps")
    expected = "bfloat16" if not old else "float16" if family == "llama" else "float32"
    asked = {"bf16": True, "dtype": "bfloat16", "model_name_or_path": base(tmp_path, family)}
    found, notices = dtypes.apply_device_support(asked)
    assert found["dtype"] == expected and found["use_cpu"] is False
    assert (found["bf16"], bool(found.get("fp16"))) == (expected == "bfloat16", expected == "float16")
    assert len(notices) == (2 if old else 0), notices
    assert dtypes.answering_dtype("bfloat16", kind, family)[0] == expected
    assert dtypes.answering_dtype("float32", kind, family)[0] == "float32"
    if old:
        with pytest.raises(MachineError, match="--dtype: bfloat16, but this machine does not support bfloat16"):
            dtypes.answering_dtype("bfloat16", kind, family, "bfloat16")


@pytest.mark.parametrize(
    ("chips", "settled"), [(("gfx942", "gfx942"), "bfloat16"), (("gfx1100", "gfx1030"), "float16")]
)
def test_a_launch_on_amd_cards_computes_in_what_all_have(
    chips: tuple[str, str], settled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    be(chips[0], monkeypatch)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda gpu: SimpleNamespace(gcnArchName=chips[gpu]))
    asked = {"dtype": "bfloat16", "model_name_or_path": base(tmp_path, "llama")}
    assert dtypes.apply_device_support(asked).values["dtype"] == settled


@pytest.mark.parametrize(("rocm", "fits"), [(False, True), (True, False)])
def test_wide_heads_do_not_take_a_capability_of_amd_for_an_h100(
    rocm: bool, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An MI250 has capability 9.0 and 64 KiB of shared memory."""
    monkeypatch.setattr("torch.version.hip", "6.4" if rocm else None)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr("lrc.packing.attention._why_no_triton", lambda: None)
    config = SimpleNamespace(_attn_implementation="sdpa", attention_dropout=0.0, head_dim=256)
    model = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: config), dtype=torch.bfloat16)
    assert (why_no_flex(model, torch.device("cuda")) is None) == fits


@pytest.mark.parametrize(
    ("name", "capability", "built", "cure"),
    [
        ("Tesla P100-PCIE-16GB", (6, 0), ("sm_75", "sm_80", "sm_120"), "install a build for an older CUDA: https://"),
        ("Tesla V100-SXM2-32GB", (7, 0), ("sm_75", "compute_120"), "install a build for an older CUDA: https://"),
        ("NVIDIA GeForce RTX 5090", (12, 0), ("sm_80", "sm_90a"), "install a newer torch: https://"),
        ("NVIDIA GeForce RTX 4090", (8, 9), ("sm_80", "sm_90"), None),
        ("NVIDIA GB10", (12, 1), ("sm_80", "sm_120"), None),
        ("a mock", (7, 5), (), None),
    ],
)
def test_a_gpu_that_torch_has_no_kernels_for_is_refused(
    name: str, capability: tuple[int, int], built: tuple[str, ...], cure: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch would warn, and end in a traceback at the first kernel."""
    monkeypatch.setattr("torch.cuda.get_arch_list", lambda: list(built))
    monkeypatch.setattr("torch.cuda.current_device", lambda: 0)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: name)
    monkeypatch.setattr(
        "torch.cuda.get_device_properties", lambda index: SimpleNamespace(major=capability[0], minor=capability[1])
    )
    dtypes.require_kernels("cpu")
    if cure is None:
        dtypes.require_kernels("cuda")
        return
    with pytest.raises(MachineError) as refused:
        dtypes.require_kernels("cuda")
    (line,) = refused.value.lines()
    assert line.startswith(f"{name}: torch ") and "no kernels for compute capability" in line and cure in line


class Model:
    dtype = torch.bfloat16
    config = SimpleNamespace(
        get_text_config=lambda: SimpleNamespace(_attn_implementation="sdpa", attention_dropout=0.0, head_dim=64)
    )


@pytest.mark.parametrize(
    ("found", "variables", "header", "told"),
    [
        ({"gcc"}, {}, True, None),
        ({"clang"}, {}, True, None),
        ({"my-cc"}, {"CC": "my-cc"}, True, None),
        (set(), {}, True, "triton needs a C compiler, such as gcc"),
        ({"gcc"}, {"CC": "gone"}, True, "triton needs a C compiler, such as gcc"),
        ({"gcc"}, {}, False, "triton needs Python's headers, such as those in python3-dev"),
    ],
)
def test_auto_does_without_flexattention_where_triton_cannot_build(
    found: set[str],
    variables: dict[str, str],
    header: bool,
    told: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As in images that have torch from PyPI and no compiler: the first long row would end in a traceback."""
    monkeypatch.delenv("CC", raising=False)
    for key, value in variables.items():
        monkeypatch.setenv(key, value)
    if header:
        (tmp_path / "Python.h").touch()
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr("lrc.packing.attention.find_spec", lambda name: object())
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}" if name in found else None)
    monkeypatch.setattr("sysconfig.get_paths", lambda scheme: {"include": str(tmp_path)})
    attention._why_no_triton.cache_clear()
    try:
        model, device = Model(), torch.device("cuda", 0)
        attention.choose_attention(model, "auto", device)
        assert attention.attention_form(model, device, 4096) == ("block" if told else "flex")
        printed = capsys.readouterr().err
        assert (told or "") in printed and bool(told) == ("attention: FlexAttention" in printed)
        if told:
            with pytest.raises(ValueError, match=f"attention is flex, but {told}.*; set it to auto"):
                attention.choose_attention(model, "flex", device)
    finally:
        attention._why_no_triton.cache_clear()
