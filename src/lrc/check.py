"""`lrc check`: everything that is found in workbooks, JSON files and recipes, without writing anything."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lrc.cleaning import collapse
from lrc.duplicates import find_duplicates
from lrc.errors import LrcError
from lrc.findings import Finding, count_kinds
from lrc.neighbours import group_passages
from lrc.plan import Plan, plan_parts
from lrc.workbook import Workbook, read_workbook

_ROWS_SHOWN = 5  # of a kind of repair, which may have thousands


@dataclass(frozen=True)
class Checked:
    """One file, and what was found in it."""

    file: str
    kind: str  # workbook, json or recipe
    findings: tuple[Finding, ...] = ()
    rows: int | None = None  # read; None in a recipe and in a file that cannot be read
    questions: int | None = None  # of them good
    labelled: bool | None = None
    passages: frozenset[str] = frozenset()  # white space collapsed

    @property
    def accepted(self) -> bool:
        """Whether convert, or train, takes the file as it stands."""
        return all(finding.level != "error" for finding in self.findings)

    @property
    def shown_kind(self) -> str:
        """The kind with what its answers make it: `labelled workbook`, `test json`, `recipe`."""
        return self.kind if self.labelled is None else f"{'labelled' if self.labelled else 'test'} {self.kind}"


def check(files: Sequence[Path], *, sheet: str | None = None, as_json: bool = False) -> bool:
    """Print what is found in `files` on stdout: a line a finding and a table, or JSON.

    Args:
        files: workbooks (.xlsx, .csv, .jsonl), Alpaca, C3 or other JSON (.json) and recipes (.yaml, .yml).
        sheet: the sheet to read of the workbooks.
        as_json: print one JSON object instead.

    Returns:
        Whether every file is accepted as it stands.
    """
    checked = _with_overlaps([_check(path, sheet) for path in files])
    if as_json:
        print(json.dumps(_document(checked), ensure_ascii=False, indent=2))
    else:
        for one in checked:
            print(*_lines(one.findings), sep="\n", end="\n" if one.findings else "")
        _print_table(checked)
    return all(one.accepted for one in checked)


def _check(path: Path, sheet: str | None) -> Checked:
    suffix = path.suffix.lower()
    kind = {".json": "json", ".yaml": "recipe", ".yml": "recipe"}.get(suffix, "workbook")
    try:
        if kind == "recipe":
            return _check_recipe(path)
        return _check_json(path) if kind == "json" else _check_table(read_workbook(path, sheet), kind)
    except LrcError as error:
        return Checked(path.name, kind, tuple(_structure(path, line) for line in error.findings))


def _check_table(book: Workbook, kind: str) -> Checked:
    return Checked(
        book.path.name,
        kind,
        book.findings + _beyond_rows(book),
        book.rows_read,
        len(book.questions),
        book.labelled,
        _passages(question.passage for question in book.questions),
    )


def _beyond_rows(book: Workbook) -> tuple[Finding, ...]:
    """What shows only when all rows are seen together: repetitions, and a split that convert could not make."""
    name = book.path.name
    if not book.questions:
        return (Finding("error", "no-good-rows", name, "no good row is left; correct the rows above"),)
    groups = group_passages(question.passage for question in book.questions)
    found = tuple(find_duplicates(book.questions, groups, name))
    if book.errors:
        return found
    try:
        plan_parts(book, groups, Plan(validation_fraction=0.2, folds=None, seed=42))
    except LrcError as error:
        found += tuple(replace(_structure(book.path, line), kind="no-split") for line in error.findings)
    return found


def _check_json(path: Path) -> Checked:
    from lrc.datafile import json_kind, read_noted, read_questions

    if json_kind(path) != "alpaca":
        return _check_table(read_questions(path), "json")
    records, findings = read_noted(path)
    questions = [record.question for record in records if record.question is not None]
    labelled = any(record.output is not None for record in records)
    passages = _passages(question.passage for question in questions)
    return Checked(path.name, "json", tuple(findings), len(records), len(questions), labelled, passages)


def _check_recipe(path: Path) -> Checked:
    from lrc.recipe import load_recipe

    load_recipe(path, [])
    return Checked(path.name, "recipe")


def _structure(path: Path, line: str) -> Finding:
    """The finding that an error's line tells: `AI.xlsx, row 5: ID is empty; …` begins with its place."""
    name = f"{re.escape(str(path))}|{re.escape(path.name)}"
    found = re.fullmatch(rf"(?:recipe: )?(?:{name})(?:, row (\d+))?(?:: |, )(.*)", line)
    row, text = found.groups() if found else (None, line)
    return Finding("error", "structure", path.name, text, int(row) if row else None)


def _with_overlaps(checked: list[Checked]) -> list[Checked]:
    """Warn, at the file without answers, of passages that a file with answers has too."""
    result = []
    for one in checked:
        overlaps = [
            Finding("warning", "train-test-overlap", one.file, text)
            for other in checked
            if one.labelled is False and other.labelled
            if (shared := len(one.passages & other.passages))
            for text in [f"shares {shared:,} passages with {other.file}; do not train on what is to be answered"]
        ]
        result.append(replace(one, findings=(*one.findings, *overlaps)))
    return result


def _passages(texts: Iterable[str]) -> frozenset[str]:
    return frozenset(collapse(text) for text in texts if text)


def _lines(findings: Sequence[Finding]) -> Iterable[str]:
    """Errors and warnings one a line; repairs one a kind and column, since they are done already."""
    repairs: dict[tuple[str, str | None], list[Finding]] = {}
    for finding in findings:
        if finding.level == "repair":
            repairs.setdefault((finding.kind, finding.column), []).append(finding)
        else:
            yield f"{finding.level}: {finding}"
    for (_, column), group in sorted(repairs.items(), key=lambda item: item[1][0].row or 0):
        if len(group) == 1:
            yield f"repaired: {group[0]}"
            continue
        rows = ", ".join(str(finding.row) for finding in group[:_ROWS_SHOWN])
        more = ", …" if len(group) > _ROWS_SHOWN else ""
        first = group[0]
        text = first.text.removeprefix(f"{column} ")
        cells = f"{len(group):,} cells of {column}" if column else f"{len(group):,} rows"
        yield f"repaired: {first.file}, {cells} (rows {rows}{more}); the first one: {text}"


def _document(checked: Sequence[Checked]) -> dict[str, Any]:
    files = [
        {
            "file": one.file,
            "kind": one.kind,
            "accepted": one.accepted,
            "rows": one.rows,
            "questions": one.questions,
            "labelled": one.labelled,
            "errors": count_kinds(one.findings, "error"),
            "warnings": count_kinds(one.findings, "warning"),
            "repairs": count_kinds(one.findings, "repair"),
            "findings": [asdict(finding) | {"line": str(finding)} for finding in one.findings],
        }
        for one in checked
    ]
    return {"accepted": all(one.accepted for one in checked), "files": files}


def _print_table(checked: Sequence[Checked]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("file", "kind", "accepted", "questions", "errors", "warnings", "repairs")
    for one in checked:
        levels = Counter(finding.level for finding in one.findings)
        counts = [f"{levels[level]:,}" for level in ("error", "warning", "repair")]
        questions = "" if one.rows is None else f"{one.questions:,} of {one.rows:,}"
        table.add_row(one.file, one.shown_kind, "yes" if one.accepted else "no", questions, *counts)
    # A pipe has no width: rich would take 80 columns and cut the words.
    Console(width=None if sys.stdout.isatty() else 120).print(table)
