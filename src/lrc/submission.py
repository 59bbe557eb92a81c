"""The submission: a CSV with the header `ID,Answer`, a line a question."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

from lrc.errors import DataError
from lrc.output import new_file
from lrc.questions import MAX_OPTIONS

HEADER = ["ID", "Answer"]


def write_submission(path: Path, ids: Sequence[str], answers: Sequence[int], *, force: bool = False) -> None:
    """Write answers, in the order given.

    Ids stay as they are, even those that a spreadsheet would take for a formula: they are how the lines are
    matched.

    Raises:
        OutputError: `path` exists and `force` is false, or the file system refuses.
    """
    with new_file(path, force=force) as temporary:
        temporary.write_bytes(submission(ids, answers))


def submission(ids: Sequence[str], answers: Sequence[int]) -> bytes:
    """What such a file holds."""
    text = StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(zip(ids, answers, strict=True))
    return text.getvalue().encode()


def read_submission(path: Path) -> list[tuple[str, int]]:
    """Read a submission, UTF-8 with or without a byte-order mark.

    Returns:
        The id and the answer of each line, in order.

    Raises:
        DataError: the file cannot be read, has another header, or has lines that are no answer, one finding
            each.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            lines = [(reader.line_num, line) for line in reader if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path.name}: not a CSV file in UTF-8 ({error}); save it as such") from error
    except OSError as error:
        raise DataError(f"{path.name}: {error.strerror or error}; check its name and permissions") from error
    if [name.strip() for name in header] != HEADER:
        raise DataError(f"{path.name}: the header is {','.join(header)[:40]}, expected ID,Answer")
    _refuse_others(path.name, lines)
    return [(line[0], int(line[1])) for _, line in lines]


def _refuse_others(file: str, lines: list[tuple[int, list[str]]]) -> None:
    answers = [str(number) for number in range(1, MAX_OPTIONS + 1)]
    findings = [
        f"{file}, line {number}: is {','.join(line)[:40]}, expected an ID and an answer, 1 to {MAX_OPTIONS}"
        for number, line in lines
        if len(line) != 2 or line[1].strip() not in answers
    ]
    if findings:
        raise DataError(*findings)
