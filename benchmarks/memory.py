"""The memory plan of `lrc preview` against the memory that training on a CPU takes.

    python benchmarks/memory.py [--sizes seen|unseen] [--allocator] [--preload libjemalloc.so.2]

Every size is trained for three steps in a child process, by lrc's trainer, with random weights and tokens: float32,
LoRA rank 8 on all projections, one row a step. The peak of its resident memory above the loaded model is compared with
the plan without the weights. glibc's malloc is told to give back what is freed (MALLOC_MMAP_THRESHOLD_), as a plan
counts what is held; with `--allocator` the peak under its defaults is measured, too, and with `--preload` the peak with
another allocator. Torch asks for aligned memory, and glibc 2.36 hardly ever takes for it what it freed of the same size
(2.41 sometimes), so its defaults need several hundred MB more. Linux.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
GIVING_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
MIB = 1024**2


@dataclass(frozen=True)
class Size:
    """A model and its rows."""

    width: int
    layers: int
    vocab_size: int
    checkpointing: bool = False
    dropout: float = 0.0
    passage: int = 200  # tokens; three passages of two questions make a row
    row_tokens: int = 4096


SIZES = {
    # The constant of a CPU, memory_plan.OVERHEAD_CPU, was taken from these …
    "seen": [
        Size(256, 4, 8000),
        Size(512, 8, 32000),
        Size(512, 8, 32000, checkpointing=True),
        Size(768, 6, 55296),
        Size(768, 6, 55296, checkpointing=True),
        Size(512, 8, 32000, dropout=0.05),
    ],
    # … and these were looked at afterwards.
    "unseen": [
        Size(384, 10, 20000),
        Size(640, 12, 48000, checkpointing=True),
        Size(1024, 4, 10000, dropout=0.1),
        Size(448, 16, 100000, passage=350),
        Size(896, 5, 151936, checkpointing=True, passage=500),
    ],
}


def main() -> None:
    """Compare the sizes that the flags name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", choices=SIZES, default="unseen")
    parser.add_argument("--allocator", action="store_true", help="also under the defaults of glibc's malloc")
    parser.add_argument("--preload", metavar="LIBRARY", help="also with another allocator (LD_PRELOAD)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    warnings.simplefilter("ignore")
    if flags.child:
        print(json.dumps(train(Size(**json.loads(flags.child)))))
        return
    from bench import machine

    others: dict[str, dict[str, str]] = {"malloc's defaults": {}} if flags.allocator else {}
    others |= {Path(flags.preload).name: {"LD_PRELOAD": flags.preload}} if flags.preload else {}
    print(f"{machine()}; MiB above the loaded model, processor seconds of training")
    ratios = []
    for size in SIZES[flags.sizes]:
        planned = predict(size)
        measured = _in_process(size, GIVING_BACK)
        ratios.append(planned / measured["peak"])
        line = f"{_label(size)}: planned {planned / MIB:.0f}, measured {measured['peak'] / MIB:.0f}, "
        line += f"ratio {ratios[-1]:.3f}, {measured['seconds']:.1f} s"
        for name, environment in others.items():
            found = _in_process(size, environment)
            line += f"; {name} {found['peak'] / MIB:.0f}, ratio {planned / found['peak']:.3f}, {found['seconds']:.1f} s"
        print(line, flush=True)
    print(f"planned / measured: median {statistics.median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}")


def predict(size: Size) -> int:
    """The plan's bytes, but for the weights and the adapter, which are loaded before."""
    import torch

    from lrc.config.accelerate_config import Topology
    from lrc.packing.tree import pack
    from lrc.preview.memory_plan import Planner
    from lrc.preview.meta_model import ModelSpec

    build = ModelSpec(_config(size), torch.float32, _adapter(size), checkpointing=size.checkpointing)
    row = max(pack(_sequences(size), size.row_tokens), key=len)
    plan = Planner().plan(build, row, Topology("cpu"), "adamw_torch")
    return plan.total - plan.weights - plan.adapter


def train(size: Size) -> dict[str, float]:
    """Train three steps; bytes by which the resident memory rose, and the processor seconds."""
    import torch
    from transformers import LlamaForCausalLM
    from trl import SFTConfig

    from lrc.training.trainer import Packing, TreeTrainer

    sequences = _sequences(size)
    settings = SFTConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=len(sequences),
        max_steps=3,
        gradient_checkpointing=size.checkpointing,
        bf16=False,
        use_cpu=True,
        max_length=None,
        save_strategy="no",
        report_to="none",
    )
    torch.manual_seed(0)
    trainer = TreeTrainer(
        model=LlamaForCausalLM(_config(size)),
        args=settings,
        peft_config=_adapter(size),
        processing_class=_tokenizer(),
        train_dataset=_dataset(sequences),
        source=lambda key: [sequences[key[0]]],
        validation=None,
        packing=Packing(row_tokens=size.row_tokens),
    )
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading
    start = time.process_time()
    trainer.train()
    return {"peak": _resident("VmHWM") - before, "seconds": time.process_time() - start}


def _in_process(size: Size, environment: dict[str, str]) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", json.dumps(asdict(size))]
    own = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(command, capture_output=True, text=True, env={**own, **environment})
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _resident(which: str) -> int:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(which))


def _sequences(size: Size) -> list[Any]:
    from lrc.packing.tree import TokenSequence

    random = np.random.default_rng(0)
    made = []
    for _ in range(3):
        passage = random.integers(100, size.vocab_size, size.passage)
        for _ in range(2):
            tokens = np.concatenate([np.arange(10, 58), passage, random.integers(100, size.vocab_size, 60), [5, 6]])
            made.append(TokenSequence(tokens, len(tokens) - 2))
    return made


def _config(size: Size) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=size.vocab_size,
        hidden_size=size.width,
        intermediate_size=size.width * 11 // 4,
        num_hidden_layers=size.layers,
        num_attention_heads=size.width // 64,
        num_key_value_heads=size.width // 64,
        max_position_embeddings=4096,
    )


def _adapter(size: Size) -> Any:
    from peft import LoraConfig

    return LoraConfig(r=8, lora_alpha=16, lora_dropout=size.dropout, target_modules=PROJECTIONS, task_type="CAUSAL_LM")


def _tokenizer() -> Any:
    """What the trainer wants to be given; nothing is tokenized with it."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1, "<pad>": 2}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def _dataset(sequences: list[Any]) -> Any:
    from datasets import Dataset

    return Dataset.from_dict(
        {
            "tokens": [sequence.tokens.tolist() for sequence in sequences],
            "prompt_length": [sequence.prompt_length for sequence in sequences],
            "passage": [place // 2 for place in range(len(sequences))],
            "id": [str(place) for place in range(len(sequences))],
        }
    )


def _label(size: Size) -> str:
    more = ", checkpointing" if size.checkpointing else ""
    more += f", dropout {size.dropout}" if size.dropout else ""
    return f"width {size.width}, {size.layers} layers, {size.vocab_size} words{more}"


if __name__ == "__main__":
    main()
