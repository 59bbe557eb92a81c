"""Training with packed trees against TRL's SFTTrainer on separate samples, interleaved in one process.

    python benchmarks/training.py [--questions 48] [--rounds 3] [--sides lrc trl-6 trl-1 products] [--vocab-size 55296]
    python benchmarks/training.py --rounds 1 --no-warm-up --sides lrc-orders --orders 4
    python benchmarks/training.py --rounds 0 --memory --sides trl-8 --step 8

Questions of the reference run's workbook, real tokenizer, a Llama of 8 layers and width 512 with random weights,
float32, LoRA rank 8 on all projections, dropout 0, 24 questions an optimizer step. Sides:

- `lrc`, and `lrc-orders`, which trains each question with its options in `--orders` orders;
- `trl-6`, `trl-1`, or another batch: TRL in float32 without gradient checkpointing; `trl-defaults` has its own defaults
  at batch 6;
- `products`, the machine's rate: the matrix products that lrc's rows need, and nothing else (see products.py).

A side's first run is a warm-up that is thrown away; long runs need none (`--no-warm-up`).
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bench import (
    TOKENIZER,
    interleave,
    llama,
    machine,
    peak_in_process,
    report_ratio,
    report_speed,
    rise,
    shared_questions,
)
from products import needed

RANK = 8
# By side and size of the vocabulary.
TARGETS = {("trl-6", 55296): (">=", 7.0), ("trl-1", 55296): (">=", 5.0), ("trl-6", 151936): (">=", 10.0)}


def main() -> None:
    """Run the comparison that the flags name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=48)
    parser.add_argument("--step", type=int, default=24, help="questions an optimizer step")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-warm-up", action="store_true", help="let the first run count")
    parser.add_argument("--sides", nargs="+", default=["lrc", "trl-6", "trl-1", "products"])
    parser.add_argument("--vocab-size", type=int, default=55296)
    parser.add_argument("--row-tokens", type=int)
    parser.add_argument("--orders", type=int, default=4)
    parser.add_argument(
        "--memory", action="store_true", help="also each side's peak memory in one step, in a process of its own"
    )
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    warnings.simplefilter("ignore")
    if flags.peak_of:
        flags.questions = flags.step
        print(rise(make_side(flags.peak_of, workbook_records(flags.questions), flags).run))
    else:
        compare(flags)


def compare(flags: argparse.Namespace) -> None:
    """Time all sides in turn and print the ratios."""
    names = dict.fromkeys(["lrc", *flags.sides])
    peaks = {name: peak_in_process(name) for name in names if name != "products"} if flags.memory else {}
    print(machine())
    for name, peak in peaks.items():
        share = peaks["lrc"] / peak
        line = f"{name}: peak {peak:,.0f} MiB above the model, lrc's is {share:.3f} of it"
        if name == "trl-8":
            line += f"; target <= 0.1, {'reached' if share <= 0.1 else 'not reached'}"
        print(line)
    if not flags.rounds:
        return
    records = workbook_records(flags.questions)
    sides = {name: make_side(name, records, flags) for name in names}
    runs = {name: side.run for name, side in sides.items()}
    seconds = interleave(runs, flags.rounds, warm_up=not flags.no_warm_up)
    for name, taken in seconds.items():
        if isinstance(sides[name], Side):
            report_speed(name, taken, len(records) * flags.rounds, sides[name].separate * flags.rounds)
            print(f"    {sides[name].tokens}loss {sides[name].loss:.5f}")
    for name, taken in seconds.items():
        if name == "products":
            report_ratio(
                "share of the machine's rate at the products that lrc needs", taken, seconds["lrc"], "of 1", (">=", 0.6)
            )
        elif name == "lrc-orders":
            report_ratio(f"time of {flags.orders} orders against one", taken, seconds["lrc"], target=("<=", 1.8))
        elif name != "lrc":
            target = TARGETS.get((name, flags.vocab_size))
            report_ratio(f"lrc against {name}", taken, seconds["lrc"], target=target)


@dataclass
class Side:
    """A trainer, and the tokens of its questions one by one."""

    trainer: Any
    separate: int
    tokens: str = ""

    def run(self) -> None:
        """Train one epoch."""
        self.trainer.train()

    @property
    def loss(self) -> float:
        """The mean of the epoch trained last."""
        return float(self.trainer.state.log_history[-1]["train_loss"])


