"""Memory that runs out while a model is loaded: what did not fit, and what to do, in one line.

It runs out in the midst of the libraries: where they copy a tensor, quantize it, or divide a model over devices.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_models import save_base
from small_runs import lrc, make_run, pairs, run
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from lrc.models.answering_model import load_for_answering
from lrc.models.lack_of_memory import free_in_words
from lrc.models.loading import load_base
from lrc.runtime.errors import MachineError, ModelError
from lrc.runtime.memory import format_size

COPIES = "transformers.core_model_loading._materialize_copy"
QUANTIZES = "bitsandbytes.nn.Params4bit.to"
CUDA = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.52 GiB"
WITHOUT_RUN = ["--template", "alpaca", "--answer-style", "digit"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = make_run(
        tmp_path_factory.mktemp("lack"),
        pairs(8, (2, 3)),
        pairs(4, (2,), name="v"),
        template="alpaca",
        answer_style="digit",
        lora_r=4,
        lora_dropout=0.0,
        lora_target_modules=["q_proj", "v_proj"],
        max_steps=1,
        per_device_train_batch_size=4,
        learning_rate=1.0e-2,
        save_strategy="no",
        use_cpu=True,
    )
    assert run(where, where / "a") == 0
    return where


def of_cuda() -> None:
    raise torch.OutOfMemoryError(CUDA)


def of_the_driver() -> None:
    raise RuntimeError("CUDA error: out of memory")


def of_torch_on_a_cpu() -> None:
    torch.empty(1 << 60, dtype=torch.uint8)  # which no machine has


def of_torch_on_windows() -> None:
    raise RuntimeError(
        "[enforce fail at alloc_cpu.cpp:116] data. DefaultCPUAllocator: not enough memory: you tried to "
        "allocate 1152921504606846976 bytes."
    )


def of_python() -> None:
    raise MemoryError


def of_a_file_that_is_mapped() -> None:
    raise OSError(errno.ENOMEM, "Cannot allocate memory")


WAYS = [of_cuda, of_the_driver, of_torch_on_a_cpu, of_torch_on_windows, of_python, of_a_file_that_is_mapped]


def fail(monkeypatch: pytest.MonkeyPatch, where: str, how: Callable[[], None], after: int = 2) -> None:
    """Have a function of a library fail at a call after some that went well."""
    module, _, name = where.rpartition(".")
    owner: Any = pytest.importorskip(module.removesuffix(".Params4bit"))
    owner = owner.Params4bit if module.endswith("Params4bit") else owner
    whole, calls = getattr(owner, name), 0

    def failing(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > after:
            how()
        return whole(*args, **kwargs)

    monkeypatch.setattr(owner, name, failing)


def size_of(base: Path) -> str:
    return format_size(sum(tensor.nbytes for tensor in load_file(base / "model.safetensors").values()))


def line_about(name: Path, capfd: pytest.CaptureFixture[str]) -> str:
    """The only line about a folder, where there is no traceback and no table."""
    told = capfd.readouterr().err
    assert "Traceback" not in told and "LOAD REPORT" not in told and "download" not in told
    (line,) = [line for line in told.splitlines() if line.startswith(f"{name}: ")]
    return line


@pytest.mark.parametrize("how", WAYS)
def test_answering_says_what_did_not_fit(
    how: Callable[[], None],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    fail(monkeypatch, COPIES, how)
    data = ["--data", folder / "t_validation.json", "--output", tmp_path / "a.csv"]
    assert lrc("generate", "--model", folder / "base", *WITHOUT_RUN, *data) == 1
    line = line_about(folder / "base", capfd)
    lack = "out of memory: 1.2 EB were requested at once" if "torch" in how.__name__ else "out of memory"
    assert line.startswith(
        f"{folder / 'base'}: cannot be loaded, {lack} (its weights take {size_of(folder / 'base')}, "
    )
    assert re.search(r", [\d.]+ [kMGT]B of memory were free\); give --load-in-4bit, in place of a merged model ", line)
    assert "(`--model BASE --adapter DIR`), or use an adapter of a smaller base" in line
    assert not (tmp_path / "a.csv").exists()


@pytest.mark.parametrize("how", WAYS)
def test_training_says_what_did_not_fit(
    how: Callable[[], None],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    fail(monkeypatch, COPIES, how)
    assert run(folder, tmp_path / "a") == 1
    line = line_about(folder / "base", capfd)
    assert f" (its weights take {size_of(folder / 'base')}, " in line and ": cannot be loaded, out of memory" in line
    assert line.endswith("; set load_in_4bit: true, or take a smaller base; `lrc preview` tells what fits")


@pytest.mark.parametrize("after", [0, 3])
@pytest.mark.parametrize("how", [of_cuda, of_torch_on_a_cpu, of_python])
def test_what_transformers_only_notes_while_it_quantizes_is_told(
    how: Callable[[], None],
    after: int,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """It logs a table of tracebacks, and raises an exception that only points to that."""
    monkeypatch.setattr("logging.root.manager.disable", 30)  # as with TRANSFORMERS_VERBOSITY=error: no table at all
    fail(monkeypatch, QUANTIZES, how, after)
    assert run(folder, tmp_path / "a", "--load_in_4bit") == 1
    line = line_about(folder / "base", capfd)
    assert ": cannot be loaded, out of memory" in line
    assert line.endswith("; take a smaller base, or a GPU with more memory; `lrc preview` tells what fits")
    data = ["--data", folder / "t_validation.json", "--output", tmp_path / "a.csv"]
    assert lrc("generate", "--model", folder / "base", *WITHOUT_RUN, "--load-in-4bit", *data) == 1
    line = line_about(folder / "base", capfd)
    assert line.endswith("; use an adapter of a smaller base, or a machine with more memory")


def test_the_size_is_that_in_4_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = save_base(tmp_path / "base", dtype=torch.bfloat16, hidden_size=256)
    nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    words = {"dtype": torch.bfloat16, "device_map": {"": "cpu"}}
    model = AutoModelForCausalLM.from_pretrained(base, quantization_config=nf4, **words)
    states = [one.quant_state for one in model.parameters() if getattr(one, "quant_state", None) is not None]
    held = sum(one.nbytes for one in model.parameters()) + sum(state.absmax.nbytes for state in states)
    fail(monkeypatch, QUANTIZES, of_cuda)
    with pytest.raises(MachineError, match=rf"\(its weights take {re.escape(format_size(held))}, "):
        load_base(str(base), quantization=nf4, **words)


def test_what_else_fails_while_weights_are_quantized_has_its_own_reason(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def how() -> None:
        raise ValueError("blocksize 63 is not supported")

    fail(monkeypatch, QUANTIZES, how)
    with pytest.raises(
        ModelError, match=r": its model cannot be loaded \(blocksize 63 is not supported\); download its"
    ):
        load_base(str(folder / "base"), quantization=BitsAndBytesConfig(load_in_4bit=True), device_map={"": "cpu"})
    assert "LOAD REPORT" not in capfd.readouterr().err


def test_a_model_that_is_divided_over_devices(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail(monkeypatch, "transformers.modeling_utils.accelerate_dispatch", of_cuda, after=0)
    names = ["model.embed_tokens", "model.layers.0", "model.norm", "model.rotary_emb", "lm_head"]
    places = {**dict.fromkeys(names, "cpu"), "model.layers": "disk"}
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        MachineError, match=r": cannot be loaded, out of memory \(its weights take .* were free\); give --load"
    ):
        load_for_answering(str(folder / "base"), [], torch.device("cpu"), places=places)


def test_an_adapter_that_does_not_fit(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fail(monkeypatch, "peft.peft_model.load_peft_weights", of_cuda, after=0)
    words = ["--model", folder / "base", "--adapter", folder / "a", "--data", folder / "t_validation.json"]
    assert lrc("generate", *words, "--output", tmp_path / "a.csv") == 1
    line = line_about(folder / "a", capfd)
    cure = "close other programs, or use a machine with more memory"
    assert line == f"{folder / 'a'}: cannot be loaded, out of memory; {cure}"


def test_a_merge_that_compares_logits(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fail(monkeypatch, COPIES, of_torch_on_a_cpu)
    words = ["merge", "--adapter", folder / "a", "--base-model", folder / "base", "--output-dir", tmp_path / "merged"]
    assert lrc(*words) == 1
    assert "; merge with --no-verify, which compares no logits, or on a machine" in line_about(folder / "base", capfd)
    assert not (tmp_path / "merged").exists()


def test_what_was_free_is_told_of_every_device(monkeypatch: pytest.MonkeyPatch) -> None:
    free = [3 * 10**9, 5 * 10**9]
    monkeypatch.setattr("torch.cuda.current_device", lambda: 1)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda index: (free[index], 1 << 40))
    zero, one = "GPU 0 had 3.0 GB free", "GPU 1 had 5.0 GB free"
    assert free_in_words({"": torch.device("cuda")}) == (one,)
    assert free_in_words({"a": 0, "b": torch.device("cuda:1"), "c": 0}) == (zero, one)
    assert free_in_words({"": "disk"}) == ()
    monkeypatch.setattr("lrc.models.lack_of_memory.available_memory", lambda: 7 * 10**9)
    assert free_in_words(None) == free_in_words({"": torch.device("cpu")}) == ("7.0 GB of memory were free",)
    monkeypatch.undo()
    assert free_in_words({"": torch.device("cuda:99")}) == ()  # which torch cannot ask


def test_a_model_that_main_memory_cannot_hold_is_refused_before_it_is_loaded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lrc.models.placement.available_memory", lambda: 1000)
    fail(monkeypatch, COPIES, of_cuda, after=10_000)
    words = ["generate", "--model", folder / "base", *WITHOUT_RUN, "--data", folder / "t_validation.json", "--output"]
    assert lrc(*words, tmp_path / "a.csv") == 0  # float32 stays in the file
    line = line_about(folder / "base", capfd)
    assert line.endswith(
        f" take {size_of(folder / 'base')}, and 1.0 kB of memory are free: they are read again and again"
    )
    monkeypatch.setattr("lrc.models.placement.free_swap", lambda: 0)
    assert lrc(*words, tmp_path / "b.csv", "--load-in-4bit") == 1
    assert line_about(folder / "base", capfd).endswith("; close other programs, or use an adapter of a smaller base")
    monkeypatch.setattr("lrc.models.placement.free_swap", lambda: 2**40)
    assert lrc(*words, tmp_path / "b.csv", "--load-in-4bit") == 0
    assert line_about(folder / "base", capfd).endswith("1.0 kB of memory are free: swap space is used")
