"""The submission: a CSV file with the header `ID,Answer`, and one line for each question."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

from lrc.data.questions import MAX_OPTIONS
from lrc.runtime.errors import DataError, cannot_read
from lrc.runtime.findings import abridge
from lrc.runtime.library_errors import describe_error
from lrc.runtime.outputs import new_file
from lrc.runtime.translation import _

HEADER = ["ID", "Answer"]
_WHOLE = re.compile(r"([+-]?\d+)\.0+")  # how pandas writes whole numbers if their column has a gap


def write_submission(path: Path, ids: Sequence[str], answers: Sequence[int], *, force: bool = False) -> None:
    """Write a submission file; see `submission`.

    Raises:
        OutputError: `path` exists and `force` is false, or the file system refuses.
    """
    with new_file(path, force=force) as temporary:
        temporary.write_bytes(submission(ids, answers))


def submission(ids: Sequence[str], answers: Sequence[int]) -> bytes:
    """The bytes of a submission file, with answers in the order given.

    Ids are not escaped, even if a spreadsheet would take them for a formula: lines are matched by them.

    Args:
        ids: of the questions.
        answers: the number of the chosen option, from 1.
    """
    text = StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(zip(ids, answers, strict=True))
    return text.getvalue().encode()


def read_submission(path: Path) -> list[tuple[str, int]]:
    """Read a submission in UTF-8, with or without a byte-order mark.

    The header may also be in lower case, and `1.0` is read as 1.

    Returns:
        The id and the answer of each line, in order.

    Raises:
        DataError: the file cannot be read, has another header, or has lines that are not answers, with a finding for
            each.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            lines = [(reader.line_num, line) for line in reader if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            _("{file}: not a CSV file in UTF-8 ({reason}); save it as CSV in UTF-8").format(
                file=path.name, reason=describe_error(error)
            )
        ) from error
    except OSError as error:
        raise DataError(cannot_read(path.name, error)) from error
    if [name.strip().lower() for name in header] != [name.lower() for name in HEADER]:
        raise DataError(
            _("{file}: the header is {names}, expected ID,Answer").format(
                file=path.name, names=abridge(",".join(header))
            )
        )
    _refuse_others(path.name, lines)
    return [(line[0], int(_whole(line[1]))) for _, line in lines]


def match_answers(pairs: Sequence[tuple[str, int]], ids: Sequence[str], file: str, data: str) -> list[int]:
    """The answers of a submission, in the order of a file's questions.

    They are matched by position if both have the same ids in the same order, otherwise by id.

    Args:
        pairs: from `read_submission`.
        ids: of the questions.
        file: the name of the submission, for messages.
        data: the name of the file of questions, for messages.

    Raises:
        DataError: a question has no line, a line has no question, or ids needed for matching are repeated.
    """
    given = [name for name, _ in pairs]
    if given != list(ids) and not set(given) <= set(ids):  # perhaps one of them has 1.0 for 1
        given, ids = [_whole(name) for name in given], [_whole(name) for name in ids]
    if given == list(ids):
        return [number for _, number in pairs]
    if findings := [*_twice(given, file), *_twice(ids, data), *_describe_mismatch(given, ids, file, data)]:
        raise DataError(*findings)
    answers = {name: number for name, (_, number) in zip(given, pairs, strict=True)}
    return [answers[name] for name in ids]


def _twice(ids: Sequence[str], place: str) -> list[str]:
    again = [name for name, count in Counter(ids).items() if count > 1]
    if not again:
        return []
    text = _(
        "{place}: {ids} more than once, so answers cannot be matched to questions by id; give the lines in the order "
        "of the questions, or each question an id of its own"
    )
    return [text.format(place=place, ids=_list_ids(again))]


def _describe_mismatch(given: Sequence[str], ids: Sequence[str], file: str, data: str) -> list[str]:
    lines, known, answered = list[str](), set(ids), set(given)
    if missing := [name for name in ids if name not in answered]:
        lines.append(
            _("{file}: lacks {list_ids} of {data}; give an answer to every question").format(
                file=file, list_ids=_list_ids(missing), data=data
            )
        )
    if others := [name for name in given if name not in known]:
        lines.append(
            _("{file}: has {list_ids}, which {data} has not; give the predictions of this file").format(
                file=file, list_ids=_list_ids(others), data=data
            )
        )
    return lines


def _list_ids(ids: Sequence[str]) -> str:
    text = _("id {first}") if len(ids) == 1 else _("{count} ids (first {first})")
    return text.format(count=len(ids), first=ids[0])


def _whole(text: str) -> str:
    text = text.strip()
    return found[1] if (found := _WHOLE.fullmatch(text)) else text


def _refuse_others(file: str, lines: list[tuple[int, list[str]]]) -> None:
    answers = [str(number) for number in range(1, MAX_OPTIONS + 1)]
    findings = [
        _("{file}, line {number}: is {line}, expected an ID and an answer, 1 to {max_options}").format(
            file=file, number=number, line=abridge(",".join(line)), max_options=MAX_OPTIONS
        )
        for number, line in lines
        if len(line) != 2 or _whole(line[1]) not in answers
    ]
    if findings:
        raise DataError(*findings)
