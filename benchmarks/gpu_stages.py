"""The stages of gpu.py; each is a function that notes its findings one by one."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from gpu import note

ROOT = Path(__file__).resolve().parents[1]
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# Chinese-Alpaca-2's three sizes, and one for a CPU.
SHAPES = {
    "1.3B": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 4, "num_attention_heads": 32},
    "7B": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
    "13B": {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40},
    "toy": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2},
}


@dataclass(frozen=True)
class Stage:
    """Where a stage runs, and where its findings go."""

    name: str
    device: str
    out: Path
    only: Sequence[str] = ()

    @property
    def gpu(self) -> bool:
        """Whether sizes are real ones."""
        return self.device == "cuda"

    def note(self, **found: Any) -> None:
        """Keep a finding."""
        note(self.out, self.name, **found)

    def wants(self, side: str) -> bool:
        """Whether a side is to be run."""
        return not self.only or any(side.startswith(name) for name in self.only)

    def wait(self) -> None:
        """Wait until the device has done what it was given."""
        if self.gpu:
            torch.cuda.synchronize()

    def seconds(self, run: Callable[[], Any], times: int = 5) -> float:
        """The median time of a run, after one that does not count."""
        run()
        taken = []
        for _ in range(times if self.gpu else 1):
            self.wait()
            begun = time.perf_counter()
            run()
            self.wait()
            taken.append(time.perf_counter() - begun)
        return median(taken)


def run_stage(name: str, device: str, out: Path, only: Sequence[str]) -> None:
    """Run one stage in this process."""
    warnings.simplefilter("ignore")
    import gpu_recipes

    run = globals().get(f"stage_{name}") or getattr(gpu_recipes, f"stage_{name}")
    run(Stage(name, device, out, only))


# What there is.


def stage_facts(stage: Stage) -> None:
    """Versions, rates, which kernel takes a mask, and cuDNN's gradients with one."""
    from importlib.metadata import version

    names = ("torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes")
    stage.note(python=sys.version.split()[0], **{name: version(name) for name in names})
    if stage.gpu:
        card = torch.cuda.get_device_properties(0)
        stage.note(card=card.name, capability=f"{card.major}.{card.minor}", memory_gib=card.total_memory / 1024**3)
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        size = 8192 if stage.gpu and dtype != torch.float32 else 2048 if stage.gpu else 256
        a, b = (torch.randn(size, size, device=stage.device, dtype=dtype) for _ in range(2))
        stage.note(product=str(dtype), tflops=2 * size**3 / stage.seconds(lambda: a @ b) / 1e12)  # noqa: B023
    block = torch.empty(2**30 if stage.gpu else 2**20, device=stage.device, dtype=torch.uint8)
    other = torch.empty_like(block)
    stage.note(copy_tb_s=2 * block.numel() / stage.seconds(lambda: other.copy_(block)) / 1e12)
    if stage.gpu:
        _kernels(stage)
        _cudnn(stage)
    _compile(stage)


def _kernels(stage: Stage) -> None:
    from torch.nn.attention import SDPBackend

    for dtype in (torch.bfloat16, torch.float32):
        for queries in (1000, 1):
            query = torch.randn(1, 8, queries, 64, device="cuda", dtype=dtype, requires_grad=True)
            key = torch.randn(1, 8, 1000, 64, device="cuda", dtype=dtype, requires_grad=True)
            mask = torch.rand(1, 1, queries, 1000, device="cuda") < 0.5
            found = {}
            for on in (True, False):
                torch.backends.cuda.enable_cudnn_sdp(on)
                chosen = torch._fused_sdp_choice(query, key, key, mask)
                found["cudnn on" if on else "cudnn off"] = SDPBackend(chosen).name
            stage.note(masked_sdpa=str(dtype), queries=queries, **found)


