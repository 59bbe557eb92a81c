"""`lrc gpu-check` in toy sizes: it finds what is wrong, and says so in a line with its cure."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from driver import make_driver
from rich.cells import cell_len
from small_runs import lrc

from lrc.commands import gpu_check as command
from lrc.models import lora_dropout
from lrc.preview import gpu_checks
from lrc.preview.gpu_checks import CHECKS, CheckFailedError, CheckResult, Probe, check_device, check_products
from lrc.runtime.translation import CHINESE, _

CPU = Probe(torch.device("cpu"))


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(gpu_checks, "CHECKS", {name: CHECKS[name] for name in names})


@pytest.fixture(scope="module")
def results() -> list[CheckResult]:
    return list(gpu_checks.run_checks(CPU))


def test_all_of_it_works_here(
    results: list[CheckResult], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "run_checks", lambda probe: iter(results))
    assert lrc("gpu-check", "--device", "cpu") == 0
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert [line[:18].strip() for line in lines[: len(CHECKS)]] == list(CHECKS)
    assert not [line for line in lines if "WRONG" in line] and "Traceback" not in told.err
    assert "tokens a second" in told.out and "TFLOP/s" in told.out and "as separate samples" in told.out


def test_the_results_are_told_in_chinese_in_aligned_columns(
    results: list[CheckResult], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = CheckResult(
        _("memory"), _("only {free} free of {total}").format(free="1 GiB", total="8 GiB"), _("report this")
    )
    monkeypatch.setattr(command, "run_checks", lambda probe: iter([*results, wrong]))
    monkeypatch.setenv("LRC_LANG", CHINESE)
    assert lrc("gpu-check", "--device", "cpu") == 1
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert not re.search("[a-z]{3,} [a-z]{3,} [a-z]{3,}", told.out.partition("lrc run")[0])
    assert all(re.match(r"[^ ].* +(正常|異常)   \S", line) for line in lines[: len(results) + 1])
    begins = {cell_len(re.split("正常|異常", line)[0]) for line in lines[: len(results) + 1]}
    assert begins == {18} and "8 GiB 中只有 1 GiB 可用" in lines[len(results)]
    assert "gpu-check：記憶體：8 GiB 中只有 1 GiB 可用；請回報這個問題" in told.err


def test_json_is_the_same_in_every_language(
    results: list[CheckResult], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "run_checks", lambda probe: iter(results))
    said = []
    for language in ("en", CHINESE):
        monkeypatch.setenv("LRC_LANG", language)
        assert lrc("gpu-check", "--device", "cpu", "--json") == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] and "relative error" in said[0]


def test_json_has_the_same(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    only(monkeypatch, "device", "4 bits")
    assert lrc("gpu-check", "--device", "cpu", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in found["checks"]] == ["device", "4 bits"]
    assert all(one["works"] for one in found["checks"]) and "recipe" in found


def test_a_mask_that_does_not_count_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A kernel that ignores the mask: every token sees all before it, those of other questions too."""
    only(monkeypatch, "attention: dense")
    attend = torch.nn.functional.scaled_dot_product_attention

    def causal(query: Any, key: Any, value: Any, attn_mask: Any = None, **kwargs: Any) -> Any:
        kwargs.pop("is_causal", None)
        seen = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool).tril(key.shape[2] - query.shape[2])
        return attend(query, key, value, attn_mask=seen, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", causal)
    assert lrc("gpu-check", "--device", "cpu") == 1
    told = capsys.readouterr()
    assert "attention: dense  WRONG" in told.out
    (line,) = [line for line in told.err.splitlines() if line.startswith("gpu-check: attention: dense")]
    assert "from those of separate samples; set attention: block in the recipe" in line


def test_a_backward_that_drops_other_elements_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    only(monkeypatch, "LoRA")
    draw = lora_dropout._draw
    monkeypatch.setattr(lora_dropout, "_draw", lambda states, p, seed: draw(states, p, 0))
    assert lrc("gpu-check", "--device", "cpu") == 0  # the same in both
    seeds = iter(range(100))
    monkeypatch.setattr(lora_dropout, "_draw", lambda states, p, seed: draw(states, p, next(seeds)))
    assert lrc("gpu-check", "--device", "cpu") == 1
    assert "LoRA: products or gradients after dropout differ by" in (told := capsys.readouterr().err)
    assert "; set lora_dropout: 0 in the recipe, and report this" in told
    monkeypatch.setattr(lora_dropout, "_draw", lambda states, p, seed: draw(states, 0.5, seed))
    assert lrc("gpu-check", "--device", "cpu") == 1
    assert re.search(r"LoRA: (49|50|51)\.\d% of the elements are dropped, not 25%", capsys.readouterr().err)


def test_what_nobody_foresaw_is_a_line_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with …")

    only(monkeypatch, "device", "training")
    monkeypatch.setattr(gpu_checks, "target_log_probs", broken)
    assert lrc("gpu-check", "--device", "cpu") == 1
    told = capsys.readouterr()
    assert "gpu-check: training: RuntimeError: CUDA error: an illegal memory access was encountered; report" in told.err
    assert "Traceback" not in told.err and "Compile with" not in told.err


def test_bitsandbytes_that_cannot_be_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    only(monkeypatch, "4 bits")
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    assert lrc("gpu-check", "--device", "cpu") == 1
    assert "4 bits: bitsandbytes cannot be imported" in (told := capsys.readouterr().err)
    assert "pip install -U bitsandbytes" in told


def test_without_a_gpu_it_says_how_to_try_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "device_type", lambda: "cpu")
    monkeypatch.setattr("torch.version.cuda", None)
    make_driver(tmp_path, monkeypatch, says="No devices were found")
    assert lrc("gpu-check") == 1
    assert "gpu-check: torch sees no CUDA GPU here; --device cpu runs" in capsys.readouterr().err
    make_driver(tmp_path, monkeypatch)
    assert lrc("gpu-check") == 1
    told = (
        "was built without CUDA, and there is an NVIDIA card; pip uninstall torch, then install a build with CUDA (ht"
    )
    assert told in capsys.readouterr().err


