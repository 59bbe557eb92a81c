"""Answer millions of questions with vLLM, asked with the tokens that lrc trained on.

    pip install vllm
    python examples/vllm_answers.py --model BASE --adapter DIR --data questions.json --output answer.csv

vLLM computes a passage once for the questions that follow each other (prefix caching), on as many GPUs as
`--tensor-parallel` names. It is given token ids and not text: its tokenizer would put other tokens where a prompt is
joined to an answer. Of each question one token is asked for, among those of the options, so that the answer is the one
that `lrc generate` gives, but for rounding. For adapters that were trained to answer with a digit.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrc.answering.submission import write_submission
from lrc.config.run_record import DIGIT_STYLES, read_run
from lrc.data.alpaca import Record
from lrc.data.sources import read_records
from lrc.models.loading import load_tokenizer
from lrc.runtime.outputs import refuse_existing
from lrc.tokenization.prompt import Prompt, question_of

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM takes for max_lora_rank


@dataclass(frozen=True)
class Request:
    """What is asked: the ids before the answer, and the number of the option that each next token means."""

    id: str
    prompt_token_ids: list[int]
    options: dict[int, int]


def main() -> None:
    """Answer a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="the base, or a merged model")
    parser.add_argument("--adapter", type=Path, help="its lrc_run.json says how it was trained to be asked")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--tensor-parallel", type=int, default=1)
    flags = parser.parse_args()
    refuse_existing(flags.output, force=False)
    trained = flags.adapter or Path(flags.model)
    run = read_run(trained)
    if run is None or run.answer_style not in DIGIT_STYLES:
        raise SystemExit(f"{trained}: was not trained to answer with a digit; use lrc generate")
    tokenizer = load_tokenizer(str(trained) if (trained / "tokenizer_config.json").is_file() else flags.model)
    prompt = Prompt(tokenizer, run.template, run.answer_style, run.list_options, run.chat_date)
    asked = list(requests(read_records(flags.data), prompt))
    answers = ask(asked, flags.model, flags.adapter, flags.tensor_parallel)
    write_submission(flags.output, [one.id for one in asked], answers)


def requests(records: Sequence[Record], prompt: Prompt) -> Iterator[Request]:
    """What is asked for each record, in their order: questions of a passage follow each other in lrc's files.

    Raises:
        ValueError: options of a question differ by more than their last token.
    """
    for record in records:
        candidates = prompt.candidates(record)
        stems = {tuple(one.inputs.tolist()) for one in candidates}
        if len(stems) > 1:
            raise ValueError(f"{record.id}: its options are not told apart by one token")
        numbers = question_of(record).choosable
        options = {int(one.tokens[-1]): number for one, number in zip(candidates, numbers, strict=True)}
        yield Request(record.id, list(map(int, stems.pop())), options)


def max_rank(adapter: Path) -> int:
    """The least limit that vLLM takes for the ranks of an adapter."""
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    rank = max(config["r"], *config.get("rank_pattern", {}).values(), 0)
    return next(limit for limit in RANKS if limit >= rank)


def ask(asked: Sequence[Request], model: str, adapter: Path | None, tensor_parallel: int = 1) -> list[int]:
    """The number of the most likely option of each."""
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    lora: dict[str, Any] = {"enable_lora": True, "max_lora_rank": max_rank(adapter)} if adapter else {}
    engine = LLM(model=model, enable_prefix_caching=True, tensor_parallel_size=tensor_parallel, **lora)
    sampling = [SamplingParams(max_tokens=1, temperature=0.0, allowed_token_ids=list(one.options)) for one in asked]
    outputs = engine.generate(
        [{"prompt_token_ids": one.prompt_token_ids} for one in asked],
        sampling,
        lora_request=LoRARequest("adapter", 1, str(adapter)) if adapter else None,
    )
    return [one.options[output.outputs[0].token_ids[0]] for one, output in zip(asked, outputs, strict=True)]


if __name__ == "__main__":
    main()
