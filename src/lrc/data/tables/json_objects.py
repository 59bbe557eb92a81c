"""Reads JSON lines, or a JSON array of objects, as a table whose columns are the keys, as many public datasets are.

A list of choices (`options`, `choices`) becomes one column per choice, and so do choices by label: `{"A": …, "B": …}`,
`{"text": […], "label": ["A", …]}` as in ARC, and `[{"label": "A", "text": …}, …]`. An object with lists of questions,
options and answers, as in RACE, becomes one row per question.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any

from lrc.data.questions import MAX_OPTIONS
from lrc.data.tables.answer_marks import parse_answer
from lrc.data.tables.cell_text import show_value
from lrc.data.tables.cleaning import unpaired_surrogate
from lrc.data.tables.csv_file import MAX_LINE
from lrc.data.tables.json_array import DoubledKeyError, read_array, unique_keys
from lrc.data.tables.table import CellFinding, Table, TableRow
from lrc.runtime.errors import DataError
from lrc.runtime.findings import abridge
from lrc.runtime.library_errors import describe_error
from lrc.runtime.translation import _

_LISTS = {"questions": "question", "options": "options", "answers": "answer"}  # key in a passage, and in a question
CHOICES = ("options", "choices", "choice", "選項", "选项")


@contextmanager
def open_objects(path: Path) -> Iterator[Table]:
    """Open JSON lines, or an array of objects in a file named .json, as a table.

    The number of a row is that of its line, or its position in the array from 1; each further question of an object
    adds one. Row 0 is the header.

    Raises:
        DataError: a line or an element is not a JSON object, has a key or its options twice, or too many options; a
            line has more than MAX_LINE characters; or the file is not UTF-8.
    """
    headers = _collect_headers(path)
    yield Table(path.name, None, (), _iter_rows(path, headers))


def _collect_headers(path: Path) -> list[str]:
    """All keys in the order in which they first appear; choices are `option1` and so on."""
    headers: dict[str, None] = {}
    for number, item in _iter_questions(path):
        sources: dict[str, str] = {}  # the key that each column of this question is from
        for key, value in item.items():
            place = {"file": path.name, "number": number, "key": key}
            if key in CHOICES and (count := _count_choices(value)) > MAX_OPTIONS:
                text = _("{file}, row {number}: {key} has {count} texts, expected up to {most}; remove the others")
                raise DataError(text.format(**place, count=count, most=MAX_OPTIONS))
            if key in CHOICES and isinstance(value, dict | list) and _list_choices(value) is None:
                text = _(
                    "{file}, row {number}: {key} is {value}, whose labels are not A, B, C … or 1, 2, 3 …; write the "
                    'options as a list: ["…", "…"]'
                )
                raise DataError(text.format(**place, value=abridge(json.dumps(value, ensure_ascii=False))))
            for header in _spread(key, value):
                if (other := sources.setdefault(header, key)) != key:
                    text = _("{file}, row {number}: {one} and {other} both hold options; keep one of them")
                    raise DataError(text.format(file=path.name, number=number, one=other, other=key))
        headers |= dict.fromkeys(sources)
    return list(headers)


def _iter_rows(path: Path, headers: list[str]) -> Iterator[TableRow]:
    places = {header: place for place, header in enumerate(headers)}
    yield TableRow(0, headers, {})
    for number, item in _iter_questions(path):
        cells, findings = [""] * len(headers), {}
        for key, value in item.items():
            for header, one in _spread(key, value).items():
                cells[places[header]], error = _show_json(one)
                if error:
                    findings[places[header]] = CellFinding("error", "json-value", error)
        yield TableRow(number, cells, findings)


def _iter_questions(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The row number and the object of each question."""
    more = 0
    for number, item in _iter_elements(path) if path.suffix.lower() == ".json" else _iter_lines(path):
        questions = _split_passage(item)
        yield from enumerate(questions, start=number + more)
        more += len(questions) - 1