def _cudnn(stage: Stage) -> None:
    """With a mask: time of a new shape and of a known one, and whether gradients are right."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention as attend

    for on in (True, False):
        torch.backends.cuda.enable_cudnn_sdp(on)
        first, again, wrong, worst = [], [], [], 0.0
        for queries, keys in (
            (617, 617),
            (101, 333),
            (1, 500),
            (333, 1001),
            (1360, 1360),
            (130, 2049),
            (7, 77),
            (64, 64),
        ):
            torch.manual_seed(queries)
            make = lambda n: torch.randn(1, 32, n, 128, device="cuda", dtype=torch.bfloat16, requires_grad=True)  # noqa: E731
            query, key, value = make(queries), make(keys), make(keys)
            mask = torch.ones(queries, keys, device="cuda", dtype=torch.bool).tril(keys - queries)[None, None]
            gradient = torch.randn(1, 32, queries, 128, device="cuda", dtype=torch.bfloat16)

            def step() -> Any:
                output = attend(query, key, value, attn_mask=mask)  # noqa: B023
                return output, *torch.autograd.grad(output, (query, key, value), gradient)  # noqa: B023

            for times in (first, again):
                torch.cuda.synchronize()
                begun = time.perf_counter()
                found = step()
                torch.cuda.synchronize()
                times.append((time.perf_counter() - begun) * 1000)
            with sdpa_kernel(SDPBackend.MATH):
                exact = step()
            error = max(
                ((a.float() - b.float()).norm() / b.float().norm()).item() for a, b in zip(found, exact, strict=True)
            )
            if not all(part.isfinite().all() for part in found) or error > 0.05:
                wrong.append(f"{queries}x{keys}")
            worst = max(worst, error if error == error else float("inf"))
        stage.note(
            cudnn="on" if on else "off", ms_new_shape=median(first[1:]), ms_known_shape=median(again),
            wrong=wrong or "none", worst_error=worst,
        )  # fmt: skip
    torch.backends.cuda.enable_cudnn_sdp(False)


def _compile(stage: Stage) -> None:
    """Seconds that FlexAttention takes for the first rows: of one length, of another, of a third."""
    for tokens in (1280, 2048, 3072) if stage.gpu else (128,):
        begun = time.perf_counter()
        try:
            with flexible(stage):
                _attend(stage, "flex", rows(tokens)[0], heads=(8, 8), width=64)()
        except Exception as error:
            stage.note(flex_first_row=tokens, failed=failed(error))
            return
        stage.wait()
        stage.note(flex_first_row=tokens, seconds=time.perf_counter() - begun)


# Whether it is right.


def stage_equality(stage: Stage) -> None:
    """tests/gpu: trees against separate samples."""
    results = (stage.out / "findings.jsonl").resolve()  # pytest runs in another folder
    environment = {**os.environ, "LRC_TEST_DEVICE": stage.device, "LRC_GPU_RESULTS": str(results)}
    done = subprocess.run(pytest_command(stage), cwd=ROOT, env=environment, capture_output=True, text=True)
    print(done.stdout[-20000:], done.stderr[-2000:])
    said = (done.stdout.strip() or done.stderr.strip() or "nothing").splitlines()
    stage.note(pytest=said[-1], status=done.returncode)


def pytest_command(stage: Stage) -> list[str]:
    """Of tests/gpu alone: the conftest.py of all tests needs packages that a GPU machine may lack, and so does -n."""
    workers = ["-n", "8"] if stage.gpu and find_spec("xdist") else []
    # pyproject.toml says -q already; said twice, it leaves out the line with the numbers of tests.
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *workers, "tests/gpu", "--tb=line"]
    return [*command, "--confcutdir", "tests/gpu"]


VARIANTS: dict[str, dict[str, Any]] = {
    "bf16": {"dtype": "bfloat16", "bf16": True, "attention": "block"},
    "nf4-bf16": {"dtype": "bfloat16", "bf16": True, "load_in_4bit": True, "gradient_checkpointing": True},
    "nf4-fp16": {"dtype": "float16", "fp16": True, "load_in_4bit": True, "use_bnb_nested_quant": True},
    "fp32-text": {"dtype": "float32", "answer_style": "text", "template": "plain", "option_contrast": 0.5},
}


def stage_sft(stage: Stage) -> None:
    """The real commands: train, evaluate, generate, merge, generate with the merged model; kinds beside each other."""
    from concurrent.futures import ThreadPoolExecutor

    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(len(VARIANTS) if stage.gpu else 1) as pool:
        started = {name: pool.submit(_commands, stage, name, Path(scratch) / name) for name in VARIANTS}
        for name, ended in started.items():
            if error := ended.exception():  # a command that took too long, for one
                stage.note(variant=name, failed=f"{type(error).__name__}: {error}"[:400])


def _commands(stage: Stage, name: str, folder: Path) -> None:
    flex = {"attention": "flex"} if stage.gpu and name == "nf4-bf16" else {}
    make_run(folder, **VARIANTS[name], **flex)
    begun = time.monotonic()
    trained = lrc("-m", "lrc.sft", "--config", folder / "recipe.yaml", device=stage.device)
    found: dict[str, Any] = {"variant": name, "train": status(trained), "seconds": time.monotonic() - begun}
    if trained.returncode == 0:
        lines = [json.loads(line) for line in (folder / "out" / "metrics.jsonl").read_text().splitlines()]
        found["loss"] = [line["loss"] for line in lines if "loss" in line]
        found["grad_norm"] = [line["grad_norm"] for line in lines if "grad_norm" in line]
        found["accuracy"] = [line["eval_accuracy"] for line in lines if "eval_accuracy" in line]
        adapter, data = ("--adapter", folder / "out"), ("--data", folder / "t_validation.json")
        base = ("--model", folder / "base")
        asked = (
            "-m",
            "lrc",
            "generate",
            *base,
            *adapter,
            *data,
            "--output",
            folder / "a.csv",
            "--scores",
            folder / "a.jsonl",
        )
        found["generate"] = status(lrc(*asked, device=stage.device))
        merged = lrc("-m", "lrc", "merge", *adapter, "--output-dir", folder / "merged", device=stage.device)
        found["merge"] = status(merged)
        asked = ("-m", "lrc", "generate", "--model", folder / "merged", *data, "--output", folder / "m.csv")
        found["generate_merged"] = status(lrc(*asked, "--scores", folder / "m.jsonl", device=stage.device))
        if (folder / "m.csv").exists() and (folder / "a.csv").exists():
            pairs = list(
                zip((folder / "a.csv").read_text().split(), (folder / "m.csv").read_text().split(), strict=True)
            )
            found["same_answers"] = f"{sum(a == b for a, b in pairs) - 1} of {len(pairs) - 1}"
            found["scores_apart"] = float(
                np.abs(option_scores(folder / "a.jsonl") - option_scores(folder / "m.jsonl")).max()
            )
    stage.note(**found)


def option_scores(file: Path) -> Any:
    """The scores in a file that `lrc generate --scores` wrote: (questions, options)."""
    return np.array([json.loads(line)["scores"] for line in file.read_text(encoding="utf-8").splitlines()])


NATIVE = """
import sys, torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16, device_map={"": sys.argv[2]})
print("selected layers:", type(model.model.layers[0].mlp.down_proj).__name__, flush=True)
model(torch.arange(5, 45, device=sys.argv[2])[None])
print("selected, forward: done")
"""


# The real training, whose adapter starts with the same numbers in whatever order a base has its layers: GPTQ's differs.
SEEDED = """
import sys, torch
from peft.tuners.lora import LoraLayer
reset = LoraLayer.reset_lora_parameters
def reset_seeded(self, *rest, **named):
    torch.manual_seed(0)
    return reset(self, *rest, **named)
