"""Alpaca records: made from questions, and read from and written to JSON."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from lrc.data.input_layouts import Layout, QuestionParts, parse_input, write_input
from lrc.data.questions import MAX_OPTIONS, MIN_OPTIONS, Question
from lrc.data.tables.answer_marks import FROM_ZERO, read_answer
from lrc.data.tables.cell_text import show_number
from lrc.data.tables.cleaning import control_character, unpaired_surrogate
from lrc.runtime.errors import DataError
from lrc.runtime.findings import Finding, abridge
from lrc.runtime.translation import _, message_of

INSTRUCTION = "請根據以下輸入回答選擇題，並以數字回答:\n"
_ENCODER = json.JSONEncoder(ensure_ascii=False)
_READ = frozenset({"id", "instruction", "input", "output", "passage", "question", "options", "row"})
# Fields that other trainers put into the prompt or train on: without them, the model would learn something else.
_TRAINED_ON = re.compile(
    ".*(?:system|history|conversation|message|chosen|rejected).*|prompt|query|images?|videos?|audios?|tools|kto_tag",
    re.I,
)
# Names that other datasets give to the output.
_ANSWERS = re.compile(
    "answer|答|解|正[確确]|^output|label|target|response|completion|solution|gold|correct|result", re.I
)


@dataclass(frozen=True)
class Record:
    """One object of an Alpaca JSON file: the text that a model sees and writes.

    `question` has the parts of `input`. It is None if a record from elsewhere cannot be parsed into a question; such a
    record can be trained on as prompt and completion, but cannot be scored.
    """

    id: str
    instruction: str
    input: str
    output: str | None  # the number of the right option, where there is a question; None in a test file
    question: Question | None


@dataclass
class RecordNotes:
    """What to report about the records of a file apart from errors; records are numbered from 1."""

    unread: dict[str, list[int]] = field(default_factory=dict)  # by field: the number of records, and the first record
    answers: list[tuple[int, str]] = field(default_factory=list)  # the record of each output that was read as a number
    foreign: list[int] = field(default_factory=list)  # the records that could not be parsed into questions
    count: int = 0  # of all records

    def findings(self, file: str) -> Iterator[Finding]:
        """Make one finding for each kind of note.

        Args:
            file: the name of the file.
        """
        if self.unread:
            place = _("{name} (in {count:,} of {total:,} records, first in record {first})")
            fields = [
                place.format(name=name, count=count, total=self.count, first=first)
                for name, (count, first) in self.unread.items()
            ]
            text = _("fields not read: {fields}")
            yield Finding("warning", "field-not-read", file, text.format(fields=tuple(fields)))
        if self.answers:
            (number, output), count = self.answers[0], len(self.answers)
            text = _("output was read as a number in {count:,} records, first in record {number}: {output}").format(
                count=count, number=number, output=output
            )
            yield Finding("repair", "answer", file, text)
        if self.foreign:
            more = len(self.foreign) - 1
            text = _("record {number} cannot be read as a question; it can be trained on as prompt and completion only")
            if more:
                text = _(
                    "record {number} cannot be read as a question; it can be trained on as prompt and completion only, "
                    "nor can {more:,} more"
                )
            yield Finding("warning", "no-question", file, text.format(number=self.foreign[0], more=more))

    def note(self, item: dict[str, Any], record: Record, number: int) -> None:
        """Note what to report about one record.

        Args:
            item: the JSON object.
            record: what it was read as.
            number: its position in the file, from 1.
        """
        self.count += 1
        for name in (name for name in item if name not in _READ):
            self.unread.setdefault(name, [0, number])[0] += 1
        written = _read_text(item, "output")
        if record.question is None:
            self.foreign.append(number)
        elif written is not None and record.output is not None and written.strip() != record.output:
            self.answers.append(
                (number, _("{written} as {output}").format(written=_abridge(written), output=record.output))
            )


def to_record(question: Question, layout: Layout = "lines") -> Record:
    """Write a question as an Alpaca record.

    Args:
        question: with or without an answer.
        layout: `lines` puts the question and each option on a line of its own; `reference` is what the reference run's
            converter wrote, for people who continue from its data or adapters.
    """
    output = None if question.answer is None else str(question.answer)
    return Record(question.id, INSTRUCTION, write_input(question, layout), output, question)


def layout_of(record: Record) -> Layout:
    """The layout of a record's input; `lines` if it has no question."""
    if record.question is None or record.input != write_input(record.question, "reference"):
        return "lines"
    return "reference"


