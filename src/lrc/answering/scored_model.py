"""Names the model that scores are of, so that files of two models are not taken for one another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lrc.data.score_files import ScoredModel
from lrc.runtime.finished_outputs import key_of
from lrc.runtime.outputs import checksum

if TYPE_CHECKING:
    from lrc.answering.options import ScoringOptions


def identify_model(model: str, options: ScoringOptions) -> ScoredModel:
    """What a file of scores says of the model: names of folders, and a hash of the weights.

    With adapters the hash is that of theirs, as each is of one base only. How questions were asked is not part of it.

    Args:
        model: a base or merged model: a folder, or a name on the Hub.
        options: its adapters.

    Raises:
        ModelError: there is no such model.
    """
    if options.adapters:
        return identify_adapters(options.adapters, average=options.average_weights)
    from lrc.models.fingerprint import fingerprint_base  # imports torch

    found = fingerprint_base(model, flag="--model")
    return ScoredModel(found["name"], key_of([found["contents_sha256"]]))


def identify_adapters(adapters: Sequence[Path], *, average: bool = False) -> ScoredModel:
    """The same for adapters whose scores, or whose weights, are averaged; nothing if one has no weights."""
    weights = [sorted(adapter.glob("adapter_model.*")) for adapter in adapters]  # .safetensors, or .bin
    if not all(weights):
        return ScoredModel()
    names = " + ".join(adapter.resolve().name for adapter in adapters)
    sums = sorted(checksum(files[-1]) for files in weights)  # the order has no effect
    return ScoredModel(names, key_of([*sums, *["average"] * average]))
