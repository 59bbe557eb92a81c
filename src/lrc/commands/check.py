"""`lrc check`: reports everything that is found in workbooks, JSON files and recipes, and writes annotated copies."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from lrc.data.alpaca import Record
from lrc.data.conversion import SplitPlan, plan_parts
from lrc.data.near_duplicates import group_passages
from lrc.data.questions import Question
from lrc.data.repeated import duplicate_key, find_conflicts, find_duplicates
from lrc.data.sources import DataFile, require_file
from lrc.data.tables.annotation import annotate as annotate_copy
from lrc.data.tables.anomalies import find_anomalies
from lrc.data.tables.workbook import Workbook, read_workbook
from lrc.data.tables.xlsx_copy import check_copy
from lrc.runtime.errors import DataError, LrcError, cannot_read
from lrc.runtime.exit_status import is_step
from lrc.runtime.findings import (
    WORDS,
    Finding,
    count_kinds,
    format_findings,
    print_json,
    print_lines,
    print_next,
    wrap_line,
)
from lrc.runtime.finished_outputs import Inputs, refuse_other_output, write_once
from lrc.runtime.outputs import refuse_file
from lrc.runtime.system import command_line
from lrc.runtime.translation import Message, _, localized

# By whether there are answers; None if that is not known.
FILE_KINDS: dict[str, dict[bool | None, Message]] = {
    "workbook": {None: _("workbook"), True: _("labelled workbook"), False: _("test workbook")},
    "json": {None: _("json"), True: _("labelled json"), False: _("test json")},
    "recipe": {None: _("recipe")},
}


@dataclass(frozen=True)
class Checked:
    """One file, and what was found in it."""

    path: Path
    kind: str  # workbook, json or recipe
    findings: tuple[Finding, ...] = ()
    rows: int | None = None  # the number of rows; None for a recipe, or if the file cannot be read
    questions: int | None = None  # the number of valid questions in them
    labelled: bool | None = None  # whether they have answers; None for a recipe, or if the file cannot be read
    asked: tuple[Question, ...] = ()
    book: Workbook | None = None  # of a table that can be read

    @property
    def file(self) -> str:
        """The file's name."""
        return self.path.name

    @property
    def accepted(self) -> bool:
        """Whether `lrc convert` or `lrc train` accepts the file as it is."""
        return all(finding.level != "error" for finding in self.findings)

    @property
    def shown_kind(self) -> str:
        """The kind, and whether there are answers: `labelled workbook`, `test json`, `recipe`."""
        return localized(FILE_KINDS[self.kind][self.labelled])


def check(
    files: Sequence[Path],
    *,
    sheet: str | None = None,
    columns: Mapping[str, str] | None = None,
    as_json: bool = False,
    annotate: Path | None = None,
    fix: Path | None = None,
    force: bool = False,
) -> bool:
    """Print what is found in `files` on stdout: a table, lines of findings, and the next commands; or JSON.

    Args:
        files: workbooks (.xlsx, .csv, .jsonl), Alpaca, C3 or other JSON (.json) and recipes (.yaml, .yml).
        sheet: the sheet to read in workbooks.
        columns: see `sources.DataFile`.
        as_json: print one JSON object instead.
        annotate: where to write a copy of the (only) workbook with its findings in it, see `annotation.annotate`.
        fix: where to write a copy with the repairs in it.
        force: overwrite existing copies.

    Returns:
        Whether all files are accepted as they are.

    Raises:
        LrcError: a copy cannot be made, or exists.
    """
    outputs = {"--annotate": annotate, "--fix": fix}
    asked = {"files": files, "sheet": sheet, "columns": columns, **outputs}
    _check_copies(files, {flag: path for flag, path in outputs.items() if path}, asked, force=force)
    inputs = Inputs(files if annotate or fix else ())
    checked = [_check(path, sheet, columns) for path in files]
    shared = [both for pair in combinations(checked, 2) if (both := _find_shared(*pair))]
    checked = [replace(one, findings=(*one.findings, *_overlaps(one, shared))) for one in checked]
    copies = [
        line for path in (annotate, fix) if path for line in _copy(checked[0], asked, inputs, path, path is fix, force)
    ]
    if as_json:
        print(*copies, sep="\n", end="\n" * bool(copies), file=sys.stderr)
        print_json(_document(checked, shared))
        return all(one.accepted for one in checked)
    _print_table(checked)
    for both in shared:
        print_lines(both.line)
    previous = ""
    for line in (*format_findings(finding for one in checked for finding in one.findings), *copies):
        level = re.split("[:：]", line, maxsplit=1)[0]
        if sys.stdout.isatty() and level != previous:
            print()
        previous = level
        print(*wrap_line(line), sep="\n")
    if is_step():  # what runs it goes on
        return all(one.accepted for one in checked)
    if sys.stdout.isatty():
        print()
    for line in _next(checked, sheet, columns or {}):  # commands are not wrapped, so that they can be copied
        print_next(line)
    return all(one.accepted for one in checked)


