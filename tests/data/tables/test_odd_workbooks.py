"""Workbooks as schools have them. What each asks was written down by hand, looking at the sheet."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from openpyxl import Workbook, load_workbook
from openpyxl.cell.rich_text import CellRichText, TextBlock
from openpyxl.cell.text import InlineFont
from openpyxl.styles import Font
from openpyxl.worksheet.worksheet import Worksheet
from workbooks import replace_part, write_xlsx

from lrc.data.tables.workbook import read_workbook
from lrc.runtime.errors import DataError
from lrc.runtime.translation import CHINESE, localized

Asked = tuple[int, str, str, str, int | None]  # row, passage, question, options with / between them, answer
Sheet = dict[str, list[list[Any]]]

HEADER = ["ID", "文章", "問題", "選項1", "選項2", "選項3", "選項4", "正確答案"]
KITE, LIBRARY = "小明在公園放風箏。", "圖書館週一休館。"
ONE = [1, KITE, "誰放風箏？", "小明", "小華", "老師", "爸爸", 1]
TWO = [2, LIBRARY, "哪天休館？", "週日", "週一", "週二", "週三", 2]
ASKED_1: Asked = (2, KITE, "誰放風箏？", "小明/小華/老師/爸爸", 1)
ASKED_2: Asked = (3, LIBRARY, "哪天休館？", "週日/週一/週二/週三", 2)


def below(asked: Asked, rows: int) -> Asked:
    """The same question so many rows further down."""
    return (asked[0] + rows, *asked[1:])


def unlabelled(asked: Asked) -> Asked:
    return (*asked[:4], None)


def write(path: Path, cells: Sequence[Sequence[Any]], merged: Sequence[str] = (), **hidden: Any) -> Path:
    book = Workbook()
    sheet = book.active
    assert isinstance(sheet, Worksheet)
    for row in cells:
        sheet.append(list(row))
    for area in merged:
        sheet.merge_cells(area)
    for number in hidden.get("rows", ()):
        sheet.row_dimensions[number].hidden = True
    for letter in hidden.get("columns", ()):
        sheet.column_dimensions[letter].hidden = True
    book.save(path)
    return path


def read(path: Path, **options: Any) -> tuple[list[Asked], list[str]]:
    """What is asked, and the findings' lines with their levels."""
    book = read_workbook(path, **options)
    asked = [(q.row or 0, q.passage, q.question, "/".join(q.options), q.answer) for q in book.questions]
    return asked, [f"{finding.level}: {finding}" for finding in book.findings]


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(DataError) as refused:
        read_workbook(path, **options)
    return str(refused.value)


HEADERS = [
    "ID,短文,題目,選項(1),選項(2),選項(3),選項(4),標準答案",
    "題號,閱讀文章,題幹,A選項,B選項,C選項,D選項,解答",
    "編號,文本,試題,(A),(B),(C),(D),參考答案",
    "序號,課文,題目內容,選項甲,選項乙,選項丙,選項丁,正解",
    "No.,Passage,Question,Choice A,Choice B,Choice C,Choice D,Answer Key",
    "no,Text,Question Stem,Option_1,Option_2,Option_3,Option_4,Correct Answer",
    "ID,文章（Passage）,題目/Question,選項①,選項②,選項③,選項④,正確答案(1-4)",
    "題次,選文,提問,1,2,3,4,Ans.",
    "ID,＊文章,＊問題,【選項１】,【選項２】,【選項３】,【選項４】,答案：",
    "ID,閱讀短文,問句,甲,乙,丙,丁,答",
    "id,context,query,opt1,opt2,opt3,opt4,correct_option",
    "ID,文章,問題,選項Ⅰ,選項Ⅱ,選項Ⅲ,選項Ⅳ,答案",
    "ID,文章,問題,第一個選項,第二個選項,第三個選項,第四個選項,答案",
    "ID,文章,問題,選項壹,選項貳,選項參,選項肆,答案",
    "流水號,篇章,题干,选项A,选项B,选项C,选项D,标准答案",
]


@pytest.mark.parametrize("header", HEADERS)
def test_headers_as_schools_write_them(tmp_path: Path, header: str) -> None:
    path = write(tmp_path / "a.xlsx", [header.split(","), ONE, TWO])
    assert read(path) == ([ASKED_1, ASKED_2], [])


