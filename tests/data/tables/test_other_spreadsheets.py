"""Spreadsheets that are not .xlsx, written by hand record by record: OpenDocument and binary workbooks."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import pytest
from workbooks import replace_part

from lrc.data.tables.workbook import Workbook, read_workbook
from lrc.runtime.errors import DataError

HEADER = ["ID", "文章", "問題", "選項1", "選項2", "選項3", "正確答案"]
NAMESPACES = " ".join(
    f'xmlns:{name}="urn:{name}"' for name in ("office", "table", "text", "style", "calcext", "xlink", "draw")
)


def ods(path: Path, sheets: dict[str, str], head: str = "") -> Path:
    """Write an OpenDocument spreadsheet.

    Args:
        sheets: the XML of each table's rows, by name; a hidden one has a name that begins with a dot.
    """
    tables = "".join(
        f'<table:table table:name="{name.lstrip(".")}" table:style-name="{"no" if name[0] == "." else "yes"}">'
        f"{rows}</table:table>"
        for name, rows in sheets.items()
    )
    styles = '<style:style style:name="no"><style:table-properties table:display="false"/></style:style>'
    content = (
        f'<?xml version="1.0"?><office:document-content {NAMESPACES}><office:automatic-styles>{styles}'
        f"</office:automatic-styles><office:body><office:spreadsheet>{head}{tables}</office:spreadsheet></office:body>"
        "</office:document-content>"
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as package:
        package.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        package.writestr("content.xml", content)
    return path


def cell(text: str, attributes: str = "") -> str:
    lines = "".join(f"<text:p>{escape(line)}</text:p>" for line in text.split("\n")) if text else ""
    return f"<table:table-cell {attributes}>{lines}</table:table-cell>"


def row(*cells: str, attributes: str = "") -> str:
    made = (one if one.startswith("<") else cell(one) for one in cells)
    return f"<table:table-row {attributes}>{''.join(made)}</table:table-row>"


ONE = row("1", "小明放風箏。", "誰？", "小明", "小華", "老師", "1")


def findings(book: Workbook) -> list[str]:
    return [f"{finding.level}: {finding}" for finding in book.findings]


def test_an_empty_document_has_its_hidden_sheets_named(tmp_path: Path) -> None:
    path = ods(tmp_path / "a.ods", {"封面": "", "頁": row("封面"), ".題目": row(*HEADER) + ONE})
    with pytest.raises(DataError, match=r"choose another sheet with --sheet: 頁, 題目 \(hidden\)$"):
        read_workbook(path)


def test_a_document_is_read_as_shown(tmp_path: Path) -> None:
    rows = (
        row(*HEADER),
        row(
            "007",
            "第一行\n第二行",
            "幾成？",
            cell("12.50%", 'office:value-type="percentage" office:value="0.125"'),
            cell("NT$1,200", 'office:value-type="currency" office:value="1200"'),
            cell("5月19日", 'office:value-type="date" office:date-value="2018-05-19"'),
            cell("2", 'office:value-type="float" office:value="2"'),
        ),
        '<table:table-row table:number-rows-repeated="2"><table:table-cell table:number-columns-repeated="1024"/>'
        "</table:table-row>",
        row("8", "甲", "乙", cell("同", 'table:number-columns-repeated="2"'), "丙", "3"),
        '<table:table-row table:number-rows-repeated="1048000"><table:table-cell/></table:table-row>',
    )
    book = read_workbook(ods(tmp_path / "a.ods", {"題": "".join(rows)}))
    first, second = book.questions
    assert (first.id, first.passage, first.options, first.answer) == (
        "007",
        "第一行\n第二行",
        ("12.50%", "NT$1,200", "5月19日"),
        2,
    )
    assert (second.row, second.options, second.answer) == (5, ("同", "同", "丙"), 3)
    assert {(finding.kind, finding.row) for finding in book.findings} == {
        ("date-cell", 2),
        ("empty-row", 3),
        ("duplicate-option", 5),
    }


def test_only_the_cells_own_text_is_read(tmp_path: Path) -> None:
    shape = "<draw:frame><draw:text-box><text:p>圖</text:p></draw:text-box></draw:frame>"
    shape += "<draw:rect><text:p>框</text:p></draw:rect>"
    ruby = "<text:ruby><text:ruby-base>高知</text:ruby-base><text:ruby-text>コウチ</text:ruby-text></text:ruby>"
    failed = cell("#N/A", 'office:value-type="string" calcext:value-type="error" table:number-columns-repeated="2"')
    own = f"<table:table-cell>{shape}<text:p>在{ruby}</text:p></table:table-cell>"
    rows = (row(*HEADER), row("1", "小明放風箏。", "哪裡？", own, "臺北", "花蓮", "1"))
    rows = (*rows, row("2", "小明放風箏。", "誰？", failed, "老師", "3"))
    book = read_workbook(ods(tmp_path / "a.ods", {"題": "".join(rows)}))
    assert [question.options for question in book.questions] == [("在高知", "臺北", "花蓮")]
    assert [(error.kind, error.column) for error in book.errors] == [("error-cell", "選項1"), ("error-cell", "選項2")]


def test_hidden_merged_and_remarked_cells(tmp_path: Path) -> None:
    remark = "<office:annotation><text:p>要改</text:p></office:annotation>"
    merged = 'table:number-rows-spanned="2" table:number-columns-spanned="1"'
    rows = (
        '<table:table-column table:number-columns-repeated="3"/><table:table-column table:visibility="collapse"/>',
        row(*HEADER),
        row(
            "1",
            f"<table:table-cell {merged}>{remark}<text:p>小明<text:span>放</text:span>風<text:s text:c='2'/>箏</text:p>"
            "</table:table-cell>",
            *("誰？", "小明", "小華", "老師", "1"),
        ),
        row("2", "<table:covered-table-cell/>", "哪？", "家", "店", "校", "2", attributes='table:visibility="filter"'),
    )
    path = ods(tmp_path / "a.ods", {".舊": row(*HEADER), "題": "".join(rows)})
    book = read_workbook(path)
    assert [question.passage for question in book.questions] == ["小明放風  箏"] * 2
    assert set(findings(book)) == {
        "note: a.ods: hidden sheets were skipped: 舊; choose with --sheet",
        "warning: a.ods: 選項1 is a hidden column; it was read",
        "warning: a.ods, row 3: is a hidden row; it was read",
        "repair: a.ods, row 3: 文章 is merged with the cells from row 2 on; its text was taken",
    }


def test_answers_without_a_header_are_not_read_as_a_test_workbook(tmp_path: Path) -> None:
    questions = [row(*map(cell, ["1", "甲文。", "誰？", "小明", "小華", "1"]))]
    questions += [row(*map(cell, [str(n), f"第{n}文。", "誰？", "小明", "小華", str(n % 2 + 1)])) for n in range(2, 6)]
    head = row(*map(cell, ["ID", "文章", "問題", "選項1", "選項2"]))
    with pytest.raises(DataError, match="column F is not read and may hold the answers"):
        read_workbook(ods(tmp_path / "a.ods", {"題": head + "".join(questions)}))


def test_error_values_and_formulas(tmp_path: Path) -> None:
    error = cell("#N/A", 'office:value-type="string" calcext:value-type="error" table:formula="of:=NA()"')
    formula = cell("6900", 'office:value-type="float" office:value="6900" table:formula="of:=[.D2]"')
    rows = row(*HEADER) + row("1", "文", "問", error, "乙", "丙", "2") + row("2", "文", "題", formula, "乙", "丙", "2")
    book = read_workbook(ods(tmp_path / "a.ods", {"題": rows}))
    assert [question.options[0] for question in book.questions] == ["6900"]
    assert findings(book) == [
        "error: a.ods, row 2: 選項1 is an error value; put the text itself into the cell",
        "repair: a.ods, row 3: 選項1 is a formula; its stored value 6900 was read",
    ]


def test_tracked_deletions_are_not_read(tmp_path: Path) -> None:
    tracked = f"<table:tracked-changes><table:deletion>{cell('舊')}</table:deletion></table:tracked-changes>"
    book = read_workbook(ods(tmp_path / "a.ods", {"題": row(*HEADER) + ONE}, tracked))
    assert [question.row for question in book.questions] == [2]


@pytest.mark.parametrize("repeated", ["rows", "columns"])
def test_cells_that_are_repeated_too_often_are_refused(tmp_path: Path, repeated: str) -> None:
    many = 'table:number-columns-repeated="16384"'
    far = f'<table:table-row table:number-rows-repeated="1048576">{cell("x", many)}</table:table-row>'
    if repeated == "columns":
        far = f"<table:table-row>{cell('x' * 30_000, many)}</table:table-row>" * 3
    with pytest.raises(DataError, match="spans too many cells"):
        read_workbook(ods(tmp_path / "a.ods", {"題": row(*HEADER) + ONE + far}))


def test_a_value_that_is_no_number_is_refused(tmp_path: Path) -> None:
    value = cell("", 'office:value-type="float" office:value="1,5"')
    rows = row(*HEADER) + row("1", "文", "問", "甲", value, "丙", "1")
    with pytest.raises(DataError, match=r"a.ods: content.xml is damaged \(.*1,5.*\); save it again"):
        read_workbook(ods(tmp_path / "a.ods", {"題目": rows}))


def test_a_file_that_is_not_a_document_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.ods", "w") as package:
        package.writestr("xl/workbook.xml", "<x/>")
    with pytest.raises(DataError, match=r"a\.ods: a zip file, but not an \.ods workbook"):
        read_workbook(tmp_path / "a.ods")


def record(number: int, content: bytes = b"") -> bytes:
    """A record of [MS-XLSB] 2.1.4: its number and size in bytes of seven bits, and its content."""
    head = bytes([number]) if number < 128 else bytes([number & 127 | 128, number >> 7])
    size = len(content)
    return head + (bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])) + content


def wide(text: str) -> bytes:
    return struct.pack("<I", len(text)) + text.encode("utf-16-le")


def xlsb(path: Path, rows: Sequence[Sequence[str | float]], far: int = 0) -> Path:
    """Write a binary workbook with one sheet; `far` puts one more cell into that row and column."""
    sheet = record(129) + record(148, struct.pack("<4I", 0, len(rows), 0, 7)) + record(145)
    for number, cells in enumerate(rows):
        sheet += record(0, struct.pack("<I", number) + bytes(21))
        for column, value in enumerate(cells):
            place = struct.pack("<II", column, 0)
            sheet += (
                record(6, place + wide(value))
                if isinstance(value, str)
                else record(5, place + struct.pack("<d", value))
            )
    if far:
        sheet += record(0, struct.pack("<I", far) + bytes(21)) + record(5, struct.pack("<IId", 16_000, 0, 1.0))
    sheet += record(146) + record(130)
    book = record(131) + record(143) + record(156, struct.pack("<II", 0, 1) + wide("rId1") + wide("題")) + record(144)
    relations = (
        '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" '
        'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet" '
        'Target="worksheets/sheet1.bin"/></Relationships>'
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as package:
        package.writestr("xl/workbook.bin", book + record(132))
        package.writestr("xl/_rels/workbook.bin.rels", relations)
        package.writestr("xl/worksheets/sheet1.bin", sheet)
    return path


def test_a_binary_workbook(tmp_path: Path) -> None:
    rows = [HEADER, [1.0, "文", "問", "甲", 26.0, 0.125, 2.0]]
    book = read_workbook(xlsb(tmp_path / "a.xlsb", rows))
    (question,) = book.questions
    assert (question.id, question.options, question.answer) == ("1", ("甲", "26", "0.125"), 2)
    assert findings(book) == [
        "warning: a.xlsb, row 2: 選項3 is a number, read as stored, 0.125; save it as .xlsx to have it read as shown"
    ]


def test_long_numbers_of_a_binary_workbook(tmp_path: Path) -> None:
    book = read_workbook(xlsb(tmp_path / "a.xlsb", [HEADER, [12345678901234567.0, "文", "問", "甲", "乙", "丙", 2.0]]))
    assert book.questions[0].id == "12345678901234568"  # the nearest one that a spreadsheet can hold
    (told,) = findings(book)
    assert told.startswith("warning: a.xlsb, row 2: ID is 12345678901234568, a number beyond the 15 digits")


@pytest.mark.parametrize("place", [8, 16])  # where calamine raises an OSError, and where it panics
def test_a_damaged_binary_workbook_is_refused(tmp_path: Path, place: int) -> None:
    path = xlsb(tmp_path / "a.xlsb", [HEADER])
    replace_part(path, "xl/workbook.bin", lambda whole: whole[:place] + b"\xff" * 4 + whole[place + 4 :])
    with pytest.raises(DataError, match=r"a.xlsb: cannot be read \(.*\); save it again as .xlsx"):
        read_workbook(path)


def test_a_binary_workbook_over_the_whole_grid_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="spans 1,000,001 rows and 16,001 columns"):
        read_workbook(xlsb(tmp_path / "a.xlsb", [HEADER], far=1_000_000))
