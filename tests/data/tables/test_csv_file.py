"""CSV files: UTF-8 as a stream, and what else people save is named."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from workbooks import LABELLED, TEST, row, write_csv

from lrc.data.tables.workbook import read_workbook
from lrc.runtime.errors import DataError

HEADER = ",".join(LABELLED)


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as refused:
        read_workbook(path)
    return str(refused.value)


def written(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_with_and_without_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    book = read_workbook(write_csv(tmp_path / "a.csv", [row(1, ID="001")], encoding=encoding))
    assert book.questions[0].id == "001" and book.sheet is None


def test_quoted_cells_keep_commas_quotes_and_line_breaks(tmp_path: Path) -> None:
    book = read_workbook(write_csv(tmp_path / "a.csv", [row(1, 選項1='a,"b"\nc'), row(2)]))
    assert book.questions[0].options[0] == 'a,"b"\nc'
    assert [question.row for question in book.questions] == [2, 3]  # a row is a record, as in a spreadsheet


@pytest.mark.parametrize(("encoding", "name"), [("cp950", "Big5"), ("gb18030", "GB18030"), ("utf-16", None)])
def test_other_encodings_are_read_and_named(tmp_path: Path, encoding: str, name: str | None) -> None:
    book = read_workbook(write_csv(tmp_path / "a.csv", [row(1)], encoding=encoding))
    assert book.questions[0].passage == "第1篇文章：小明在公園裡放風箏。"
    assert [str(finding).partition(" and was")[0] for finding in book.findings] == (
        [f"a.csv: is encoded as {name}"] if name else []
    )


def test_an_unrecognised_encoding_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "文章,問題\n".encode() + "中文".encode("cp950"))
    assert "a.csv, near line 2: byte 0xa4 is not UTF-8" in refusal(path)


@pytest.mark.parametrize(("delimiter", "said"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp950"])
def test_other_delimiters(tmp_path: Path, delimiter: str, said: str, encoding: str) -> None:
    lines = [LABELLED, [*row(1, 選項1="甲,乙", 選項2=f"丙{delimiter}丁")]]
    with (tmp_path / "a.csv").open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([["第一課"], *lines])
    book = read_workbook(tmp_path / "a.csv")
    assert book.questions[0].options == ("甲,乙", f"丙{delimiter}丁", "睡覺", "讀書") and book.questions[0].row == 3
    assert f"a.csv: its cells are separated by {said}; read so" in map(str, book.findings)


@pytest.mark.parametrize("first", ["sep=;", "SEP=;", '"sep=;"'])
def test_a_first_line_may_state_the_delimiter(tmp_path: Path, first: str) -> None:
    header, cells = ";".join(LABELLED), ";".join(map(str, row(1)))
    book = read_workbook(written(tmp_path / "a.csv", f"{first}\r\n{header}\r\n{cells}\r\n"))
    # a spreadsheet takes the line as its own, and counts from the one below
    assert [question.row for question in book.questions] == [2]


def test_a_tsv_may_have_commas(tmp_path: Path) -> None:
    header, cells = "\t".join(LABELLED), "\t".join(map(str, row(1, 選項1="1,000,000")))
    book = read_workbook(written(tmp_path / "a.tsv", f"{header}\n{cells}\n"))
    assert book.questions[0].options[0] == "1,000,000" and not book.findings


@pytest.mark.parametrize("end", [b"x", b"\x00\xd8"], ids=["half a unit", "half a pair"])
@pytest.mark.parametrize("length", [1, 3000])
def test_broken_utf_16_is_refused(tmp_path: Path, end: bytes, length: int) -> None:
    path = write_csv(tmp_path / "a.csv", [row(n, 問題="什麼？" * length) for n in range(3)], encoding="utf-16")
    path.write_bytes(path.read_bytes() + end)
    assert refusal(path).startswith("a.csv, near line 5: byte 0x")
    assert "is not UTF-16; save it as 'CSV UTF-8'" in refusal(path)


def test_a_broken_byte(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [row(n) for n in range(3)])
    path.write_bytes(path.read_bytes() + b"\xff\n")
    assert "byte 0xff is not UTF-8" in refusal(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{HEADER}\n1,\x00", "line 2: has a NUL character"),
        (f'{HEADER}\n1,"文', "a.csv, row 2: unexpected end of data"),
        (f'{HEADER}\n1,"文"章",', "a.csv, row 2: "),
        ("x" * (2 << 20), "line 1: longer than"),
        (b"PK\x03\x04", "a workbook, not CSV"),
        ("", "not even a header"),
    ],
)
def test_files_that_are_not_csv_are_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    assert message in refusal(written(tmp_path / "a.csv", text))


def test_too_many_cells_make_a_bad_row(tmp_path: Path) -> None:
    book = read_workbook(write_csv(tmp_path / "a.csv", [row(1), [*row(2), "x"], [*row(3), ""], row(4)]))
    assert [str(error) for error in book.errors] == [
        "a.csv, row 3: 9 cells under 8 headers; put quotes around a cell that has commas in it"
    ]
    assert [question.row for question in book.questions] == [2, 4, 5]


@pytest.mark.parametrize("value", ["#REF!", "#N/A", "#DIV/0!", "#NAME?"])
def test_what_a_formula_failed_to_compute_is_a_bad_row_as_in_a_workbook(tmp_path: Path, value: str) -> None:
    book = read_workbook(write_csv(tmp_path / "a.csv", [row(1), row(2, 問題=value), row(3, 問題="#REF! 是什麼？")]))
    assert [str(error) for error in book.errors] == [
        "a.csv, row 3: 問題 is an error value; put the text itself into the cell"
    ]


def test_too_many_cells_refuse_a_test_file(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [[*row(1, 正確答案=""), "x"]])
    assert "row 2: 9 cells under 8 headers" in refusal(path)


def test_a_sheet_of_a_csv(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no sheet"):
        read_workbook(write_csv(tmp_path / "a.csv", [row(1)]), "甲")


def test_an_id_that_a_formula_keeps_from_becoming_a_number(tmp_path: Path) -> None:
    rows = [["ID", "文章", "問題", "選項1", "選項2"], ['="007"', "短文。", "誰？", "甲", "乙"]]
    path = tmp_path / "a.csv"
    path.write_text("\n".join(map(",".join, rows)), encoding="utf-8")
    book = read_workbook(path)
    assert [question.id for question in book.questions] == ["007"]
    assert [str(one) for one in book.findings] == ['a.csv, row 2: ID is ="007"; read as the text 007']


ENGLISH = "id,passage,question,option1,option2,answer"
CHINESE_TEXT = "小明在公園裡放風箏，他的同學都來看了。", "什麼時候放的？", "上午的時候", "下午"
SIMPLIFIED = "小明在公园里放风筝，他的同学都来看了。", "什么时候放的？", "上午的时候", "下午"
JAPANESE = "毎年十月になると鳥は北から飛んで来る。", "正しいものはどれですか。", "泥の上で休む", "日の出を待つ"
KOREAN = "매년 시월에 저어새는 북쪽에서 날아온다.", "옳은 것은 무엇인가?", "갯벌에서 쉰다", "해돋이를 본다"
QUOTED = "It’s raining – “really” hard.", "What’s true?", "It’s a", "It’s b"


@pytest.mark.parametrize(
    ("texts", "codec", "said"),
    [
        (CHINESE_TEXT, "cp950", "is encoded as Big5"),
        (SIMPLIFIED, "gb18030", "is encoded as GB18030"),
        (JAPANESE, "cp932", "is not UTF-8"),
        (JAPANESE, "euc_jp", "is not UTF-8"),
        (KOREAN, "euc_kr", "is not UTF-8"),
        (QUOTED, "cp1252", "is not UTF-8"),
    ],
)
def test_a_code_page_is_told_by_the_text_where_the_header_is_english(
    tmp_path: Path, texts: tuple[str, ...], codec: str, said: str
) -> None:
    content = "\n".join([ENGLISH, *(",".join([str(number), *texts, "1"]) for number in range(1, 4))])
    path = written(tmp_path / "a.csv", content.encode(codec))
    if "not" in said:
        assert said in refusal(path)
        return
    book = read_workbook(path)
    asked = book.questions[0]
    assert (asked.passage, asked.question, *asked.options) == texts
    assert said in str(book.findings[0])


LINES = [
    f"{number},第{number}篇：小明放風箏天氣很好,第{number}題問什麼？,放風箏,釣魚,睡覺,讀書" for number in range(1, 31)
]
LINE_3 = "3,第3篇：小明放風箏,天氣很好,第3題問什麼？,放風箏,釣魚,睡覺,讀書"  # with a comma in its passage
HEADERS = ",".join(TEST)


@pytest.mark.parametrize(
    ("end", "line", "told"),
    [
        ("", LINE_3, "8 cells under 7 headers; put quotes around"),
        (",,", LINE_3 + ",,", "8 cells under 7 headers; put quotes around"),
        ("", "3,第3篇：小明放風箏,第3題問什麼？,放風箏,釣魚睡覺,讀書", "6 cells under 7 headers; put in what is"),
    ],
    ids=["one more", "one more under no header", "one less"],
)
def test_a_row_that_a_comma_has_shifted_is_refused(tmp_path: Path, end: str, line: str, told: str) -> None:
    good = [one + "," * end.count(",") for one in LINES]
    assert len(read_workbook(written(tmp_path / "a.csv", "\n".join([HEADERS + end, *good]))).questions) == 30
    good[2] = line
    assert refusal(written(tmp_path / "a.csv", "\n".join([HEADERS + end, *good]))).startswith(f"a.csv, row 4: {told}")


@pytest.mark.parametrize("end", [",備註", ""], ids=["under a remark", "under an empty option"])
def test_a_question_in_the_place_of_the_first_option_is_asked_about(tmp_path: Path, end: str) -> None:
    """It may be right as it is, so the row is read."""
    lines = [one + "," * end.count(",") for one in LINES]
    lines[2] = LINE_3 if end else LINE_3.removesuffix("讀書")
    book = read_workbook(written(tmp_path / "a.csv", "\n".join([HEADERS + end, *lines])))
    assert len(book.questions) == 30
    told = [str(one) for one in book.findings if one.kind == "shifted-row"]
    start = "a.csv, row 4: 問題 has no question mark and the first option has one; if a comma has"
    assert any(one.startswith(start) for one in told)
    lines[2] = 'X,"小明說：「你好嗎？」","小明說了哪一句話","「你好嗎？」",再見,謝謝,早安' + "," * end.count(",")
    assert len(read_workbook(written(tmp_path / "b.csv", "\n".join([HEADERS + end, *lines]))).questions) == 30


def test_text_at_the_end_of_one_row_is_asked_about(tmp_path: Path) -> None:
    lines = [line.replace("？", "") + "," for line in LINES]
    path = tmp_path / "a.csv"
    path.write_text("\n".join([f"{HEADERS},備註", *lines[:2], LINE_3.replace("？", ""), *lines[3:]]), encoding="utf-8")
    (warning,) = (one for one in read_workbook(path).findings if one.level == "warning")
    assert str(warning).startswith("a.csv, row 4: 備註 has text, as in hardly any other row; if a comma has divided")


def test_empty_cells_at_the_end_may_be_left_out_if_that_is_usual(tmp_path: Path) -> None:
    """Excel does so, in blocks of 16 rows."""
    lines = [line.removesuffix(",讀書") for line in LINES[:16]] + LINES[16:]
    path = tmp_path / "a.csv"
    path.write_text("\n".join([HEADERS, *lines]), encoding="utf-8")
    assert [len(one.options) for one in read_workbook(path).questions] == [3] * 16 + [4] * 14


@pytest.mark.parametrize(
    "header",
    [
        "ID,文章,問題,選項,,,\n,,,A,B,C,D",
        "試題,,,選項,,,,\n題號,文章,問題,甲,乙,丙,丁,",
        "測驗卷,,,,,,,,\n題號,文章,問題,甲,乙,丙,丁,,",
    ],
)
def test_a_header_in_two_rows_has_the_width_of_both(tmp_path: Path, header: str) -> None:
    lines = [line + "," * (header.split("\n")[0].count(",") - 6) for line in LINES]
    assert len(read_workbook(written(tmp_path / "a.csv", "\n".join([header, *lines]))).questions) == 30


def test_the_last_name_of_a_header_may_be_in_its_first_row(tmp_path: Path) -> None:
    header = "試題,,,選項,,,,答案\nID,文章,問題,甲,乙,丙,丁,"
    lines = [f"{line},{number % 4 + 1}" for number, line in enumerate(LINES)]
    book = read_workbook(written(tmp_path / "a.csv", "\n".join([header, *lines])))
    assert [one.answer for one in book.questions] == [number % 4 + 1 for number in range(30)]


def test_the_lock_file_of_excel_is_told_from_the_workbook(tmp_path: Path) -> None:
    assert refusal(written(tmp_path / "~$AI.xlsx", b"\x05user")) == (
        "~$AI.xlsx: Excel's note that AI.xlsx is open, and not the workbook; give AI.xlsx itself"
    )