@pytest.mark.parametrize(
    ("above", "said"),
    [
        ([["一○八學年度閱讀測驗"]], ["「一○八學年度閱讀測驗」 is above the header in row 2"]),
        ([["閱讀測驗", None, "2024"], ["命題：王老師"]], ["「閱讀測驗」 is above the header in row 3"]),
        ([[], [None, "文章選自國語日報"], []], ["「文章選自國語日報」 is above the header in row 4"]),
    ],
)
def test_a_title_above_the_header(tmp_path: Path, above: list[list[Any]], said: list[str]) -> None:
    asked, told = read(write(tmp_path / "a.xlsx", [*above, HEADER, ONE, TWO]))
    assert asked == [below(ASKED_1, len(above)), below(ASKED_2, len(above))]
    assert [part in line for part, line in zip(said, told, strict=True)] == [True]


@pytest.mark.parametrize(
    ("upper", "lower", "merged"),
    [
        (["ID", "文章", "問題", "選項", None, None, None, "正確答案"], [None] * 3 + [1, 2, 3, 4], ["D1:G1", "A1:A2"]),
        (["ID", "文章", "問題", "選項", None, None, None, "答案"], [None] * 3 + ["A", "B", "C", "D"], []),
        (["ID", "文章", "問題", "選項", None, None, None, "解答"], ["", "", "", "(A)", "(B)", "(C)", "(D)", ""], []),
        (
            ["試題", None, None, "選項", None, None, None, "答案"],
            ["ID", "文章", "問題", "甲", "乙", "丙", "丁"],
            ["A1:C1"],
        ),
    ],
)
def test_a_header_over_two_rows(tmp_path: Path, upper: list[Any], lower: list[Any], merged: list[str]) -> None:
    asked, told = read(write(tmp_path / "a.xlsx", [upper, lower, ONE, TWO], merged))
    assert asked == [below(ASKED_1, 1), below(ASKED_2, 1)]
    assert told == ["note: a.xlsx: the header spans rows 1 and 2; both were read as one"]


def test_a_repeated_header_is_skipped(tmp_path: Path) -> None:
    english = ["ID", "Passage", "Question", "Option 1", "Option 2", "Option 3", "Option 4", "Answer"]
    asked, told = read(write(tmp_path / "a.xlsx", [HEADER, english, ONE, HEADER, TWO]))
    assert asked == [below(ASKED_1, 1), below(ASKED_2, 2)]
    assert [line for line in told if "is a header again" in line] == [
        "note: a.xlsx, row 2: is a header again; skipped",
        "note: a.xlsx, row 4: is a header again; skipped",
    ]


FOOTERS = [
    [["合計：2題"]],
    [[None, "命題教師：王小明"]],
    [[], ["共 2 題", None, None, None, None, None, None, None]],
    [["總計", None, None, 2]],
    [[None] * 8 + ["印製"]],
    [[None, "資料來源：國語日報"], [None, "以上試題僅供教學使用"]],
    [["Total", 2]],
    [[None, None, "共計", "=COUNTA(D2:D3)"]],
    [[None] * 6 + ["平均", "=AVERAGE(H2:H3)"]],
]


@pytest.mark.parametrize("footer", FOOTERS)
@pytest.mark.parametrize("labelled", [True, False])
def test_a_footer_is_skipped_and_reported(tmp_path: Path, footer: list[list[Any]], labelled: bool) -> None:
    rows = [HEADER, ONE, TWO] if labelled else [HEADER[:7], ONE[:7], TWO[:7]]
    asked, told = read(write(tmp_path / "a.xlsx", [*rows, *footer]))
    assert asked == ([ASKED_1, ASKED_2] if labelled else [unlabelled(ASKED_1), unlabelled(ASKED_2)])
    assert sum("is below the questions; skipped" in line for line in told) == sum(map(bool, footer))


@pytest.mark.parametrize("row", [[3], ["Q-3"], [3, KITE], [None, KITE * 20], [3, KITE, "為什麼？"]])
def test_an_incomplete_question_is_not_a_footer(tmp_path: Path, row: list[Any]) -> None:
    book = read_workbook(write(tmp_path / "a.xlsx", [HEADER, ONE, TWO, row]))
    assert {error.row for error in book.errors} == {4}


@pytest.mark.parametrize(
    "ids", ["第1題 第2題 第3題", "note-5 note-6 note-7", "第九題 第十題 第十一題", "甲 乙 丙", "end-1 total-2 sum-3"]
)
@pytest.mark.parametrize("last", [[], [KITE], ["短文"]])
def test_a_last_row_with_an_id_like_the_others_is_a_question(tmp_path: Path, ids: str, last: list[Any]) -> None:
    names = ids.split()
    rows = [[names[0], *ONE[1:]], [names[1], *TWO[1:]], [names[2], *last]]
    note = "note: a.xlsx, row 5: 「共 3 題」 is below the questions; skipped"
    book = read_workbook(write(tmp_path / "b.xlsx", [HEADER[:7], *(row[:7] for row in rows), ["共 3 題"]]))
    assert [question.id for question in book.questions] == names
    assert [found.row for found in book.findings if found.kind == "no-options"] == [4]
    book = read_workbook(write(tmp_path / "a.xlsx", [HEADER, *rows, ["共 3 題"]]))
    assert {error.row for error in book.errors} == {4} and note in [
        f"{found.level}: {found}" for found in book.findings
    ]


