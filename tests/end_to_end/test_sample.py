"""The sample workbooks: enough of everything, in Traditional Chinese, and what their source says."""

from __future__ import annotations

import io
import runpy
from collections import Counter
from pathlib import Path
from typing import Any

import openpyxl
import pytest
import yaml

from lrc.data.tables.workbook import read_workbook

EXAMPLES = Path(__file__).parents[2] / "examples"
PASSAGES = yaml.safe_load((EXAMPLES / "sample_questions.yaml").read_text(encoding="utf-8"))
BUILDER = runpy.run_path(str(EXAMPLES / "build_sample.py"))


def questions(part: str) -> list[dict[str, Any]]:
    return [item for passage in PASSAGES[part] for item in passage["questions"]]


def rows(name: str) -> list[dict[str, Any]]:
    header, *body = openpyxl.load_workbook(EXAMPLES / name).active.iter_rows(values_only=True)
    return [dict(zip(header, row, strict=True)) for row in body]


@pytest.mark.parametrize("name", ["sample.xlsx", "sample_test.xlsx"])
def test_the_committed_workbook_is_what_the_source_builds(name: str) -> None:
    assert BUILDER["build_all"]()[name] == (EXAMPLES / name).read_bytes()


@pytest.mark.parametrize(("part", "passages", "asked"), [("sample", 30, 72), ("test", 5, 12)])
def test_there_is_enough_to_learn_from(part: str, passages: int, asked: int) -> None:
    texts = [passage["passage"] for passage in PASSAGES[part]]
    assert len(set(texts)) == len(texts) >= passages
    assert all(60 <= len(text) <= 220 for text in texts)
    assert all(2 <= len(passage["questions"]) <= 3 for passage in PASSAGES[part])
    assert len(questions(part)) >= asked


def test_the_test_passages_are_not_among_the_sample_passages() -> None:
    texts = [{passage["passage"] for passage in PASSAGES[part]} for part in ("sample", "test")]
    assert not texts[0] & texts[1]


@pytest.mark.parametrize("part", ["sample", "test"])
def test_every_answer_position_is_right_equally_often(part: str) -> None:
    counts = Counter(item["answer"] for item in questions(part))
    assert counts == dict.fromkeys((1, 2, 3, 4), len(questions(part)) // 4)


@pytest.mark.parametrize("part", ["sample", "test"])
def test_every_question_has_four_different_options(part: str) -> None:
    assert all(len({str(option) for option in item["options"]}) == 4 for item in questions(part))


def test_the_text_is_traditional_chinese() -> None:
    # Big5 holds the characters in use in Taiwan; simplified forms that differ from them have no code in it.
    (EXAMPLES / "sample_questions.yaml").read_text(encoding="utf-8").encode("big5")


def test_the_workbook_has_the_columns_and_rows_of_its_source() -> None:
    labelled, unlabelled = rows("sample.xlsx"), rows("sample_test.xlsx")
    options = [f"選項{number}" for number in (1, 2, 3, 4)]
    assert list(labelled[0]) == ["ID", "文章", "問題", *options, "正確答案", "資料來源"]
    assert list(unlabelled[0]) == ["題號", "文章", "問題", *options]
    for written, part in ((labelled, "sample"), (unlabelled, "test")):
        asked = [item["question"] for item in questions(part)]
        assert [row["問題"].strip("\t\u200b") for row in written] == asked


def test_plain_overlap_with_the_passage_does_not_give_the_answer_away() -> None:
    def only_the_right_option_is_in(passage: str, item: dict[str, Any]) -> bool:
        found = [str(option) in passage for option in item["options"]]
        return found[item["answer"] - 1] and sum(found) == 1

    given_away = [
        only_the_right_option_is_in(p["passage"], item) for p in PASSAGES["sample"] for item in p["questions"]
    ]
    assert sum(given_away) < len(given_away) / 5


def test_every_untidy_cell_differs_from_its_source() -> None:
    for part, header, untidy in (
        ("sample", "LABELLED", "UNTIDY_SAMPLE"),
        ("test", "UNLABELLED", "UNTIDY_TEST"),
    ):
        books = [BUILDER["build"](PASSAGES[part], BUILDER[header], cells) for cells in (BUILDER[untidy], {})]
        dirty, clean = (openpyxl.load_workbook(io.BytesIO(book)).active for book in books)
        columns = BUILDER[header]
        cells = [(row, columns.index(column) + 1) for row, column in BUILDER[untidy]]
        assert all(dirty.cell(*place).value != clean.cell(*place).value for place in cells)


def test_a_percentage_is_a_formatted_number() -> None:
    sheet = openpyxl.load_workbook(EXAMPLES / "sample.xlsx").active
    formats = {
        cell.value: cell.number_format for row in sheet.iter_rows() for cell in row if cell.number_format != "General"
    }
    assert formats == dict.fromkeys((0.49, 0.21, 0.35, 0.98), "0%")


@pytest.mark.parametrize(("name", "part"), [("sample.xlsx", "sample"), ("sample_test.xlsx", "test")])
def test_the_untidy_cells_are_repaired_into_what_the_source_says(name: str, part: str) -> None:
    def text(value: object) -> str:
        shown = f"{value:.0%}" if isinstance(value, float) and value < 1 else str(value)
        return "".join(shown.split())

    source = [
        (text(passage["passage"]), text(item["question"]), [text(option) for option in item["options"]])
        for passage in PASSAGES[part]
        for item in passage["questions"]
    ]
    found = read_workbook(EXAMPLES / name).questions
    read = [(text(q.passage), text(q.question), [text(option) for option in q.options]) for q in found]
    assert read == source
    if part == "sample":
        assert [question.answer for question in found] == [item["answer"] for item in questions(part)]
