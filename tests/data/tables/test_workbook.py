"""A workbook or a CSV becomes questions, and every row is accounted for."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from workbooks import LABELLED, TEST, row, test_row, write_csv, write_xlsx

from lrc.data.questions import Question
from lrc.data.tables.workbook import Workbook, read_workbook
from lrc.runtime.errors import DataError

SHARED = Path(os.environ.get("LRC_SHARED_DATA", Path(__file__).parents[4] / "shared" / "data"))


def kinds(book: Workbook, level: str) -> list[tuple[str, int | None, str | None]]:
    return [(finding.kind, finding.row, finding.column) for finding in book.findings if finding.level == level]


def refusal(path: Path, sheet: str | None = None) -> str:
    with pytest.raises(DataError) as refused:
        read_workbook(path, sheet)
    return str(refused.value)


@pytest.mark.parametrize("suffix", [".xlsx", ".csv"])
def test_labelled(tmp_path: Path, suffix: str) -> None:
    write = write_xlsx if suffix == ".xlsx" else write_csv
    book = read_workbook(write(tmp_path / f"a{suffix}", [row(7), row(8, 選項2=26, 正確答案=2)]))
    assert book.labelled and book.rows_read == 2 and not book.findings
    assert book.questions[1] == Question(
        id="8",
        passage="第8篇文章：小明在公園裡放風箏。",
        question="第8題：小明在做什麼？",
        options=("放風箏", "26", "睡覺", "讀書"),
        answer=2,
        row=3,
    )


def test_every_row_of_a_test_workbook_is_kept(tmp_path: Path) -> None:
    rows = [
        test_row("007", 選項2=None, 選項4=None),
        test_row(8, 選項1=None, 選項2=" ", 選項3=None, 選項4=None),
        test_row(9, 文章=None),
    ]
    book = read_workbook(write_xlsx(tmp_path / "t.xlsx", rows, TEST))
    assert not book.labelled and not book.errors
    assert [question.id for question in book.questions] == ["007", "8", "9"]
    assert book.questions[0].options == ("放風箏", "", "睡覺")
    assert {
        ("empty-option", 2, "選項2"),
        ("fewer-options", 2, None),
        ("no-options", 3, None),
        ("empty-passage", 4, "文章"),
    } <= set(kinds(book, "warning"))


def test_bad_rows_are_named_and_left_out(tmp_path: Path) -> None:
    rows = [
        row(1),
        row(2, 選項2=None),
        row(3, 正確答案=5),
        row(4, 正確答案=None),
        row(5, 文章="\u200b "),
        row(6, 問題=None, 正確答案="選項"),
        row(7),
    ]
    book = read_workbook(write_xlsx(tmp_path / "a.xlsx", rows))
    assert [question.row for question in book.questions] == [2, 8]
    assert kinds(book, "error") == [
        ("empty-option", 3, "選項2"),
        ("impossible-answer", 4, "正確答案"),
        ("empty-answer", 5, "正確答案"),
        ("empty-passage", 6, "文章"),
        ("empty-question", 7, "問題"),
        ("impossible-answer", 7, "正確答案"),
    ]
    assert str(book.errors[1]).startswith("a.xlsx, row 4: 正確答案 is 5, expected 1 to 4; correct it")


def test_answers_as_people_write_them_are_counted(tmp_path: Path) -> None:
    answers = ["選項3", "３", "3.0", "C", "3", 3]
    book = read_workbook(write_xlsx(tmp_path / "a.xlsx", [row(n, 正確答案=a) for n, a in enumerate(answers)]))
    assert {question.answer for question in book.questions} == {3}
    assert Counter(finding.kind for finding in book.findings) == {"answer": 4}


def test_text_that_looks_like_a_missing_value_is_kept(tmp_path: Path) -> None:
    rows = [row(1, 選項1="NA", 選項2="None", 選項3="null", 選項4="#N/A ")]
    for path in (write_xlsx(tmp_path / "a.xlsx", rows), write_csv(tmp_path / "a.csv", rows)):
        assert read_workbook(path).questions[0].options == ("NA", "None", "null", "#N/A")


def test_option_columns_empty_in_every_row_are_absent(tmp_path: Path) -> None:
    book = read_workbook(write_xlsx(tmp_path / "a.xlsx", [row(1, 選項4=None), row(2, 選項4=None)]))
    assert [len(question.options) for question in book.questions] == [3, 3]
    assert kinds(book, "repair") == [("empty-column", None, "選項4")]


def test_answer_beyond_the_options_that_are_left(tmp_path: Path) -> None:
    book = read_workbook(write_xlsx(tmp_path / "a.xlsx", [row(1, 選項4=None, 正確答案=4)]))
    assert str(book.errors[0]).endswith("正確答案 is 4, expected 1 to 3; correct it, or add the option that is missing")


def test_two_to_eight_options(tmp_path: Path) -> None:
    headers = ["文章", "問題", *(f"選項{n}" for n in range(1, 9)), "正確答案"]
    path = write_xlsx(tmp_path / "a.xlsx", [["文", "問", *"甲乙丙丁戊己庚辛", "H"]], headers)
    assert read_workbook(path).questions[0] == Question("2", "文", "問", tuple("甲乙丙丁戊己庚辛"), 8, 2)


def test_empty_rows_are_reported_between_questions_but_not_at_the_end(tmp_path: Path) -> None:
    book = read_workbook(write_xlsx(tmp_path / "a.xlsx", [row(1), [None, " "], row(2), [" "]]))
    assert [question.row for question in book.questions] == [2, 4]
    assert kinds(book, "repair") == [("empty-row", 3, None)]


def test_a_gap_of_many_empty_rows_is_one_finding(tmp_path: Path) -> None:
    rows = [row(1), [None], row(2), *[[None]] * 2000, row(3)]
    book = read_workbook(write_csv(tmp_path / "a.csv", rows))
    assert [question.row for question in book.questions] == [2, 4, 2005]
    gaps = [str(one) for one in book.findings if one.kind == "empty-row"]
    assert gaps == ["a.csv, row 3: empty row; skipped", "a.csv, row 5: the first of 2,000 empty rows; skipped"]


def test_same_question_with_different_answers(tmp_path: Path) -> None:
    rows = [
        row(1),
        row(2),
        row(1, 文章="第1篇文章：小明在公園裡放風箏。 ", 選項1="釣魚", 選項2="放風箏", 正確答案=2),  # agrees
        row(1, 正確答案=2),
    ]
    book = read_workbook(write_xlsx(tmp_path / "a.xlsx", rows))
    assert kinds(book, "error") == [("conflicting-answers", n, "正確答案") for n in (2, 4, 5)]
    assert [question.row for question in book.questions] == [3]


def test_missing_and_doubled_ids_refuse_a_test_workbook(tmp_path: Path) -> None:
    rows = [test_row(1), test_row(2, 題號=None), test_row("1")]
    message = refusal(write_xlsx(tmp_path / "t.xlsx", rows, TEST))
    assert message.splitlines() == [
        "t.xlsx, row 3: 題號 is empty; a test workbook needs an ID in every row",
        "t.xlsx, row 4: 題號 is 1, which row 2 has too; give each row its own",
    ]


def test_labelled_ids_may_repeat_or_be_absent(tmp_path: Path) -> None:
    path = write_xlsx(tmp_path / "a.xlsx", [row(1), row(1, 問題="別的？"), row(1, ID=None, 問題="又？")])
    assert [question.id for question in read_workbook(path).questions] == ["1", "1", "4"]


def test_an_empty_answer_column_makes_a_test_workbook(tmp_path: Path) -> None:
    book = read_workbook(write_xlsx(tmp_path / "a.xlsx", [row(1, 正確答案=None), row(2, 正確答案=" ")]))
    assert not book.labelled and len(book.questions) == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [("missing.xlsx", "No such file"), ("a.docx", "not a workbook"), ("missing.csv", "No such file")],
)
def test_files_that_are_not_workbooks_are_refused(tmp_path: Path, name: str, message: str) -> None:
    assert message in refusal(tmp_path / name)


def test_no_rows(tmp_path: Path) -> None:
    assert "no rows below the header" in refusal(write_xlsx(tmp_path / "a.xlsx", []))
    assert "not even a header" in refusal(write_csv(tmp_path / "a.csv", [], headers=[]))


def test_findings_are_ordered_by_row(tmp_path: Path) -> None:
    rows = [row(n, 選項2=None if n % 2 else "同", 選項3="同", 文章=f" {n}") for n in range(1, 9)]
    places = [finding.row or 0 for finding in read_workbook(write_xlsx(tmp_path / "a.xlsx", rows)).findings]
    assert places == sorted(places) and len(places) > 8


@pytest.mark.skipif(not (SHARED / "AI.xlsx").exists(), reason="the real workbooks are not here")
def test_the_real_labelled_workbook() -> None:
    book = read_workbook(SHARED / "AI.xlsx")
    assert (book.rows_read, len(book.questions), book.labelled) == (13550, 13549, True)
    assert kinds(book, "error") == [("empty-option", 1901, "選項2")]
    rows: dict[str, set[int]] = {}
    for finding in book.findings:
        rows.setdefault(finding.kind, set()).add(finding.row or 0)
    assert {kind: len(found) for kind, found in rows.items()} == {
        "empty-option": 1,
        "answer": 44,
        "enumeration": 1,
        "control": 3,
        "entity": 24,
        "formula": 1,
        "percent-format": 1,
        "white-space": 3944,
        "zero-width": 4,
        "unread-columns": 1,
        "ambiguous-answer": 3,
        "date-serial": 22,
        "ditto-passage": 1,
        "duplicate-option": 8,
        "fraction-lost": 1,
        "percent-lost": 69,
        "time-serial": 3,
    }
    assert rows["control"] == {2995, 2996, 3004} and rows["ditto-passage"] == {304}
    by_row = {question.row: question for question in book.questions}
    assert by_row[10].options == ("26", "27", "28", "29")
    assert by_row[2054].options[1] == "69000000"
    assert by_row[3073].options == ("15%", "10%", "12.59%", "12%")
    assert "_x0000_" not in by_row[2995].passage and "\x00" not in by_row[2995].passage
    assert by_row[582].answer == 1 and by_row[1752].answer == 2


@pytest.mark.skipif(not (SHARED / "AI1000.xlsx").exists(), reason="the real workbooks are not here")
def test_the_real_test_workbook() -> None:
    book = read_workbook(SHARED / "AI1000.xlsx")
    assert (book.rows_read, len(book.questions), book.labelled, book.errors) == (1000, 1000, False, ())
    question = next(question for question in book.questions if question.row == 102)
    assert question.id == "19675519" and len(question.options) == 3 and question.choosable == (1, 2, 3)
    assert ("fewer-options", 102, None) in kinds(book, "warning")


def test_headers_of_the_factories_agree() -> None:
    assert len(row()) == len(LABELLED) and len(test_row()) == len(TEST)
