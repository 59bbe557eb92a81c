"""Answering by packed trees against other ways to answer, interleaved in one process.

    python benchmarks/answering.py [--questions 100] [--rounds 3] [--sides lrc generate-1] [--votes 4] [--memory]
    python benchmarks/answering.py --questions 1000 --parts --sides lrc generate-1

Questions of the reference run's test workbook, real tokenizer, a Llama of 8 layers and width 512 with random weights,
float32. Sides:

- `lrc`, and `lrc-votes`, which asks each question with its options in `--votes` orders;
- `generate-1`, the reference's way: one token a question, one question at a time; `generate-8` pads eight questions of
  about one length to the longest;
- `harness`, lm-evaluation-harness (pip install lm_eval): the four digits of each question, from the same tokens;
- `products`, the machine's rate: the matrix products that lrc's rows need, and nothing else (see products.py).

`--parts` is for many questions: it takes no warm-up run, and a round is the part of the questions that lrc scores in
one call, so that all rounds together are all questions once and every part has its own ratio.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from functools import partial
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

TARGETS = {"generate-1": (">=", 1.7), "harness": (">=", 1.0)}


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", action="store_true", help="a round a part of the questions, without a warm-up run")
    parser.add_argument("--sides", nargs="+", default=["lrc", "lrc-votes", "generate-1", "generate-8", "products"])
    parser.add_argument("--vocab-size", type=int, default=55296)
    parser.add_argument("--votes", type=int, default=4)
    parser.add_argument("--row-tokens", type=int)
    parser.add_argument("--memory", action="store_true", help="also each side's peak memory, in a process of its own")
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    warnings.simplefilter("ignore")
    if flags.peak_of:
        sides = Sides(flags)
        print(rise(sides.run(flags.peak_of, sides.parts()[0])))
    else:
        compare(flags)


def compare(flags: argparse.Namespace) -> None:
    """Time all sides in turn and print the ratios."""
    names = dict.fromkeys(["lrc", *flags.sides])
    peaks = {name: peak_in_process(name) for name in names if name != "products"} if flags.memory else {}
    sides = Sides(flags)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for part in sides.parts() if flags.parts else [sides.records]:
        runs = {name: sides.run(name, part) for name in names}
        for name, taken in interleave(runs, 1 if flags.parts else flags.rounds, warm_up=not flags.parts).items():
            seconds[name] += taken
        if flags.parts:
            print({name: round(taken[-1], 2) for name, taken in seconds.items()}, flush=True)
    print(machine())
    times = 1 if flags.parts else flags.rounds
    asked, tokens = len(sides.records) * times, sum(len(sides.prompt.prompt(record)) for record in sides.records)
    for name, taken in seconds.items():
        if name != "products":
            report_speed(name, taken, asked, tokens * times, peaks.get(name))
    for name, taken in seconds.items():
        if name == "products":
            report_ratio("share of the machine's rate at the products that lrc needs", taken, seconds["lrc"], "of 1")
        elif name == "lrc-votes":
            report_ratio(f"time of {flags.votes} votes against one", taken, seconds["lrc"], target=("<=", 1.8))
        elif name != "lrc":
            report_ratio(f"lrc against {name}", taken, seconds["lrc"], target=TARGETS.get(name))


class Sides:
    """The ways to answer, each with the same weights, prompt and questions."""

    def __init__(self, flags: argparse.Namespace) -> None:
        from lrc.data.alpaca import to_record
        from lrc.models.loading import load_tokenizer
        from lrc.packing.last_layer import prune_last_layer
        from lrc.tokenization.prompt import Prompt

        self.flags = flags
        self.prompt = Prompt(load_tokenizer(str(TOKENIZER)), "chinese-alpaca-2", "digit")
        self.records = [to_record(question) for question in shared_questions("AI1000.xlsx", flags.questions)]
        self.plain, self.packed = llama(flags.vocab_size).eval(), llama(flags.vocab_size).eval()
        prune_last_layer(self.packed)

    def parts(self) -> list[list[Any]]:
        """The questions as lrc scores them, those of one call together."""
        from lrc.answering.scoring import chunks

        return [[self.records[place] for place in chunk] for chunk in chunks(self.records)]

    def run(self, name: str, records: list[Any]) -> Callable[[], Any]:
        """What answers the records in one of the ways."""
        kind, _, number = name.partition("-")
        if kind == "lrc":
            return partial(self._scorer(self.flags.votes if number else 1), records)
        if kind == "generate":
            return partial(generate, self.plain, self.prompt, records, int(number))
        if kind == "harness":
            return harness(self.plain, self.prompt, records)
        if kind == "products":
            return needed(self._rows(records), self.packed.config, training=False).alone(self.packed.config)
        raise SystemExit(f"--sides {name}: unknown; see --help")

    def _scorer(self, votes: int) -> Any:
        import torch

        from lrc.answering.scoring import Scorer

        return Scorer(self.packed, self.prompt, torch.device("cpu"), self.flags.row_tokens, votes)

    def _rows(self, records: list[Any]) -> list[Any]:
        from lrc.answering.scoring import chunks
        from lrc.packing.log_probs import ROW_TOKENS
        from lrc.packing.tree import pack

        rows = []
        for chunk in chunks(records):
            sequences = [sequence for place in chunk for sequence in self.prompt.candidates(records[place])]
            rows += pack(sequences, self.flags.row_tokens or ROW_TOKENS)
        return rows


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
