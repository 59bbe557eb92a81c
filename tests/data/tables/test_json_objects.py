"""JSON lines and arrays of objects as public benchmarks have them, read as a table."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lrc.cli import cli
from lrc.commands.check import check
from lrc.data.sources import read_questions, read_records
from lrc.data.tables.workbook import read_workbook
from lrc.runtime.errors import DataError


def lines(path: Path, *items: Any) -> Path:
    path.write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items), encoding="utf-8")
    return path


def item(number: int = 1, **changes: Any) -> dict[str, Any]:
    """A question as RACE has it."""
    asked = {"id": f"q{number}", "article": f"第{number}篇：小明放風箏。", "question": f"第{number}題：小明在做什麼？"}
    return {**asked, "options": ["釣魚", "放風箏", "睡覺", "讀書"], "answer": "B", **changes}


def belebele(number: int) -> dict[str, Any]:
    choices = {f"mc_answer{k}": text for k, text in enumerate(("釣魚", "放風箏", "睡覺", "讀書"), start=1)}
    passage = {"link": "https://example.org", "question_number": number, "flores_passage": f"第{number}篇：放風箏。"}
    return {**passage, "question": f"第{number}題？", **choices, "correct_answer_num": "2", "dialect": "zho_Hant"}


def test_a_list_of_choices_is_a_column_each(tmp_path: Path) -> None:
    book = read_workbook(lines(tmp_path / "a.jsonl", item(1), item(2, answer=3)))
    assert book.labelled and not book.errors
    first, second = book.questions
    assert (first.id, first.passage, first.question) == ("q1", "第1篇：小明放風箏。", "第1題：小明在做什麼？")
    assert first.options == ("釣魚", "放風箏", "睡覺", "讀書") and (first.answer, second.answer) == (2, 3)
    assert (first.row, second.row) == (1, 2)  # lines


def test_belebele_is_converted(tmp_path: Path) -> None:
    file = lines(tmp_path / "zho_Hant.jsonl", *map(belebele, range(1, 11)))
    done = CliRunner().invoke(cli, ["convert", str(file), "--output-dir", str(tmp_path / "data")])
    assert done.exit_code == 0, done.output
    written = [
        record
        for part in ("train", "validation")
        for record in json.loads((tmp_path / "data" / f"zho_Hant_{part}.json").read_text(encoding="utf-8"))
    ]
    assert len(written) == 10 and {record["output"] for record in written} == {"2"}


def test_a_test_file_needs_ids(tmp_path: Path) -> None:
    unanswered = [{key: value for key, value in item(k).items() if key != "answer"} for k in (1, 1)]
    with pytest.raises(DataError, match="row 2: id is q1, which row 1 has too"):
        read_workbook(lines(tmp_path / "a.jsonl", *unanswered))


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ({"question": None}, "row 1: question is empty"),
        ({"question": {"text": "?"}}, "row 1: question is a JSON object, expected text"),
        ({"article": ["一", "二"]}, "row 1: article is a JSON array, expected text"),
        ({"options": ["甲", "", "丙", "丁"]}, "row 1: option2 is empty"),
        ({"options": ["甲", "乙", 3, {}]}, "row 1: option4 is a JSON object, expected text"),
        ({"answer": 5}, "row 1: answer is 5, expected 1 to 4"),
        ({"question": float("nan")}, "row 1: question is nan, which is not text"),
    ],
)
def test_bad_values_are_bad_rows(tmp_path: Path, bad: dict[str, Any], told: str) -> None:
    book = read_workbook(lines(tmp_path / "a.jsonl", item(1, **bad), item(2)))
    assert [question.id for question in book.questions] == ["q2"]
    assert any(told in str(finding) for finding in book.errors), book.errors


@pytest.mark.parametrize(
    "more", [{"choices": ["A", "B", "C", "D"]}, {"option2": "養魚"}], ids=lambda more: next(iter(more))
)
def test_options_in_two_places_are_refused(tmp_path: Path, more: dict[str, Any]) -> None:
    """One of them would replace the other without a word, and the answer may be about the one that is gone."""
    (key,) = more
    with pytest.raises(DataError) as refused:
        read_workbook(lines(tmp_path / "a.jsonl", item(1), item(2, **more)))
    assert str(refused.value) == f"a.jsonl, row 2: options and {key} both hold options; keep one of them"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (list("甲乙丙丁戊己庚辛壬"), "a.jsonl, row 1: options has 9 texts, expected up to 8; remove the others"),
        ("甲乙丙丁", 'a.jsonl: options is not a list; write the options as ["…", "…"]'),
        ({"A": "甲", "C": "乙"}, 'a.jsonl, row 1: options is {"A": "甲", "C": "乙"}, whose labels are not A, B, C'),
        ({"0": "甲", "1": "乙"}, 'a.jsonl, row 1: options is {"0": "甲", "1": "乙"}, whose labels are not A, B, C'),
        ({"A": "甲", "2": "乙"}, "a.jsonl, row 1: options is"),
        ({}, "a.jsonl, row 1: options is {}, whose labels are not A, B, C"),
        ([{"text": "甲", "right": True}], "a.jsonl, row 1: options is"),
        ({"text": ["甲", "乙"], "label": ["A"]}, "a.jsonl, row 1: options is"),
        (
            dict(zip("ABCDEFGHI", "甲乙丙丁戊己庚辛壬", strict=True)),
            "a.jsonl, row 1: options has 9 texts, expected up to 8",
        ),
    ],
)
def test_options_that_are_no_list_of_up_to_eight_are_refused(tmp_path: Path, options: Any, told: str) -> None:
    path = tmp_path / "a.jsonl"
    one = {"id": 1, "passage": "文", "question": "誰？", "options": options}
    path.write_text(json.dumps(one, ensure_ascii=False), encoding="utf-8")
    with pytest.raises(DataError) as refused:
        read_workbook(path)
    assert refused.value.lines()[0].startswith(told)


@pytest.mark.parametrize(
    "choices",
    [
        {"A": "放風箏", "B": "釣魚", "C": "睡覺"},
        {"B": "釣魚", "C": "睡覺", "A": "放風箏"},
        {"甲": "放風箏", "乙": "釣魚", "丙": "睡覺"},
        {"1": "放風箏", "2": "釣魚", "3": "睡覺"},
        {"text": ["放風箏", "睡覺", "釣魚"], "label": ["a", "c", "b"]},
        [{"label": "B", "text": "釣魚"}, {"label": "A", "text": "放風箏"}, {"label": "C", "text": "睡覺"}],
        [{"A": "放風箏"}, {"B": "釣魚"}, {"C": "睡覺"}],
    ],
)
def test_choices_with_labels_are_read_in_the_order_of_these(tmp_path: Path, choices: Any) -> None:
    path = tmp_path / "a.jsonl"
    one = {"id": 1, "passage": "文", "question": "誰？", "choices": choices, "answer": "C"}
    path.write_text(json.dumps(one, ensure_ascii=False), encoding="utf-8")
    (question,) = read_workbook(path).questions
    assert (question.options, question.answer) == (("放風箏", "釣魚", "睡覺"), 3)


def test_half_a_surrogate_pair_is_a_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(item(1, question="\ud83d")) + "\n" + json.dumps(item(2)) + "\n", encoding="utf-8")
    assert ["an unpaired surrogate" in str(error) for error in read_workbook(path).errors] == [True]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"[1]\n", "a.jsonl, line 1: is not a JSON object; write one object a line"),
        (b'{"question": "?"}\n{"question"\n', "a.jsonl, line 2: not JSON"),
        (b"[" * 100_000, "a.jsonl, line 1: not JSON"),
        (b'{"a": "' + b"x" * (1 << 20) + b'"}', "a.jsonl, line 1: longer than 1,048,576 characters"),
        ('{"問題": "?"}'.encode("cp950"), "a.jsonl, near line 1: not UTF-8"),
        (b"", "a.jsonl: no rows, not even a header"),
        (b'{"question": "?", "options": ["a", "b"]}', "a.jsonl: no column 文章"),
        (json.dumps({"context": "p", "question": "?", "options": list("abcdefghi")}).encode(), "options has 9 texts"),
    ],
)
def test_files_that_are_not_json_objects_are_refused(tmp_path: Path, text: bytes, told: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(text)
    with pytest.raises(DataError) as refused:
        read_workbook(path)
    assert told in str(refused.value)


def test_blank_lines_and_a_byte_order_mark_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f"\n{json.dumps(item(1))}\n\n{json.dumps(item(2))}\n\n", encoding="utf-8-sig")
    assert [question.row for question in read_workbook(path).questions] == [2, 4]


def passage(number: int, **changes: Any) -> dict[str, Any]:
    """A passage with two questions, as RACE's own files have it."""
    shared = {"id": f"high{number}.txt", "article": f"第{number}篇：小明放風箏。"}
    asked = {"questions": ["小明在做什麼？", "誰在放風箏？"], "options": [["釣魚", "放風箏"], ["小明", "小華"]]}
    return {**shared, **asked, "answers": ["B", "A"], **changes}


