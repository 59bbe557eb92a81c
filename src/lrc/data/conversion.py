"""What `lrc convert` writes: which questions go into which file, and the report for the manifest and the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import lrc
from lrc.data import splits
from lrc.data.manifest import SUFFIX
from lrc.data.near_duplicates import CLUSTERING, Groups
from lrc.data.questions import Question
from lrc.data.splits import expected_leak
from lrc.data.tables.workbook import Workbook
from lrc.runtime.arguments import require_count
from lrc.runtime.errors import DataError
from lrc.runtime.findings import Finding, count_kinds, format_findings, limit_findings
from lrc.runtime.translation import _, localized


@dataclass(frozen=True)
class SplitPlan:
    """How labelled questions are split.

    Raises:
        DataError: `validation_fraction` or `folds` is out of range.
    """

    validation_fraction: float  # of the questions, below 1; 0 writes all of them into one file
    folds: int | None  # how many cross-validation folds to write in addition, 2 or more; None writes none
    seed: int

    def __post_init__(self) -> None:
        share = self.validation_fraction
        if not isinstance(share, Real) or not 0 <= share < 1:
            text = _("validation_fraction is {value}, expected 0 or more and less than 1, such as 0.2")
            raise DataError(text.format(value=repr(share)))
        if self.folds is not None:
            require_count("folds", self.folds, 2, DataError)


@dataclass(frozen=True)
class Part:
    """One file to write: the questions of one side of a split, or those of all its other sides."""

    name: str  # of the file
    sides: Sequence[int] | None = None  # the side of each question, such as its fold; None takes all questions
    side: int = 0
    others: bool = False  # whether the file takes all sides but `side`

    def of(self, questions: Sequence[Question]) -> Iterator[Question]:
        """Select the file's questions, in their order."""
        if self.sides is None:
            return iter(questions)
        pairs = zip(questions, self.sides, strict=True)
        return (question for question, side in pairs if (side == self.side) != self.others)


def plan_parts(source: Workbook, groups: Groups, plan: SplitPlan) -> list[Part]:
    """Decide which files a workbook is converted into, and which questions go into each.

    Args:
        source: the workbook that was read.
        groups: the passages of its questions; a cluster is never divided.
        plan: how to split; without answers nothing is split.

    Returns:
        `<stem>.json`, or with a split `<stem>_train.json` and `<stem>_validation.json`; then, with folds,
        `<stem>_fold<k>_train.json` and `<stem>_fold<k>_validation.json` for each fold.

    Raises:
        DataError: there are too few passages to split, or folds are asked for and there are no answers.
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
        parts = _pair_parts(stem, sides, 1)
    if plan.folds:
        sides = splits.folds(groups.clusters, answers, plan.folds, plan.seed)
        parts += [part for k in range(plan.folds) for part in _pair_parts(f"{stem}_fold{k}", sides, k)]
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


def _pair_parts(stem: str, sides: Sequence[int], side: int) -> list[Part]:
    """The training and the validation file where the questions of `side` are validated on."""
    train = Part(f"{stem}_train.json", sides, side, others=True)
    return [train, Part(f"{stem}_validation.json", sides, side)]


def find_clashes(parts: Sequence[Part], folder: Path, file: Path) -> list[Path]:
    """The paths to write in `folder` that are the source `file` itself."""
    paths = [folder / part.name for part in parts]
    return [path for path in paths if path.exists() and path.samefile(file)]


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion read, and what it writes."""

    source: Workbook
    source_sha256: str
    findings: Sequence[Finding]  # those of the source, and repeated questions and passages
    groups: Groups
    plan: SplitPlan
    parts: Sequence[Part]

    @property
    def answers(self) -> dict[str, Counter[int | None]]:
        """The number of questions with each answer, by file name."""
        questions = self.source.questions
        return {part.name: Counter(question.answer for question in part.of(questions)) for part in self.parts}

    @property
    def leak(self) -> float:
        """The share of validation questions that a random split of rows would leak; 0 without a validation split."""
        if not self.source.labelled or not self.plan.validation_fraction:
            return 0.0
        return expected_leak(self.groups.passages, self.plan.validation_fraction)

    def facts(self) -> dict[str, Any]:
        """The content of the manifest; the same input gives the same content on any machine."""
        source, plan = self.source, self.plan
        return {
            "lrc": lrc.__version__,
            "source": {"name": source.path.name, "sha256": self.source_sha256, "sheet": source.sheet},
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
        """The lines to print once the files are in `folder`."""
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
        yield self._describe_passages()
        if self.leak:
            text = _(
                "split: a random split of rows would validate {leak:.1%} of its questions on passages that it "
                "trains on; this split has none"
            )
            yield localized(text.format(leak=self.leak))
        yield from self._describe_files(folder)
        yield localized(_("wrote {output}").format(output=folder / (source.path.stem + SUFFIX)))

    def _describe_passages(self) -> str:
        groups = self.groups
        text = _("passages: {passages:,}; {clusters:,} after joining near-duplicates and parts of one another")
        if groups.largest > 1:
            text = _(
                "passages: {passages:,}; {clusters:,} after joining near-duplicates and parts of one another, at most "
                "{largest:,} in one"
            )
        found = {"passages": groups.n_passages, "clusters": groups.n_clusters, "largest": groups.largest}
        return localized(text.format(**found))

    def _describe_files(self, folder: Path) -> Iterator[str]:
        answers = self.answers
        # Every file lists the same positions, including those that none of its answers has.
        last = max((answer for counts in answers.values() for answer in counts if answer is not None), default=0)
        for name, counts in answers.items():
            text = _("wrote {file}: {count:,} questions (by answer: {positions})")
            if counts.total() == 1:
                text = _("wrote {file}: one question (by answer: {positions})")
            if not last:
                text = _("wrote {file}: {count:,} questions without answers")
                if counts.total() == 1:
                    text = _("wrote {file}: one question without an answer")
            positions = tuple(f"{counts[answer]:,}" for answer in range(1, last + 1))
            yield localized(text.format(file=folder / name, count=counts.total(), positions=positions))
