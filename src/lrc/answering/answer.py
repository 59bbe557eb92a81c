"""What generate and evaluate share: reading questions, scoring them in all processes, and writing scores."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object

from lrc.answering.options import ScoringOptions, runs_of
from lrc.answering.partial_scores import PartialScores
from lrc.answering.scoring import Scorer, chunks
from lrc.data.alpaca import Record, question_of
from lrc.data.score_files import ScoredModel
from lrc.metrics.option_scores import OptionScores
from lrc.models.fingerprint import fingerprint_base
from lrc.models.loading import positions
from lrc.runtime.errors import ModelError
from lrc.runtime.outputs import checksum, new_file
from lrc.runtime.packages import versions_of
from lrc.runtime.processes import processes
from lrc.runtime.progress import Advance, notify, silence, track
from lrc.runtime.translation import Message, _


def answer(scorer: Scorer, records: Sequence[Record], partial: PartialScores | None = None) -> list[OptionScores]:
    """Score all records; the processes of a launch share the work, and each returns all scores.

    Passages that are too long for the model are shortened, and reported.

    The scores do not depend on the number of processes, not even in the last bit, because whole chunks are distributed.

    Args:
        scorer: the model.
        records: questions with options.
        partial: where this process keeps its scores until the output is written.

    Returns:
        The scores, in the order of `records`.

    Raises:
        DataError: a question is too long even without its passage.
        ModelError: a score is NaN.
    """
    state = processes()
    if not state.is_main_process:
        silence()
    records, shortened = scorer.fitted(records)
    if shortened and state.is_main_process:
        notify(describe_shortened(scorer, shortened))
    share = state.process_index, state.num_processes
    known = {} if partial is None else partial.start(scorer.computed)
    with track(_("answer"), sum(map(len, chunks(records)[share[0] :: share[1]])), before=len(known)) as advance:
        mine = _score_share(scorer, records, share, known, partial, advance)
    every = gather_object([mine]) if state.num_processes > 1 else [mine]
    scores = {place: score for part in every for place, score in part.items()}
    return [scores[place] for place in range(len(records))]


def describe_shortened(scorer: Scorer, ids: Sequence[str]) -> Message:
    """What was done to the questions that `Scorer.fitted` shortened."""
    text = _("{count} passages shortened to fit the model's {limit} positions: {ids}")
    return text.format(count=len(ids), limit=positions(scorer.model.config), ids=tuple(ids))


def refuse_not_numbers(records: Sequence[Record], scores: Mapping[int, OptionScores]) -> None:
    """Refuse scores by which no option can be chosen.

    Args:
        records: questions.
        scores: by index in `records`.

    Raises:
        ModelError: a score is NaN.
    """
    for place, score in scores.items():
        if any(math.isnan(value) for value in score.log_probs):
            raise ModelError(
                _("question {id}: its scores are not numbers; the model or the adapter is broken").format(
                    id=records[place].id
                )
            )


def _score_share(
    scorer: Scorer,
    records: Sequence[Record],
    share: tuple[int, int],
    known: dict[int, OptionScores],
    partial: PartialScores | None,
    advance: Advance,
) -> dict[int, OptionScores]:
    """Score this process's share, and return it by index in `records`, together with what is known already."""
    for part in scorer.parts(records, known.keys(), share):
        try:
            refuse_not_numbers(records, part)
        except ModelError:
            if partial is not None:
                partial.path.unlink()  # resuming from it would fail again
            raise
        if partial is not None:
            partial.append(part)
        advance(len(part.keys() - known.keys()))
        known.update(part)
    return known


def facts(model: str, options: ScoringOptions, data_sha256: str) -> list[Any]:
    """Everything that scores depend on: model, adapters, questions, flags, the launch and the software, for a key.

    Args:
        model: a folder, or a name on the Hub.
        options: adapters, and how questions are answered.
        data_sha256: of the file with the questions, as it was read.

    Raises:
        ModelError: there is no such model, or nothing says how it was trained.
    """
    state = processes()
    files = [file for adapter in options.adapters for file in sorted(adapter.glob("*")) if file.is_file()]
    files = [file for file in files if file.suffix not in (".html", ".md")]  # a report, a card
    named = {**asdict(options), "adapters": len(options.adapters)}
    sums = [data_sha256, *(checksum(file) for file in files)]
    software = list(versions_of("lrc", "torch", "transformers", "peft").values())
    runs = [asdict(run) for run in runs_of(model, options)]
    base = fingerprint_base(model, flag="--model")
    return [base, sums, named, runs, state.num_processes, state.device.type, software]


def write_scores(
    path: Path, records: Sequence[Record], scores: Sequence[OptionScores], model: ScoredModel, *, force: bool
) -> None:
    """Write one JSON line for each question; see `score_lines`.

    Raises:
        OutputError: `path` exists and `force` is false, or the file system refuses.
    """
    with new_file(path, force=force) as temporary, temporary.open("w", encoding="utf-8") as file:
        for line in score_lines(records, scores, model):
            file.write(line)


def score_lines(records: Sequence[Record], scores: Sequence[OptionScores], model: ScoredModel) -> Iterator[str]:
    """The lines of a score file: id, row, scores (log-probabilities), probabilities and prediction of each question.

    The score of an option that cannot be chosen is null. Each line has a hash of its question, and names the model
    and how it was asked.
    """
    for record, score in zip(records, scores, strict=True):
        question = question_of(record)
        line = {
            "id": record.id,
            "row": question.row,
            "content_sha256": question.content,
            "scores": [value if value > float("-inf") else None for value in score.log_probs],
            "probabilities": list(score.probabilities),
            "prediction": score.prediction,
            "model": model.name,
            "model_sha256": model.sha256,
            "asked": dict(model.asked),
        }
        yield json.dumps(line, ensure_ascii=False) + "\n"