def array(path: Path, *items: Any) -> Path:
    path.write_text(json.dumps(items, ensure_ascii=False, indent=1), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", [item, belebele])
def test_an_array_of_objects_is_the_same_table(tmp_path: Path, kind: Callable[[int], dict[str, Any]]) -> None:
    items = [kind(number) for number in range(1, 11)]
    by_line, whole = lines(tmp_path / "a.jsonl", *items), array(tmp_path / "a.json", *items)
    assert read_questions(whole).questions == read_workbook(by_line).questions  # rows as well
    assert read_records(whole) == read_records(by_line)
    for file in (by_line, whole):
        done = CliRunner().invoke(cli, ["convert", str(file), "--output-dir", str(tmp_path / f"data{file.suffix}")])
        assert done.exit_code == 0, done.output
    one, other = (sorted((tmp_path / f"data.{suffix}").glob("a_*n.json")) for suffix in ("jsonl", "json"))
    assert len(one) == 2 and [file.read_bytes() for file in one] == [file.read_bytes() for file in other]


def test_an_array_of_objects_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check([array(tmp_path / "good.json", item(1), item(2))])
    assert not check([array(tmp_path / "bad.json", item(1), item(2, answer=5), item(3))], as_json=True)
    printed = capsys.readouterr().out
    assert "labelled json" in printed
    (found,) = json.loads(printed[printed.index("{") :])["files"]
    assert (found["kind"], found["rows"], found["questions"]) == ("json", 3, 2)
    assert "bad.json, row 2: answer is 5, expected 1 to 4; correct it, or add the option that is missing" in [
        finding["line"] for finding in found["findings"]
    ]


@pytest.mark.parametrize(
    ("items", "told"),
    [
        ([item(1), [1]], "a.json, element 2: is not a JSON object"),
        ([item(1, answer=9)], "a.json, row 1: answer is 9"),
        ([{"messages": [{"role": "user"}]}], "a.json: records of messages; write them as instruction, input"),
        ([{"foo": 1}], "a.json: no column 文章, only foo"),
    ],
)
def test_what_is_wrong_in_an_array_has_its_place(tmp_path: Path, items: list[Any], told: str) -> None:
    with pytest.raises(DataError) as refused:
        read_records(array(tmp_path / "a.json", *items))
    assert told in str(refused.value)


@pytest.mark.parametrize("write", [lines, array])
def test_a_passage_with_lists_is_a_row_for_each_question(tmp_path: Path, write: Callable[..., Path]) -> None:
    path = write(tmp_path / ("a.json" if write is array else "a.jsonl"), passage(1), passage(2))
    book = read_questions(path)
    assert book.labelled and not book.errors
    assert [question.id for question in book.questions] == ["high1.txt-1", "high1.txt-2", "high2.txt-1", "high2.txt-2"]
    assert [question.row for question in book.questions] == [1, 2, 3, 4]
    second = book.questions[1]
    assert (second.passage, second.question, second.options) == (
        "第1篇：小明放風箏。",
        "誰在放風箏？",
        ("小明", "小華"),
    )
    assert [question.answer for question in book.questions] == [2, 1, 2, 1]


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ({"answers": ["B"]}, "row 3: answer is empty"),
        ({"answers": ["B", "A", "A"]}, "row 4: question is empty"),
        ({"options": [["釣魚", "放風箏"]]}, "row 3: option1 is empty"),
        ({"options": None}, "row 2: option1 is empty"),
        ({"questions": [], "options": [], "answers": []}, "row 2: question is empty"),
    ],
)
def test_nothing_of_a_passage_with_lists_is_lost(tmp_path: Path, bad: dict[str, Any], told: str) -> None:
    book = read_workbook(lines(tmp_path / "a.jsonl", item(1, options=["甲", "乙"]), passage(2, **bad), passage(3)))
    assert any(told in str(finding) for finding in book.errors), book.errors
    assert {"q1", "high3.txt-1", "high3.txt-2"} <= {question.id for question in book.questions}
