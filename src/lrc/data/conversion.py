"""What a conversion makes: the files, their names and questions, and the report for its manifest and the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lrc
from lrc.data import splits
from lrc.data.manifest import SUFFIX
from lrc.data.near_duplicates import CLUSTERING, Groups
from lrc.data.questions import Question
from lrc.data.splits import expected_leak
from lrc.data.tables.workbook import Workbook
from lrc.runtime.errors import DataError
from lrc.runtime.findings import Finding, count_kinds, format_findings, limit_findings
from lrc.runtime.outputs import checksum
from lrc.runtime.translation import _, localized


@dataclass(frozen=True)
class SplitPlan:
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


def plan_parts(source: Workbook, groups: Groups, plan: SplitPlan) -> list[Part]:
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


def _refuse_impossible(source: Workbook, groups: Groups, plan: SplitPlan) -> None:
    name = source.path.name
    if not source.labelled:
        if plan.folds:
            raise DataError(
                _("{file}: has no answers to make {folds} folds for; leave out --folds").format(
                    file=name, folds=plan.folds
                )
            )
        return
    text = _("{questions:,} questions have {passages:,} passages (near-duplicates and parts of one another are one)")
    count = text.format(questions=len(source.questions), passages=groups.n_clusters)
    if plan.validation_fraction and groups.n_clusters < 2:
        raise DataError(
            _("{file}: {count}, too few to split; use --validation-fraction 0").format(file=name, count=count)
        )
    if plan.folds and groups.n_clusters < plan.folds:
        raise DataError(
            _("{file}: {count}, too few for {folds} folds; use fewer --folds").format(
                file=name, count=count, folds=plan.folds
            )
        )


def _both(stem: str, sides: Sequence[int], side: int) -> list[Part]:
    train = Part(f"{stem}_train.json", sides, side, others=True)
    return [train, Part(f"{stem}_validation.json", sides, side)]


def clashes(parts: Sequence[Part], folder: Path, file: Path) -> list[Path]:
    """Those of the files to write that are `file` itself."""
    paths = [folder / part.name for part in parts]
    return [path for path in paths if path.exists() and path.samefile(file)]


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion read and made of it."""

    source: Workbook
    findings: Sequence[Finding]  # those of the source, and what was found since
    groups: Groups
    plan: SplitPlan
    parts: Sequence[Part]

    @property
    def answers(self) -> dict[str, Counter[int | None]]:
        """How many questions have each answer, by file."""
        questions = self.source.questions
        return {part.name: Counter(question.answer for question in part.of(questions)) for part in self.parts}

    @property
    def leak(self) -> float:
        """The share of validation questions that a random split of rows would leak; 0 without a validation split."""
        if not self.source.labelled or not self.plan.validation_fraction:
            return 0.0
        return expected_leak(self.groups.passages, self.plan.validation_fraction)

    def facts(self) -> dict[str, Any]:
        """What the manifest says; the same for the same input, on any machine."""
        source, plan = self.source, self.plan
        return {
            "lrc": lrc.__version__,
            "source": {"name": source.path.name, "sha256": checksum(source.path), "sheet": source.sheet},
            "rows_read": source.rows_read,
            "labelled": source.labelled,
            "questions": {name: counts.total() for name, counts in self.answers.items()},
            "skipped": count_kinds(self.findings, "error"),
            "skipped_rows": sorted({finding.row for finding in source.errors if finding.row is not None}),
            "repaired": count_kinds(self.findings, "repair"),
            "warned": count_kinds(self.findings, "warning"),
            "noted": count_kinds(self.findings, "note"),
            "passages": self.groups.n_passages,
            "clusters": self.groups.n_clusters,
            "largest_cluster": self.groups.largest,
            "clustering": CLUSTERING,
            "split": {"seed": plan.seed, "validation_fraction": plan.validation_fraction, "folds": plan.folds}
            if source.labelled
            else None,
            "random_rows_would_leak": round(self.leak, 4),
        }

    def lines(self, folder: Path) -> Iterator[str]:
        """The lines to print about the files in `folder`."""
        source = self.source
        text = _("{file}: {rows:,} rows read, {questions:,} questions")
        if source.sheet:
            text = _("{file}, sheet {sheet}: {rows:,} rows read, {questions:,} questions")
        read, good = source.rows_read, len(source.questions)
        yield localized(text.format(file=source.path.name, sheet=source.sheet, rows=read, questions=good))
        yield from format_findings(finding for finding in self.findings if finding.level != "error")
        yield from (
            localized(_("skipped: {line}").format(line=finding.line())) for finding in limit_findings(source.errors)
        )
        groups = self.groups
        text = _("passages: {passages:,}; {clusters:,} after joining near-duplicates and parts of one another")
        if groups.largest > 1:
            text = _(
                "passages: {passages:,}; {clusters:,} after joining near-duplicates and parts of one another, at most "
                "{largest:,} in one"
            )
        found = {"passages": groups.n_passages, "clusters": groups.n_clusters, "largest": groups.largest}
        yield localized(text.format(**found))
        if self.leak:
            text = _(
                "split: a random split of rows would validate {leak:.1%} of its questions on passages that it "
                "trains on; this split has none"
            )
            yield localized(text.format(leak=self.leak))
        parts = self.answers.values()  # which all tell the same answers, those that a part has none of included
        last = max((answer for counts in parts for answer in counts if answer is not None), default=0)
        for name, counts in self.answers.items():
            text = _("wrote {file}: {count:,} questions (by answer: {positions})")
            text = text if last else _("wrote {file}: {count:,} questions")
            positions = tuple(f"{counts[answer]:,}" for answer in range(1, last + 1))
            yield localized(text.format(file=folder / name, count=counts.total(), positions=positions))
        yield localized(_("wrote {output}").format(output=folder / (source.path.stem + SUFFIX)))
