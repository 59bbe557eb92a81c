"""An evaluation while training against one forward pass over the unique tokens of the same questions.

    python benchmarks/evaluating.py [--questions 100] [--rounds 3] [--row-tokens 1536]

Questions of the reference run's training workbook, real tokenizer, a Llama of 8 layers and width 512, random weights,
float32. Sides, which take turns in one process:

- `digit` and `text`: the loss on the answers and the choice between all options, as training evaluates them in either
  style of answer;
- `digit-pass` and `text-pass`: the loss alone, which is one pass over the unique tokens of prompts and right answers,
  with the savings that training has: the head at supervised positions only, the last layer where its result is needed.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from bench import TOKENIZER, interleave, llama, machine, report_ratio, shared_questions

STYLES = ("digit", "text")


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--row-tokens", type=int)
    flags = parser.parse_args()
    warnings.simplefilter("ignore")
    sides: dict[str, Callable[[], Any]] = {}
    for style in STYLES:
        sides |= both(style, flags)
    print(machine())
    seconds = interleave(sides, flags.rounds)
    for style in STYLES:
        what = f"{style}: time of an evaluation against one pass over its unique tokens"
        report_ratio(what, seconds[style], seconds[f"{style}-pass"], target=("<=", 2.0))


def both(style: str, flags: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    """The evaluation in one style of answer, and the pass."""
    import torch

    from lrc.answering.scoring import chunks
    from lrc.data.alpaca import to_record
    from lrc.models.loading import load_tokenizer
    from lrc.packing.last_layer import prune_last_layer
    from lrc.packing.log_probs import row_budget, sequence_scores
    from lrc.tokenization.prompt import Prompt
    from lrc.training.validation import Validation

    device = torch.device("cpu")
    prompt = Prompt(load_tokenizer(str(TOKENIZER)), "chinese-alpaca-2", style)
    records = [to_record(question) for question in shared_questions("AI.xlsx", flags.questions)]
    model = llama(55296).eval()
    prune_last_layer(model)
    budget = row_budget(device, flags.row_tokens)

    def one_pass() -> None:
        for chunk in chunks(records):
            sequence_scores(model, [prompt.sequence(records[place]) for place in chunk], device, budget)

    validation = Validation(records, prompt)
    evaluation = partial(validation.evaluate, range(len(records)), model, device, budget)
    return {style: evaluation, f"{style}-pass": one_pass}


if __name__ == "__main__":
    main()