@pytest.mark.parametrize(
    ("heading", "merged"), [(["第二課"], ["A3:H3"]), (["第二課"], []), ([None, None, None, "第二課"], [])]
)
def test_a_heading_between_questions_is_one_bad_row(tmp_path: Path, heading: list[Any], merged: list[str]) -> None:
    book = read_workbook(write(tmp_path / "a.xlsx", [HEADER, ONE, heading, TWO], merged))
    assert list(map(str, book.errors)) == ["a.xlsx, row 3: has only 「第二課」; fill in the rest, or delete the row"]


UNEVEN: list[tuple[list[Any], str, int]] = [
    (["對", "錯", None, None, 2], "對/錯", 2),
    (["甲", "乙", "丙", None, 3], "甲/乙/丙", 3),
    (["甲", "乙", " ", "\u200b", 1], "甲/乙", 1),
]


@pytest.mark.parametrize(("cells", "options", "answer"), UNEVEN)
def test_trailing_blanks_mean_fewer_options(tmp_path: Path, cells: list[Any], options: str, answer: int) -> None:
    asked, told = read(write(tmp_path / "a.xlsx", [HEADER, ONE, [2, KITE, "對嗎？", *cells], TWO]))
    assert asked == [ASKED_1, (3, KITE, "對嗎？", options, answer), below(ASKED_2, 1)]
    assert f"warning: a.xlsx, row 3: has {len(options.split('/'))} options" in told[-1]


def test_two_to_eight_options_in_one_sheet(tmp_path: Path) -> None:
    header = [*HEADER[:3], *(f"選項{n}" for n in range(1, 9)), "正確答案"]
    signs = "甲乙丙丁戊己庚辛"
    rows = [[n, KITE, f"第{n}題", *signs[:n], *[None] * (8 - n), n] for n in range(2, 9)]
    asked, _ = read(write(tmp_path / "a.xlsx", [header, *rows]))
    assert asked == [(n, KITE, f"第{n}題", "/".join(signs[:n]), n) for n in range(2, 9)]


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (["甲", None, "丙", "丁", 1], "選項2 is empty"),
        ([None, "乙", None, None, 2], "選項1 is empty"),
        (["甲", None, None, None, 1], "選項2 is empty"),
        (["甲", "乙", None, None, 3], "正確答案 is 3, expected 1 to 2"),
        ([None, None, None, None, 1], "選項1 is empty"),
    ],
)
def test_a_gap_is_a_bad_row(tmp_path: Path, cells: list[Any], said: str) -> None:
    book = read_workbook(write(tmp_path / "a.xlsx", [HEADER, ONE, [2, KITE, "哪個？", *cells], TWO]))
    assert [question.row for question in book.questions] == [2, 4]
    assert any(f"row 3: {said}" in str(error) for error in book.errors)


def test_a_merged_passage_belongs_to_all_its_rows(tmp_path: Path) -> None:
    rows = [HEADER, ONE, [2, "下面的字看不見", "在哪裡？", "公園", "學校", "家", "店", 1], TWO]
    asked, told = read(write(tmp_path / "a.xlsx", rows, ["B2:B3"]))
    assert asked == [ASKED_1, (3, KITE, "在哪裡？", "公園/學校/家/店", 1), below(ASKED_2, 1)]
    assert told == ["repair: a.xlsx, row 3: 文章 is merged with the cells from row 2 on; its text was taken"]


def test_a_merged_passage_of_a_test_workbook(tmp_path: Path) -> None:
    rows = [HEADER[:7], ONE[:7], [2, None, "在哪裡？", "公園", "學校", "家", "店"]]
    asked, told = read(write(tmp_path / "a.xlsx", rows, ["B2:B3"]))
    assert asked[1] == (3, KITE, "在哪裡？", "公園/學校/家/店", None) and "its text was taken" in told[0]


@pytest.mark.parametrize(("merged", "column"), [("B3:C3", "問題"), ("C2:C3", "問題"), ("H2:H3", "正確答案")])
def test_other_merged_cells_are_bad_rows(tmp_path: Path, merged: str, column: str) -> None:
    book = read_workbook(write(tmp_path / "a.xlsx", [HEADER, ONE, TWO, [3, *TWO[1:]]], [merged]))
    assert [(error.row, error.column, error.kind) for error in book.errors] == [(3, column, "merged-cell")]


