"""What calamine does not tell of a sheet, and workbooks that must not be read at all."""

from __future__ import annotations

import io
import resource
import subprocess
import sys
import zipfile
from datetime import date
from pathlib import Path

import openpyxl
import pytest
from openpyxl import Workbook
from openpyxl.worksheet.worksheet import Worksheet
from workbooks import TEST, replace_part, row, test_row, write_csv, write_xlsx

from lrc.data.tables.workbook import read_workbook
from lrc.runtime.errors import DataError

SHEET = "xl/worksheets/sheet1.xml"


def refusal(path: Path, sheet: str | None = None) -> str:
    with pytest.raises(DataError) as refused:
        read_workbook(path, sheet)
    assert len(refused.value.lines()) == 1
    return str(refused.value)


def findings(path: Path) -> list[str]:
    return [f"{finding.level}: {finding}" for finding in read_workbook(path).findings]


def test_formats(tmp_path: Path) -> None:
    def change(sheet: Worksheet) -> None:
        for reference, code in (("D2", "0.00%"), ("E2", "0%"), ("F2", 'm"月"d"日"'), ("A2", "0000")):
            sheet[reference].number_format = code

    rows = [row(7, 選項1=0.1259, 選項2=0.5, 選項3=date(2018, 5, 19))]
    book = read_workbook(write_xlsx(tmp_path / "a.xlsx", rows, change=change))
    assert book.questions[0].options == ("12.59%", "50%", "5月19日", "讀書")
    assert book.questions[0].id == "0007"
    assert [(finding.kind, finding.column) for finding in book.findings] == [
        ("padded-format", "ID"),
        ("percent-format", "選項1"),
        ("percent-format", "選項2"),
        ("date-cell", "選項3"),
    ]


def test_hours_beyond_any_duration_are_refused_in_one_line(tmp_path: Path) -> None:
    def change(sheet: Worksheet) -> None:
        sheet["D3"].number_format = "[h]:mm"

    path = write_xlsx(tmp_path / "a.xlsx", [row(1), row(2, 選項1=10**11)], change=change)
    with pytest.raises(DataError, match=r"^a.xlsx, row 3: .*give its cell the format General$"):
        read_workbook(path)


def test_a_long_number_with_a_format_is_warned_of(tmp_path: Path) -> None:
    def change(sheet: Worksheet) -> None:
        sheet["A2"].number_format = "0"

    path = write_xlsx(tmp_path / "a.xlsx", [row(123456789012345678), row(2)], change=change)
    assert [(found.kind, found.row) for found in read_workbook(path).findings] == [("long-number", 2)]


def test_what_a_format_shows_is_read_and_named(tmp_path: Path) -> None:
    codes = {"D": '0"元"', "E": "# ?/?", "F": "[$-F800]yyyy/m/d", "G": '@"號"', "H": "General"}

    def change(sheet: Worksheet) -> None:
        for column, code in codes.items():
            for number in (2, 3):
                sheet[f"{column}{number}"].number_format = code

    rows = [row(1, 選項1=5, 選項2=0.75, 選項3=43239, 選項4="甲"), row(2, 選項3="後天")]
    book = read_workbook(write_xlsx(tmp_path / "a.xlsx", rows, change=change))
    assert [question.options for question in book.questions] == [
        ("5元", "3/4", "2018/5/19", "甲號"),
        ("放風箏", "釣魚", "後天", "讀書號"),
    ]
    assert [(found.level, found.kind, found.column, found.row) for found in book.findings] == [
        ("repair", "number-format", "選項1", 2),
        ("repair", "number-format", "選項2", 2),
        ("warning", "date-cell", "選項3", 2),
        ("repair", "text-format", "選項4", 2),
        ("repair", "text-format", "選項4", 3),
    ]


def test_built_in_formats(tmp_path: Path) -> None:
    """Their numbers stand for codes that are nowhere in the file."""
    builtin = {2: ("3.00", 3), 3: ("1,234", 1234), 12: ("1/2", 0.5), 11: ("1.50E+03", 1500), 20: ("18:00", 0.75)}

    def change(sheet: Worksheet) -> None:
        for line, number in enumerate(builtin, start=2):
            sheet.cell(line, 5).number_format = openpyxl.styles.numbers.BUILTIN_FORMATS[number]

    rows = [row(number, 選項2=value) for number, (_, value) in enumerate(builtin.values(), start=1)]
    path = write_xlsx(tmp_path / "a.xlsx", rows, change=change)
    assert b"formatCode" not in zipfile.ZipFile(path).read("xl/styles.xml")
    assert [question.options[1] for question in read_workbook(path).questions] == [text for text, _ in builtin.values()]