def question_of(record: Record) -> Question:
    """The question of a record.

    Raises:
        DataError: the record could not be parsed into one.
    """
    if record.question is None:
        raise DataError(
            _(
                "record {id}: its input cannot be read as passage, question and options; use the layout of lrc convert"
            ).format(id=record.id)
        )
    return record.question


def with_question(record: Record, question: Question) -> Record:
    """Replace a record's question, such as by one with a shorter passage or reordered options; the layout is kept."""
    output = None if question.answer is None else str(question.answer)
    return replace(record, input=write_input(question, layout_of(record)), output=output, question=question)


def dump_records(records: Iterable[Record]) -> Iterator[str]:
    """Encode records as a JSON array with one record per line.

    Yields:
        The pieces of the text.
    """
    separator = "[\n"
    for record in records:
        yield separator + encode_record(record)
        separator = ",\n"
    yield "\n]\n" if separator == ",\n" else "[]\n"


def load_records(objects: Iterable[Any], file: str, notes: RecordNotes | None = None) -> Iterator[Record]:
    """Make records from the elements of a JSON array.

    An object must have an `input`. A missing `id` becomes the object's position, from 1. An `output` is read like an
    answer in a workbook and becomes the number of the right option; an empty `output` counts as missing.

    Args:
        objects: the elements of the array.
        file: the name of the file, for errors.
        notes: takes what is to be reported apart from errors.

    Yields:
        A record for each object, up to the first error; the objects after it are only checked.

    Raises:
        DataError: at the end, with a finding for each object that is not a record, or has no output while others have
            one.
    """
    findings, zeros, from_one = [], 0, False  # from_one: whether an answer is the number of a last option
    blank, labelled = list[int](), False  # the records without an output, and whether any has one
    for number, item in enumerate(objects, start=1):
        try:
            record = _from_object(item, number)
        except ValueError as error:
            text = _("{file}, record {number}: {reason}")
            findings.append(text.format(file=file, number=number, reason=message_of(error)))
            zeros += isinstance(item, dict) and str(item.get("output")).strip() in ("0", "0.0")
        else:
            asked = record.question
            from_one = from_one or asked is not None and asked.answer == len(asked.options)
            if record.output is None:
                blank.append(number)
            labelled = labelled or record.output is not None
            if notes is not None:
                notes.note(item, record, number)
            if not findings:
                yield record
    if labelled:
        findings += [
            _(
                "{file}, record {number}: output is empty, and other records have one; fill it in, or remove the record"
            ).format(file=file, number=number)
            for number in blank
        ]
    if zeros and not from_one:
        findings.append(
            _(
                "{file}: output is 0 in {zeros:,} records, and the last option's number in none: it counts from 0; "
                "{cure}"
            ).format(file=file, zeros=zeros, cure=FROM_ZERO)
        )
    if findings:
        raise DataError(*findings)


def encode_record(record: Record) -> str:
    """Encode a record as a JSON object on one line."""
    return _ENCODER.encode(_to_object(record))


def decode_record(text: str) -> Record:
    """Decode what `encode_record` wrote; nothing is checked again."""
    item = json.loads(text)
    name, output = item["id"], item.get("output")
    question = None
    if "options" in item:
        answer = None if output is None else int(output)
        parts = item["passage"], item["question"], tuple(item["options"])
        question = Question(name, *parts, answer, item.get("row"), item.get("full_passage"))
    return Record(name, item["instruction"], item["input"], output, question)