@dataclass
class Alone:
    """lrc's matrix products alone."""

    records: list[Any]
    flags: argparse.Namespace

    @cached_property
    def run(self) -> Callable[[], None]:
        """Multiply as often as one epoch needs."""
        trainer = lrc_trainer(self.records, self.flags)
        config = trainer.model.config
        return needed(packed_rows(trainer), config, training=True, rank=RANK).alone(config)


def make_side(name: str, records: list[Any], flags: argparse.Namespace) -> Side | Alone:
    """The side of this name."""
    kind, _, variant = name.partition("-")
    if kind == "products":
        return Alone(records, flags)
    if kind == "lrc":
        trainer = lrc_trainer(records, flags, orders=flags.orders if variant else 1)
        rows = packed_rows(trainer)
        batches = trainer.get_train_dataloader()
        separate = sum(len(sequence.inputs) for batch in batches for sequence in batch.sequences)
        computed = sum(map(len, rows))
        shown = f"{computed:,} tokens in {len(rows)} rows, {separate / computed:.2f} fold sharing; "
        return Side(trainer, separate, shown)
    if kind != "trl":
        raise SystemExit(f"--sides {name}: unknown; see --help")
    if variant == "defaults":
        trainer = trl_trainer(records, flags, 6, bf16=True, gradient_checkpointing=True)
    else:
        trainer = trl_trainer(records, flags, int(variant))
    return Side(trainer, sum(len(row["input_ids"]) - 1 for row in trainer.train_dataset))


def packed_rows(trainer: Any) -> list[Any]:
    """All rows of an epoch."""
    return [row for batch in trainer.get_train_dataloader() for row in batch.rows]


def lrc_trainer(records: list[Any], flags: argparse.Namespace, *, orders: int = 1) -> Any:
    """A TreeTrainer over one epoch of the records."""
    from lrc.tokenization.prompt import Prompt
    from lrc.tokenization.token_dataset import tokenize
    from lrc.training.dataloader import SequenceSource
    from lrc.training.trainer import Packing, TreeTrainer

    tokenizer = _tokenizer()
    prompt = Prompt(tokenizer, "chinese-alpaca-2", "digit")
    dataset = tokenize(records, prompt, stage="tokenize")
    return TreeTrainer(
        model=llama(flags.vocab_size),
        args=_arguments(flags.step, bf16=False, gradient_checkpointing=False),
        peft_config=_lora(),
        processing_class=tokenizer,
        train_dataset=dataset,
        source=SequenceSource(dataset, records, prompt, orders, 0),
        validation=None,
        packing=Packing(row_tokens=flags.row_tokens),
    )


def trl_trainer(records: list[Any], flags: argparse.Namespace, batch: int, **settings: Any) -> Any:
    """TRL's SFTTrainer on the same token ids, with its own collator."""
    from datasets import Dataset
    from trl import SFTTrainer

    from lrc.tokenization.prompt import Prompt

    tokenizer = _tokenizer()
    prompt = Prompt(tokenizer, "chinese-alpaca-2", "digit")
    rows = []
    for sequence in map(prompt.sequence, records):
        ids = sequence.tokens.tolist()
        rows.append({"input_ids": ids, "labels": [-100] * sequence.prompt_length + ids[sequence.prompt_length :]})
    settings = {"bf16": False, "gradient_checkpointing": False, **settings}
    return SFTTrainer(
        model=llama(flags.vocab_size),
        args=_arguments(batch, accumulation=flags.step // batch, **settings),
        peft_config=_lora(),
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(rows),
    )


def workbook_passages() -> list[list[Any]]:
    """The questions of each passage of the workbook, passages in a seeded random order."""
    import random

    passages: dict[str, list[Any]] = {}
    for question in shared_questions("AI.xlsx"):
        passages.setdefault(question.passage, []).append(question)
    groups = list(passages.values())
    random.Random(0).shuffle(groups)
    return groups


def workbook_records(count: int) -> list[Any]:
    """Passages drawn at random (seeded), with all their questions: the workbook's own sharing."""
    from lrc.data.alpaca import to_record

    chosen = [question for group in workbook_passages() for question in group]
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
    from lrc.models.loading import load_tokenizer

    return load_tokenizer(str(TOKENIZER))


def _lora() -> Any:
    from peft import LoraConfig

    projections = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    return LoraConfig(r=RANK, lora_alpha=16, lora_dropout=0.0, target_modules=projections, task_type="CAUSAL_LM")


if __name__ == "__main__":
    main()