LoraLayer.reset_lora_parameters = reset_seeded
from lrc import sft
sft.main(sys.argv[1:])
"""


def stage_stored(stage: Stage) -> None:
    """Bases whose weights are quantized on the disk, by the real commands, beside the same weights in 16 bits."""
    from concurrent.futures import ThreadPoolExecutor

    from quantized_bases import KINDS as FORMATS
    from quantized_bases import quantize

    chosen = [kind for kind in FORMATS if stage.wants(kind)]
    if not (find_spec("gptqmodel") and find_spec("optimum")):
        stage.note(skipped="GPTQ and AWQ, but for the line that asks for gptqmodel and optimum: one is not installed")
    elif stage.gpu:
        os.environ["CUDA_HOME"] = str(
            stage.out.resolve() / "no_nvcc"
        )  # gptqmodel would compile its kernel for AWQ for minutes
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(len(chosen) if stage.gpu else 1) as pool:
        folders = {kind: Path(scratch) / kind for kind in chosen}
        for kind, folder in folders.items():
            make_run(folder, dtype="bfloat16", bf16=True, learning_rate=1e-2)
            quantize(kind, folder / "base", folder / "stored", folder / "exact", stage.device)
        started = {kind: pool.submit(_stored, stage, kind, folder) for kind, folder in folders.items()}
        for kind, ended in started.items():
            if error := ended.exception():  # likewise
                stage.note(kind=kind, failed=f"{type(error).__name__}: {error}"[:400])


def _stored(stage: Stage, kind: str, folder: Path) -> None:
    """Train on a quantized base and on the same weights in 16 bits; answer with both and with what they merge into."""
    from concurrent.futures import ThreadPoolExecutor

    adapter = ("--adapter", folder / "stored-adapter")
    with ThreadPoolExecutor(5 if stage.gpu else 2) as pool:

        def start(*words: Any) -> Any:
            return pool.submit(lrc, *words, device=stage.device)

        def train(name: str) -> Any:
            words = ("--model_name_or_path", folder / name, "--output_dir", folder / f"{name}-adapter")
            return start("-c", SEEDED, "--config", folder / "recipe.yaml", *words)

        def answer(name: str, *words: Any) -> Any:
            files = ("--output", folder / f"{name}.csv", "--scores", folder / f"{name}.jsonl")
            words = ("--model", folder / name, *words, "--data", folder / "t_validation.json", *files)
            return start("-m", "lrc", "generate", *words)

        def merge(name: str, *base: Any) -> Any:
            return start("-m", "lrc", "merge", *adapter, *base, "--output-dir", folder / name)

        begun = time.monotonic()
        runs = {f"train_{name}": train(name) for name in ("stored", "exact")}
        if stage.gpu:
            runs["transformers_alone"] = start("-c", NATIVE, folder / "stored", stage.device)
        found = {"kind": kind, **{name: said(run.result()) for name, run in runs.items()}}
        found["train_seconds"] = time.monotonic() - begun
        found |= _losses_beside({name: folder / f"{name}-adapter" for name in ("stored", "exact")})
        if (folder / "stored-adapter" / "adapter_model.safetensors").exists():
            runs = {"merge_into_exact": merge("merged", "--base-model", folder / "exact")}
            runs |= {f"answer_{name}": answer(name, *adapter) for name in ("stored", "exact")}
            runs |= {"merge_into_original": merge("original", "--base-model", folder / "base")}
            runs |= {"merge_into_itself": merge("itself")}
            found |= {name: said(run.result()) for name, run in runs.items()}
            found["answer_merged"] = said(answer("merged").result())
            found |= _scores_beside(folder)
    stage.note(**found, seconds=time.monotonic() - begun)


def _scores_beside(folder: Path) -> dict[str, Any]:
    """How far the scores of a quantized base with its adapter are from those of the same weights in 16 bits, merged."""
    files = {name: folder / f"{name}.jsonl" for name in ("stored", "exact", "merged")}
    scores = {name: option_scores(file) for name, file in files.items() if file.exists()}
    found: dict[str, Any] = {}
    for name in ("exact", "merged"):
        if "stored" in scores and name in scores:
            found[f"scores_apart_{name}"] = float(np.abs(scores["stored"] - scores[name]).max())
            found[f"same_answers_{name}"] = float((scores["stored"].argmax(1) == scores[name].argmax(1)).mean())
    if "stored" in scores:
        found["scores_spread"] = float(np.ptp(scores["stored"], axis=1).mean())
    return found


def _losses_beside(outputs: dict[str, Path]) -> dict[str, Any]:
    """The losses and the norms of gradients of runs, and how far they are apart."""
    found: dict[str, Any] = {}
    for key in ("loss", "grad_norm"):
        by_run = {name: logged(output, key) for name, output in outputs.items()}
        found |= {f"{key}_{name}": values for name, values in by_run.items()}
        one, other = by_run.values()
        if one and len(one) == len(other):
            found[f"{key}_apart"] = max(abs(a - b) / abs(b) for a, b in zip(one, other, strict=True))
    return found


def logged(output: Path, key: str) -> list[float]:
    """The values of a key in what a run has logged."""
    file = output / "metrics.jsonl"
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
    return [line[key] for line in lines if key in line]


def said(done: subprocess.CompletedProcess[str], most: int = 300) -> str:
    """`done` and what was said about quantized weights, or the status and the last line."""
    if done.returncode:
        return status(done)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if "quantized" in line or "selected" in line]
    return "done" + "".join(f"; {line.strip()}" for line in dict.fromkeys(lines))[:most]


STOPPED = """
import os, signal, sys
import lrc.training.trainer as trainer
whole, steps = trainer.TreeTrainer.run_step, []
def run_step(self, *rest):
    steps.append(1)
    if len(steps) == 2:
        os.kill(os.getpid(), signal.SIGTERM)
    return whole(self, *rest)
