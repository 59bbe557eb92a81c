"""Answering by packed trees against other ways to answer, interleaved in one process.

    python benchmarks/answering.py [--questions 100] [--rounds 3] [--vocab-size 55296] [--votes 4] [--harness]

Questions of the reference run's test workbook, real tokenizer, a Llama of 8 layers and width 512 with random weights,
float32. The reference's way generates one token a question, one question at a time; batched, eight questions of about
one length are padded to the longest. `--harness` adds lm-evaluation-harness (pip install lm_eval): it scores the four
digits of each question from the same tokens.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
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
    parser.add_argument("--harness", action="store_true", help="also lm-evaluation-harness")
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
    sides: dict[str, Any] = {
        "generate": lambda: generate(plain, prompt, records, 1),
        "generate, batch 8": lambda: generate(plain, prompt, records, 8),
        "lrc": lambda: scorers[1](records),
        "lrc votes": lambda: scorers[flags.votes](records),
    }
    if flags.harness:
        sides["lm-evaluation-harness"] = harness(plain, prompt, records)
    seconds = interleave(sides, flags.rounds)
    print(machine())
    for name, taken in seconds.items():
        print(f"{name}: {len(records) / min(taken):.2f} questions per processor second")
    for name in sides:
        if not name.startswith("lrc"):
            report_ratio(f"lrc against {name}", seconds[name], seconds["lrc"])
    report_ratio(f"time of {flags.votes} votes against one", seconds["lrc votes"], seconds["lrc"])


def generate(model: Any, prompt: Any, records: list[Any], batch: int) -> None:
    """One token a question, `batch` questions of about one length at a time, padded on the left."""
    import torch

    prompts = [prompt.prompt(record) for record in records]
    if batch > 1:
        prompts.sort(key=len)
    for start in range(0, len(prompts), batch):
        part = prompts[start : start + batch]
        longest = max(map(len, part))
        ids = torch.tensor([[0] * (longest - len(tokens)) + list(tokens) for tokens in part])
        seen = torch.tensor([[0] * (longest - len(tokens)) + [1] * len(tokens) for tokens in part])
        with torch.inference_mode():
            model.generate(ids, attention_mask=seen, max_new_tokens=1, do_sample=True, pad_token_id=0)


def harness(model: Any, prompt: Any, records: list[Any]) -> Callable[[], Any]:
    """lm-evaluation-harness on the same tokens: the log-likelihood of each digit after the prompt."""
    from lm_eval.models.huggingface import HFLM

    judge = HFLM(pretrained=model, tokenizer=prompt.tokenizer, batch_size=1, max_length=4096)
    requests = []
    for place, record in enumerate(records):
        for number, sequence in enumerate(prompt.candidates(record)):
            tokens = sequence.tokens.tolist()
            requests.append(((str(place), str(number)), tokens[:-1], tokens[-1:]))
    return lambda: judge._loglikelihood_tokens(requests, disable_tqdm=True)


if __name__ == "__main__":
    main()
