"""A CPU in bfloat16 against float32: pace of answering with equal answers, or of training, interleaved in one process.

    python benchmarks/formats.py BASE --data AI1000.xlsx [--questions 60] [--rounds 1] [--template plain] [--gguf FILE]
    python benchmarks/formats.py BASE --train --data AI.xlsx [--questions 24] [--answer-style judge]

BASE is a folder with a real base model, small enough to be in memory in both formats; the questions are those of the
workbook sorted by passage, so that they share it. Both sides are `lrc generate --dtype` without its files, or with
`--train` an epoch of `lrc.sft` with `dtype` and `bf16`, LoRA rank 8 and eight questions a step. `--gguf` adds llama.cpp
(`pip install xllamacpp`) with the same base as a GGUF file: digits only, and what a prompt shares with the one before
is not computed again. On a machine without bfloat16 units, only float32 is timed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import interleave, machine, report_ratio, report_speed, shared_questions
from training import _arguments, _lora

STEP = 8
PROBABLE = 100  # the digits are among so many most probable tokens


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("--data", default="AI1000.xlsx", help="a workbook in LRC_SHARED_DATA")
    parser.add_argument("--questions", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--template", default="plain")
    parser.add_argument("--answer-style", default="digit")
    parser.add_argument("--gguf", type=Path, help="the base for llama.cpp, which is asked as well")
    parser.add_argument("--train", action="store_true", help="train on the questions instead of answering them")
    flags = parser.parse_args()
    from lrc.data.alpaca import to_record

    questions = sorted(shared_questions(flags.data), key=lambda question: question.passage)[: flags.questions]
    compare = compare_training if flags.train else compare_answers
    compare(flags, [to_record(question) for question in questions])


def formats() -> list[str]:
    """The formats that this CPU has units for, the fastest last."""
    from lrc.runtime.devices import supported

    return [name for name in ("float32", "bfloat16") if supported(name, "cpu")]


def compare_answers(flags: argparse.Namespace, records: list[Any]) -> None:
    """Time the answers in both formats, and count the equal ones."""
    from lrc.answering.load import load_scorer
    from lrc.answering.options import ScoringOptions

    asking = {"template": flags.template, "answer_style": flags.answer_style}
    scorers = {name: load_scorer(str(flags.base), ScoringOptions(**asking, dtype=name)) for name in formats()}
    sides: dict[str, Callable[[list[Any]], list[int]]] = {
        name: lambda records, scorer=scorer: [score.prediction for score in scorer(records)]
        for name, scorer in scorers.items()
    }
    prompt = scorers["float32"].prompt
    if flags.gguf:
        sides["llama.cpp"] = LlamaCpp(flags.gguf, prompt)
    found: dict[str, list[int]] = {}

    def ask(name: str) -> None:
        found[name] = sides[name](records)

    seconds = interleave({name: lambda name=name: ask(name) for name in sides}, flags.rounds, warm_up=False)
    tokens = sum(len(prompt.prompt(record)) for record in records)
    report(seconds, len(records) * flags.rounds, tokens * flags.rounds, target=1.8)
    if flags.gguf:
        own = formats()[-1]
        report_ratio(f"{own} against llama.cpp", seconds["llama.cpp"], seconds[own], target=(">=", 2.5))
    for name, answers in found.items():
        same = sum(one == other for one, other in zip(answers, found["float32"], strict=True))
        print(f"{name}: {same} of {len(records)} answers as in float32", end="")
        if all(record.output is not None for record in records):
            right = sum(one == int(record.output) for one, record in zip(answers, records, strict=True))
            print(f", {right} right", end="")
        print()


class LlamaCpp:
    """A GGUF that is asked for digits, with the prompts of lrc, one after the other.

    Args:
        path: of the GGUF file.
        prompt: whose tokens it is given; in digit style.
    """

    def __init__(self, path: Path, prompt: Any) -> None:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path, params.n_ctx, params.n_parallel, params.verbosity = str(path), 4096, 1, 0
        params.cache_ram_mib = 0  # it would remember the answers of an earlier round
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        self.prompt, self.server = prompt, xllamacpp.Server(params)
        print(f"llama.cpp: {xllamacpp.get_system_info()}")

    def __call__(self, records: list[Any]) -> list[int]:
        """The number of the option with the most probable digit, for each question."""
        return [self._answer(record) for record in records]

    def _answer(self, record: Any) -> int:
        sequences = [one.tokens.tolist() for one in self.prompt.candidates(record)]
        digits = [one[-1] for one in sequences]
        asked = {"prompt": sequences[0][:-1], "n_predict": 1, "n_probs": PROBABLE, "cache_prompt": True}
        (choice,) = self.server.handle_completions({**asked, "temperature": 0})["choices"]
        found = [one["id"] for one in choice["logprobs"]["content"][0]["top_logprobs"]]  # the most probable first
        return 1 + digits.index(next(token for token in found if token in digits))


def compare_training(flags: argparse.Namespace, records: list[Any]) -> None:
    """Time an epoch in both formats; the loss shows that both learn the same."""
    trainers = {name: make_trainer(name, flags, records) for name in formats()}
    seconds = interleave({name: trainer.train for name, trainer in trainers.items()}, flags.rounds, warm_up=False)
    batches = trainers["float32"].get_train_dataloader()
    tokens = sum(len(sequence.inputs) for batch in batches for sequence in batch.sequences)
    report(seconds, len(records) * flags.rounds, tokens * flags.rounds, target=1.5)
    for name, trainer in trainers.items():
        print(f"{name}: loss {trainer.state.log_history[-1]['train_loss']:.4f}")


def make_trainer(name: str, flags: argparse.Namespace, records: list[Any]) -> Any:
    """The trainer of an epoch with the base in this format."""
    import torch
    from transformers import AutoModelForCausalLM, set_seed

    from lrc.models.loading import load_tokenizer
    from lrc.tokenization.prompt import Prompt
    from lrc.tokenization.token_dataset import tokenize
    from lrc.training.contrastive_loss import Objective
    from lrc.training.dataloader import SequenceSource
    from lrc.training.trainer import Packing, TreeTrainer

    set_seed(0)
    tokenizer = load_tokenizer(str(flags.base))
    prompt = Prompt(tokenizer, flags.template, flags.answer_style)
    dataset = tokenize(records, prompt, stage="tokenize")
    judged = prompt.answer_style == "judge"
    return TreeTrainer(
        model=AutoModelForCausalLM.from_pretrained(flags.base, dtype=getattr(torch, name)),
        args=_arguments(STEP, bf16=name == "bfloat16", gradient_checkpointing=False),
        peft_config=_lora(),
        processing_class=tokenizer,
        train_dataset=dataset,
        source=SequenceSource(dataset, records, prompt, 1, 0, "character" if judged else None, supervised=not judged),
        validation=None,
        packing=Packing(row_tokens=1536),
        objective=Objective(1.0 if judged else 0.0),
    )


def report(seconds: dict[str, list[float]], questions: int, tokens: int, *, target: float) -> None:
    """Print the pace of each side, and the ratio of the formats."""
    print(machine())
    for name, taken in seconds.items():
        report_speed(name, taken, questions, tokens)
    if "bfloat16" in seconds:
        report_ratio("bfloat16 against float32", seconds["float32"], seconds["bfloat16"], target=(">=", target))


if __name__ == "__main__":
    main()
