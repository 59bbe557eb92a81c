"""The columns are found by their headers, as people write them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from lrc.data.tables.headers import Columns, find_header
from lrc.data.tables.table import NO_FINDINGS, Table, TableRow
from lrc.runtime.errors import DataError


def find(headers: Sequence[str], others: tuple[str, ...] = ()) -> Columns:
    table = Table("a.xlsx", "表", others, iter(()))
    return find_header(table, [TableRow(1, list(headers), NO_FINDINGS)]).columns


def refusal(headers: Sequence[str], others: tuple[str, ...] = ()) -> list[str]:
    with pytest.raises(DataError) as refused:
        find(headers, others)
    return list(refused.value.lines())


@pytest.mark.parametrize(
    "headers",
    [
        ("ID", "文章", "問題", "選項1", "選項2", "正確答案"),
        ("題號", " 文章 ", "問\n題", "選項 １", "選項\u3000２", "正確答案："),
        ("id", "文章", "问题", "选项1", "选项2", "正确答案"),
        ("题号", "\ufeff文章", "問題", "選項一", "選項二", "答案"),
        ("Id", "Passage", "Question", "Option 1", "option 2", "Answer"),
        ("ID", "文章", "問題", "選項A", "選項B", "正確答案"),
        ("id", "passage", "question", "A", "B", "answer"),
        ("id", "flores_passage", "question", "mc_answer1", "mc_answer2", "correct_answer_num"),
    ],
)
def test_ways_to_write_them(headers: Sequence[str]) -> None:
    columns = find(headers)
    assert (columns.id, columns.passage, columns.question, columns.options, columns.answer) == (
        0,
        1,
        2,
        (3, 4),
        5,
    )


def test_any_order_with_others_between() -> None:
    columns = find(["選項2", "來源", "問題", "選項1", "文章"])
    assert (columns.options, columns.passage, columns.answer, columns.id) == ((3, 0), 4, None, None)


def test_a_column_of_one_letter_is_an_option_only_where_no_other_is() -> None:
    assert find(["A", "文章", "問題", "選項1", "選項2", "B"]).options == (3, 4)


def test_doubled() -> None:
    (line,) = refusal(["文章", "問題", "選項1", "選項 １", "選項2"])
    assert line == "a.xlsx, row 1: 選項1 and 選項１ are both 選項1; keep one of them"


def test_missing() -> None:
    lines = refusal(["文章", "選項1", "選項2", "選項4"], others=("另一頁",))
    assert [line.partition(",")[2].partition(",")[0] for line in lines] == [
        " row 1: no column 問題",
        " row 1: no column 選項3",
    ]
    assert "--sheet: 另一頁" in lines[0]


def test_options_that_count_from_zero() -> None:
    fault = refusal(["文章", "問題", "選項0", "選項1", "選項2"])[0]
    assert fault.endswith("options 0 to 2 count from 0; call them 1 to 3")


@pytest.mark.parametrize("number", [9, 999])
def test_options_out_of_range(number: int) -> None:
    assert "expected 1 to 8" in refusal(["文章", "問題", "選項1", "選項2", f"選項{number}"])[0]


def test_one_option_is_not_enough() -> None:
    assert "no column 選項2" in refusal(["文章", "問題", "選項1"])[0]


def test_a_header_of_two_roles_has_neither() -> None:
    columns = find(("文章", "問題/Question", "選項1", "選項2", "題目／答案"))
    assert columns.question == 1 and columns.answer is None
    assert "no column 問題; is it" in refusal(["文章", "題目／答案", "選項1", "選項2"])[0]