def _split_passage(item: dict[str, Any]) -> list[dict[str, Any]]:
    """Split a passage with lists of questions into an object for each; a list that is too short leaves None."""
    if not isinstance(item.get("questions"), list):
        return [item]
    shared = {key: value for key, value in item.items() if key not in _LISTS}
    lists = [value if isinstance(value := item.get(key), list) else [] for key in _LISTS]
    questions = [shared | dict(zip(_LISTS.values(), one, strict=True)) for one in zip_longest(*lists)]
    if isinstance(name := item.get("id"), str | int):
        questions = [one | {"id": f"{name}-{place}"} for place, one in enumerate(questions, start=1)]
    return questions or [item]


def _iter_elements(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, item in enumerate(read_array(path), start=1):
        if not isinstance(item, dict):
            text = _("{file}, element {number}: is not a JSON object; write one object a question")
            raise DataError(text.format(file=path.name, number=number))
        yield number, item


def _iter_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    try:
        with path.open(encoding="utf-8-sig") as file:
            while line := file.readline(MAX_LINE):
                number += 1
                if len(line) == MAX_LINE:
                    text = _("{file}, line {number}: longer than {max_line:,} characters; shorten it")
                    raise DataError(text.format(file=path.name, number=number, max_line=MAX_LINE))
                if not line.strip():
                    continue
                item = json.loads(line, object_pairs_hook=unique_keys)
                if not isinstance(item, dict):
                    text = _("{file}, line {number}: is not a JSON object; write one object a line")
                    raise DataError(text.format(file=path.name, number=number))
                yield number, item
    except UnicodeDecodeError as error:
        text = _("{file}, near line {number}: not UTF-8; save the file as UTF-8")
        raise DataError(text.format(file=path.name, number=number + 1)) from error
    except DoubledKeyError as error:
        text = _("{file}, line {number}: key {reason} appears twice; keep one of them")
        raise DataError(text.format(file=path.name, number=number, reason=error)) from error
    except (ValueError, RecursionError) as error:
        text = _("{file}, line {number}: not JSON ({reason}); write one object a line")
        raise DataError(text.format(file=path.name, number=number, reason=describe_error(error))) from error


def _spread(key: str, value: Any) -> dict[str, Any]:
    """The columns of a key, and their values."""
    choices = _list_choices(value) if key in CHOICES else None
    return {key: value} if choices is None else {f"option{number}": one for number, one in enumerate(choices, start=1)}


def _list_choices(value: Any) -> list[Any] | None:
    """The choices in the order of their labels, or as they are listed; None if it is not clear what they are."""
    if isinstance(value, list) and not (value and all(isinstance(one, dict) for one in value)):
        return value
    pairs = _pair_choices(value)
    marks = [parse_answer(str(label)) if type(label) in (str, int) else None for label, _text in pairs]
    found = {mark.number: text for mark, (_label, text) in zip(marks, pairs, strict=True) if mark}
    series = len({mark.form for mark in marks if mark}) == 1 and set(found) == set(range(1, len(pairs) + 1))
    return [found[number] for number in sorted(found)] if series else None


def _count_choices(value: Any) -> int:
    return len(_pair_choices(value)) or (len(value) if isinstance(value, list) else 0)


def _pair_choices(value: Any) -> list[tuple[Any, Any]]:
    """The label and the text of each choice; empty if they are in no known form."""
    if isinstance(value, dict) and value.keys() == {"text", "label"}:
        texts, labels = value["text"], value["label"]
        lists = isinstance(texts, list) and isinstance(labels, list) and len(texts) == len(labels)
        return list(zip(labels, texts, strict=True)) if lists else []
    if isinstance(value, dict):
        return list(value.items())
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        return []
    if all(len(one) == 1 for one in value):
        return [pair for one in value for pair in one.items()]
    if all(one.keys() == {"label", "text"} for one in value):
        return [(one["label"], one["text"]) for one in value]
    return []


def _show_json(value: Any) -> tuple[str, str]:
    """The text of a JSON value, and what is wrong with it; one of the two is empty."""
    if value is None:
        return "", ""
    if not isinstance(value, str | int | float):
        array = _("is a JSON array, expected text")
        return "", array if isinstance(value, list) else _("is a JSON object, expected text")
    if isinstance(value, float) and not math.isfinite(value):
        return "", _("is {value}, which is not text; give the text itself").format(value=value)
    text = str(value) if type(value) is int else show_value(value)
    return ("", _("has an unpaired surrogate; correct it")) if unpaired_surrogate(text) else (text, "")