def _check_copies(files: Sequence[Path], outputs: Mapping[str, Path], asked: Mapping[str, Any], *, force: bool) -> None:
    """Refuse copies that cannot be written, before anything is read."""
    for flag, path in outputs.items():
        check_copy(files[0], path, flag)
        refuse_other_output(path, asked, force=force)
        refuse_file(path, *files, *(other for other in outputs.values() if other is not path), force=True)


def _copy(
    one: Checked, asked: Mapping[str, Any], inputs: Inputs, output: Path, fix: bool, force: bool
) -> Iterator[str]:
    """Write a copy with the findings or repairs in it, and yield lines that report it."""
    if not one.path.is_file():
        return
    content, lost, changed = annotate_copy(one.path, asked["sheet"], one.book, one.findings, fix=fix)
    # The inputs are all files, since findings in one may be about another.
    new = write_once(output, asked, inputs, lambda path: path.write_bytes(content), force=force)
    yield from format_findings(lost)
    if not new:
        return
    count = changed if fix else len(one.findings)
    if fix:
        text = _("wrote {output}: {count:,} cells changed; its last sheet lists them")
        text = _("wrote {output}: one cell changed; its last sheet names it") if count == 1 else text
    else:
        text = _("wrote {output}: {count:,} findings; its last sheet lists them")
        text = _("wrote {output}: one finding; its last sheet has it") if count == 1 else text
    yield localized(text.format(output=output, count=count))


def _check(path: Path, sheet: str | None, columns: Mapping[str, str] | None) -> Checked:
    suffix = path.suffix.lower()
    kind = {".json": "json", ".yaml": "recipe", ".yml": "recipe"}.get(suffix, "workbook")
    try:
        if kind == "recipe":
            return _check_recipe(path)
        require_file(path)
        if kind == "json":
            return _check_json(path, columns)
        return _check_table(read_workbook(path, sheet, columns), kind)
    except LrcError as error:
        return Checked(path, kind, tuple(_name_file(one, path) for one in error.findings))
    except OSError as error:  # the other files are checked all the same
        return Checked(path, kind, DataError(cannot_read(path.name, error)).findings)


def _name_file(finding: Finding, path: Path) -> Finding:
    """Replace the path of a finding's file by its name."""
    return replace(finding, file=path.name) if finding.file == str(path) else finding


def _check_table(book: Workbook, kind: str) -> Checked:
    questions = book.questions
    found = book.findings + _beyond_rows(book)
    return Checked(book.path, kind, found, book.rows_read, len(questions), book.labelled, questions, book)