def test_ids_that_a_spreadsheet_has_made_numbers_of(tmp_path: Path) -> None:
    book = read_workbook(write_xlsx(tmp_path / "a.xlsx", [row(1234567890123456789), row("1234567890123456789")]))
    assert [question.id for question in book.questions] == ["1234567890123457000", "1234567890123456789"]
    assert [(found.kind, found.row) for found in book.findings] == [("long-number", 2)]
    kinds = {
        ("7.0", "8.0"): [("decimal-id", None)],
        ("7.0", "8"): [],
        ("1.23457E+17", "1234567890123456789"): [("exponent-id", 2)],
        ("1234567890123450000", "1234567890123460000"): [("rounded-id", 2), ("rounded-id", 3)],
        ("=1+1", "-2", "@SUM(A1)", "-A1", "+1.5"): [("formula-id", 2), ("formula-id", 4), ("formula-id", 5)],
    }
    for ids, expected in kinds.items():
        book = read_workbook(write_csv(tmp_path / "a.csv", [row(name) for name in ids]))
        assert [(found.kind, found.row) for found in book.findings] == expected
        assert [question.id for question in book.questions] == list(ids)


def test_formula_with_a_stored_value(tmp_path: Path) -> None:
    path = write_xlsx(tmp_path / "a.xlsx", [row(1, 選項2="=D2-F2")])
    replace_part(
        path,
        SHEET,
        lambda xml: xml.replace(b"<v />", b"<v>69000000</v>").replace(b"<v/>", b"<v>69000000</v>"),
    )
    assert read_workbook(path).questions[0].options[1] == "69000000"
    assert findings(path) == ["repair: a.xlsx, row 2: 選項2 is a formula; its stored value 69000000 was read"]


def test_formula_without_a_stored_value(tmp_path: Path) -> None:
    path = write_xlsx(tmp_path / "a.xlsx", [row(1, 選項2="=D2-F2"), row(2), row(3, 資料來源="=A1")])
    assert [question.row for question in read_workbook(path).questions] == [3, 4]
    assert findings(path)[0].startswith("error: a.xlsx, row 2: 選項2 is a formula without a stored value;")
    assert len(findings(path)) == 1


def test_error_cells(tmp_path: Path) -> None:
    def change(sheet: Worksheet) -> None:
        sheet["B3"].data_type = "e"

    path = write_xlsx(tmp_path / "a.xlsx", [row(1), row(2, 文章="#REF!")], change=change)
    assert findings(path) == ["error: a.xlsx, row 3: 文章 is an error value; put the text itself into the cell"]


def test_answers_that_are_all_errors_are_answers(tmp_path: Path) -> None:
    def change(sheet: Worksheet) -> None:
        sheet["H2"].data_type = "e"

    path = write_xlsx(tmp_path / "a.xlsx", [row(1, 正確答案="#N/A", 資料來源=None)], change=change)
    replace_part(path, SHEET, lambda xml: xml.replace("資料來源".encode(), b""))
    book = read_workbook(path)
    assert book.labelled and [(finding.kind, finding.column) for finding in book.errors] == [("error-cell", "正確答案")]


def test_an_error_cell_of_a_test_workbook_warns(tmp_path: Path) -> None:
    def change(sheet: Worksheet) -> None:
        sheet["D2"].data_type = "e"

    path = write_xlsx(tmp_path / "t.xlsx", [test_row(1, 選項1="#N/A")], TEST, change)
    assert read_workbook(path).questions[0].choosable == (2, 3, 4)
    assert findings(path) == ["warning: t.xlsx, row 2: 選項1 is an error value; it is never chosen"]


def test_merged_passages(tmp_path: Path) -> None:
    rows = [row(1), row(2), row(3), row(4)]
    path = write_xlsx(tmp_path / "a.xlsx", rows, change=lambda sheet: sheet.merge_cells("B3:B4"))
    assert [(question.row, question.passage[:2]) for question in read_workbook(path).questions] == [
        (2, "第1"),
        (3, "第2"),
        (4, "第2"),
        (5, "第4"),
    ]
    assert findings(path) == ["repair: a.xlsx, row 4: 文章 is merged with the cells from row 3 on; its text was taken"]


