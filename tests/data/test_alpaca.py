"""Question → record → JSON → the same record; and records from elsewhere."""

from __future__ import annotations

import json
from typing import Any

import pytest
from questions import ask

from lrc.data.alpaca import (
    INSTRUCTION,
    Record,
    RecordNotes,
    check_test_ids,
    decode_record,
    dump_records,
    encode_record,
    layout_of,
    load_records,
    to_record,
)
from lrc.data.input_layouts import Layout
from lrc.data.questions import Question
from lrc.runtime.errors import DataError

FOREIGN = {"instruction": INSTRUCTION, "input": "文章\n問題：問？\n1: 甲\n2: 乙", "output": "2"}


def load(*objects: Any) -> list[Record]:
    return list(load_records(objects, "a.json"))


@pytest.mark.parametrize("layout", ["lines", "reference"])
@pytest.mark.parametrize(
    "question",
    [
        ask(),
        ask(answer=None),
        ask(row=7, id="007", options=("26", "27"), answer=2),
        ask(row=9, question="換\n行\u2028？", options=("甲\n乙", "", "1: 丙", "問題:"), answer=3),
        ask(row=9, passage="\n問題：假的\n1: 甲\n2: 乙"),
    ],
)
def test_a_question_comes_back_the_same(question: Question, layout: Layout) -> None:
    record = to_record(question, layout)
    (back,) = load(*json.loads("".join(dump_records([record]))))
    assert back == record
    assert back.question == question
    assert decode_record(encode_record(record)) == record


def test_the_file_is_readable_and_has_a_record_a_line() -> None:
    text = "".join(dump_records([to_record(ask(2)), to_record(ask(3, answer=None))]))
    assert "放風箏" in text
    assert len(text.splitlines()) == 4
    first, second = json.loads(text)
    assert list(first)[:4] == ["id", "instruction", "input", "output"]
    assert "output" not in second
    assert json.loads("".join(dump_records([]))) == []


def test_layout_is_known_from_the_record() -> None:
    assert layout_of(to_record(ask(), "lines")) == "lines"
    assert layout_of(to_record(ask(), "reference")) == "reference"


def test_three_fields_are_enough() -> None:
    (record,) = load(FOREIGN)
    (test,) = load({"instruction": INSTRUCTION, "input": FOREIGN["input"], "id": 12})
    assert record.question == Question("1", "文章", "問？", ("甲", "乙"), 2)
    assert test.question == Question("12", "文章", "問？", ("甲", "乙"))
    assert test.output is None


@pytest.mark.parametrize("output", ["2", 2, 2.0, "選項2", "B", "（２）", "②", "乙", "答案：2", "2: 乙", " 2\n"])
def test_answers_are_read_as_in_a_workbook(output: Any) -> None:
    notes = RecordNotes()
    (record,) = load_records([FOREIGN | {"output": output}], "a.json", notes)
    assert record.question == Question("1", "文章", "問？", ("甲", "乙"), 2)
    assert record.output == "2"
    told = [str(found) for found in notes.findings("a.json")]
    assert bool(told) == (str(output).strip() not in ("2", "2.0")), told


@pytest.mark.parametrize("written", [" 7 ", "7\n", "\u30007", 7, 7.0])
def test_an_id_has_no_white_space_at_its_ends(written: Any) -> None:
    (record,) = load(FOREIGN | {"id": written})
    assert record.id == "7" and record.question is not None and record.question.id == "7"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("", "id is empty; fill it in, or remove it"),
        (" \t", "id is empty; fill it in, or remove it"),
        ("a\rb", "id has U+000D at character 2, which a line of answers cannot hold; remove it"),
        ("a\x00", "id has U+0000 at character 2, which a line of answers cannot hold; remove it"),
        ("甲\u2028乙", "id has U+2028 at character 2, which a line of answers cannot hold; remove it"),
    ],
)
def test_an_id_that_no_submission_can_hold_is_refused(written: str, said: str) -> None:
    with pytest.raises(DataError) as refused:
        load(FOREIGN, FOREIGN | {"id": written})
    assert refused.value.lines() == (f"a.json, record 2: {said}",)


@pytest.mark.parametrize("output", ["", None, " "])
def test_an_empty_output_counts_as_missing(output: Any) -> None:
    (record,) = load(FOREIGN | {"output": output})
    assert record.output is None and record.question == Question("1", "文章", "問？", ("甲", "乙"))


@pytest.mark.parametrize("output", ["2", "(B)", "", "以上皆非的理由"])
@pytest.mark.parametrize("body", [FOREIGN["input"], "只有一段話"])
def test_what_is_stored_of_records_from_elsewhere_comes_back(body: str, output: str) -> None:
    objects = [{**FOREIGN, "input": body, "output": output, "id": "x\ty"}]
    try:
        (record,) = load(*objects)
    except DataError:
        assert body == FOREIGN["input"] and output == "以上皆非的理由"
        return
    assert decode_record(encode_record(record)) == record


@pytest.mark.parametrize("output", ["", None, " "])
def test_a_record_without_an_output_among_others_is_refused(output: Any) -> None:
    with pytest.raises(DataError) as caught:
        load(FOREIGN, FOREIGN | {"output": output}, FOREIGN)
    assert caught.value.lines() == (
        "a.json, record 2: output is empty, and other records have one; fill it in, or remove the record",
    )


