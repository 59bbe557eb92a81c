"""Training with packed trees against TRL's SFTTrainer on separate samples, interleaved in one process.

    python benchmarks/training.py [--questions 48] [--rounds 3] [--vocab-size 55296] [--memory]

Questions of the reference run's workbook, real tokenizer, a Llama of 8 layers and width 512 with random weights,
float32, LoRA rank 8 on all projections, dropout 0, 24 questions an optimizer step. TRL runs with float32, without
gradient checkpointing, at batch 6 and batch 1, and with its defaults (`--defaults`).
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import warnings
from typing import Any

from bench import TOKENIZER, interleave, llama, machine, report_ratio, shared_questions


def main() -> None:
    """Run the comparison that the flags name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=48)
    parser.add_argument("--step", type=int, default=24, help="questions an optimizer step")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--vocab-size", type=int, default=55296)
    parser.add_argument("--row-tokens", type=int)
    parser.add_argument("--defaults", action="store_true", help="also TRL with its own defaults")
    parser.add_argument("--orders", type=int, help="also lrc with this many option orders a question")
    parser.add_argument("--memory", action="store_true", help="peak memory above the loaded model, batch 8")
    parser.add_argument("--peak-of", choices=["trl", "lrc"], help=argparse.SUPPRESS)
    flags = parser.parse_args()
    warnings.simplefilter("ignore")
    if flags.peak_of:
        print(peak(flags))
    elif flags.memory:
        peaks = {side: _peak_in_process(side) for side in ("trl", "lrc")}
        print(f"{machine()}: peak above the model {peaks['trl']:.0f} MiB (TRL), {peaks['lrc']:.0f} MiB (lrc)")
        print(f"lrc / TRL: {peaks['lrc'] / peaks['trl']:.3f}")
    else:
        compare(flags)


def compare(flags: argparse.Namespace) -> None:
    """Time all sides in turn and print the ratios."""
    records = _records(flags.questions)
    sides: dict[str, Any] = {
        "lrc": lrc_trainer(records, flags, row_tokens=flags.row_tokens),
        "trl batch 6": trl_trainer(records, flags, 6),
        "trl batch 1": trl_trainer(records, flags, 1),
    }
    if flags.defaults:
        sides["trl defaults"] = trl_trainer(records, flags, 6, bf16=True, gradient_checkpointing=True)
    if flags.orders:
        sides["lrc orders"] = lrc_trainer(records, flags, orders=flags.orders)
    trainers = {name: side[0] for name, side in sides.items()}
    seconds = interleave({name: trainer.train for name, trainer in trainers.items()}, flags.rounds)
    print(machine(), sides["lrc"][1])
    for name, taken in seconds.items():
        loss = trainers[name].state.log_history[-1]["train_loss"]
        print(f"{name}: {len(records) / min(taken):.2f} questions per processor second, loss {loss:.5f}")
    for name in sides:
        if name.startswith("trl"):
            report_ratio(f"lrc against {name}", seconds[name], seconds["lrc"])
    if flags.orders:
        report_ratio(f"time of {flags.orders} orders against one", seconds["lrc orders"], seconds["lrc"])


def lrc_trainer(
    records: list[Any], flags: argparse.Namespace, *, orders: int = 1, row_tokens: int | None = None
) -> tuple[Any, str]:
    """A TreeTrainer over one epoch of the records, and a line about its tokens."""
    from lrc.batches import StepSampler
    from lrc.corpus import Drawing, tokenize
    from lrc.prompt import Prompt
    from lrc.trainer import TreeTrainer
    from lrc.tree import pack, token_counts

    tokenizer = _tokenizer()
    prompt = Prompt(tokenizer, "chinese-alpaca-2", "digit")
    dataset = tokenize(records, prompt, stage="tokenize")
    draw = Drawing(dataset, records, prompt, orders, 0)
    trainer = TreeTrainer(
        model=llama(flags.vocab_size),
        args=_arguments(flags.step, bf16=False, gradient_checkpointing=False),
        peft_config=_lora(),
        processing_class=tokenizer,
        train_dataset=dataset,
        draw=draw,
        validation=None,
        row_tokens=row_tokens,
    )
    sequences = [s for record in range(len(records)) for s in draw((record, 0))]
    steps = [[s for place in step for s in draw(place)] for step in StepSampler(dataset["passage"][:], flags.step)]
    rows = [row for step in steps for row in pack(step, trainer.row_tokens)]
    return trainer, f"{token_counts(sequences, rows)}"


def trl_trainer(records: list[Any], flags: argparse.Namespace, batch: int, **settings: Any) -> tuple[Any, str]:
    """TRL's SFTTrainer on the same token ids, with its own collator."""
    from datasets import Dataset
    from trl import SFTTrainer

    from lrc.prompt import Prompt

    tokenizer = _tokenizer()
    prompt = Prompt(tokenizer, "chinese-alpaca-2", "digit")
    rows = []
    for sequence in map(prompt.sequence, records):
        ids = sequence.tokens.tolist()
        rows.append({"input_ids": ids, "labels": [-100] * sequence.prompt_length + ids[sequence.prompt_length :]})
    settings = {"bf16": False, "gradient_checkpointing": False, **settings}
    trainer = SFTTrainer(
        model=llama(flags.vocab_size),
        args=_arguments(batch, accumulation=flags.step // batch, **settings),
        peft_config=_lora(),
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(rows),
    )
    return trainer, ""


def peak(flags: argparse.Namespace) -> float:
    """MiB by which one step of eight questions rises above the loaded model."""
    records = _records(8)
    flags.step = 8
    trainer, _ = lrc_trainer(records, flags) if flags.peak_of == "lrc" else trl_trainer(records, flags, 8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    trainer.train()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def _peak_in_process(side: str) -> float:
    command = [sys.executable, __file__, "--peak-of", side]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def _records(count: int) -> list[Any]:
    """Passages drawn at random (seeded), with all their questions: the workbook's own sharing."""
    import random

    from lrc.alpaca import to_record

    passages: dict[str, list[Any]] = {}
    for question in shared_questions("AI.xlsx"):
        passages.setdefault(question.passage, []).append(question)
    groups = list(passages.values())
    random.Random(0).shuffle(groups)
    chosen = [question for group in groups for question in group]
    return [to_record(question) for question in chosen[:count]]


def _arguments(batch: int, *, accumulation: int = 1, **settings: Any) -> Any:
    from trl import SFTConfig

    return SFTConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        num_train_epochs=1,
        learning_rate=1.0e-4,
        train_sampling_strategy="sequential",
        max_length=None,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        dataset_kwargs={"skip_prepare_dataset": True},
        **settings,
    )


def _tokenizer() -> Any:
    from lrc.models import load_tokenizer

    return load_tokenizer(str(TOKENIZER))


def _lora() -> Any:
    from peft import LoraConfig

    projections = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    return LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=projections, task_type="CAUSAL_LM")


if __name__ == "__main__":
    main()
