"""Question ⇄ Alpaca record, and the JSON files that hold records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from lrc.errors import DataError
from lrc.layouts import Layout, Parts, parse_input, write_input
from lrc.questions import MAX_OPTIONS, MIN_OPTIONS, Question

INSTRUCTION = "請根據以下輸入回答選擇題，並以數字回答:\n"
_ENCODER = json.JSONEncoder(ensure_ascii=False)


@dataclass(frozen=True)
class Record:
    """One object of an Alpaca JSON file.

    `question` holds the parts; it is None where a record from elsewhere cannot be parsed into a question,
    which still trains as prompt and completion.
    """

    id: str
    instruction: str
    input: str
    output: str | None  # None in a test file
    question: Question | None


def to_record(question: Question, layout: Layout = "lines") -> Record:
    """Write a question as an Alpaca record.

    Args:
        layout: `lines` puts question and options on a line each; `reference` is what the reference run's
            converter wrote, for people who continue from its data or adapters.
    """
    output = None if question.answer is None else str(question.answer)
    return Record(question.id, INSTRUCTION, write_input(question, layout), output, question)


def layout_of(record: Record) -> Layout:
    """The layout of a record's input; `lines` where it has no question."""
    if record.question is None or record.input != write_input(record.question, "reference"):
        return "lines"
    return "reference"


def with_question(record: Record, question: Question) -> Record:
    """The record with another question in its layout: a shorter passage, or options in another order."""
    output = None if question.answer is None else str(question.answer)
    return replace(record, input=write_input(question, layout_of(record)), output=output, question=question)


def dump_records(records: Iterable[Record]) -> Iterator[str]:
    """The text of a JSON array of records, piece by piece, a record a line."""
    separator = "[\n"
    for record in records:
        yield separator + encode_record(record)
        separator = ",\n"
    yield "\n]\n" if separator == ",\n" else "[]\n"


def load_records(objects: Iterable[Any], file: str) -> Iterator[Record]:
    """Make records of the objects of a JSON array.

    An object needs `instruction` or `input`; an `id` that is missing is the object's number, from 1.

    Args:
        objects: what the JSON array holds.
        file: its name, for errors.

    Yields:
        A record an object, up to the first object that is none: the rest is then only looked at.

    Raises:
        DataError: at the end, for every object that is no record, one finding.
    """
    findings = []
    for number, item in enumerate(objects, start=1):
        try:
            record = _from_object(item, number)
        except ValueError as error:
            findings.append(f"{file}, record {number}: {error}")
        else:
            if not findings:
                yield record
    if findings:
        raise DataError(*findings)


def encode_record(record: Record) -> str:
    """A record as the text of a JSON object."""
    return _ENCODER.encode(_to_object(record))


def decode_record(text: str) -> Record:
    """The record of a text that `encode_record` made."""
    return _from_object(json.loads(text), 1)


def check_test_ids(ids: Iterable[str], file: str) -> None:
    """Refuse records to be answered of which two share an id: the submission could not tell them apart.

    Args:
        ids: of all records, in their order.
        file: where they are from, for errors.

    Raises:
        DataError: for every record whose id stands before, one finding.
    """
    first: dict[str, int] = {}
    findings = [
        f"{file}, record {number}: id is {name}, as in record {first[name]}; give each its own"
        for number, name in enumerate(ids, start=1)
        if first.setdefault(name, number) != number
    ]
    if findings:
        raise DataError(*findings)


def _to_object(record: Record) -> dict[str, Any]:
    fields: dict[str, Any] = {"id": record.id, "instruction": record.instruction, "input": record.input}
    if record.output is not None:
        fields["output"] = record.output
    if (question := record.question) is not None:
        fields |= {"passage": question.passage, "question": question.question, "options": question.options}
        if question.row is not None:
            fields["row"] = question.row
    return fields


def _from_object(item: Any, number: int) -> Record:
    """Make a record of a JSON object.

    Raises:
        ValueError: it is none; the message is the finding without its place.
    """
    if not isinstance(item, dict):
        raise ValueError(f"is {_short(item)}, expected an object with instruction, input and output")
    if "instruction" not in item and "input" not in item:
        raise ValueError("has neither instruction nor input; this is no Alpaca record")
    texts = {key: _text(item, key) for key in ("instruction", "input", "output")}
    name = str(number) if item.get("id") is None else _text(item, "id") or ""
    record = Record(name, texts["instruction"] or "", texts["input"] or "", texts["output"], None)
    parts, row = _parts(item) if "options" in item else None, item.get("row")
    if type(row) not in (int, type(None)):  # true is an int, too
        raise ValueError(f"row is {_short(row)}, expected a whole number")
    question = _question(record, parts, row)
    if parts is not None and (question is None or not _agrees(record, question)):
        raise ValueError(
            "input or output does not agree with passage, question and options; "
            "change both alike, or take those three out"
        )
    return Record(record.id, record.instruction, record.input, record.output, question)


def _agrees(record: Record, question: Question) -> bool:
    return record.input in (write_input(question, "lines"), write_input(question, "reference"))


def _parts(item: dict[str, Any]) -> Parts:
    options = item["options"]
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise ValueError(f"options is {_short(options)}, expected a list of texts")
    for option in options:
        _refuse_surrogates("options", option)
    return _text(item, "passage") or "", _text(item, "question") or "", tuple(options)


def _question(record: Record, parts: Parts | None, row: int | None) -> Question | None:
    """The record's question; None where it has no parts, or no answer that is one of its options."""
    parts = parts or parse_input(record.input)
    if parts is None or not MIN_OPTIONS <= len(parts[2]) <= MAX_OPTIONS:
        return None
    if record.output is None:
        return Question(record.id, *parts, None, row)
    answers = {str(number): number for number in range(1, len(parts[2]) + 1)}
    answer = answers.get(record.output.strip())
    return None if answer is None else Question(record.id, *parts, answer, row)


def _text(item: dict[str, Any], key: str) -> str | None:
    value = item.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str | None):
        raise ValueError(f"{key} is {_short(value)}, expected a text")
    if value is not None:
        _refuse_surrogates(key, value)
    return value


def _refuse_surrogates(key: str, text: str) -> None:
    """Half a surrogate pair is no character: no tokenizer and no file takes it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{key} has half a surrogate pair at character {error.start + 1}; correct it") from error


def _short(value: object) -> str:
    text = _ENCODER.encode(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
