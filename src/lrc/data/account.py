"""The account of a conversion, for its manifest and for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lrc
from lrc.data.conversion import Part, Plan
from lrc.data.manifest import SUFFIX
from lrc.data.near_duplicates import Groups
from lrc.data.splits import expected_leak
from lrc.data.tables.workbook import Workbook
from lrc.runtime.findings import Finding, count_kinds, shortened, told
from lrc.runtime.outputs import checksum


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion read and made of it."""

    source: Workbook
    findings: Sequence[Finding]  # those of the source, and what was found since
    groups: Groups
    plan: Plan
    parts: Sequence[Part]

    @property
    def answers(self) -> dict[str, Counter[int | None]]:
        """How many questions have each answer, by file."""
        questions = self.source.questions
        return {part.name: Counter(question.answer for question in part.of(questions)) for part in self.parts}

    @property
    def leak(self) -> float:
        """The share of validation questions that a random split of rows would leak; 0 without a split."""
        if not self.source.labelled:
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
            "split": {"seed": plan.seed, "validation_fraction": plan.validation_fraction, "folds": plan.folds}
            if source.labelled
            else None,
            "random_rows_would_leak": round(self.leak, 4),
        }

    def lines(self, folder: Path) -> Iterator[str]:
        """The lines to print about the files in `folder`."""
        source = self.source
        sheet = f", sheet {source.sheet}" if source.sheet else ""
        count = f"{source.rows_read:,} rows read, {len(source.questions):,} questions"
        yield f"{source.path.name}{sheet}: {count}"
        yield from told(finding for finding in self.findings if finding.level != "error")
        yield from (f"skipped: {finding}" for finding in shortened(source.errors))
        groups = self.groups
        yield f"passages: {groups.n_passages:,}; {groups.n_clusters:,} after merging near-duplicates"
        if self.leak:
            yield (
                f"split: a random split of rows would validate {self.leak:.1%} of its questions on passages that it "
                "trains on; this split has none"
            )
        for name, counts in self.answers.items():
            yield f"wrote {folder / name}: {counts.total():,} questions{_positions(counts)}"
        yield f"wrote {folder / (source.path.stem + SUFFIX)}"


def _positions(counts: Counter[int | None]) -> str:
    last = max((answer for answer in counts if answer is not None), default=0)
    if not last:
        return ""
    return f" (by answer: {', '.join(f'{counts[answer]:,}' for answer in range(1, last + 1))})"