@pytest.mark.parametrize(
    "ditto",
    [
        "同上",
        "（同上）",
        "同上題",
        "同前文。",
        "〃",
        "承上題",
        "ditto",
        "Same as above",
        '"',
        "見上文",
        "題組同上",
        "(續上題)",
    ],
)
def test_ditto_is_the_passage_above(tmp_path: Path, ditto: str) -> None:
    rows = [HEADER, ONE, [2, ditto, "在哪裡？", "公園", "學校", "家", "店", 1], [3, ditto, *TWO[2:]], TWO]
    asked, told = read(write(tmp_path / "a.xlsx", rows))
    assert [passage for _, passage, *_ in asked] == [KITE, KITE, KITE, LIBRARY]
    assert [line.split(":")[1] for line in told] == [" a.xlsx, row 3", " a.xlsx, row 4"]


def test_ditto_without_a_row_above_is_a_bad_row(tmp_path: Path) -> None:
    book = read_workbook(write(tmp_path / "a.xlsx", [HEADER, [1, "同上", *ONE[2:]], TWO]))
    assert list(map(str, book.errors)) == [
        "a.xlsx, row 2: 文章 is 同上, but there is no passage above it; put the passage itself there"
    ]


@pytest.mark.parametrize("named", ["同第一篇", "（見第3題）", "參考題組二", "文章A", "same as Q1", "See passage 2."])
def test_the_name_of_a_passage_is_not_a_passage(tmp_path: Path, named: str) -> None:
    path = write(tmp_path / "a.xlsx", [HEADER, ONE, [2, named, *TWO[2:]], TWO])
    book = read_workbook(path)
    assert [question.passage for question in book.questions] == [KITE, LIBRARY]
    text = f"文章 is {named}, which names a passage and is none; put the passage itself there"
    assert list(map(str, book.errors)) == [f"a.xlsx, row 3: {text}"]
    # What only begins so is a text like any other.
    asked, told = read(write(tmp_path / "b.xlsx", [HEADER, [1, "同學們，見第二人。", *ONE[2:]], TWO]))
    assert asked[0][1] == "同學們，見第二人。"
    assert told == []


@pytest.mark.parametrize("header", ["標答", "應選", "對的選項", "Right"])
def test_an_unread_column_with_the_header_and_cells_of_answers_is_refused(tmp_path: Path, header: str) -> None:
    path = write(tmp_path / "a.xlsx", [[*HEADER[:7], header], ONE, TWO])
    assert f"{header} is not read and may hold the answers" in refusal(path)


def test_a_question_at_the_end_that_begins_like_a_footer(tmp_path: Path) -> None:
    last = [None, "平均氣溫是幾度？", "一", "二", "三", "四", 2]
    book = read_workbook(write(tmp_path / "a.xlsx", [HEADER[1:], ONE[1:], TWO[1:], last]))
    assert [(error.row, error.kind) for error in book.errors] == [(4, "empty-passage")]


def test_a_row_with_one_option_lacks_the_second(tmp_path: Path) -> None:
    book = read_workbook(write(tmp_path / "a.xlsx", [HEADER, ONE, [2, KITE, "誰？", "小明", None, None, None, 1]]))
    assert [str(error) for error in book.errors] == ["a.xlsx, row 3: 選項2 is empty; fill it in"]
    assert not any(finding.kind == "fewer-options" for finding in book.findings)


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        (["B. 甲車", "A. 乙車", "C. 丙車", "D. 丁車"], "B"),
        (["A. 甲車", "B. 乙車", "D. 丙車", "E. 丁車"], "D"),
        (["(2)甲車", "(1)乙車", "(3)丙車", "(4)丁車"], 1),
        (["乙、甲車", "甲、乙車", "丙、丙車", "丁、丁車"], "甲"),
    ],
)
def test_answers_by_marks_that_are_out_of_order_are_refused(tmp_path: Path, options: list[str], answer: Any) -> None:
    path = write(tmp_path / "a.xlsx", [HEADER, [1, KITE, "哪一輛？", *options, answer], TWO])
    book = read_workbook(path)
    assert [question.row for question in book.questions] == [3]
    assert [error.kind for error in book.errors] == ["impossible-answer"]
    assert f"is {answer}, the mark before 選項" in str(book.errors[0])
    # The text of an option is no matter of marks, nor is a number beside letters.
    by_text = read(write(tmp_path / "b.xlsx", [HEADER, [1, KITE, "哪一輛？", *options, options[2]], TWO]))[0]
    assert by_text[0][4] == 3


