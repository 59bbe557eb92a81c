"""What generate and evaluate share: questions from any file, their scores by all processes, and the file of scores."""

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
from lrc.metrics.option_scores import OptionScores
from lrc.models.fingerprint import fingerprint_base
from lrc.models.loading import positions
from lrc.runtime.errors import ModelError
from lrc.runtime.outputs import checksum, new_file
from lrc.runtime.packages import versions_of
from lrc.runtime.processes import processes
from lrc.runtime.progress import Advance, notify, silence, track
from lrc.runtime.translation import _


def answer(scorer: Scorer, records: Sequence[Record], partial: PartialScores | None = None) -> list[OptionScores]:
    """Score every record, the processes of a launch sharing the work; all of them get all scores, in order.

    A passage that is too long for the model is shortened, and a line names the question.

    The scores are those of one process, to the last bit: whole chunks are shared out, and a chunk is computed alike
    wherever that happens.

    Args:
        partial: where this process's scores are kept until the output is there.

    Raises:
        DataError: a question is too long without its passage.
        ModelError: a score is not a number.
    """
    state = processes()
    if not state.is_main_process:
        silence()
    records, shortened = scorer.fitted(records)
    if shortened and state.is_main_process:
        limit = positions(scorer.model.config)
        text = _("{count} passages shortened to fit the model's {limit} positions: {ids}")
        notify(text.format(count=len(shortened), limit=limit, ids=tuple(shortened)))
    share = state.process_index, state.num_processes
    known = {} if partial is None else partial.start()
    with track(_("answer"), sum(map(len, chunks(records)[share[0] :: share[1]])), before=len(known)) as advance:
        mine = _score_share(scorer, records, share, known, partial, advance)
    every = gather_object([mine]) if state.num_processes > 1 else [mine]
    scores = {place: score for part in every for place, score in part.items()}
    return [scores[place] for place in range(len(records))]


def _refuse_not_numbers(records: Sequence[Record], scores: Mapping[int, OptionScores]) -> None:
    """Refuse scores that choose nothing.

    Raises:
        ModelError: a score is not a number.
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
    """This process's scores, by place in `records`, added to those that are known; see `Scorer.parts`."""
    for part in scorer.parts(records, known.keys(), share):
        try:
            _refuse_not_numbers(records, part)
        except ModelError:
            if partial is not None:
                partial.path.unlink()  # to go on from there would come to the same
            raise
        if partial is not None:
            partial.append(part)
        advance(len(part.keys() - known.keys()))
        known.update(part)
    return known


def facts(model: str, options: ScoringOptions, data: Path) -> list[Any]:
    """Everything that scores depend on: model, adapters, questions, flags, the launch and the software.

    Raises:
        ModelError: there is no such model, or nothing says how it was trained.
    """
    state = processes()
    files = [data, *(file for adapter in options.adapters for file in sorted(adapter.glob("*")) if file.is_file())]
    named = {**asdict(options), "adapters": len(options.adapters)}
    sums = [checksum(file) for file in files]
    software = list(versions_of("lrc", "torch", "transformers", "peft").values())
    runs = [asdict(run) for run in runs_of(model, options)]
    base = fingerprint_base(model, flag="--model")
    return [base, sums, named, runs, state.num_processes, state.device.type, software]


def write_scores(path: Path, records: Sequence[Record], scores: Sequence[OptionScores], *, force: bool) -> None:
    """Write a JSON line a question; an option that cannot be chosen has no score."""
    with new_file(path, force=force) as temporary, temporary.open("w", encoding="utf-8") as file:
        for line in score_lines(records, scores):
            file.write(line)


def score_lines(records: Sequence[Record], scores: Sequence[OptionScores]) -> Iterator[str]:
    """What `write_scores` writes."""
    for record, score in zip(records, scores, strict=True):
        line = {
            "id": record.id,
            "row": question_of(record).row,
            "scores": [value if value > float("-inf") else None for value in score.log_probs],
            "probabilities": list(score.probabilities),
            "prediction": score.prediction,
        }
        yield json.dumps(line, ensure_ascii=False) + "\n"
