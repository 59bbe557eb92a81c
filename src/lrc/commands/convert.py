"""`lrc convert`: turns a workbook into Alpaca JSON, split by passage, with every row accounted for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from lrc.data.alpaca import dump_records, to_record
from lrc.data.conversion import ConversionReport, Part, SplitPlan, find_clashes, plan_parts
from lrc.data.input_layouts import Layout
from lrc.data.manifest import SUFFIX, is_finished, refuse_other, refuse_set, write_set
from lrc.data.near_duplicates import CLUSTERING, group_passages
from lrc.data.questions import Question
from lrc.data.repeated import find_duplicates
from lrc.data.sources import read_questions
from lrc.data.tables.workbook import Workbook
from lrc.runtime.arguments import require_choice
from lrc.runtime.errors import DataError, OutputError
from lrc.runtime.exit_status import is_step
from lrc.runtime.findings import add_cure, limit_findings, print_findings, print_lines, print_next
from lrc.runtime.finished_outputs import Inputs
from lrc.runtime.outputs import new_folder
from lrc.runtime.progress import Advance, track
from lrc.runtime.system import command_line
from lrc.runtime.translation import _


def convert(
    file: str | Path,
    *,
    output_dir: str | Path,
    sheet: str | None = None,
    columns: Mapping[str, str] | None = None,
    layout: Layout = "lines",
    validation_fraction: float = 0.2,
    folds: int | None = None,
    seed: int = 42,
    on_error: str = "refuse",
    force: bool = False,
) -> None:
    """Convert a workbook, a CSV or JSON with questions, and print a report.

    Args:
        file: what to convert. Without answers it becomes `<stem>.json`, with answers `<stem>_train.json` and
            `<stem>_validation.json`. `<stem>_manifest.json` describes how they were made.
        output_dir: the folder for these files.
        sheet: the sheet to read; the first visible one by default.
        columns: see `sources.DataFile`.
        layout: of the `input` of records.
        validation_fraction: the share of questions to validate on; 0 writes `<stem>.json` with all of them.
        folds: the number of folds for which `<stem>_fold{k}_train.json` and `<stem>_fold{k}_validation.json` are
            written, too.
        seed: for the split and the folds.
        on_error: `refuse` a file with bad rows, or `skip` them.
        force: overwrite files that exist, and remove others that an earlier conversion of the file has written.

    Raises:
        DataError: an argument is out of range; or the file cannot be read, has bad rows, or cannot be split so.
        OutputError: a file exists, or cannot be written.
    """
    file, output_dir = Path(file), Path(output_dir)
    plan = SplitPlan(validation_fraction, folds, seed)
    require_choice("layout", layout, get_args(Layout), DataError)
    require_choice("on_error", on_error, ("refuse", "skip"), DataError)
    if not force:
        refuse_other(output_dir, file, layout, asdict(plan), CLUSTERING)
    inputs = Inputs([file])
    source = _read(file, sheet, columns, skip=on_error == "skip")
    groups = group_passages(question.passage for question in source.questions)
    parts = plan_parts(source, groups, plan)
    findings = (*source.findings, *find_duplicates(source.questions, groups, file.name))
    inputs.refuse_changed()
    account = ConversionReport(source, inputs.sums[file], findings, groups, plan, parts)
    facts = account.facts() | {"layout": layout}
    if not force and is_finished(output_dir, file.stem, [part.name for part in parts], facts):
        text = _("{folder}: {file} is already converted with the same flags; nothing to do")
        print_lines(text.format(folder=output_dir, file=file.name))
        return
    _refuse_outputs(file, output_dir, parts, force=force)
    removed = _write(account, layout, facts, output_dir, force=force)
    print_lines(*account.lines(output_dir))
    if removed:
        text = _("{folder}: removed what an earlier conversion had written and this one does not: {files}")
        print_lines(text.format(folder=output_dir, files=tuple(removed)))
    if not is_step():
        print_next(_next(output_dir, source, parts))


def _next(folder: Path, source: Workbook, parts: Sequence[Part]) -> str:
    """The next command: to train, or to answer the questions of a file without answers."""
    files = [str(folder / part.name) for part in parts[:2]]  # before those of folds
    if not source.labelled:
        return f"{command_line(['lrc', 'generate', '--model', 'MODEL', '--data', files[0]])} --output answer.csv"
    flags = [word for pair in zip(("--train_file", "--validation_file"), files, strict=False) for word in pair]
    return command_line(["lrc", "train", "RECIPE", *flags])


def _read(file: Path, sheet: str | None, columns: Mapping[str, str] | None, *, skip: bool) -> Workbook:
    with track(_("reading"), 1, "file") as advance:
        source = read_questions(file, sheet, columns)
        advance()
    if source.errors and not skip:
        print_findings(source.remarks)
        raise DataError(*add_cure(source.errors, _("leave the row out with --on-error skip")))
    if not source.questions:
        raise DataError(
            *limit_findings(source.errors),
            _("{name}: no valid rows are left; correct the rows above").format(name=file.name),
        )
    return source


def _refuse_outputs(file: Path, folder: Path, parts: Sequence[Part], *, force: bool) -> None:
    for path in find_clashes(parts, folder, file):
        raise OutputError(_("{path}: is the file to convert; choose another --output-dir").format(path=path))
    refuse_set(folder, [*(part.name for part in parts), file.stem + SUFFIX], force=force)


def _write(account: ConversionReport, layout: Layout, facts: dict[str, Any], folder: Path, *, force: bool) -> list[str]:
    """Write all files; if the folder does not exist yet, it appears with all of them in it. See `write_set`."""
    questions, stem = account.source.questions, account.source.path.stem
    total = sum(counts.total() for counts in account.answers.values())
    with track(_("writing"), total) as advance:
        texts = {part.name: _text(part.of(questions), layout, advance) for part in account.parts}
        if folder.exists() or folder.is_symlink():
            return write_set(folder, stem, texts, facts, force=force)
        with new_folder(folder) as new:
            return write_set(new, stem, texts, facts)


def _text(questions: Iterator[Question], layout: Layout, advance: Advance) -> Iterator[str]:
    """The pieces of a file's text; progress advances with each question."""

    def counted() -> Iterator[Question]:
        for question in questions:
            yield question
            advance()

    return dump_records(to_record(question, layout) for question in counted())