@pytest.mark.parametrize("nothing", ["-", "N/A", "nan", "／", "null"])
def test_placeholders_are_reported(tmp_path: Path, nothing: str) -> None:
    rows = [HEADER, ONE, [2, LIBRARY, "開館嗎？", "開", "不開", "不知道", nothing, 2]]
    told = read(write(tmp_path / "a.xlsx", rows))[1]
    assert told == [f"warning: a.xlsx, row 3: 選項4 is {nothing}; leave the cell empty if nothing is meant"]
    signs = [HEADER, ONE, [2, LIBRARY, "用哪個標點？", "，", "。", "、", "！", 2]]
    assert read(write(tmp_path / "b.xlsx", signs))[1] == []


def test_a_last_option_none_is_an_option_but_two_are_placeholders(tmp_path: Path) -> None:
    one = [HEADER, ONE, [2, LIBRARY, "開館到幾點？", "五點", "六點", "七點", "無", 4]]
    asked, told = read(write(tmp_path / "a.xlsx", one))
    assert asked[1][3] == "五點/六點/七點/無" and told == []
    two = [HEADER, ONE, [2, LIBRARY, "開館到幾點？", "五點", "六點", "無", "無", 1]]
    told = read(write(tmp_path / "b.xlsx", two))[1]
    assert "warning: b.xlsx, row 3: 選項3 is 無; leave the cell empty if nothing is meant" in told


def test_a_question_as_above_takes_the_one_above(tmp_path: Path) -> None:
    rows = [HEADER, ONE, [2, LIBRARY, "同上", "開", "不開", "不知道", "看情形", 2]]
    asked, told = read(write(tmp_path / "a.xlsx", rows))
    assert asked[1][2] == ONE[2] and asked[1][1] == LIBRARY
    assert told == ["warning: a.xlsx, row 3: 問題 is 同上; the question of row 2 was taken"]
    first = [HEADER, [1, KITE, "承上題", "甲", "乙", "丙", "丁", 1], TWO]
    book = read_workbook(write(tmp_path / "b.xlsx", first))
    assert [str(error) for error in book.errors] == [
        "b.xlsx, row 2: 問題 is 承上題, but there is no question above it; put the question itself there"
    ]


@pytest.mark.parametrize("ditto", ["同Q001", "見 T-17", "如12"])
def test_a_passage_that_names_another_row_is_not_a_passage(tmp_path: Path, ditto: str) -> None:
    rows = [HEADER, ONE, [2, ditto, "開館嗎？", "開", "不開", "不知道", "看情形", 2]]
    (error,) = read_workbook(write(tmp_path / "a.xlsx", rows)).errors
    assert error.row == 3 and f"文章 is {ditto}, which names a passage and is none" in str(error)


@pytest.mark.parametrize("code", ["yyyy/m/d", 'm"月"d"日"', "[$-404]e/m/d"])
def test_an_answer_that_became_a_date_says_which_format_to_give_it(tmp_path: Path, code: str) -> None:
    def change(sheet: Worksheet) -> None:
        sheet["H3"].number_format = code

    path = write_xlsx(tmp_path / "a.xlsx", [ONE, TWO], HEADER, change)
    (error,) = read_workbook(path).errors
    assert error.row == 3 and error.column == "正確答案" and "1" in error.text
    assert error.text.endswith("give its cell the format General, or type the number of the right option as text")


def test_an_id_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    rows = [HEADER, ["=ROW()", *ONE[1:]], TWO]
    book = read_workbook(write(tmp_path / "a.xlsx", rows))
    assert [question.id for question in book.questions] == ["2", str(TWO[0])]
    assert [str(found) for found in book.findings] == [
        "a.xlsx, row 2: ID is a formula without a stored value; the number of the row was taken"
    ]


def test_rows_and_columns_of_size_zero_are_hidden(tmp_path: Path) -> None:
    def narrow(sheet: bytes) -> bytes:
        sheet = re.sub(rb"<cols>.*?</cols>", b"", sheet)
        columns = b'<cols><col min="3" max="3" width="0" customWidth="1"/></cols><sheetData>'
        return sheet.replace(b"<sheetData>", columns).replace(b'<row r="3"', b'<row r="3" ht="0" customHeight="1"')

    path = replace_part(write(tmp_path / "a.xlsx", [HEADER, ONE, TWO]), "xl/worksheets/sheet1.xml", narrow)
    kinds = {(found.kind, found.row, found.column) for found in read_workbook(path).findings}
    assert kinds == {("hidden-column", None, "問題"), ("hidden-row", 3, None)}