def check_test_ids(ids: Iterable[str], file: str) -> None:
    """Refuse unanswered records that share an id: a submission could not tell them apart.

    Args:
        ids: the id of each record, in order.
        file: the name of their file, for errors.

    Raises:
        DataError: one finding for each record whose id another one had before.
    """
    first: dict[str, int] = {}
    findings = [
        _("{file}, record {number}: id is {name}, as in record {first}; give each its own").format(
            file=file, number=number, name=name, first=first[name]
        )
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
        if question.full_passage is not None:
            fields["full_passage"] = question.full_passage
    return fields


def _from_object(item: Any, number: int) -> Record:
    """Make a record from an element of the array.

    Raises:
        ValueError: it is not a record; the message is the text of the finding, without its place.
    """
    if not isinstance(item, dict):
        raise ValueError(
            _("is {item}, expected an object with instruction, input and output").format(item=_abridge(item))
        )
    if "instruction" not in item and "input" not in item:
        raise ValueError(_("has neither instruction nor input; this is not an Alpaca record"))
    _refuse_unread(item)
    texts = {key: _read_text(item, key) for key in ("instruction", "input", "output")}
    body, output = texts["input"] or "", texts["output"] if (texts["output"] or "").strip() else None
    if not body.strip():
        raise ValueError(_("input is empty; write passage, question and options there"))
    name = _read_id(item)
    record = Record(str(number) if name is None else name, texts["instruction"] or "", body, output, None)
    parts, row = _read_parts(item) if item.get("options") is not None else None, item.get("row")
    if type(row) not in (int, type(None)):  # isinstance would take true for a number
        raise ValueError(_("row is {row}, expected a whole number").format(row=_abridge(row)))
    question = _make_question(record, parts, row)
    if parts and (question is None or body not in (write_input(question, "lines"), write_input(question, "reference"))):
        raise ValueError(
            _("input does not agree with passage, question and options; change both alike, or remove those three")
        )
    if question is not None and question.answer is not None:
        output = str(question.answer)
    return Record(record.id, record.instruction, record.input, output, question)


def _refuse_unread(item: dict[str, Any]) -> None:
    """Refuse fields that other trainers would train on, and answers under another name than `output`."""
    for name, value in item.items():
        if name in _READ or value in (None, "", [], {}):
            continue
        if _TRAINED_ON.fullmatch(name):
            raise ValueError(
                _(
                    "{name} is {value}, and only instruction, input and output are trained on; write it into "
                    "instruction, or remove it"
                ).format(name=name, value=_abridge(value))
            )
        if _ANSWERS.search(name) and item.get("output") in (None, ""):
            raise ValueError(
                _("{name} is {value}, and there is no output; name it output").format(name=name, value=_abridge(value))
            )


def _read_parts(item: dict[str, Any]) -> QuestionParts:
    options = item["options"]
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise ValueError(_("options is {options}, expected a list of texts").format(options=_abridge(options)))
    for option in options:
        _refuse_surrogates("options", option)
    return _read_text(item, "passage") or "", _read_text(item, "question") or "", tuple(options)


def _make_question(record: Record, parts: QuestionParts | None, row: int | None) -> Question | None:
    """Make a record's question from its parts, else from its `input`; None if that cannot be parsed.

    Raises:
        ValueError: the output is not one of the options, or a labelled question has an empty passage or question.
    """
    parts = parts or parse_input(record.input)
    if parts is None or not MIN_OPTIONS <= len(parts[2]) <= MAX_OPTIONS:
        return None
    if record.output is None:
        return Question(record.id, *parts, None, row)
    for name, text in zip(("passage", "question"), parts, strict=False):
        if not str(text).strip():
            raise ValueError(_("input has an empty {name}; fill it in").format(name=name))
    reading = read_answer(record.output.strip(), parts[2])
    if reading.number is None:
        raise ValueError(_("output {fault}").format(fault=reading.error))
    if not parts[2][reading.number - 1].strip():
        raise ValueError(
            _("output is {output}, and that option is empty; fill it in").format(output=_abridge(record.output))
        )
    return Question(record.id, *parts, reading.number, row)


def _read_text(item: dict[str, Any], key: str) -> str | None:
    """The text of a field, also of one that is a whole number.

    Raises:
        ValueError: it is of another type, or no tokenizer or file would accept it.
    """
    value = item.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return show_number(value)
    if not isinstance(value, str | None):
        raise ValueError(_("{key} is {value}, expected a text").format(key=key, value=_abridge(value)))
    if value is not None:
        _refuse_surrogates(key, value)
    return value


def _read_id(item: dict[str, Any]) -> str | None:
    """The id of a record, as clean as that of a row of a workbook; None if it has none.

    Raises:
        ValueError: it is empty, or has a character that `lrc convert` would have removed.
    """
    name = _read_text(item, "id")
    if name is None:
        return None
    name = name.strip()
    if not name:
        raise ValueError(_("id is empty; fill it in, or remove it"))
    if place := control_character(name):
        text = _("id has U+{code:04X} at character {place}, which a line of answers cannot hold; remove it")
        raise ValueError(text.format(code=ord(name[place - 1]), place=place))
    return name


def _refuse_surrogates(key: str, text: str) -> None:
    if place := unpaired_surrogate(text):
        raise ValueError(
            _("{key} has an unpaired surrogate at character {value}; correct it").format(key=key, value=place)
        )


def _abridge(value: object) -> str:
    return abridge(_ENCODER.encode(value))