def _beyond_rows(book: Workbook) -> tuple[Finding, ...]:
    """Findings about all rows together: duplicates, and that `lrc convert` could not split them."""
    name = book.path.name
    if not book.questions:
        return (Finding("error", "no-good-rows", name, _("no valid rows are left; correct the rows above")),)
    groups = group_passages(question.passage for question in book.questions)
    found = tuple(find_duplicates(book.questions, groups, name))
    if book.errors:
        return found
    try:
        plan_parts(book, groups, SplitPlan(validation_fraction=0.2, folds=None, seed=42))
    except LrcError as error:
        found += tuple(replace(one, kind="no-split") for one in error.findings)
    return found


def _check_json(path: Path, columns: Mapping[str, str] | None) -> Checked:
    file = DataFile(path, columns=columns)
    if file.kind != "alpaca":
        return _check_table(file.questions(), "json")
    records = list(source := file.records())
    questions = tuple(record.question for record in records if record.question is not None)
    labelled = any(record.output is not None for record in records)
    found = (*source.findings, *_examine_records(records, path.name))
    return Checked(path, "json", found, len(records), len(questions), labelled, questions)


def _examine_records(records: Sequence[Record], name: str) -> Iterator[Finding]:
    """Warn of what is suspicious in the records, as in the rows of a table; it does not prevent training."""
    asked = [replace(one.question, row=number) for number, one in enumerate(records, start=1) if one.question]
    answered = [question for question in asked if question.answer is not None]
    for finding in (*find_anomalies(asked, name), *find_conflicts(answered, name, "output")):
        place = _("record {number}").format(number=finding.row)
        yield replace(finding, level="warning", row=None, place=place)


def _check_recipe(path: Path) -> Checked:
    from lrc.config.recipe import check_recipe, find_ignored

    check_recipe(path)
    ignored = find_ignored(path)
    findings = (Finding("warning", "key-without-effect", path.name, ignored),) if ignored else ()
    return Checked(path, "recipe", findings)


@dataclass(frozen=True)
class Shared:
    """What two files have in common."""

    first: Checked
    second: Checked
    passages: int  # identical passages, except for white space
    nearly: int  # passages of the second file with a near-duplicate in the first; includes identical ones
    partly: int  # passages of the second file that a split keeps together with one of the first; includes `nearly`
    questions: int  # identical questions

    @property
    def line(self) -> str:
        """The line to print."""
        text = _("{first} and {second} share no passages, not even near-duplicates or parts of one another")
        if self.partly:
            text = _(
                "{first} and {second}: identical passages: {passages:,}; with near-duplicates: {nearly:,}; with parts "
                "of one another: {partly:,}; identical questions: {questions:,}"
            )
        same = {"passages": self.passages, "nearly": self.nearly, "partly": self.partly, "questions": self.questions}
        return text.format(first=self.first.file, second=self.second.file, **same)


def _find_shared(first: Checked, second: Checked) -> Shared | None:
    """Compare the questions of two files; None if one has none."""
    if not first.asked or not second.asked or first.path == second.path:
        return None
    groups = group_passages(question.passage for question in (*first.asked, *second.asked))
    n_first = len(first.asked)
    passages = set(groups.passages[:n_first]) & set(groups.passages[n_first:])
    nearly, partly = (
        _count_in_both(groups.passages, clusters, n_first) for clusters in (groups.near_duplicates, groups.clusters)
    )
    questions = set(map(duplicate_key, first.asked)) & set(map(duplicate_key, second.asked))
    return Shared(first, second, len(passages), nearly, partly, len(questions))


def _count_in_both(passages: Sequence[int], clusters: Sequence[int], n_first: int) -> int:
    """How many passages of the questions from `n_first` on are in a cluster with one of those before."""
    before = set(clusters[:n_first])
    pairs = zip(passages[n_first:], clusters[n_first:], strict=True)
    return len({passage for passage, cluster in pairs if cluster in before})