def test_prefixed_names_and_cells_without_references(tmp_path: Path) -> None:
    path = write_xlsx(tmp_path / "a.xlsx", [row(1, 選項1=0.5)], change=lambda sheet: _percent(sheet, "D2"))
    replace_part(path, SHEET, lambda xml: _without_references(xml))
    assert read_workbook(path).questions[0].options[0] == "50%"


def _percent(sheet: Worksheet, reference: str) -> None:
    sheet[reference].number_format = "0%"


def _without_references(xml: bytes) -> bytes:
    import re

    return re.sub(rb'(<(?:c|row)) r="[A-Z]*[0-9]+"', rb"\1", xml)


def test_rows_below_empty_ones_keep_their_numbers(tmp_path: Path) -> None:
    path = write_xlsx(tmp_path / "a.xlsx", [row(1), row(2, 選項1=None)], change=lambda sheet: sheet.insert_rows(1, 3))
    assert [finding.row for finding in read_workbook(path).errors] == [6]
    assert [question.row for question in read_workbook(path).questions] == [5]


def test_empty_columns_on_the_left(tmp_path: Path) -> None:
    def change(sheet: Worksheet) -> None:
        sheet.insert_cols(1, 2)
        sheet["F2"].number_format = "0%"

    path = write_xlsx(tmp_path / "a.xlsx", [row(1, 選項1=0.5)], change=change)
    assert read_workbook(path).questions[0].options[0] == "50%"


def test_sheets(tmp_path: Path) -> None:
    def change(sheet: Worksheet) -> None:
        assert isinstance(sheet.parent, Workbook)
        sheet.title = "甲"
        sheet.parent.create_sheet("乙").append(["文章"])

    path = write_xlsx(tmp_path / "a.xlsx", [row(1)], change=change)
    assert len(read_workbook(path, "甲").questions) == 1
    assert findings(path) == ["warning: a.xlsx: sheet 甲 was read, not 乙; choose with --sheet"]
    assert refusal(path, "丙") == "a.xlsx: no sheet 丙; choose one of 甲, 乙 with --sheet"
    with pytest.raises(DataError, match="no column 問題"):
        read_workbook(path, "乙")


DOCTYPE = b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b SYSTEM "file:///etc/hostname">]>'


@pytest.mark.parametrize(
    "part", [SHEET, "xl/workbook.xml", "xl/styles.xml", "xl/_rels/workbook.xml.rels", "docProps/core.xml"]
)
def test_entities(tmp_path: Path, part: str) -> None:
    path = write_xlsx(tmp_path / "a.xlsx", [row(1)])
    replace_part(path, part, lambda xml: DOCTYPE + xml[xml.find(b"?>") + 2 if xml.startswith(b"<?xml") else 0 :])
    assert "declares a document type" in refusal(path)


def test_damaged_parts(tmp_path: Path) -> None:
    path = write_xlsx(tmp_path / "a.xlsx", [row(1)])
    replace_part(path, SHEET, lambda xml: xml[: len(xml) // 2])
    assert "sheet1.xml is damaged" in refusal(path)
    whole = write_xlsx(tmp_path / "b.xlsx", [row(1)]).read_bytes()
    (tmp_path / "b.xlsx").write_bytes(whole[: len(whole) // 2])
    assert "b.xlsx: damaged" in refusal(tmp_path / "b.xlsx")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"ID,Answer\n1,1\n", "not an .xlsx workbook"),
        (bytes.fromhex("D0CF11E0A1B11AE1") + b"\0" * 600, "an old Excel file"),
        (bytes.fromhex("D0CF11E0A1B11AE1") + "EncryptedPackage".encode("utf-16-le"), "encrypted"),
    ],
)
def test_other_formats(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.xlsx").write_bytes(content)
    assert message in refusal(tmp_path / "a.xlsx")


def test_a_zip_that_is_not_a_workbook(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w") as package:
        package.writestr("word/document.xml", "<x/>")
    assert "not an .xlsx workbook" in refusal(tmp_path / "a.xlsx")


HOSTILE = """
import resource, sys
from pathlib import Path
from lrc.runtime.errors import DataError
from lrc.data.tables.workbook import read_workbook
try:
    read_workbook(Path(sys.argv[1]))
except DataError as error:
    print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10, file=sys.stderr)
"""


def refuse_apart(path: Path) -> str:
    """Read in a process of its own, which may use 1 GB and 20 s; gives the refusal."""
    limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))  # noqa: E731
    done = subprocess.run(
        [sys.executable, "-c", HOSTILE, str(path)],
        capture_output=True,
        text=True,
        timeout=20,
        preexec_fn=limit,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stderr) < 1024, "MB of memory"
    return done.stdout


def test_zip_bomb(tmp_path: Path) -> None:
    path = write_xlsx(tmp_path / "a.xlsx", [row(1)])
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as package,
        package.open("xl/media/x", "w", force_zip64=True) as x,
    ):
        for _ in range(64):
            x.write(bytes(1 << 20))
    assert "times its size" in refuse_apart(path)


