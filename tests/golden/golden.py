"""Golden numbers: what a small run computes, to the last digit.

    python tests/golden/golden.py record numbers.json    # with the lrc of this environment
    python tests/golden/golden.py compare A.json B.json  # names every number that differs; exit 1 if one does

`make golden BASE=REV` records REV and the working tree with the same packages and compares the two: a change that moves
code, or makes it faster, leaves every number as it is. Everything goes through the command line, so that two commits
whose modules have other names can be compared. The base is made here, with transformers alone.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
RECIPE = """\
model_name_or_path: base
train_file: data/sample_train.json
validation_file: data/sample_validation.json
use_cpu: true
bf16: false
lora_r: 8
lora_dropout: 0.0
lora_target_modules: [q_proj, v_proj, down_proj]
per_device_train_batch_size: 4
max_steps: 10
learning_rate: 1.0e-3
logging_steps: 1
save_strategy: "no"
report_to: none
"""
RUNS = {
    "digit": ["--template", "chinese-alpaca-2", "--answer_style", "digit"],
    "text, contrast": ["--template", "plain", "--answer_style", "text", "--option_contrast", "0.7"],
}


def record(folder: Path, python: str = sys.executable) -> dict[str, Any]:
    """Run convert, three trainings, merge and generate in `folder`, with `python`; the numbers, by name."""
    numbers: dict[str, Any] = {}
    _run(folder, python, "-m", "lrc", "convert", EXAMPLES / "sample.xlsx", "--output-dir", "data")
    _make_base(folder / "base", (folder / "data/sample_train.json").read_text(encoding="utf-8"))
    for part in ("train", "validation"):
        numbers[f"convert, {part}"] = _sha256(folder / f"data/sample_{part}.json")
    for name, keys in RUNS.items():
        output = folder / name.partition(",")[0]
        _train(folder, python, ["-m", "lrc.sft"], output, keys)
        numbers |= {f"{name}: {key}": value for key, value in _training(output)}
    launch = ["-m", "accelerate.commands.launch", "--config_file", EXAMPLES.parent / "accelerate_configs/cpu_2.yaml"]
    _train(folder, python, [*launch, "-m", "lrc.sft"], folder / "two", RUNS["digit"])
    numbers |= {f"two processes: {key}": value for key, value in _training(folder / "two")}
    _run(folder, python, "-m", "lrc", "merge", "--adapter", "digit", "--output-dir", "merged")
    numbers |= {f"merged: {key}": value for key, value in _tensors(folder / "merged/model.safetensors")}
    for model in (["merged"], ["base", "--adapter", "text"]):
        answers = folder / f"{model[0]}.csv"
        words = ["--model", *model, "--data", EXAMPLES / "sample_test.xlsx", "--output", answers]
        _run(folder, python, "-m", "lrc", "generate", *words)
        numbers[f"answers of {' '.join(model)}"] = answers.read_text(encoding="utf-8").split()
    return numbers


def differences(a: dict[str, Any], b: dict[str, Any], tolerance: float = 0.0) -> Iterator[str]:
    """A line for every number that differs.

    Args:
        tolerance: the relative difference that two floats may have: 0 on one machine; on another processor the
            same sums are added in another order. With a tolerance, hashes of tensors are skipped, since their
            norms stand beside them.
    """
    for name in sorted(a.keys() | b.keys()):
        first, second = a.get(name), b.get(name)
        if tolerance and name.endswith("sha256"):
            continue
        same = first == second
        if not same and isinstance(first, float) and isinstance(second, float):
            same = tolerance > 0 and math.isclose(first, second, rel_tol=tolerance)
        if not same:
            yield f"{name}: {first} and {second}"


def _run(folder: Path, python: str, *words: str | Path) -> None:
    environment = {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        **os.environ,
        "HF_DATASETS_CACHE": str(folder / "cache"),
    }
    command = [python, *map(str, words)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")


def _train(folder: Path, python: str, launch: list[str | Path], output: Path, keys: list[str]) -> None:
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    _run(folder, python, *launch, "--config", "recipe.yaml", "--output_dir", output.name, *keys)


def _training(output: Path) -> Iterator[tuple[str, float | str]]:
    lines = map(json.loads, (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    for line in lines:
        for key in ("loss", "grad_norm"):
            if key in line:
                yield f"step {line['step']:>2} {key}", line[key]
    yield from _tensors(output / "adapter_model.safetensors")


def _tensors(file: Path) -> Iterator[tuple[str, float | str]]:
    from safetensors.numpy import load_file

    for name, tensor in sorted(load_file(file).items()):
        yield f"{name} norm", float((tensor.astype("float64") ** 2).sum() ** 0.5)
        yield f"{name} sha256", hashlib.sha256(tensor.tobytes()).hexdigest()


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _make_base(folder: Path, text: str) -> None:
    """A seeded Llama of two layers, with a byte-level tokenizer trained on `text`."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "</s>", "<pad>"]
    tokenizer.train_from_iterator(
        [text],
        trainers.BpeTrainer(vocab_size=800, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=4096,
        bos_token_id=fast.bos_token_id,
        eos_token_id=fast.eos_token_id,
    )
    model = LlamaForCausalLM(config)
    torch.nn.init.normal_(model.get_input_embeddings().weight, std=0.5)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)


def main() -> None:
    match sys.argv[1:]:
        case ["record", output]:
            with tempfile.TemporaryDirectory() as folder:
                Path(output).write_text(json.dumps(record(Path(folder)), indent=1, ensure_ascii=False) + "\n")
        case ["compare", first, second]:
            found = list(differences(*(json.loads(Path(name).read_text()) for name in (first, second))))
            print(*found or ["every number is the same"], sep="\n")
            sys.exit(bool(found))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