def _overlaps(one: Checked, shared: Iterable[Shared]) -> Iterator[Finding]:
    """Warn, for a file without answers, about passages that it shares with a file with answers."""
    for both in shared:
        other = both.second if both.first is one else both.first
        if one in (both.first, both.second) and one.labelled is False and other.labelled and both.partly:
            text = _("shares {count:,} passage, or a part of it, with {file}; do not train on the test set")
            if both.partly > 1:
                text = _("shares {count:,} passages, or parts of them, with {file}; do not train on the test set")
            text = text.format(count=both.partly, file=other.file)
            yield Finding("warning", "train-test-overlap", one.file, text)


def _next(checked: Iterable[Checked], sheet: str | None, columns: Mapping[str, str]) -> Iterator[str]:
    """The next command for each file, with the same sheet and columns."""
    chosen = ["--sheet", sheet] if sheet else []
    named = ["--columns", ",".join(f"{role}={header}" for role, header in columns.items())] if columns else []
    for one in checked:
        errors = [finding for finding in one.findings if finding.level == "error"]
        flags = [*chosen, *named] if one.kind == "workbook" else named if one.book else []
        file = command_line([str(one.path), *flags])
        convert = f"lrc convert {file} --output-dir data"  # where the shipped recipes read AI_train.json
        if one.kind == "recipe":
            if not errors:
                yield f"lrc preview {file}"
        elif errors and one.questions and all(finding.row is not None for finding in errors):
            rows = len({finding.row for finding in errors})
            cure = f"{convert} --on-error skip"
            text = _("correct the {rows:,} bad row of {file}, or skip it: {command}")
            if rows > 1:
                text = _("correct the {rows:,} bad rows of {file}, or skip them: {command}")
            yield localized(text.format(rows=rows, file=one.file, command=cure))
        elif errors:
            yield localized(_("correct {file}, then: {command}").format(file=one.file, command=f"lrc check {file}"))
        elif one.labelled is False:
            yield f"lrc generate --model MODEL --data {file} --output answer.csv"
        elif one.kind == "json" and one.book is None:
            yield f"lrc train RECIPE --train_file {file}"
        else:
            yield convert


def _document(checked: Sequence[Checked], shared: Sequence[Shared]) -> dict[str, Any]:
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
            "notes": count_kinds(one.findings, "note"),
            "repairs": count_kinds(one.findings, "repair"),
            "findings": [asdict(finding) | {"line": str(finding)} for finding in one.findings],
        }
        for one in checked
    ]
    common = [
        {
            "files": [both.first.file, both.second.file],
            "passages": both.passages,
            "nearly_the_same": both.nearly,
            "parts_of_one_another": both.partly,
            "questions": both.questions,
        }
        for both in shared
    ]
    return {"accepted": all(one.accepted for one in checked), "files": files, "shared": common}


def _print_table(checked: Sequence[Checked]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for heading in map(localized, (_("file"), _("kind"), _("accepted"), _("questions"), _("found"))):
        # A name may be wider than the terminal; everything else wraps between words.
        table.add_column(heading, overflow="fold", min_width=len(heading))
    for one in checked:
        questions = "" if one.rows is None else _("{good:,} of {rows:,}").format(good=one.questions, rows=one.rows)
        accepted = localized(_("yes") if one.accepted else _("no"))
        table.add_row(one.file, one.shown_kind, accepted, localized(questions), _count_levels(one.findings))
    # A pipe has no width: rich would take 80 columns and wrap the cells.
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def _count_levels(findings: Iterable[Finding]) -> str:
    """The number of findings of each level, the worst first: `2 errors, 1 repair`."""
    levels = Counter(finding.level for finding in findings)
    found = [
        (_("{count:,} {level}") if levels[level] == 1 else _("{count:,} {level}s")).format(
            count=levels[level], level=_("repair") if level == "repair" else WORDS[level]
        )
        for level in reversed(WORDS)
        if levels[level]
    ]
    return localized(_("{list}").format(list=tuple(found))) if found else localized(_("nothing"))