def test_a_long_string_in_every_cell(tmp_path: Path) -> None:
    path = write_xlsx(tmp_path / "a.xlsx", [row(1)])
    with zipfile.ZipFile(path) as package:
        parts = {name: package.read(name) for name in package.namelist()}
    cells = "".join(f'<row r="{n}"><c r="A{n}" t="s"><v>0</v></c></row>' for n in range(3, 60_000))
    parts[SHEET] = parts[SHEET].replace(b"</sheetData>", cells.encode() + b"</sheetData>")
    parts["xl/sharedStrings.xml"] = f"<sst><si><t>{'文' * 32_767}</t></si></sst>".encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as package:
        for name, content in parts.items():
            package.writestr(name, content)
    assert "MB of text, more than 1,024" in refuse_apart(path)


def test_references_beyond_any_grid(tmp_path: Path) -> None:
    path = write_xlsx(tmp_path / "a.xlsx", [row(1)])
    far = b'<row r="' + b"9" * 5000 + b'"><c r="A' + b"9" * 5000 + b'"><v>1</v></c></row></sheetData>'
    replace_part(path, SHEET, lambda xml: xml.replace(b"</sheetData>", far))
    assert "spans" in refuse_apart(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_duplicate_part(tmp_path: Path) -> None:
    path = write_xlsx(tmp_path / "a.xlsx", [row(1)])
    with zipfile.ZipFile(path, "a") as package:
        package.writestr(SHEET, "<x/>")
    assert "has a part twice" in refusal(path)


def test_a_bomb_that_lies_about_its_size(tmp_path: Path) -> None:
    path = tmp_path / "a.xlsx"
    whole = write_xlsx(tmp_path / "b.xlsx", [row(1)])
    replace_part(whole, SHEET, lambda xml: xml.replace(b"</sheetData>", b"<row/>" * 5_000_000 + b"</sheetData>"))
    content = bytearray(whole.read_bytes())
    with zipfile.ZipFile(io.BytesIO(content)) as package:
        size = package.getinfo(SHEET).file_size.to_bytes(4, "little")
    path.write_bytes(content.replace(size, (4000).to_bytes(4, "little")))
    assert refuse_apart(path).startswith("a.xlsx: ")


def test_a_sheet_that_spans_the_whole_grid(tmp_path: Path) -> None:
    path = write_xlsx(tmp_path / "a.xlsx", [row(1)], change=lambda sheet: sheet.cell(1_048_576, 16_384, "x"))
    assert "spans 1,048,576 rows and 16,384 columns" in refuse_apart(path)


def test_a_cell_far_from_its_row(tmp_path: Path) -> None:
    path = write_xlsx(tmp_path / "a.xlsx", [row(1)])
    far = b'<row r="3"><c r="XFD1048576" t="n"><v>1</v></c></row></sheetData>'
    replace_part(path, SHEET, lambda xml: xml.replace(b"</sheetData>", far))
    assert "spans 1,048,576 rows and 16,384 columns" in refuse_apart(path)


def test_merged_ranges_over_the_whole_grid(tmp_path: Path) -> None:
    path = write_xlsx(tmp_path / "a.xlsx", [row(1)])
    merged = b"<mergeCells>" + b'<mergeCell ref="A3:XFD1048576"/>' * 50_000 + b"</mergeCells>"
    replace_part(path, SHEET, lambda xml: xml.replace(b"</sheetData>", b"</sheetData>" + merged))
    assert refuse_apart(path) == ""