class Properties:
    def __init__(self, name: str, major: int, minor: int) -> None:
        self.name, self.major, self.minor = name, major, minor


@pytest.fixture
def mocked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Probe]:
    def card(name: str, capability: tuple[int, int], *built: str) -> Probe:
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties(name, *capability))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: list(built))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        return Probe(torch.device("cuda", 0))

    return card


@pytest.mark.parametrize(
    ("capability", "built"),
    [
        ((7, 5), ("sm_75", "sm_80")),
        ((8, 6), ("sm_75", "sm_80", "sm_90")),  # Ampere's kernels serve its consumer cards
        ((8, 9), ("sm_80", "sm_86")),
        ((9, 0), ("sm_80", "sm_90a")),
        ((12, 0), ("sm_80", "compute_90")),  # compiled from PTX
    ],
)
def test_kernels_that_serve(capability: tuple[int, int], built: tuple[str, ...], mocked: Callable[..., Probe]) -> None:
    told = check_device(mocked("Tesla T4", capability, *built))
    assert f"compute capability {capability[0]}.{capability[1]}" in told


@pytest.mark.parametrize("capability", [(12, 0), (10, 3)])
def test_a_card_that_is_newer_than_the_build_wants_a_newer_one(
    capability: tuple[int, int], mocked: Callable[..., Probe]
) -> None:
    with pytest.raises(CheckFailedError) as raised:
        check_device(mocked("RTX 5090", capability, "sm_80", "sm_90a"))
    assert raised.value.cure.startswith("install a newer torch: https://")


def test_an_amd_card_is_told_by_its_chip(mocked: Callable[..., Probe], monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds for ROCm list chips, and not compute capabilities."""
    monkeypatch.setattr("torch.version.hip", "7.1")
    probe = mocked("AMD Instinct MI300X", (9, 4), "gfx90a", "gfx942")
    monkeypatch.setattr(Properties, "gcnArchName", "gfx942:sramecc+:xnack-", raising=False)
    assert check_device(probe) == "AMD Instinct MI300X, gfx942, ROCm 7.1"
    monkeypatch.setattr(Properties, "gcnArchName", "gfx1030")
    with pytest.raises(CheckFailedError, match="has no kernels for gfx1030"):
        check_device(probe)


@pytest.mark.parametrize(
    ("capability", "built"),
    [
        ((6, 0), ("sm_75", "sm_80")),
        ((7, 0), ("sm_75", "sm_120", "compute_120")),  # PTX serves later chips only
        ((7, 5), ("sm_80",)),
        ((8, 0), ("sm_86", "sm_90")),
    ],
)
def test_kernels_that_are_missing(
    capability: tuple[int, int], built: tuple[str, ...], mocked: Callable[..., Probe]
) -> None:
    with pytest.raises(CheckFailedError, match="no kernels for compute capability") as refused:
        check_device(mocked("Tesla P100-PCIE-16GB", capability, *built))
    assert "previous-versions" in refused.value.cure


def test_a_card_that_is_slower_than_it_is_sold(monkeypatch: pytest.MonkeyPatch, mocked: Callable[..., Probe]) -> None:
    probe = mocked("Tesla T4", (7, 5), "sm_75")
    monkeypatch.setattr(gpu_checks, "supported", lambda dtype, device: dtype != "bfloat16")
    made = torch.randn
    monkeypatch.setattr(torch, "randn", lambda *size, device, dtype: made(8, 8))
    monkeypatch.setattr(Probe, "seconds", lambda self, run, times: 2 * 4096**3 / 40e12)
    assert "float16 40 TFLOP/s" in check_products(probe) and "62% of the 65" in check_products(probe)
    monkeypatch.setattr(Probe, "seconds", lambda self, run, times: 2 * 4096**3 / 8e12)
    with pytest.raises(CheckFailedError, match="12% of the 65"):
        check_products(probe)