def test_a_signature_below_the_table_is_a_footer(tmp_path: Path) -> None:
    rows = [HEADER, ONE, TWO, [None, None, "審題：林老師"]]
    asked, told = read(write(tmp_path / "a.xlsx", rows))
    assert len(asked) == 2 and told == ["note: a.xlsx, row 4: 「審題：林老師」 is below the questions; skipped"]


def test_struck_text_is_reported(tmp_path: Path) -> None:
    rich = CellRichText("小明在", TextBlock(InlineFont(strike=True), "學校"), "公園放風箏。")
    path = write(tmp_path / "a.xlsx", [HEADER, [1, rich, *ONE[2:]], TWO])
    asked, told = read(path)
    assert asked[0][1] == "小明在學校公園放風箏。"
    assert told == [
        "warning: a.xlsx, row 2: 文章 has text that is struck through and was read: 小明在學校公園放風箏。; "
        "delete it if it is not meant"
    ]
    book = load_workbook(path, rich_text=False)
    book.active["D3"].font = Font(strike=True)  # type: ignore[index]
    book.save(path)
    assert [line.partition(" has")[0] for line in read(path)[1]] == ["warning: a.xlsx, row 3: 選項1"]


ANSWERS = ["答案卷", "老師的答案", "解析", "詳解", "Key", "final answer", "正確選項的代號", "label", "解答說明", "gold"]


@pytest.mark.parametrize("header", ANSWERS)
def test_unread_columns_that_may_hold_the_answers_are_refused(tmp_path: Path, header: str) -> None:
    path = write(tmp_path / "a.xlsx", [[*HEADER[:7], header], ONE, TWO])
    assert refusal(path) == (
        f"a.xlsx, row 1: {''.join(header.split())} is not read and may hold the answers; "
        f"give --columns 正確答案={''.join(header.split())}, or remove the column"
    )
    assert read(path, columns={"正確答案": header})[0] == [ASKED_1, ASKED_2]


def test_answers_in_an_unread_column_are_found_despite_an_empty_answer_column(tmp_path: Path) -> None:
    rows = [[*HEADER, "標準答案"], [*ONE[:7], None, 1], [*TWO[:7], None, 2]]
    assert "標準答案 is not read and may hold the answers" in refusal(write(tmp_path / "a.xlsx", rows))


@pytest.mark.parametrize("header", ["備註", None])
def test_an_unread_column_with_texts_of_options_is_refused(tmp_path: Path, header: str | None) -> None:
    rows = [[*HEADER[:7], header], [*ONE[:7], "小明"], [*TWO[:7], "週一"]]
    said = refusal(write(tmp_path / "a.xlsx", rows))
    assert f"{header or 'column H'} is not read, and its cells are the texts of options" in said


@pytest.mark.parametrize("answers", [(1, 2), ("A", "B"), ("(1)", "(2)"), ("②", "①")])
def test_an_unread_column_of_answers_without_a_header(tmp_path: Path, answers: tuple[Any, Any]) -> None:
    path = write(tmp_path / "a.xlsx", [HEADER[:7], [*ONE[:7], answers[0]], [*TWO[:7], answers[1]]])
    assert "column H is not read and may hold the answers; give --columns 正確答案=column_H" in refusal(path)
    if answers == (1, 2):
        for name in ("column H", "column_H", "H 欄"):
            assert read(path, columns={"正確答案": name})[0] == [ASKED_1, ASKED_2]


def test_an_unread_column_with_numbers_of_options_warns(tmp_path: Path) -> None:
    asked, told = read(write(tmp_path / "a.xlsx", [[*HEADER[:7], "代號"], ONE, TWO]))
    assert asked == [unlabelled(ASKED_1), unlabelled(ASKED_2)]
    assert any("代號 is not read and has 1, 2; if these are the answers" in line for line in told)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("選項J", "選項J looks like an option"),
        ("E", "E looks like an option"),
        ("選項壬", "選項壬 looks like an option"),
    ],
)
def test_an_unread_option_is_refused(tmp_path: Path, header: str, said: str) -> None:
    rows = [
        [*HEADER[:3], "選項A", "選項B", "選項C", "選項D", header, "正確答案"],
        [*ONE[:7], "媽媽", 1],
        [*TWO[:7], "週四", 2],
    ]
    assert said in refusal(write(tmp_path / "a.xlsx", rows))


@pytest.mark.parametrize(
    ("header", "role"),
    [("文章2", "文章"), ("文章（下）", "文章"), ("短文二", "文章"), ("問題2", "問題"), ("passage 2", "文章")],
)
def test_an_unread_part_of_a_text_is_refused(tmp_path: Path, header: str, role: str) -> None:
    path = write(tmp_path / "a.xlsx", [[*HEADER, header], [*ONE, "後來風停了。"], TWO])
    said = refusal(path)
    assert f"looks like a part of {role} and is not read" in said
    # whoever names the one that counts is not refused
    assert read(path, columns={role: role})[0] == [ASKED_1, ASKED_2]


