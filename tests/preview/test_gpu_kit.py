"""The kit for a machine with a GPU asks for nothing that such a machine lacks: what it cannot be tried with here."""

from __future__ import annotations

import ast
import base64
import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from oracle import difference
from safetensors.torch import load_file, save_file
from small_runs import lrc, make_run, pairs, run
from torch.profiler import ProfilerActivity, profile

from lrc.config.run_record import RUN_FILE
from lrc.models.fingerprint import fingerprint_base
from lrc.models.loading import load_base
from lrc.models.tiny import make_base

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
# What is there, or comes as a wheel; the other packages of the tests, such as hypothesis and selenium, do not.
THERE = {"lrc", "numpy", "peft", "pytest", "tokenizers", "torch", "transformers"}


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)  # for its dataclasses
    spec.loader.exec_module(module)
    return module


def imported(path: Path) -> set[str]:
    """The packages that a file imports, directly or by helpers of the tests."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            helper = ROOT / "tests" / "support" / f"{name}.py"
            found |= imported(helper) if helper.is_file() else {name.partition(".")[0]}
    return found - sys.stdlib_module_names


def test_the_tests_on_a_gpu_need_no_other_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (ROOT / "tests" / "gpu").glob("*.py"):
        assert imported(path) <= THERE, path
    assert "hypothesis" in imported(ROOT / "tests" / "conftest.py")  # so it must not be read there
    stages = load("gpu_stages", monkeypatch)
    for xdist in (None, object()):
        monkeypatch.setattr(stages, "find_spec", lambda name, found=xdist: found)
        words = stages.pytest_command(stages.Stage("equality", "cuda", ROOT))
        assert words[words.index("--confcutdir") + 1] == "tests/gpu" and ("-n" in words) == (xdist is not None)
        assert "-q" not in words  # a second one leaves out how many have passed, which the finding is to say


def test_a_form_of_attention_that_cannot_run_does_not_end_its_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = load("gpu_stages", monkeypatch)

    def fail(stage: object, form: str, row: object, **settings: object) -> object:
        if form == "flex":
            raise RuntimeError("Failed to find C compiler")
        return lambda: None

    monkeypatch.setattr(stages, "_attend", fail)
    stages.stage_attention(stages.Stage("attention", "cpu", tmp_path))
    (line,) = (tmp_path / "findings.jsonl").read_text().splitlines()
    assert '"flex_ms": "RuntimeError: Failed to find C compiler"' in line and '"dense_ms": ' in line


def test_a_rate_is_that_of_the_step_that_was_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = load("gpu_stages", monkeypatch)
    questions, _ = stages.questions(24)
    parts = [SimpleNamespace(sequences=questions[8 * step : 8 * step + 8]) for step in range(3)]
    trainer = SimpleNamespace(get_train_dataloader=lambda: parts, model=None, args=SimpleNamespace())
    monkeypatch.setattr(stages, "tree_trainer", lambda *args, **settings: trainer)
    monkeypatch.setattr(stages, "timed", lambda *args: {"seconds": 2.0, "step": 1, "first": 9.0})
    monkeypatch.setattr("lrc.packing.attention.choose_attention", lambda *args: None)
    stages.stage_steps(stages.Stage("steps", "cpu", tmp_path))
    unique = {tuple(one.tokens[: end + 1]) for one in parts[1].sequences for end in range(len(one.tokens) - 1)}
    for line in map(json.loads, (tmp_path / "findings.jsonl").read_text().splitlines()):
        assert (line["unique_tokens"], line["unique_tok_s"]) == (len(unique), len(unique) / 2)
        assert line["questions_s"] == 4 and "peak_gib" not in line  # torch counts a GPU's memory only
    assert line["first_step_s"] == 9.0


def test_runs_are_equal_only_if_one_of_them_was_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    stages = load("gpu_stages", monkeypatch)
    whole = [(1, 2.0), (2, 1.5), (3, 1.25)]
    run = {"train": "done", "adapter": "0a", "losses": whole}
    runs = {"once": run, "again": run, "resumed": run | {"stopped": 143, "stopped_after": [1, 2]}}
    assert stages.compare(runs) == {**dict.fromkeys(runs, "0a"), "equal": True, "losses": [2.0, 1.5, 1.25]}
    for change in ({"stopped": 0, "stopped_after": [1, 2, 3]}, {"losses": whole[2:]}, {"adapter": "0b"}):
        assert not stages.compare(runs | {"resumed": runs["resumed"] | change})["equal"], change
    none = {name: one | {"adapter": None, "train": "status 1: no"} for name, one in runs.items()}
    assert stages.compare(none)["equal"] is False and stages.compare(none)["once"] == "status 1: no"


def test_a_profile_on_a_cpu_has_times(monkeypatch: pytest.MonkeyPatch) -> None:
    stages = load("gpu_stages", monkeypatch)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        for _ in range(3):
            torch.ones(64, 64) @ torch.ones(64, 64)
    found = {
        name: (milliseconds, count) for name, milliseconds, count in stages.kernels(stages.Stage("", "cpu", ROOT), seen)
    }
    assert found["aten::mm"][0] > 0 and found["aten::mm"][1] == 3


def test_a_stage_is_noted_when_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kit = load("gpu", monkeypatch)
    begun = time.monotonic()
    for name, code, until in (("long", "import time; time.sleep(60)", 0.6), ("wrong", "raise SystemExit(3)", 60.0)):
        process = subprocess.Popen([sys.executable, "-IS", "-c", code], start_new_session=True)
        kit.note_end(tmp_path, name, process, begun + until, begun)
    ended = {one["stage"]: (one["ended"], one["seconds"]) for one in kit.read(tmp_path / "findings.jsonl")}
    assert ended["long"][0] == "stopped: its time was over" and 0.5 < ended["long"][1] < 30
    assert ended["wrong"][0] == "failed, status 3"


def test_each_wheel_has_a_tested_version(monkeypatch: pytest.MonkeyPatch) -> None:
    wheels = load("gpu_wheels", monkeypatch)
    assert {wheels._plain(name) for name in wheels.MISSING} <= wheels.pins().keys()
    assert {"pytest", "pytest-xdist", "tokenizers"} <= set(wheels.MISSING)


def test_a_wheel_keeps_one_library_and_its_record_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheels = load("gpu_wheels", monkeypatch)
    names = ["__init__.py", "libbitsandbytes_cpu.so", "libbitsandbytes_cuda126.so", "libbitsandbytes_cuda130.so"]
    names += ["libbitsandbytes_rocm62.so"]
    record = "bitsandbytes-1.0.dist-info/RECORD"
    with zipfile.ZipFile(tmp_path / "old.whl", "w") as old:
        for name in names:
            old.writestr(f"bitsandbytes/{name}", name * 99)
        old.writestr(record, "as it was")
    wheels.with_one_library(tmp_path / "old.whl", tmp_path / "new.whl", "130")
    with zipfile.ZipFile(tmp_path / "new.whl") as new:
        kept = {name: new.read(name) for name in new.namelist()}
    lines = [line.split(",") for line in kept.pop(record).decode().splitlines()]
    assert {name.partition("/")[2] for name in kept} == {*names[:2], names[3]}
    for name, content in kept.items():  # the standard of wheels
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        assert [name, f"sha256={digest}", str(len(content))] in lines
    assert [record, "", ""] in lines and len(lines) == len(kept) + 1
    with pytest.raises(SystemExit, match="has no bitsandbytes/libbitsandbytes_cuda999.so; name another version"):
        wheels.with_one_library(tmp_path / "old.whl", tmp_path / "other.whl", "999")


@pytest.mark.parametrize("kind", ["gptq", "awq"])
def test_packed_weights_are_those_beside_them(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bases = load("quantized_bases", monkeypatch)
    torch.manual_seed(0)
    weight = torch.randn(256, 256)
    parts, exact = bases.WRITERS[kind][1](weight)
    assert (exact - weight).abs().max() < 0.6 * parts["scales"].max()

    def number(name: str, row: int, column: int, place: int) -> int:
        return int(parts[name][row, column]) >> (4 * place) & 15

    for into, out in zip(range(256), torch.randperm(256).tolist(), strict=True):
        group, place = into // bases.GROUP, out % 8
        if kind == "gptq":
            found = number("qweight", into // 8, out, into % 8) - number("qzeros", group, out // 8, place) - 1
        else:
            place = bases.AWQ_ORDER.index(place)
            found = number("qweight", into, out // 8, place) - number("qzeros", group, out // 8, place)
        assert found * float(parts["scales"][group, out]) == pytest.approx(float(exact[out, into]), rel=1e-5)


@pytest.mark.parametrize("kind", ["fp8", "gptq", "awq"])
def test_a_quantized_base_is_the_one_beside_it_forward_and_backward(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("gptqmodel", "optimum") if kind != "fp8" else ():
        pytest.importorskip(package)
    bases = load("quantized_bases", monkeypatch)
    make_base(tmp_path / "base", ["小明在台北工作。"])
    bases.quantize(kind, tmp_path / "base", tmp_path / "stored", tmp_path / "exact", "cpu")
    found = []
    for name in ("stored", "exact"):
        model = load_base(str(tmp_path / name), dtype=torch.float32, device_map={"": torch.device("cpu")}).train()
        embedded = model.get_input_embeddings()(torch.arange(40)[None]).detach().requires_grad_()
        logits = model(inputs_embeds=embedded).logits
        (gradient,) = torch.autograd.grad(logits.float().logsumexp(-1).sum(), embedded)
        found.append((logits.detach(), gradient))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=2e-3 * float(other.abs().max()))


def test_the_original_of_a_gptq_base_is_known_by_its_norms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Packed weights are not read for it, so that this needs no package for them."""
    bases = load("quantized_bases", monkeypatch)
    keys = {"template": "alpaca", "answer_style": "digit", "max_steps": 2, "learning_rate": 1e-2, "save_strategy": "no"}
    keys |= {"lora_target_modules": ["q_proj", "v_proj", "down_proj"], "lr_scheduler_type": "constant"}
    folder = make_run(tmp_path, pairs(8, (2, 3)), **keys)
    weights = load_file(folder / "base/model.safetensors")
    vectors = {name: 1.0 + torch.rand(value.shape) / 2 for name, value in weights.items() if value.ndim == 1}
    save_file({**weights, **vectors}, folder / "base/model.safetensors", {"format": "pt"})  # as trained ones are
    bases.quantize("gptq", folder / "base", folder / "stored", folder / "exact", "cpu")
    assert run(folder, folder / "a", "--use_cpu") == 0
    record = json.loads((folder / "a" / RUN_FILE).read_text())
    record["base"] = fingerprint_base(str(folder / "stored"))
    (folder / "a" / RUN_FILE).write_text(json.dumps(record))
    merge = ["merge", "--adapter", folder / "a", "--output-dir", folder / "merged", "--base-model"]
    other = shutil.copytree(folder / "base", folder / "other")
    save_file(
        {**weights, **vectors, "model.norm.weight": vectors["model.norm.weight"] + 0.1},
        other / "model.safetensors",
        {"format": "pt"},
    )
    assert lrc(*merge, other) == 1
    assert "not the model of which stored was made" in capsys.readouterr().err
    assert lrc(*merge, folder / "base") == 0
    assert "was trained on stored (gptq, 4 bits)" in capsys.readouterr().err
    assert difference(folder / "base", folder / "a", folder / "merged") <= 2e-6
