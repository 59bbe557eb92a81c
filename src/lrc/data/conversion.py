"""The files that a conversion makes: their names, and which questions go into each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lrc.data import splits
from lrc.data.near_duplicates import Groups
from lrc.data.questions import Question
from lrc.data.tables.workbook import Workbook
from lrc.runtime.errors import DataError


@dataclass(frozen=True)
class Plan:
    """How labelled questions are to be split."""

    validation_fraction: float  # 0 makes one file of all
    folds: int | None
    seed: int


@dataclass(frozen=True)
class Part:
    """One file: the questions of one side of a split, or of all its other sides."""

    name: str
    sides: Sequence[int] | None = None  # the side of every question; None takes all questions
    side: int = 0
    others: bool = False

    def of(self, questions: Sequence[Question]) -> Iterator[Question]:
        """The part's questions, in their order."""
        if self.sides is None:
            return iter(questions)
        pairs = zip(questions, self.sides, strict=True)
        return (question for question, side in pairs if (side == self.side) != self.others)


def plan_parts(source: Workbook, groups: Groups, plan: Plan) -> list[Part]:
    """Split the questions of a workbook into files.

    Raises:
        DataError: there are too few passages to split, or no answers to make folds for.
    """
    stem = source.path.stem
    _refuse_impossible(source, groups, plan)
    if not source.labelled:
        return [Part(f"{stem}.json")]
    answers = [question.answer for question in source.questions]
    sides: Sequence[int]
    parts = [Part(f"{stem}.json")]
    if plan.validation_fraction:
        sides = splits.split(groups.clusters, answers, plan.validation_fraction, plan.seed)
        parts = _both(stem, sides, 1)
    if plan.folds:
        sides = splits.folds(groups.clusters, answers, plan.folds, plan.seed)
        parts += [part for k in range(plan.folds) for part in _both(f"{stem}_fold{k}", sides, k)]
    return parts


def _refuse_impossible(source: Workbook, groups: Groups, plan: Plan) -> None:
    name = source.path.name
    if not source.labelled:
        if plan.folds:
            raise DataError(f"{name}: has no answers to make {plan.folds} folds for; leave out --folds")
        return
    count = f"{len(source.questions):,} questions have {groups.n_clusters:,} passages (near-duplicates are one)"
    if plan.validation_fraction and groups.n_clusters < 2:
        raise DataError(f"{name}: {count}, too few to split; use --validation-fraction 0")
    if plan.folds and groups.n_clusters < plan.folds:
        raise DataError(f"{name}: {count}, too few for {plan.folds} folds; use fewer --folds")


def _both(stem: str, sides: Sequence[int], side: int) -> list[Part]:
    train = Part(f"{stem}_train.json", sides, side, others=True)
    return [train, Part(f"{stem}_validation.json", sides, side)]


def clashes(parts: Sequence[Part], folder: Path, file: Path) -> list[Path]:
    """Those of the files to write that are `file` itself."""
    paths = [folder / part.name for part in parts]
    return [path for path in paths if path.exists() and path.samefile(file)]