def test_unread_columns_are_named(tmp_path: Path) -> None:
    rows = [[*HEADER, "文章出處", None, "難度", "空的"], [*ONE, "自編", "x", 3], TWO]
    asked, told = read(write(tmp_path / "a.xlsx", rows))
    assert asked == [ASKED_1, ASKED_2]
    assert told == ["note: a.xlsx: columns not read: 文章出處, column J, 難度"]


def test_columns_by_name(tmp_path: Path) -> None:
    rows = [["序", "甲文", "甲問", "一號", "二號", "三號", "四號", "記號"], ONE, TWO]
    path = write(tmp_path / "a.xlsx", rows)
    names = dict(zip(HEADER, rows[0], strict=True))
    assert read(path, columns=names)[0] == [ASKED_1, ASKED_2]
    assert "no column 乙文 for 文章" in refusal(path, columns={**names, "文章": "乙文"})


@pytest.mark.parametrize(
    ("header", "role", "nearest"),
    [("閱測文章", "文章", "閱測文章"), ("題目敘述句", "問題", "題目敘述句"), ("Passages", "文章", "Passages")],
)
def test_the_nearest_column_is_named(tmp_path: Path, header: str, role: str, nearest: str) -> None:
    headers = [header if one == role else one for one in HEADER]
    said = refusal(write(tmp_path / "a.xlsx", [headers, ONE, TWO]))
    assert said == f"a.xlsx, row 1: no column {role}; is it {nearest}? Then give --columns {role}={nearest}"


