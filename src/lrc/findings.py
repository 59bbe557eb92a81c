"""What was found in a file: errors, warnings and repairs, each with its place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Level = Literal["error", "warning", "repair"]


@dataclass(frozen=True)
class Finding:
    """One thing found.

    `kind` is a short stable name to count by, such as `empty-option`; `text` gives the value and the cure.
    """

    level: Level
    kind: str
    file: str
    text: str
    row: int | None = None  # the workbook's row number, the header being row 1
    column: str | None = None  # the header of the column

    def __str__(self) -> str:
        """The line that a person reads: `AI.xlsx, row 17: 正確答案 is 5, expected 1 to 4`."""
        place = self.file if self.row is None else f"{self.file}, row {self.row}"
        return f"{place}: {self.text}"


def count_kinds(findings: Iterable[Finding], level: Level) -> dict[str, int]:
    """How many findings of `level` there are of each kind, by kind."""
    return dict(sorted(Counter(finding.kind for finding in findings if finding.level == level).items()))