trainer.TreeTrainer.run_step = run_step
from lrc import sft
sft.main(sys.argv[1:])
"""


def stage_resume(stage: Stage) -> None:
    """Bit for bit: the same run twice, and one that was stopped after two of four steps."""
    from concurrent.futures import ThreadPoolExecutor

    settings = {"max_steps": 4, "save_strategy": "steps", "save_steps": 1, "lora_dropout": 0.1, "logging_steps": 1}
    settings |= {"dtype": "bfloat16", "bf16": True}
    settings |= {"attention": "flex", "load_in_4bit": True, "row_tokens": 4096} if stage.gpu else {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = make_run(Path(scratch), **settings)

        def train(name: str, determined: bool, *, stopped: bool = False) -> dict[str, Any]:
            words: list[Any] = ["--config", folder / "recipe.yaml", "--output_dir", folder / name]
            words += ["--full_determinism", "true"] if determined else []
            found: dict[str, Any] = {}
            if stopped:
                found["stopped"] = lrc("-c", STOPPED, *words, device=stage.device).returncode
                found["stopped_after"] = [step for step, _ in losses(folder / name)]
            found["train"] = status(lrc("-m", "lrc.sft", *words, device=stage.device))
            file = folder / name / "adapter_model.safetensors"
            found["adapter"] = hashlib.sha256(file.read_bytes()).hexdigest()[:12] if file.exists() else None
            return found | {"losses": losses(folder / name)}

        with ThreadPoolExecutor(6 if stage.gpu else 1) as pool:
            runs = {
                (determined, kind): pool.submit(train, f"{kind}-{determined}", determined, stopped=kind == "resumed")
                for determined in (False, True)
                for kind in KINDS
            }
        for determined in (False, True):
            stage.note(
                full_determinism=determined, **compare({kind: runs[determined, kind].result() for kind in KINDS})
            )


KINDS = ("once", "again", "resumed")


def losses(output: Path) -> list[tuple[int, float]]:
    """The steps that a run has logged, and their losses."""
    file = output / "metrics.jsonl"
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
    return [(line["step"], line["loss"]) for line in lines if "loss" in line]


def compare(runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Whether three runs are the same bit for bit, of which the last was really stopped in its midst."""
    found = {kind: run["adapter"] or run["train"] for kind, run in runs.items()}
    resumed = runs["resumed"]
    stopped = resumed["stopped"] == 128 + 15 and resumed["stopped_after"] == [1, 2]
    same = len(set(found.values())) == 1 and runs["once"]["adapter"] and resumed["losses"] == runs["once"]["losses"]
    if not stopped:
        found["not_stopped"] = f"status {resumed['stopped']} after steps {resumed['stopped_after']}"
    return {"equal": bool(same and stopped), **found, "losses": [loss for _, loss in resumed["losses"]]}


LITTLE = """
import sys, torch
torch.cuda.set_per_process_memory_fraction({nbytes} / torch.cuda.get_device_properties(0).total_memory)
from lrc.{module} import main
main(sys.argv[1:])
"""


def stage_memoryless(stage: Stage) -> None:
    """A device with too little memory: one line and status 1; answering goes on with shorter rows."""
    if not stage.gpu:
        stage.note(skipped="torch cannot limit a CPU's memory; tests/end_to_end/test_launches.py has it run out")
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = make_run(Path(scratch), dtype="float32", row_tokens=16384, per_device_train_batch_size=48)
        code = LITTLE.format(nbytes=64 * 1024**2, module="sft")
        trained = lrc("-c", code, "--config", folder / "recipe.yaml", device=stage.device)
        stage.note(training=status(trained), stderr=trained.stderr.strip().splitlines()[-3:])
        code = LITTLE.format(nbytes=96 * 1024**2, module="cli")
        words = (
            "generate",
            "--model",
            folder / "base",
            "--data",
            folder / "t_train.json",
            "--output",
            folder / "a.csv",
        )
        words += ("--template", "alpaca", "--answer-style", "digit", "--row-tokens", "16384")
        answered = lrc("-c", code, *words, device=stage.device)
        stage.note(answering=status(answered), stderr=answered.stderr.strip().splitlines()[-3:])


# How fast it is.


def stage_attention(stage: Stage) -> None:
    """One layer's attention, forward and backward: by form, beside plain causal attention of the same length."""
    geometries = {"7B": ((32, 32), 128), "Qwen3-8B": ((32, 8), 128)} if stage.gpu else {"toy": ((2, 1), 32)}
    lengths = (700, 1300, 2600, 4096, 8192, 16384) if stage.gpu else (300,)
    for name, (heads, width) in geometries.items():
        for tokens in lengths:
            row = rows(tokens)[0]
            found: dict[str, Any] = {"geometry": name, "tokens": len(row), "seen": float(row_share(row))}
            for form in ("flex", "block", "dense", "causal"):
                if form == "dense" and tokens > 10_000:
                    continue
                try:
                    with flexible(stage):
                        run = _attend(stage, form, row, heads=heads, width=width)
                        run()
                        found[f"{form}_ms"] = stage.seconds(run, 4) * 1000
                except Exception as error:  # a form that cannot run says so, and the others go on
                    found[f"{form}_ms"] = failed(error)
            stage.note(**found)


def row_share(row: Any) -> float:
    """The part of a row's square that is seen."""
    return float((row.position_ids + 1).sum() / len(row) ** 2)


