"""Answering by packed trees against one `generate` a question, interleaved in one process.

    python benchmarks/answering.py [--questions 100] [--rounds 3] [--vocab-size 55296] [--votes 4]

Questions of the reference run's test workbook, real tokenizer, a Llama of 8 layers and width 512 with random weights,
float32. The reference's way generates one token a question, one question at a time.
"""

from __future__ import annotations

import argparse
import warnings
from typing import Any

from bench import TOKENIZER, interleave, llama, machine, report_ratio, shared_questions


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--vocab-size", type=int, default=55296)
    parser.add_argument("--votes", type=int, default=4)
    parser.add_argument("--row-tokens", type=int)
    flags = parser.parse_args()
    warnings.simplefilter("ignore")
    import torch

    from lrc.alpaca import to_record
    from lrc.lastlayer import prune_last_layer
    from lrc.models import load_tokenizer
    from lrc.prompt import Prompt
    from lrc.scoring import Scorer

    prompt = Prompt(load_tokenizer(str(TOKENIZER)), "chinese-alpaca-2", "digit")
    records = [to_record(question) for question in shared_questions("AI1000.xlsx", flags.questions)]
    plain, packed = llama(flags.vocab_size).eval(), llama(flags.vocab_size).eval()
    prune_last_layer(packed)
    device = torch.device("cpu")
    scorers = {votes: Scorer(packed, prompt, device, flags.row_tokens, votes) for votes in (1, flags.votes)}
    seconds = interleave(
        {
            "generate": lambda: generate(plain, prompt, records),
            "lrc": lambda: scorers[1](records),
            "lrc votes": lambda: scorers[flags.votes](records),
        },
        flags.rounds,
    )
    print(machine())
    for name, taken in seconds.items():
        print(f"{name}: {len(records) / min(taken):.2f} questions per processor second")
    report_ratio("lrc against one generate a question", seconds["generate"], seconds["lrc"])
    report_ratio(f"time of {flags.votes} votes against one", seconds["lrc votes"], seconds["lrc"])


def generate(model: Any, prompt: Any, records: list[Any]) -> None:
    """One token a question, one question at a time."""
    import torch

    with torch.inference_mode():
        for record in records:
            ids = torch.tensor([prompt.prompt(record)])
            model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=1, do_sample=True, pad_token_id=0)


if __name__ == "__main__":
    main()
