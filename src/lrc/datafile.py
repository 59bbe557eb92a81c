"""Any file with questions → questions or records: workbook, CSV, C3 or Alpaca JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lrc.alpaca import Record, check_test_ids, load_records, read_json, to_record
from lrc.c3 import read_c3
from lrc.errors import DataError
from lrc.manifest import refuse_incomplete
from lrc.workbook import Workbook, read_workbook


def read_questions(path: Path, sheet: str | None = None) -> Workbook:
    """Read what `lrc convert` converts: a workbook, a CSV or C3 JSON.

    Raises:
        DataError: the file is no such thing at all; bad rows are findings.
    """
    if path.suffix.lower() != ".json":
        return read_workbook(path, sheet)
    content = _array(path, sheet)
    if _is_alpaca(content):
        raise DataError(f"{path.name}: Alpaca JSON already; train on it, or convert the workbook that it came from")
    return read_c3(content, path)


def read_records(path: Path, sheet: str | None = None) -> list[Record]:
    """Read what is trained on or answered: a workbook, a CSV, C3 JSON or Alpaca JSON.

    Args:
        sheet: the sheet of a workbook; the first one by default.

    Raises:
        DataError: the file cannot be read, has bad rows, was left incomplete by a convert, or holds questions
            to answer of which two share an id.
    """
    if path.suffix.lower() == ".json":
        content = _array(path, sheet)
        if _is_alpaca(content):
            return _alpaca(content, path)
    source = read_questions(path, sheet)
    if source.errors:
        raise DataError(*map(str, source.errors))
    records = [to_record(question) for question in source.questions]
    if not source.labelled:
        check_test_ids(records, path.name)
    return records


def _alpaca(content: list[Any], path: Path) -> list[Record]:
    refuse_incomplete(path)
    records = load_records(content, path.name)
    if all(record.output is None for record in records):
        check_test_ids(records, path.name)
    return records


def _array(path: Path, sheet: str | None) -> list[Any]:
    if sheet is not None:
        raise DataError(f"{path.name}: a JSON file has no sheet {sheet}; leave out --sheet")
    content = read_json(path)
    if not isinstance(content, list) or not content:
        raise DataError(f"{path.name}: not a JSON array with anything in it; expected Alpaca records or C3 JSON")
    return content


def _is_alpaca(content: list[Any]) -> bool:
    return isinstance(content[0], dict)
