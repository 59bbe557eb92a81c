"""Does a GGUF of a merged model answer as `lrc generate` does with the merged model? Asked through llama.cpp.

    python benchmarks/gguf_answers.py MERGED MODEL.gguf WORKBOOK [--questions 20]

Make the GGUF with llama.cpp's convert_hf_to_gguf.py; needs `pip install llama-cpp-python`. For each question it
compares

- the tokens: of the conversation, rendered by the GGUF's chat template and tokenized by llama.cpp, with lrc's prompt;
- the answer that llama.cpp writes to that conversation, greedily, with the option that lrc chooses;
- the options' probabilities.

Ends with status 1 where tokens or answers differ. For models that answer with digits.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from llama_cpp import Llama
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

from lrc.answering.load import load_scorer
from lrc.answering.options import ScoringOptions
from lrc.config.run_record import DIGIT_STYLES
from lrc.data.alpaca import Record
from lrc.data.sources import read_records
from lrc.runtime.errors import LrcError
from lrc.tokenization.prompt import Prompt
from lrc.tokenization.serving import conversation

ROOM = 16  # tokens for an answer


@dataclass(frozen=True)
class Answered:
    """What llama.cpp makes of a question."""

    tokens: list[int]  # of the prompt
    written: str
    probabilities: list[float]

    @property
    def number(self) -> int | None:
        """The option that it writes."""
        found = re.search(r"[1-8]", self.written)
        return int(found[0]) if found else None


class Asked:
    """A GGUF that is asked as a server asks it: by its own chat template."""

    def __init__(self, path: Path, prompt: Prompt, context: int) -> None:
        self.prompt = prompt
        self.model = Llama(str(path), n_ctx=context, logits_all=True, verbose=False, n_threads=1)
        self.formatter = Jinja2ChatFormatter(
            template=self.model.metadata["tokenizer.chat_template"],
            bos_token=self._text(self.model.token_bos()),
            eos_token=self._text(self.model.token_eos()),
        )

    def __call__(self, record: Record) -> Answered:
        """Ask one question."""
        rendered = self.formatter(messages=conversation(self.prompt, record)).prompt  # type: ignore[arg-type]
        tokens = self.model.tokenize(rendered.encode(), add_bos=False, special=True)
        self.model.reset()
        self.model.eval(tokens)
        scores = self._digits(record, len(tokens))
        return Answered(tokens, self._write(), (np.exp(scores) / np.exp(scores).sum()).tolist())

    def _digits(self, record: Record, length: int) -> Any:
        """The log-probability of each option's digit, tokens before the digit apart."""
        sequences = [one.tokens[one.prompt_length :].tolist() for one in self.prompt.candidates(record)]
        lead = sequences[0][:-1]
        if lead:
            self.model.eval(lead)
        logits = self.model.scores[length + len(lead) - 1]
        self.model.n_tokens = length
        return np.array([logits[completion[-1]] for completion in sequences]) - np.logaddexp.reduce(logits)

    def _write(self) -> str:
        """What follows greedily, up to the end token."""
        written: list[int] = []
        while len(written) < ROOM:
            token = int(np.argmax(self.model.scores[self.model.n_tokens - 1]))
            if token == self.prompt.end:
                break
            written.append(token)
            self.model.eval([token])
        return str(self.model.detokenize(written).decode(errors="replace"))

    def _text(self, token: int) -> str:
        return str(self.model.detokenize([token], special=True).decode()) if token >= 0 else ""


def compare(merged: Path, gguf: Path, workbook: Path, questions: int) -> bool:
    """Compare and print; whether tokens and answers are the same."""
    scorer = load_scorer(str(merged), ScoringOptions())
    if scorer.prompt.answer_style not in DIGIT_STYLES:
        raise LrcError(f"{merged}: answers in {scorer.prompt.answer_style} style; this check is for digits")
    records = read_records(workbook)[:questions]
    expected = scorer(records)
    lengths = [len(scorer.prompt.prompt(record)) for record in records]
    asked = Asked(gguf, scorer.prompt, max(lengths) + ROOM + 8)
    found = [asked(record) for record in records]
    same_tokens = [one.tokens == scorer.prompt.prompt(record) for one, record in zip(found, records, strict=True)]
    same_answers = [one.number == score.prediction for one, score in zip(found, expected, strict=True)]
    apart = [np.abs(np.subtract(a.probabilities, b.probabilities)).max() for a, b in zip(found, expected, strict=True)]
    print(f"{len(records)} questions, {sum(lengths)} tokens of prompts")
    print(f"same tokens: {sum(same_tokens)}")
    print(f"same answers: {sum(same_answers)} (lrc: {' '.join(str(one.prediction) for one in expected)})")
    print(f"largest difference of a probability: {max(apart):.2e}")
    for record, one, score, same in zip(records, found, expected, same_answers, strict=True):
        if not same:
            print(f"question {record.id}: llama.cpp writes {one.written!r}, lrc chooses {score.prediction}")
    return all(same_tokens) and all(same_answers)


def main() -> None:
    """Read the command line; exit 1 where something differs or is refused."""
    parser = argparse.ArgumentParser(description="Compare a GGUF of a merged model with the merged model.")
    parser.add_argument("merged", type=Path, help="The folder that lrc merge wrote.")
    parser.add_argument("gguf", type=Path, help="The same model as GGUF.")
    parser.add_argument("workbook", type=Path, help="Questions: what lrc generate reads.")
    parser.add_argument("--questions", type=int, default=20, help="How many of them.")
    given = parser.parse_args()
    try:
        sys.exit(0 if compare(given.merged, given.gguf, given.workbook, given.questions) else 1)
    except LrcError as error:
        print(*error.findings, sep="\n", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
