"""Names the model that scores are of, so that files of two models are not taken for one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrc.config.run_record import read_run
from lrc.data.score_files import ScoredModel
from lrc.runtime.finished_outputs import key_of
from lrc.runtime.outputs import checksum

if TYPE_CHECKING:
    from lrc.answering.options import ScoringOptions


def identify_model(model: str, options: ScoringOptions, asked: Mapping[str, Any] | None = None) -> ScoredModel:
    """What a file of scores says of the model: names of folders, a hash of the weights, and how it was asked.

    With adapters the hash is that of theirs, as each is of one base only. How questions were asked is not part of it.

    Args:
        model: a base or merged model: a folder, or a name on the Hub.
        options: its adapters.
        asked: see `describe_asking`.

    Raises:
        ModelError: there is no such model.
    """
    asked = asked or {}
    if options.adapters:
        return identify_adapters(options.adapters, average=options.average_weights)._replace(asked=asked)
    from lrc.models.fingerprint import fingerprint_base  # imports torch

    found = fingerprint_base(model, flag="--model")
    return ScoredModel(found["name"], key_of([found["contents_sha256"]]), asked)


def identify_adapters(adapters: Sequence[Path], *, average: bool = False) -> ScoredModel:
    """The same for adapters whose scores, or whose weights, are averaged; nothing if one has no weights."""
    weights = [sorted(adapter.glob("adapter_model.*")) for adapter in adapters]  # .safetensors, or .bin
    if not all(weights):
        return ScoredModel()
    names = " + ".join(adapter.resolve().name for adapter in adapters)
    sums = sorted(checksum(files[-1]) for files in weights)  # the order has no effect
    return ScoredModel(names, key_of([*sums, *["average"] * average]))


def describe_asking(
    template: str, answer_style: str, list_options: bool, score_normalisation: str, votes: int = 1
) -> dict[str, Any]:
    """What changes the scores of a model besides its weights, as a file of scores names it.

    Args:
        template, answer_style, list_options: see `Prompt`.
        score_normalisation: only texts are normalised; in other styles it is `sum`, whatever was asked for.
        votes: over how many orders of the options scores are averaged.
    """
    return {
        "template": template,
        "answer_style": answer_style,
        "list_options": list_options,
        "score_normalisation": score_normalisation if answer_style == "text" else "sum",
        "votes": votes,
    }


def identify_run(folder: Path) -> ScoredModel:
    """The same for the validation scores of a run, which do not name their model; nothing if it has no adapter.

    Raises:
        ModelError: its run file cannot be read.
    """
    found, run = identify_adapters([folder]), read_run(folder)
    if not found.identity or run is None:
        return found
    return found._replace(
        asked=describe_asking(run.template, run.answer_style, run.list_options, run.score_normalisation)
    )