def _attend(stage: Stage, form: str, row: Any, *, heads: tuple[int, int], width: int) -> Callable[[], Any]:
    from types import SimpleNamespace

    from transformers import LlamaConfig

    from lrc.packing.attention import TILE, _sdpa, min_spared_pairs, tile_mask, tree_mask

    config = LlamaConfig(attn_implementation="sdpa")
    row = row.padded(TILE) if form == "flex" else row  # roots of one token would be a block each
    device, dtype = torch.device(stage.device), torch.bfloat16
    module = SimpleNamespace(num_key_value_groups=heads[0] // heads[1], is_causal=True, training=True)
    query, key, value = (
        torch.randn(1, n, len(row), width, device=device, dtype=dtype, requires_grad=True)
        for n in (heads[0], heads[1], heads[1])
    )
    gradient = torch.randn(1, len(row), heads[0], width, device=device, dtype=dtype)
    mask: Any = None
    if form == "flex":
        mask = tile_mask(row, config, device)
    elif form != "causal":
        ends, positions = (torch.from_numpy(a).to(device) for a in (row.subtree_end, row.position_ids))
        mask = tree_mask(ends, positions, config, dtype)
    blocks = row.blocks(min_spared_pairs(device)) if form == "block" else None

    def run() -> Any:
        output, _ = _sdpa(module, query, key, value, mask, tree_blocks=blocks, scaling=width**-0.5)
        return torch.autograd.grad(output, (query, key, value), gradient)

    return run


def stage_steps(stage: Stage) -> None:
    """lrc's optimizer steps: unique tokens a second by size, format, rows and form of attention."""
    if not stage.gpu:
        _steps(stage, "toy", "bf16", [(1024, "auto", False), (1024, "dense", False)])
        return
    _steps(
        stage,
        "7B",
        "nf4",
        [(4096, "flex", False), (1280, "flex", False), (1280, "dense", False), (4096, "block", False)],
    )
    _steps(stage, "7B", "nf4", [(16384, "flex", True), (4096, "flex", True)])
    _steps(stage, "7B", "bf16", [(4096, "flex", False), (4096, "dense", False), (1280, "dense", False)])
    _steps(stage, "7B", "bf16", [(16384, "flex", True)])
    _steps(
        stage,
        "1.3B",
        "bf16",
        [(4096, "flex", False), (4096, "block", False), (4096, "dense", False), (16384, "flex", False)],
    )
    _steps(stage, "1.3B", "nf4", [(4096, "flex", False)])


def _steps(stage: Stage, size: str, weights: str, sides: Sequence[tuple[int, str, bool]]) -> None:
    from lrc.packing.attention import choose_attention

    if not stage.wants(f"{size}-{weights}"):
        return
    free_memory()
    begun = time.monotonic()
    count = {16384: 112, 4096: 56, 1280: 28}
    trainer = tree_trainer(stage, size, weights, checkpointing=sides[0][2])
    stage.wait()
    made = time.monotonic() - begun
    for tokens, form, checkpointing in sides:
        trainer.row_tokens = tokens
        trainer.args.per_device_train_batch_size = count.get(tokens, 8)
        try:
            choose_attention(trainer.model, form, torch.device(stage.device))
            found = timed(stage, trainer)
        except Exception as error:  # likewise
            stage.note(side="lrc", size=size, weights=weights, rows=tokens, form=form, failed=failed(error))
            free_memory()
            continue
        asked = step_sequences(trainer, int(found["step"]))
        unique, separate = unique_tokens(asked), sum(len(one.inputs) for one in asked)
        stage.note(
            side="lrc", size=size, weights=weights, rows=tokens, form=form, checkpointing=checkpointing,
            unique_tokens=unique, sharing=separate / unique, step_s=found["seconds"],
            unique_tok_s=unique / found["seconds"], questions_s=len(asked) / found["seconds"],
            **peaks(found), first_step_s=found["first"], made_s=made,
        )  # fmt: skip
    del trainer
    free_memory()


def failed(error: Exception) -> str:
    """What failed, for the table."""
    return f"{type(error).__name__}: {error}"[:300]


def stage_compiled(stage: Stage) -> None:
    """Every decoder layer but the last compiled: unique tokens a second before and after, and the first step's time."""
    sides = [("7B", "nf4", 4096), ("7B", "bf16", 4096)] if stage.gpu else [("toy", "bf16", 512)]
    for size, weights, tokens in sides:
        trainer = tree_trainer(stage, size, weights, checkpointing=False)
        trainer.row_tokens, trainer.args.per_device_train_batch_size = tokens, 56 if stage.gpu else 6
        start = {name: one.detach().clone() for name, one in trainer.model.named_parameters() if one.requires_grad}
        try:
            for compiled in (False, True):
                if compiled:
                    for layer in trainer.model.get_base_model().model.layers[:-1]:
                        layer.compile(dynamic=True)
                    trainer.model.load_state_dict(start, strict=False)  # so that losses have to be the same,
                    trainer.optimizer = None  # nor are moments kept
                found = timed(stage, trainer)
                losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
                unique = unique_tokens(step_sequences(trainer, int(found["step"])))
                stage.note(
                    size=size, weights=weights, rows=tokens, compiled=compiled, step_s=found["seconds"], losses=losses,
                    unique_tok_s=unique / found["seconds"], first_step_s=found["first"], **peaks(found),
                )  # fmt: skip
        except Exception as error:  # an experiment: what fails says so
            stage.note(size=size, weights=weights, compiled=True, failed=f"{type(error).__name__}: {error}"[:400])
        del trainer
        free_memory()


def stage_profile(stage: Stage) -> None:
    """Where the time of one step goes: the device's kernels by kind, and how long it stood still."""
    from torch.profiler import ProfilerActivity, profile

    sides = [("7B", "nf4", 4096), ("7B", "bf16", 4096), ("7B", "nf4", 1280)] if stage.gpu else [("toy", "bf16", 512)]
    for size, weights, tokens in sides:
        if not stage.wants(f"{size}-{weights}"):
            continue
        trainer = tree_trainer(stage, size, weights, checkpointing=False)
        trainer.row_tokens, trainer.args.per_device_train_batch_size = tokens, 3 * tokens // 200
        timed(stage, trainer, steps=2)
        activity = [ProfilerActivity.CUDA] if stage.gpu else [ProfilerActivity.CPU]
        with profile(activities=activity) as seen:
            found = timed(stage, trainer, steps=2)
        events = kernels(stage, seen)
        rows_a_step = len(next(iter(trainer.get_train_dataloader())).rows)
        stage.note(
            size=size,
            weights=weights,
            rows=tokens,
            rows_a_step=rows_a_step,
            step_ms=found["seconds"] * 1000,
            kernels_ms=sum(e[1] for e in events) / 2,
            kernels=sum(e[2] for e in events) // 2,
        )
        for key, milliseconds, count in events[:25]:
            stage.note(kernel=key[:110], ms=milliseconds / 2, count=count // 2)
        del trainer
        free_memory()


def kernels(stage: Stage, seen: Any) -> list[tuple[str, float, int]]:
    """What a profiler has seen: name, milliseconds without what it calls, and how often; the longest first."""
    times = "self_device_time_total" if stage.gpu else "self_cpu_time_total"
    found = [(one.key, getattr(one, times) / 1000, one.count) for one in seen.key_averages()]
    return sorted((one for one in found if one[1] > 0), key=lambda one: -one[1])


def stage_rivals(stage: Stage) -> None:
    """TRL's SFTTrainer on the same questions, whose unique tokens are counted."""
    sides = [("7B", "nf4"), ("1.3B", "bf16"), ("7B", "bf16")] if stage.gpu else [("toy", "bf16")]
    for size, weights in sides:
        for kind in ("8", "1", "padding-free") if stage.gpu else ("2",):
            if not stage.wants(f"{size}-{weights}-{kind}"):
                continue
            try:
                _rival(stage, size, weights, kind)
            except Exception as error:  # one that cannot run says so, and the others go on
                stage.note(
                    side=f"trl-{kind}", size=size, weights=weights, failed=f"{type(error).__name__}: {error}"[:300]
                )


def _rival(stage: Stage, size: str, weights: str, kind: str) -> None:
    from datasets import Dataset
    from trl import SFTTrainer

    sequences, _ = questions(32 if stage.gpu else 4)
    labelled = [
        {"input_ids": s.tokens.tolist(), "labels": [-100] * s.prompt_length + s.tokens[s.prompt_length :].tolist()}
        for s in sequences
    ]
    free = kind == "padding-free"
    batch = 8 if free else int(kind)
    settings: dict[str, Any] = {"padding_free": True} if free else {}
    trainer = SFTTrainer(
        model=make_model(stage, size, weights, attention="flex_attention" if free else "sdpa"),
        args=arguments(stage, batch, gradient_accumulation_steps=len(sequences) // batch, **settings),
        peft_config=lora(),
        processing_class=tokenizer(),
        train_dataset=Dataset.from_list(labelled * 2),
    )
    found = timed(stage, trainer, steps=2)
    unique = unique_tokens(sequences)
    stage.note(
        side=f"trl-{kind}", size=size, weights=weights, step_s=found["seconds"], unique_tokens=unique,
        unique_tok_s=unique / found["seconds"], questions_s=len(sequences) / found["seconds"], **peaks(found),
        separate_tok_s=sum(len(s.inputs) for s in sequences) / found["seconds"], first_step_s=found["first"],
    )  # fmt: skip
    del trainer
    free_memory()


def stage_memory(stage: Stage) -> None:
    """13B in NF4 as on a card of 12 GB: the plan against the peak."""
    from lrc.packing.attention import choose_attention

    size, tokens = ("13B", 1536) if stage.gpu else ("toy", 512)
    if stage.gpu:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(12 * 1024**3 / total, 1.0))
    trainer = tree_trainer(stage, size, "nf4-nested", checkpointing=True, dtype=torch.float16)
    trainer.row_tokens, trainer.args.per_device_train_batch_size = tokens, 8
    longest = max((row for batch in batches(trainer) for row in batch.rows), key=len)
    for form in ("auto", "block") if stage.gpu else ("auto",):
        choose_attention(trainer.model, form, torch.device(stage.device))
        try:
            found = timed(stage, trainer)
        except torch.OutOfMemoryError as error:
            stage.note(size=size, rows=tokens, form=form, failed=str(error).splitlines()[0][:300])
            continue
        unique = unique_tokens(step_sequences(trainer, int(found["step"])))
        stage.note(
            size=size,
            rows=tokens,
            form=form,
            longest=len(longest),
            **peaks(found),
            step_s=found["seconds"],
            unique_tok_s=unique / found["seconds"],
        )
    if not stage.gpu:
        stage.note(skipped="a peak to compare the plan with: torch does not count a CPU's memory")
    _note_plan(stage, size, longest)


def _note_plan(stage: Stage, size: str, row: Any) -> None:
    from transformers import BitsAndBytesConfig

    from lrc.config.accelerate_config import Topology
    from lrc.preview.memory_plan import Planner
    from lrc.preview.meta_model import ModelSpec

    half = torch.float16
    settings = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": half}
    quantization = BitsAndBytesConfig(load_in_4bit=True, **settings)
    build = ModelSpec(config_of(size), half, lora(), quantization, None, True, half, stage.device)
    plan = Planner().plan(build, row, Topology("single_gpu", device=stage.device), "adamw_torch")
    parts = {f"{name}_gib": value / 1024**3 for name, value in vars(plan).items()}
    stage.note(plan=size, longest=len(row), total_gib=plan.total / 1024**3, **parts)


def stage_answering(stage: Stage) -> None:
    """Questions a second: packed trees of candidates, and transformers' batched generate."""
    for size in ("1.3B", "7B") if stage.gpu else ("toy",):
        _answer(stage, size)
        free_memory()


def _answer(stage: Stage, size: str) -> None:
    from lrc.packing.attention import choose_attention
    from lrc.packing.last_layer import prune_last_layer
    from lrc.packing.log_probs import sequence_scores
    from lrc.packing.tree import TokenSequence

    device, model = torch.device(stage.device), make_model(stage, size, "bf16").eval()
    prompts = [one.tokens[: one.prompt_length] for one in questions(128 if stage.gpu else 4)[0]]
    taken = stage.seconds(lambda: _generate(model, prompts, device), 2)
    stage.note(side="generate, batches of 16", size=size, questions_s=len(prompts) / taken)
    prune_last_layer(model)
    candidates = [TokenSequence(np.append(p, 50 + k), len(p)) for p in prompts for k in range(4)]
    for form, tokens in (("flex", 4096), ("flex", 16384), ("block", 4096), ("dense", 4096)):
        try:
            with flexible(stage):
                choose_attention(model, form, device)
                taken = stage.seconds(partial(sequence_scores, model, candidates, device, tokens), 2)
        except Exception as error:  # likewise
            stage.note(side="lrc", form=form, rows=tokens, size=size, failed=failed(error))
            continue
        stage.note(side="lrc", form=form, rows=tokens, size=size, questions_s=len(prompts) / taken)


def _generate(model: Any, prompts: Sequence[Any], device: torch.device, batch: int = 16) -> None:
    for start in range(0, len(prompts), batch):
        some = prompts[start : start + batch]
        longest = max(map(len, some))
        ids = np.stack([np.pad(p, (longest - len(p), 0)) for p in some])
        mask = np.stack([np.pad(np.ones_like(p), (longest - len(p), 0)) for p in some])
        model.generate(
            input_ids=torch.from_numpy(ids).to(device),
            attention_mask=torch.from_numpy(mask).to(device),
            max_new_tokens=1,
            do_sample=False,
            pad_token_id=0,
        )


# What they are made of.


def rows(tokens: int) -> list[Any]:
    """Packed rows that are full."""
    return sorted(pack_all(questions(max(tokens // 120, 8))[0], tokens), key=len, reverse=True)


def pack_all(sequences: Sequence[Any], tokens: int = 10**9) -> list[Any]:
    """Packed rows of all."""
    from lrc.packing.tree import pack

    return pack(sequences, tokens)


def unique_tokens(sequences: Sequence[Any]) -> int:
    """How many tokens there are to compute if what sequences begin with in common counts once."""
    return sum(map(len, pack_all(sequences)))


def batches(trainer: Any, steps: int = 3) -> list[Any]:
    """What the first steps train on."""
    return list(islice(trainer.get_train_dataloader(), steps))


def step_sequences(trainer: Any, step: int) -> Sequence[Any]:
    """What a step trains on, of those that `timed` has run."""
    found: Sequence[Any] = batches(trainer, step + 1)[step].sequences
    return found


def questions(count: int, seed: int = 0) -> tuple[list[Any], list[int]]:
    """Questions with the lengths and the sharing of the reference workbook, and the passage of each."""
    from lrc.packing.tree import TokenSequence

    random = np.random.default_rng(seed)
    make = lambda n: random.integers(5, 900, n)  # noqa: E731
    system, found = make(40), []
    while len(found) < count:
        passage = make(random.integers(300, 500))
        for _ in range(random.integers(2, 5)):
            tokens = np.concatenate([system, passage, make(random.integers(50, 110)), make(2)])
            found.append(TokenSequence(tokens, len(tokens) - 2))
    return found[:count], _numbered(found)[:count]


def _numbered(sequences: Sequence[Any]) -> list[int]:
    known: dict[bytes, int] = {}
    return [known.setdefault(one.tokens[40:200].tobytes(), len(known)) for one in sequences]


def config_of(size: str, attention: str = "sdpa") -> Any:
    """A Llama's configuration."""
    from transformers import LlamaConfig

    vocabulary = 1000 if size == "toy" else 55296
    return LlamaConfig(
        vocab_size=vocabulary, max_position_embeddings=4096, attn_implementation=attention, **SHAPES[size]
    )


def make_model(
    stage: Stage, size: str, weights: str, *, attention: str = "sdpa", dtype: torch.dtype = torch.bfloat16
) -> Any:
    """A Llama whose random weights are made on the device: `bf16`, `nf4`, or `nf4-nested` with its scales quantized."""
    from transformers import LlamaForCausalLM

    config = config_of(size, attention)
    torch.manual_seed(0)
    if weights.startswith("nf4"):
        return quantized(stage, config, dtype, nested=weights.endswith("nested"))
    torch.set_default_dtype(dtype)
    try:
        with torch.device(stage.device):
            return LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(torch.float32)


def quantized(stage: Stage, config: Any, dtype: torch.dtype, *, nested: bool) -> Any:
    """A model of this configuration with random weights in NF4, made on the device layer by layer."""
    from bitsandbytes.nn import Linear4bit, Params4bit
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    from transformers.integrations import replace_with_bnb_linear

    settings = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=nested, bnb_4bit_compute_dtype=dtype
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config).to(dtype)
        model = replace_with_bnb_linear(model, modules_to_not_convert=["lm_head"], quantization_config=settings)
    for module in model.modules():
        if isinstance(module, Linear4bit):
            whole = torch.randn(module.out_features, module.in_features, device=stage.device, dtype=dtype) * 0.02
            weight = Params4bit(whole, quant_type="nf4", compress_statistics=nested, module=module)
            module.weight = weight.to(stage.device)
            module.compute_dtype = dtype
            continue
        for name, parameter in list(module.named_parameters(recurse=False)):
            made = torch.randn(parameter.shape, device=stage.device, dtype=dtype) * 0.02
            made = torch.ones_like(made) if parameter.dim() == 1 else made
            setattr(module, name, torch.nn.Parameter(made))
    with torch.device(stage.device):
        model.model.rotary_emb = type(model.model.rotary_emb)(config)
    model.is_loaded_in_4bit = True
    if not stage.gpu:
        from lrc.models.loading import _keep_trainable

        _keep_trainable(model)
    return model


def lora() -> Any:
    """The reference run's adapter."""
    from peft import LoraConfig

    return LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=PROJECTIONS, task_type="CAUSAL_LM")


def arguments(stage: Stage, batch: int, **settings: Any) -> Any:
    """TRL's, for a few steps that are only timed."""
    from trl import SFTConfig

    defaults: dict[str, Any] = {"gradient_checkpointing": False, "bf16": True}
    if not stage.gpu:
        defaults["bf16"] = False
    return SFTConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=batch,
        max_steps=3,
        learning_rate=1e-4,
        train_sampling_strategy="sequential",
        max_length=None,
        save_strategy="no",
        report_to="none",
        use_cpu=not stage.gpu,
        disable_tqdm=True,
        logging_steps=1,
        dataset_kwargs={"skip_prepare_dataset": True},
        **{**defaults, **settings},
    )


def tree_trainer(
    stage: Stage, size: str, weights: str, *, checkpointing: bool, dtype: torch.dtype = torch.bfloat16
) -> Any:
    """lrc's trainer on questions enough for some steps."""
    from datasets import Dataset

    from lrc.training.trainer import TreeTrainer

    sequences, passages = questions(400 if stage.gpu else 24)
    settings: dict[str, Any] = {"gradient_checkpointing": checkpointing}
    if dtype == torch.float16 and stage.gpu:
        settings |= {"bf16": False, "fp16": True}
    dataset = Dataset.from_dict(
        {
            "tokens": [one.tokens.tolist() for one in sequences],
            "prompt_length": [one.prompt_length for one in sequences],
            "passage": passages,
            "id": [str(k) for k in range(len(sequences))],
        }
    )
    return TreeTrainer(
        model=make_model(stage, size, weights, dtype=dtype if stage.gpu else torch.float32),
        args=arguments(stage, 8, **settings),
        peft_config=lora(),
        processing_class=tokenizer(),
        train_dataset=dataset,
        source=lambda key: [sequences[key[0]]],
        validation=None,
    )


def timed(stage: Stage, trainer: Any, steps: int = 3) -> dict[str, float]:
    """Train some steps; seconds of the fastest but the first, which it was (from 0), and on a GPU GiB at the peak."""
    from transformers import TrainerCallback

    moments: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            stage.wait()
            moments.append(time.perf_counter())

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            stage.wait()
            moments.append(time.perf_counter())

    trainer.args.max_steps = steps
    clock = Clock()
    trainer.add_callback(clock)
    if stage.gpu:
        torch.cuda.reset_peak_memory_stats()
    trainer.train()
    trainer.remove_callback(clock)
    taken = [end - begin for begin, end in zip(moments[::2], moments[1::2], strict=True)]
    fastest = min(range(1, len(taken)), key=taken.__getitem__)
    found = {"seconds": taken[fastest], "step": fastest, "first": taken[0]}
    if stage.gpu:
        found["peak"] = torch.cuda.max_memory_allocated() / 1024**3
        found["reserved"] = torch.cuda.max_memory_reserved() / 1024**3
    return found


def peaks(found: dict[str, float]) -> dict[str, float]:
    """GiB at the peak, for a finding; nothing on a CPU, whose memory torch does not count."""
    return {f"{name}_gib": found[name] for name in ("peak", "reserved") if name in found}


def free_memory() -> None:
    """Let go of what nothing refers to any more."""
    import gc

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def tokenizer() -> Any:
    """What trainers want to be given; nothing is tokenized with it."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1, "<pad>": 2}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def make_run(folder: Path, **keys: Any) -> Path:
    """A tiny base, questions and a recipe, as people have them: folders and files."""
    import yaml

    from lrc.data.alpaca import dump_records, to_record
    from lrc.data.questions import Question
    from lrc.models.tiny import make_base

    folder.mkdir(parents=True, exist_ok=True)

    def asked(count: int, name: str) -> list[Any]:
        told = ("小明在台北工作。", "火車七點開。", "颱風過後，山路斷了三天。", "她把信放在桌上。")
        return [
            to_record(
                Question(
                    f"{name}{i}",
                    f"第{name}{i // 2}章。" + "".join(told[(i // 2 + k * k) % 4] for k in range(12 + i % 5)),
                    f"誰？{i}",
                    ("甲說", "乙說", "丙說", "丁說"),
                    i % 4 + 1,
                )
            )
            for i in range(count)
        ]

    train, validation = asked(48, "t"), asked(24, "v")
    make_base(folder / "base", [record.input for record in train])
    for name, records in (("train", train), ("validation", validation)):
        (folder / f"t_{name}.json").write_text("".join(dump_records(records)), encoding="utf-8")
    recipe = {
        "model_name_or_path": str(folder / "base"),
        "train_file": str(folder / "t_train.json"),
        "validation_file": str(folder / "t_validation.json"),
        "output_dir": str(folder / "out"),
        "template": "alpaca",
        "answer_style": "digit",
        "lora_r": 4,
        "lora_alpha": 8,
        "lora_target_modules": PROJECTIONS,
        "per_device_train_batch_size": 8,
        "max_steps": 6,
        "learning_rate": 1e-3,
        "logging_steps": 2,
        "eval_strategy": "steps",
        "eval_steps": 3,
        "save_strategy": "steps",
        "save_steps": 3,
        "report_to": "none",
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**recipe, **keys}), encoding="utf-8")
    return folder


def lrc(*words: Any, device: str) -> subprocess.CompletedProcess[str]:
    """Run Python with these words, on the CPU where that is meant; what goes wrong is in the log."""
    hidden = {} if device == "cuda" else {"CUDA_VISIBLE_DEVICES": ""}
    environment = {**os.environ, **hidden, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=140 if device == "cuda" else 600,
    )
    if done.returncode:
        print("failed:", *map(str, words), done.stdout[-3000:], done.stderr[-6000:], sep="\n", flush=True)
    return done


def status(done: subprocess.CompletedProcess[str]) -> str:
    """`done`, or the status and the last line of what was said."""
    said = done.stderr.strip().splitlines() or [""]
    return "done" if done.returncode == 0 else f"status {done.returncode}: {said[-1][:200]}"


@contextmanager
def flexible(stage: Stage) -> Iterator[None]:
    """On a CPU FlexAttention uncompiled and with its backward, which torch shuts off there."""
    if stage.gpu:
        yield
        return
    import torch.nn.attention.flex_attention as flex

    import lrc.packing.attention as attention

    kept = flex._validate_device, attention.why_no_flex
    flex._validate_device, attention.why_no_flex = (lambda *states: None), (lambda model, device: None)
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        flex._validate_device, attention.why_no_flex = kept
