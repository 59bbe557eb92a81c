"""What generate and evaluate share: a model and its prompt from what its folder knows, and questions from any file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object

from lrc.alpaca import Record
from lrc.datafile import read_records
from lrc.errors import ModelError
from lrc.fingerprint import fingerprint_base
from lrc.manifest import checksum
from lrc.models import check_vocabulary, load_for_answering, load_tokenizer
from lrc.output import new_file
from lrc.progress import Advance, silence, track
from lrc.prompt import Prompt, question_of
from lrc.run import Run, lists_options, read_run
from lrc.scoring import OptionScores, Scorer
from lrc.sidefile import SideFile


@dataclass(frozen=True)
class Asking:
    """How a model is asked; None leaves it to what its folder knows.

    Args:
        adapters: adapters on top of the model, to be averaged over.
        votes: over how many option orders the scores are averaged.
    """

    adapters: tuple[Path, ...] = ()
    votes: int = 1
    template: str | None = None
    answer_style: str | None = None
    list_options: bool | None = None
    row_tokens: int | None = None


def load_scorer(model: str, asking: Asking) -> Scorer:
    """Load a model with its adapters, to be asked as it was trained.

    Raises:
        ModelError: it cannot be loaded, or nothing says how it was trained.
        RecipeError: what is asked for does not go together.
    """
    run = _run(model, asking)
    has_tokenizer = bool(asking.adapters) and (asking.adapters[0] / "tokenizer_config.json").is_file()
    tokenizer = load_tokenizer(str(asking.adapters[0]) if has_tokenizer else model)
    as_trained = asking.answer_style in (None, run.answer_style)
    listed = run.list_options if asking.list_options is None and as_trained else asking.list_options
    prompt = Prompt(tokenizer, asking.template or run.template, asking.answer_style or run.answer_style, listed)
    device = PartialState().device
    loaded, names = load_for_answering(model, asking.adapters, device)
    check_vocabulary(tokenizer, loaded)
    return Scorer(loaded, prompt, device, asking.row_tokens, asking.votes, tuple(names))


def answer(scorer: Scorer, records: Sequence[Record], side: SideFile | None = None) -> list[OptionScores]:
    """Score every record, the processes of a launch sharing the work; all of them get all scores, in order.

    Args:
        side: where this process's scores are kept until the output is there.
    """
    state = PartialState()
    if not state.is_main_process:
        silence()
    with state.split_between_processes(list(records)) as mine, track("answer", len(mine)) as advance:
        scores = scorer(mine, advance) if side is None else _resumed(scorer, mine, side, advance)
    return gather_object(scores) if state.num_processes > 1 else scores


def _resumed(scorer: Scorer, records: Sequence[Record], side: SideFile, advance: Advance) -> list[OptionScores]:
    known = side.start()
    advance(len(known))
    for part in scorer.parts(records, known.keys()):
        side.append(part)
        advance(len(part.keys() - known.keys()))
        known.update(part)
    return [known[place] for place in range(len(records))]


def facts(model: str, asking: Asking, data: Path) -> list[Any]:
    """Everything that scores depend on: model, adapters, questions, flags, the launch and the software.

    Raises:
        ModelError: there is no such model.
    """
    state = PartialState()
    files = [data, *(file for adapter in asking.adapters for file in sorted(adapter.glob("*")) if file.is_file())]
    named = {**asdict(asking), "adapters": len(asking.adapters)}
    sums = [checksum(file) for file in files]
    software = [version(name) for name in ("lrc", "torch", "transformers", "peft")]
    return [fingerprint_base(model), sums, named, state.num_processes, state.device.type, software]


def read_askable(path: Path) -> list[Record]:
    """Read records that can be answered.

    Raises:
        DataError: the file cannot be read, or a record is no question with options.
    """
    records = read_records(path)
    for record in records:
        question_of(record)
    return records


def write_scores(path: Path, records: Sequence[Record], scores: Sequence[OptionScores], *, force: bool) -> None:
    """Write a JSON line a question; an option that cannot be chosen has no score."""
    with new_file(path, force=force) as temporary, temporary.open("w", encoding="utf-8") as file:
        for line in _lines(records, scores):
            file.write(line)


def _lines(records: Sequence[Record], scores: Sequence[OptionScores]) -> Iterator[str]:
    for record, score in zip(records, scores, strict=True):
        line = {
            "id": record.id,
            "row": question_of(record).row,
            "scores": [value if value > float("-inf") else None for value in score.log_probs],
            "probabilities": list(score.probabilities),
            "prediction": score.prediction,
        }
        yield json.dumps(line, ensure_ascii=False) + "\n"


def _run(model: str, asking: Asking) -> Run:
    """How the model was trained: what its first adapter says, else the merged model, else the flags alone."""
    folders = [*asking.adapters, Path(model)]
    for folder in folders:
        if run := read_run(folder):
            return run
    if asking.template is None or asking.answer_style is None:
        raise ModelError(
            f"{folders[0]}: has no lrc_run.json that says how it was trained; give --template and --answer-style"
        )
    return Run(asking.template, asking.answer_style, lists_options(asking.answer_style, asking.template))