@pytest.mark.parametrize("name", ["Output", "label", "target", "response", "completion", "標準答案", "gold_answer"])
def test_an_output_under_another_name_is_refused(name: str) -> None:
    item = {"instruction": INSTRUCTION, "input": FOREIGN["input"], name: "2"}
    with pytest.raises(DataError, match=f'record 1: {name} is "2", and there is no output; name it output'):
        load(item)
    assert load(FOREIGN | {name: "2"})[0].output == "2"


def test_every_field_that_is_dropped_is_named_and_counted() -> None:
    notes = RecordNotes()
    items = [FOREIGN | {"system": "", "weight": 2}, FOREIGN | {"history": [], "weight": 1}, FOREIGN]
    list(load_records(items, "a.json", notes))
    assert [str(found) for found in notes.findings("a.json")] == [
        "a.json: fields not read: system (in 1 of 3 records, first in record 1), "
        "weight (in 2 of 3 records, first in record 1), history (in 1 of 3 records, first in record 2)"
    ]


def test_a_record_without_a_question_is_kept_as_prompt_and_completion() -> None:
    notes = RecordNotes()
    items = [FOREIGN | {"input": "請摘要", "output": "摘要", "source": "自編"}] * 2
    record, _ = load_records(items, "a.json", notes)
    assert record.question is None
    assert (record.input, record.output) == ("請摘要", "摘要")
    assert [str(found) for found in notes.findings("a.json")] == [
        "a.json: fields not read: source (in 2 of 2 records, first in record 1)",
        "a.json: record 1 cannot be read as a question; it can be trained on as prompt and completion only, "
        "nor can 1 more",
    ]


def test_answers_that_count_from_zero_are_refused_as_a_whole() -> None:
    zero, one, two = (FOREIGN | {"output": number} for number in ("0", "1", "2"))
    with pytest.raises(DataError) as caught:
        load(zero, one, zero)
    assert len(caught.value.lines()) == 3 and "output is 0 in 2 records" in caught.value.lines()[-1]
    with pytest.raises(DataError) as caught:
        load(zero, one, two)
    assert caught.value.lines() == ("a.json, record 1: output is 0, expected 1 to 2; correct it",)


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ("text", 'record 1: is "text", expected an object'),
        ({"text": "x"}, "neither instruction nor input"),
        (FOREIGN | {"output": 1.5}, "output is 1.5"),
        (FOREIGN | {"input": ["x"]}, "input is"),
        (FOREIGN | {"options": "甲乙"}, "options is"),
        (FOREIGN | {"passage": "文章", "question": "問？", "options": ["甲", "丙"]}, "does not agree"),
        (FOREIGN | {"passage": "文章", "question": "問？", "options": ["甲", "乙"], "output": "3"}, "output is 3"),
        (FOREIGN | {"output": "3"}, "output is 3, expected 1 to 2"),
        (FOREIGN | {"output": "丙"}, "output is 丙, expected 1 to 2"),
        (FOREIGN | {"output": "海邊"}, "output is 海邊, expected 1 to 2, a letter, or the text of one option"),
        (FOREIGN | {"output": "C"}, "output is C, expected 1 to 2"),
        (FOREIGN | {"output": float("nan")}, "output is NaN"),
        (FOREIGN | {"output": True}, "output is true"),
        (FOREIGN | {"input": None}, "input is empty"),
        (FOREIGN | {"input": " \n"}, "input is empty"),
        ({"instruction": "問", "output": "1"}, "input is empty"),
        (FOREIGN | {"input": "\n問題：問？\n1: 甲\n2: 乙"}, "empty passage"),
        (FOREIGN | {"input": "文章\n問題： \n1: 甲\n2: 乙"}, "empty question"),
        (FOREIGN | {"input": "文章\n問題：問？\n1: 甲\n2: \n3: 丙"}, "that option is empty"),
        (
            FOREIGN | {"input": "文章\n問題：問？\n1: 甲\n2: "},
            "output is 2, and there is only one option; fill in",
        ),
        (FOREIGN | {"system": "你是老師"}, 'system is "你是老師", and only instruction, input and output'),
        (FOREIGN | {"history": [["問", "答"]]}, "history is"),
        ({"input": FOREIGN["input"], "標準答案": "2"}, "標準答案 is"),
        ({"input": FOREIGN["input"], "Answer": 2}, "Answer is 2, and there is no output; name it output"),
        (FOREIGN | {"row": True}, "row is true, expected a whole number"),
        (FOREIGN | {"row": 2.5}, "row is 2.5, expected a whole number"),
        (json.loads(encode_record(to_record(ask(2)))) | {"row": True}, "row is true"),
        (FOREIGN | {"input": "\ud800"}, "an unpaired surrogate at character 1"),
    ],
)
def test_objects_that_are_not_records_are_refused(item: Any, said: str) -> None:
    with pytest.raises(DataError, match=r"^a\.json, record 1: ") as caught:
        load(item)
    assert said in str(caught.value)


def test_empty_fields_make_no_difference() -> None:
    (record,) = load(FOREIGN | {"system": "", "history": [], "tools": None})
    assert record.question is not None


def test_every_bad_record_is_named() -> None:
    with pytest.raises(DataError) as caught:
        load(1, FOREIGN, 2)
    assert [line.split(":")[0] for line in caught.value.lines()] == ["a.json, record 1", "a.json, record 3"]


def test_ids_to_answer_must_differ() -> None:
    records = load({"input": "x", "id": "7"}, {"input": "y", "id": "8"}, {"input": "z", "id": 7})
    check_test_ids([record.id for record in records[:2]], "a.json")
    with pytest.raises(DataError, match="record 3: id is 7, as in record 1"):
        check_test_ids([record.id for record in records], "a.json")