def test_all_options_in_one_column(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xlsx", [["ID", "文章", "問題", "選項", "答案"], [1, KITE, "誰？", "A甲 B乙", 1]])
    assert refusal(path) == (
        "a.xlsx, row 1: 選項 is one column for all options; give each a column of its own: 選項1, 選項2 …"
    )


def test_two_columns_of_one_kind(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xlsx", [["題號", *HEADER], [9, *ONE], [8, *TWO]])
    assert refusal(path).endswith("題號 and ID are both ID; keep one of them, or choose with --columns ID=題號")
    assert [question.id for question in read_workbook(path, columns={"ID": "題號"}).questions] == ["9", "8"]


def test_no_header_at_all(tmp_path: Path) -> None:
    said = refusal(write(tmp_path / "a.xlsx", [ONE, TWO]))
    assert said.startswith(
        "a.xlsx, row 1: is not a header with 文章, 問題, 選項1, 選項2 …, and neither is any row below: 1, 小明"
    )


def test_hidden_rows_and_columns_are_read_and_reported(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xlsx", [HEADER, ONE, TWO], rows=[3], columns=["G"])
    asked, told = read(path)
    assert asked == [ASKED_1, ASKED_2]
    assert told == [
        "warning: a.xlsx: 選項4 is a hidden column; it was read",
        "warning: a.xlsx, row 3: is a hidden row; it was read",
    ]


@pytest.mark.parametrize("state", ["hidden", "veryHidden"])
@pytest.mark.parametrize("cover", [[], [["這是封面"]], [HEADER], [["文章", "問題"]]])
def test_a_visible_sheet_without_questions_has_the_hidden_sheet_named(
    tmp_path: Path, state: str, cover: list[list[str]]
) -> None:
    book = Workbook()
    asked, front = book.active, book.create_sheet("封面", 0)
    assert isinstance(asked, Worksheet)
    asked.title = "題目"
    for cells in (HEADER, ONE, TWO):
        asked.append(cells)
    for cells in cover:
        front.append(cells)
    asked.sheet_state, book.active = state, 0
    book.save(path := tmp_path / "a.xlsx")
    with pytest.raises(DataError, match=r"choose another sheet with --sheet: 題目 \(hidden\)") as caught:
        read_workbook(path)
    assert any("題目（隱藏）" in localized(one.text, CHINESE) for one in caught.value.findings)
    assert len(read_workbook(path, "題目").questions) == 2


@pytest.mark.parametrize("state", ["hidden", "veryHidden"])
def test_a_hidden_first_sheet_is_skipped(tmp_path: Path, state: str) -> None:
    book = Workbook()
    first = book.active
    assert isinstance(first, Worksheet)
    first.title, first.sheet_state = "舊題", state
    second = book.create_sheet("新題")
    for sheet, rows in ((first, [HEADER, TWO]), (second, [HEADER, ONE])):
        for row in rows:
            sheet.append(row)
    book.active = second
    book.save(path := tmp_path / "a.xlsx")
    assert read(path) == ([ASKED_1], ["note: a.xlsx: hidden sheets were skipped: 舊題; choose with --sheet"])
    asked, told = read(path, sheet="舊題")
    assert asked == [below(ASKED_2, -1)] and "warning: a.xlsx: sheet 舊題 is hidden; it was read" in told


@pytest.mark.parametrize("name", ["答案", "解答頁", "Answer key"])
def test_a_sheet_whose_answers_are_on_another_is_refused(tmp_path: Path, name: str) -> None:
    book = Workbook()
    sheet = book.active
    assert isinstance(sheet, Worksheet)
    sheet.title = "題目"
    for row in (HEADER[:7], ONE[:7], TWO[:7]):
        sheet.append(row)
    book.create_sheet(name).append(["題號", "答案"])
    book.save(path := tmp_path / "a.xlsx")
    assert refusal(path) == (
        f"a.xlsx: sheet 題目 has no answers, and sheet {name} may hold them; put them into a column 正確答案, "
        "or give --sheet 題目 to have it read without"
    )
    assert read(path, sheet="題目")[0] == [unlabelled(ASKED_1), unlabelled(ASKED_2)]


def test_a_test_row_without_options_is_kept(tmp_path: Path) -> None:
    rows = [HEADER[:7], ONE[:7], [2, KITE, "哪個？"], [3, *TWO[1:7]]]
    asked, told = read(write(tmp_path / "a.xlsx", rows))
    assert asked[1] == (3, KITE, "哪個？", "///", None)
    assert any("row 3: all options are empty; its answer will be 1" in line for line in told)


def test_a_heading_is_not_the_passage_above(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xlsx", [HEADER, ONE, [None, "二、說明文"], [2, "同上", *TWO[2:]]])
    asked, lines = read(path)
    assert asked == [ASKED_1]
    assert any("row 4: 文章 is 同上, but there is no passage above it" in line for line in lines)


@pytest.mark.parametrize("passage", ["接續上一題文章", "本題文章與前一題相同", "（續前頁文章）", "同樣看上面那篇"])
def test_a_remark_about_another_passage_is_warned_of(tmp_path: Path, passage: str) -> None:
    _, lines = read(write(tmp_path / "a.xlsx", [HEADER, ONE, [2, passage, *TWO[2:]]]))
    assert [line for line in lines if line.startswith(f"warning: a.xlsx, row 3: 文章 is {passage}; if that means")]


@pytest.mark.parametrize("passage", ["同學們上山看日出。", "他看上前頭的衣服，很喜歡。", LIBRARY])
def test_short_passages_are_not_remarks(tmp_path: Path, passage: str) -> None:
    assert read(write(tmp_path / "a.xlsx", [HEADER, [1, passage, *ONE[2:]]]))[1] == []


def test_ditto_in_an_option_is_named(tmp_path: Path) -> None:
    asked, lines = read(write(tmp_path / "a.xlsx", [HEADER, ONE, [*TWO[:3], "同上", "〃", *TWO[5:]]]))
    assert asked[1][3] == "同上/〃/週二/週三"
    told = [line.partition(", which is not replaced")[0] for line in lines]
    assert told == ["warning: a.xlsx, row 3: 選項1 is 同上", "warning: a.xlsx, row 3: 選項2 is 〃"]


@pytest.mark.parametrize(
    ("header", "notes"),
    [
        ("答案(學生)", ["note: a.xlsx, row 1: 答案(學生) was read as 正確答案"]),
        ("答案（1-4）", []),
        ("答案 (Answer)", []),
    ],
)
def test_a_header_with_a_remark_is_named(tmp_path: Path, header: str, notes: list[str]) -> None:
    asked, lines = read(write(tmp_path / "a.xlsx", [[*HEADER[:-1], header], ONE]))
    assert (asked, lines) == ([ASKED_1], notes)


@pytest.mark.parametrize("value", ["#N/A", "#NAME?", "#REF!", "Err:502", "####"])
def test_error_values_that_are_text(tmp_path: Path, value: str) -> None:
    rows = [HEADER, [1, value, *ONE[2:]], [*TWO[:3], value, *TWO[4:]]]
    (tmp_path / "a.csv").write_text("\n".join(",".join(map(str, line)) for line in rows), encoding="utf-8")
    asked, lines = read(tmp_path / "a.csv")
    assert asked == [(3, LIBRARY, "哪天休館？", f"{value}/週一/週二/週三", 2)]
    assert lines[0].startswith("error: a.csv, row 2: 文章 is an error value")
    assert lines[1].startswith(f"warning: a.csv, row 3: 選項1 is {value}, which looks like an error value")
