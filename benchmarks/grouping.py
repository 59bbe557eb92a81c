"""Does drawing whole passages hurt? Grouped against shuffled training, at equal steps, with a model that can learn.

    python benchmarks/grouping.py --model DIR --train FILE --validation FILE [--questions 192] [--seeds 2]

Both sides see the same questions in as many steps of the same size and start from the same adapter; only the order
differs. What is compared is the loss on the right option's text of held-out questions, question by question (a
difference of means with its 95 % interval, paired), and the accuracy. DIR is an ordinary model folder, FILE what
`lrc convert` wrote.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from bench import machine


def main() -> None:
    """Train both sides with every seed and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--validation", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=192)
    parser.add_argument("--held-out", type=int, default=120)
    parser.add_argument("--max-length", type=int, default=400)
    parser.add_argument("--step", type=int, default=8, help="questions an optimizer step")
    parser.add_argument("--seeds", type=int, default=2)
    flags = parser.parse_args()
    warnings.simplefilter("ignore")
    print(machine(), flush=True)
    differences = []
    for seed in range(flags.seeds):
        losses = {}
        for side in ("grouped", "shuffled"):
            started = time.monotonic()
            losses[side], right = run(flags, seed, grouped=side == "grouped")
            spent = time.monotonic() - started
            print(
                f"seed {seed}, {side}: loss {losses[side].mean():.4f}, accuracy {right.mean():.3f} "
                f"({len(right)} questions), {spent:.0f} s",
                flush=True,
            )
        differences.append(losses["grouped"] - losses["shuffled"])
    gaps = np.concatenate(differences)
    print(f"grouped - shuffled: {gaps.mean():+.4f} ± {1.96 * gaps.std(ddof=1) / len(gaps) ** 0.5:.4f} nats a question")


def run(flags: argparse.Namespace, seed: int, *, grouped: bool) -> tuple[np.ndarray, np.ndarray]:
    """Train once; (held out,) the loss of each right completion, and whether the answer was right."""
    from peft import LoraConfig
    from trl import SFTConfig

    from lrc.answering.scoring import Scorer
    from lrc.data.sources import read_records
    from lrc.models.loading import load_base, load_tokenizer
    from lrc.tokenization.prompt import Prompt
    from lrc.training.dataloader import Sampling
    from lrc.training.trainer import TreeTrainer

    tokenizer = load_tokenizer(flags.model)
    prompt = Prompt(tokenizer, "plain", "text")
    train = chosen(read_records(flags.train), prompt, flags.questions, flags.max_length)
    held_out = chosen(read_records(flags.validation), prompt, flags.held_out, flags.max_length)
    sequences = [prompt.sequence(record) for record in train]
    trainer = TreeTrainer(
        model=load_base(flags.model),
        args=SFTConfig(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=flags.step,
            num_train_epochs=1,
            learning_rate=3.0e-4,
            lr_scheduler_type="cosine",
            seed=seed,
            max_length=None,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
        ),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        processing_class=tokenizer,
        train_dataset=dataset(train, sequences),
        source=lambda key: [sequences[key[0]]],
        validation=None,
        sampling=Sampling(grouped),
    )
    trainer.train()
    trainer.model.eval()
    scores = Scorer(trainer.model, prompt, trainer.args.device, with_answers=True)(held_out)
    right = [score.prediction == record.question.answer for score, record in zip(scores, held_out, strict=True)]
    return np.array([-(score.answer_log_prob or 0.0) for score in scores]), np.array(right)


def chosen(records: Any, prompt: Any, count: int, max_length: int) -> list[Any]:
    """Whole passages drawn at random (seeded), without what is too long, until there are `count` questions."""
    passages: dict[str, list[Any]] = {}
    for record in records:
        passages.setdefault(record.question.passage, []).append(record)
    groups = list(passages.values())
    random.Random(0).shuffle(groups)
    short = [record for group in groups for record in group if len(record.question.passage) < max_length]
    return [record for record in short if len(prompt.sequence(record).tokens) <= max_length][:count]


def dataset(records: list[Any], sequences: list[Any]) -> Any:
    """What TreeTrainer trains on: a row a question."""
    from datasets import Dataset

    passages: dict[str, int] = {}
    return Dataset.from_dict(
        {
            "tokens": [sequence.tokens.tolist() for sequence in sequences],
            "prompt_length": [sequence.prompt_length for sequence in sequences],
            "passage": [passages.setdefault(record.question.passage, len(passages)) for record in records],
            "id": [record.question.id for record in records],
        }
    )


if __name__ == "__main__":
    main()
