"""Peak memory and time of merging an adapter: lrc's streaming merge against PEFT's `merge_and_unload`.

    python benchmarks/merging.py [--folder DIR]

Makes a random Llama of about 600 MB with a LoRA adapter on all seven projections, merges it both ways, each in a
process of its own, and prints for each the peak of resident memory above what the imports take, as a share of
the model's size, and the seconds after the imports.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RANK = 16


def make(folder: Path, dtype: str) -> None:
    """Write `folder/base` and `folder/adapter`."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=7 if dtype == "float32" else 18,
        num_attention_heads=16,
    )
    model = LlamaForCausalLM(config).to(getattr(torch, dtype))
    model.save_pretrained(folder / "base", max_shard_size="200MB")
    model.name_or_path = str(folder / "base")
    adapted = get_peft_model(model, LoraConfig(r=RANK, target_modules="all-linear", init_lora_weights=False))
    adapted.save_pretrained(folder / "adapter")


def run(method: str, folder: Path) -> None:
    """Merge one way and print the figures as JSON."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM
    from transformers.models.llama import modeling_llama  # noqa: F401  (imports are not the merge's)

    from lrc.commands.merge import merge

    torch.nn.Linear(8, 8)(torch.ones(8))  # what the first product allocates is not the merge's
    before, start = peak(), time.monotonic()
    output = folder / method
    if method == "lrc":
        merge(folder / "adapter", output, base_model=str(folder / "base"))
    else:
        model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype="auto")
        PeftModel.from_pretrained(model, str(folder / "adapter")).merge_and_unload().save_pretrained(output)
    print(json.dumps({"bytes": peak() - before, "seconds": time.monotonic() - start}))


def peak() -> int:
    """The most memory in bytes that this process ever had resident (Linux counts in kB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def compare(folder: Path, dtype: str) -> None:
    """Make the model and merge it both ways."""
    script = [sys.executable, __file__, "--folder", str(folder), "--dtype", dtype]
    subprocess.run([*script, "--step", "make"], check=True)
    size = sum(file.stat().st_size for file in (folder / "base").glob("*.safetensors"))
    print(f"{dtype}, {size / 2**20:.0f} MiB")
    for method in ("lrc", "peft"):
        done = subprocess.run([*script, "--step", method], check=True, capture_output=True, text=True)
        figures = json.loads(done.stdout.splitlines()[-1])
        print(f"  {method}: peak {figures['bytes'] / size:.2f} of the model, {figures['seconds']:.1f} s")


def main() -> None:
    """Read the flags."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"])
    parser.add_argument("--step", choices=["make", "lrc", "peft"])
    flags = parser.parse_args()
    if flags.step == "make":
        make(flags.folder, flags.dtype)
    elif flags.step:
        run(flags.step, flags.folder)
    else:
        for dtype in [flags.dtype] if flags.dtype else ["float32", "bfloat16"]:
            with tempfile.TemporaryDirectory(dir=flags.folder) as temporary:
                compare(Path(temporary), dtype)


if __name__ == "__main__":
    main()
