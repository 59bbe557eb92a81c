"""Reads the data of a run: the training files, the pseudo-labelled questions, and the validation file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lrc.config.recipe import Recipe
from lrc.data.alpaca import Record
from lrc.data.near_duplicates import canonical
from lrc.data.pseudo_labels import assign_labels
from lrc.runtime.errors import DataError
from lrc.runtime.finished_outputs import Inputs
from lrc.runtime.progress import notify, track
from lrc.runtime.translation import _
from lrc.tokenization.max_length import LengthPolicy
from lrc.tokenization.prompt import Prompt
from lrc.tokenization.token_dataset import Corpus, fit_records, read_corpus, tokenize
from lrc.training.contrastive_loss import has_contrast


def read_training_files(recipe: Recipe, prompt: Prompt) -> list[Corpus]:
    """Read and tokenize what a recipe trains on: a corpus for each file of `train_file`, then the pseudo-labelled one.

    Raises:
        DataError: a file cannot be used; see `token_dataset.read_corpus` and `pseudo_labels.assign_labels`.
    """
    files = [_read(file, recipe, prompt, _("training questions")) for file in recipe.data.train_files]
    return [*files, _read_pseudo_labelled(recipe, prompt)] if recipe.data.pseudo_labels else files


def read_validation_file(recipe: Recipe, prompt: Prompt) -> Corpus:
    """Read and tokenize the recipe's `validation_file`; an empty corpus without one."""
    file = recipe.data.validation_file
    return Corpus([], [], []) if file is None else _read(file, recipe, prompt, _("validation questions"))


def check_contrasts(recipe: Recipe, files: Sequence[Corpus]) -> None:
    """Report the questions that teach nothing because `option_contrast` is 1: those without options to compare.

    Args:
        recipe: the recipe.
        files: what `read_training_files` returned.

    Raises:
        DataError: the training data has no other questions.
    """
    data = recipe.data
    if (data.option_contrast or 0.0) < 1.0:
        return
    idle: list[list[str]] = [[] for _file in files]
    with track(_("check the options"), sum(len(corpus.records) for corpus in files)) as advance:
        for ids, corpus in zip(idle, files, strict=True):
            for record in corpus.records:
                if not is_compared(record):
                    ids.append(record.id)
                advance()
    if all(len(ids) == len(corpus.records) for ids, corpus in zip(idle, files, strict=True)):
        text = _(
            "{file}: no question has two options to choose from, and option_contrast: 1 trains nothing else; set "
            "option_contrast below 1"
        )
        raise DataError(text.format(file=data.train_files[0]))
    for file, ids in zip(training_files(recipe), idle, strict=True):
        if ids and recipe.training.process_index == 0:
            text = _(
                "{file}: {count:,} questions have fewer than two options to choose from, so that nothing is learned "
                "from them with option_contrast: 1: {ids}"
            )
            notify(text.format(file=file, count=len(ids), ids=tuple(ids)))


def is_compared(record: Record) -> bool:
    """Whether the record has a loss over its options."""
    return record.question is not None and has_contrast(record.question)


def training_files(recipe: Recipe) -> list[str]:
    """The names of the files that `read_training_files` reads, in its order."""
    data = recipe.data
    return [*data.train_files, *([data.pseudo_label_file] if data.pseudo_label_file else [])]


def find_shared_passages(files: Sequence[Corpus], validation: Corpus) -> list[str]:
    """The ids of the validation questions whose passage is trained on, but for white space, case and width."""
    asked = [(record.id, canonical(record.question.source_passage)) for record in validation.records if record.question]
    passages = {passage for _id, passage in asked}
    questions = (record.question for corpus in files for record in corpus.records if record.question)
    shared = {passage for question in questions if (passage := canonical(question.source_passage)) in passages}
    return [name for name, passage in asked if passage in shared]


def _read(file: str, recipe: Recipe, prompt: Prompt, stage: str) -> Corpus:
    return read_corpus(
        Path(file),
        prompt,
        _lengths(recipe),
        stage=stage,
        processes=recipe.training.dataset_num_proc,
        first=recipe.training.local_process_index == 0,
    )


def _read_pseudo_labelled(recipe: Recipe, prompt: Prompt) -> Corpus:
    """Read the pseudo-labelled questions, and report how many there are."""
    data = recipe.data
    assert data.pseudo_labels and data.pseudo_label_file  # checked by config/rules.py
    path, scores = Path(data.pseudo_label_file), Path(data.pseudo_labels)
    inputs = Inputs([path, scores])
    records, tied = assign_labels(path, scores, data.pseudo_label_threshold)
    inputs.refuse_changed()
    stage = _("pseudo-labelled questions")
    found = fit_records(records, prompt, _lengths(recipe), stage=stage)
    if recipe.training.process_index == 0:
        text = _(
            "{file}: pseudo-labels of {labels}: {count:,} questions with a probability of {threshold:g} or more are "
            "trained on; accuracy on this file means little"
        )
        threshold = data.pseudo_label_threshold
        notify(text.format(file=path, labels=data.pseudo_labels, count=len(records), threshold=threshold))
        if tied:
            text = _("{file}: {count:,} questions whose most probable options tie are left out: {ids}")
            notify(text.format(file=path, count=len(tied), ids=tuple(tied)))
    tokens = tokenize(found.records, prompt, stage=stage)
    return replace(found, dataset=tokens, sha256=inputs.sums[path])


def _lengths(recipe: Recipe) -> LengthPolicy:
    return LengthPolicy(recipe.training.max_length, recipe.data.on_too_long)
