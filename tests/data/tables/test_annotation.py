"""Copies of a workbook with findings and with repairs: opened with other readers than the one that wrote them."""

from __future__ import annotations

import re
import tempfile
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from openpyxl import load_workbook
from openpyxl.cell.rich_text import CellRichText, TextBlock
from openpyxl.cell.text import InlineFont
from openpyxl.chart import BarChart, Reference
from openpyxl.comments import Comment
from openpyxl.drawing.image import Image as Picture
from openpyxl.formatting.rule import FormulaRule
from openpyxl.styles import Color, Font, PatternFill
from openpyxl.worksheet.worksheet import Worksheet
from PIL import Image
from python_calamine import CalamineWorkbook
from small_runs import lrc
from workbooks import TEST, replace_part, row, test_row, write_csv, write_xlsx

from lrc.data.tables.annotation import annotate
from lrc.data.tables.workbook import read_workbook
from lrc.data.tables.xlsx_copy import WorkbookCopy
from lrc.runtime.findings import count_kinds

OTHER = "圖書館每週一休館，其餘各日開到晚上九點。"


def decorate(sheet: Worksheet) -> None:
    """What a person has made of a workbook."""
    sheet.column_dimensions["B"].width = 61.5
    sheet.row_dimensions[2].height = 44
    sheet.freeze_panes = "A2"
    sheet["C2"].font = Font(bold=True, color="FF0000")
    sheet["D2"].comment = Comment("查過了", "王老師")
    sheet["J1"], sheet["J2"] = "備註", "=1+2"
    other = sheet.parent.create_sheet("說明")
    other["A1"], other["A2"], other["A3"] = "版本", 3, "=A2*2"
    other["A1"].fill = PatternFill("solid", fgColor="00FF00")


@pytest.fixture
def book(tmp_path: Path) -> Path:
    rows = [
        row(1, 選項2="  釣魚 "),
        row(2, 文章=OTHER, 正確答案="選項3"),
        row(3, 選項1="=1+1 ", 選項3="#N/A"),
        row(4, 文章="同上"),
        row(5, 文章=OTHER + "率是36.4%。", 選項1=0.364),
        row(6, 選項2=None, 問題=" 問？"),
    ]
    path = write_xlsx(tmp_path / "AI.xlsx", rows, change=decorate)
    # openpyxl writes the text =1+1 as a formula: make it a text, and give the formulas their values, as Excel does.
    texts = [
        (b"<f>1+1 </f><v />", b'<is><t xml:space="preserve">=1+1 </t></is>'),
        (b"<f>1+2</f><v />", b"<f>1+2</f><v>3</v>"),
    ]

    def change(content: bytes) -> bytes:
        for old, new in texts:
            assert old in content
            content = content.replace(old, new)
        content = content.replace(b'<c r="D4">', b'<c r="D4" t="inlineStr">')
        return content.replace(b't="e"><v>#N/A</v>', b't="inlineStr"><is><t>#N/A</t></is>')

    replace_part(path, "xl/worksheets/sheet1.xml", change)
    six = b"<f>A2*2</f><v />", b"<f>A2*2</f><v>6</v>"
    return replace_part(path, "xl/worksheets/sheet2.xml", lambda old: old.replace(*six))


def values(path: Path) -> dict[str, list[list[Any]]]:
    book = CalamineWorkbook.from_path(path)
    return {name: book.get_sheet_by_name(name).to_python() for name in book.sheet_names}


def survives(path: Path) -> None:
    """What `decorate` made is still there."""
    book = load_workbook(path)
    sheet = book.worksheets[0]
    assert (sheet.column_dimensions["B"].width, sheet.row_dimensions[2].height) == (61.5, 44)
    assert sheet.freeze_panes == "A2" and sheet["C2"].font.b and sheet["C2"].font.color.rgb == "00FF0000"
    assert sheet["D2"].comment.text.startswith("查過了")
    assert (sheet["J2"].value, book["說明"]["A3"].value) == ("=1+2", "=A2*2")
    assert book["說明"]["A1"].fill.fgColor.rgb == "0000FF00"
    shown = load_workbook(path, data_only=True)
    assert (shown.worksheets[0]["J2"].value, shown["說明"]["A3"].value) == (3, 6)
    assert book.active is sheet


def test_the_annotated_copy_has_a_comment_for_each_finding(book: Path, tmp_path: Path) -> None:
    before, copy = book.read_bytes(), tmp_path / "out.xlsx"
    assert lrc("check", book, "--annotate", copy) == 1
    assert book.read_bytes() == before
    survives(copy)
    sheet = load_workbook(copy).worksheets[0]
    told = {
        cell.coordinate: (cell.comment.text, cell.fill.fgColor.rgb[2:])
        for line in sheet.iter_rows()
        for cell in line
        if cell.comment and "查過了" not in cell.comment.text
    }
    assert told.keys() == {"B2", "E2", "B3", "H3", "D4", "F4", "B5", "D6", "E7", "C7"}
    assert told["E2"] == ("repaired: 選項2 had white space at its ends; it was removed", "DDEBF7")
    assert told["E7"] == ("error: 選項2 is empty; fill it in", "FFC7CE")
    assert told["D6"][0].startswith("warning: 選項1 is 0.364") and told["D6"][1] == "FFEB9C"
    # The values are those of the original, and the summary is the last sheet.
    old, new = values(book), values(copy)
    assert {name: new[name] for name in old} == old
    assert list(new) == [*old, "lrc check"]
    lines = new["lrc check"][[line[0] for line in new["lrc check"]].index("level") + 1 :]
    assert len(lines) == len(read_workbook(book).findings) + 2  # and a near-duplicate, and a part of another passage
    assert lines[0][:3] == ["error", 7, "選項2"]


def test_an_empty_row_stays_in_the_repaired_copy_and_has_no_error(tmp_path: Path) -> None:
    book = write_xlsx(tmp_path / "a.xlsx", [row(1), [None], [None], row(2)])
    assert lrc("check", book, "--fix", tmp_path / "fixed.xlsx") == 1  # one passage, which cannot be split
    lines = values(tmp_path / "fixed.xlsx")["lrc check"]
    assert ["note", 3, "", "empty row", "the first of 2 empty rows; skipped"] in lines


def test_what_is_fixed_reads_as_the_original_does_and_needs_no_repair(book: Path, tmp_path: Path) -> None:
    copy = tmp_path / "fixed.xlsx"
    assert lrc("check", book, "--fix", copy) == 1
    survives(copy)
    before, after = read_workbook(book), read_workbook(copy)
    assert before.questions == after.questions and len(after.questions) == 5
    assert count_kinds(after.findings, "repair") == {"white-space": 1}  # of the row that is bad
    assert "ditto-passage" not in count_kinds(after.findings, "warning")
    sheet = load_workbook(copy).worksheets[0]
    cells = [cell for line in sheet.iter_rows() for cell in line]
    changed = {cell.coordinate: cell.value for cell in cells if cell.fill.fgColor.rgb == "00C6E0B4"}
    assert changed == {"E2": "釣魚", "H3": 3, "D4": "=1+1", "B5": sheet["B4"].value}
    assert sheet["D4"].data_type == "s" and sheet["F4"].data_type == "s"
    assert "it was:   釣魚" in sheet["E2"].comment.text
    told = "warning: 問題 had white space at its ends; not changed in this copy, because its row has an error"
    assert sheet["C7"].comment.text == told and values(copy)["Sheet"][6][2] == values(book)["Sheet"][6][2]
    with zipfile.ZipFile(copy) as package:
        assert b"<f>1+1" not in package.read("xl/worksheets/sheet1.xml")


def test_runs_of_white_space_in_rich_text_stay(tmp_path: Path) -> None:
    bold = InlineFont(b=True)
    text = CellRichText([TextBlock(bold, "行政區域"), TextBlock(InlineFont(), " "), TextBlock(bold, "包括北投。")])

    def rich(sheet: Worksheet) -> None:
        sheet["B2"] = text

    path = write_xlsx(tmp_path / "a.xlsx", [row(1), row(2, 文章=OTHER, 選項1=" 對")], change=rich)
    kept = b"<t> </t>", b'<t xml:space="preserve"> </t>'
    replace_part(path, "xl/worksheets/sheet1.xml", lambda old: old.replace(*kept))
    assert values(path)["Sheet"][1][1] == "行政區域 包括北投。"
    assert lrc("check", path, "--fix", tmp_path / "b.xlsx") == 0
    assert values(tmp_path / "b.xlsx")["Sheet"][1][1] == "行政區域 包括北投。"


def test_merged_cells_are_unmerged_and_filled(tmp_path: Path) -> None:
    rows = [row(1), row(2, 文章=None), row(3, 文章=OTHER)]
    path = write_xlsx(tmp_path / "a.xlsx", rows, change=lambda sheet: sheet.merge_cells("B2:B3"))
    assert lrc("check", path, "--fix", tmp_path / "b.xlsx") == 0
    sheet = load_workbook(tmp_path / "b.xlsx").worksheets[0]
    assert not sheet.merged_cells.ranges and sheet["B3"].value == sheet["B2"].value
    assert read_workbook(tmp_path / "b.xlsx").questions == read_workbook(path).questions


def test_a_workbook_that_is_refused_is_annotated_all_the_same(tmp_path: Path) -> None:
    path = write_xlsx(tmp_path / "t.xlsx", [test_row(1), test_row(1)], TEST)
    assert lrc("check", path, "--annotate", tmp_path / "o.xlsx") == 1
    assert "row 2 has too" in load_workbook(tmp_path / "o.xlsx").worksheets[0]["A3"].comment.text


def test_control_characters_and_long_texts_make_a_workbook_that_opens(tmp_path: Path) -> None:
    rows = [row(1, 文章="甲_x0000__x0007_乙"), row(2, 文章=OTHER + "長" * 32_000 + " ")]
    path = write_xlsx(tmp_path / "a.xlsx", rows)
    assert lrc("check", path, "--annotate", tmp_path / "o.xlsx", "--fix", tmp_path / "f.xlsx") == 0
    assert values(tmp_path / "f.xlsx")["Sheet"][1][1] == "甲乙"
    assert load_workbook(tmp_path / "f.xlsx").worksheets[0]["B2"].comment.text.endswith("甲��乙")


def test_a_text_that_is_written_stays_that_text(tmp_path: Path) -> None:
    like_formulas, others = ["=1+1", "+1", "-2", "@SUM(A1)", "#N/A", "'甲"], ["甲_x0041_乙", "_x000D_"]
    copy, path = WorkbookCopy(write_xlsx(tmp_path / "a.xlsx", [row(1)])), tmp_path / "b.xlsx"
    for number, text in enumerate([*like_formulas, *others], start=3):
        copy.write(number, 1, text)
    path.write_bytes(copy.to_bytes())
    assert [line[0] for line in values(path)["Sheet"][2:]] == [*like_formulas, *others]
    cells = [cell for (cell,) in load_workbook(path).worksheets[0].iter_rows(min_row=3, max_col=1)]
    assert {cell.data_type for cell in cells} == {"s"}
    assert [bool(cell.quotePrefix) for cell in cells] == [True] * 6 + [False] * 2  # also when a person edits it


X14 = 'xmlns:x14="http://schemas.microsoft.com/office/spreadsheetml/2009/9/main"'
XM = 'xmlns:xm="http://schemas.microsoft.com/office/excel/2006/main"'
# What Excel writes into a sheet, behind which element, and what the reader is told of it.
OF_EXCEL = {
    "ranges that may be edited on a protected sheet (2)": (
        "</sheetData>",
        '<protectedRanges><protectedRange sqref="A2" name="a"/><protectedRange sqref="B2" name="b"/></protectedRanges>',
    ),
    "error marks switched off (1)": (
        '<pageMargins left="0.75" right="0.75" top="1" bottom="1" header="0.5" footer="0.5"/>',
        '<ignoredErrors><ignoredError sqref="A2" numberStoredAsText="1"/></ignoredErrors>',
    ),
    "sparklines (1)": (
        "",
        f'<ext uri="{{05C60535-1F16-4fd2-B633-F4F36F0B64E0}}" {X14}><x14:sparklineGroups {XM}><x14:sparklineGroup>'
        "<x14:sparklines><x14:sparkline><xm:f>Sheet!A1:B1</xm:f><xm:sqref>K2</xm:sqref></x14:sparkline>"
        "</x14:sparklines></x14:sparklineGroup></x14:sparklineGroups></ext>",
    ),
    "drop-down lists of Excel 2010 and later (1)": (
        "",
        f'<ext uri="{{CCE6A557-97BC-4b89-ADB6-D9C93CAAB3DF}}" {X14}><x14:dataValidations count="1" {XM}>'
        '<x14:dataValidation type="list"><x14:formula1><xm:f>Sheet!A1:A3</xm:f></x14:formula1><xm:sqref>H2</xm:sqref>'
        "</x14:dataValidation></x14:dataValidations></ext>",
    ),
}
PARTS = {
    "threads of comments (1)": "xl/threadedComments/threadedComment1.xml",
    "slicers (1)": "xl/slicers/slicer1.xml",
    "data connections (1)": "xl/connections.xml",
    "xl_of_the_future (1)": "xl_of_the_future/part1.xml",
}


def add_what_openpyxl_lacks(path: Path) -> Path:
    def change(old: bytes) -> bytes:
        text, extensions = old.decode().replace(" />", "/>"), ""
        for place, piece in OF_EXCEL.values():
            assert place in text
            text, extensions = (text.replace(place, place + piece), extensions) if place else (text, extensions + piece)
        return text.replace("</worksheet>", f"<extLst>{extensions}</extLst></worksheet>").encode()

    return replace_part(path, "xl/worksheets/sheet1.xml", change, **dict.fromkeys(PARTS.values(), b"<a/>"))


@pytest.mark.parametrize("language", ["en", "zh_TW"])
def test_what_the_copy_lacks_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, language: str
) -> None:
    monkeypatch.setenv("LRC_LANG", language)
    path = add_what_openpyxl_lacks(write_xlsx(tmp_path / "a.xlsx", [row(1), row(2, 文章=OTHER)]))
    assert lrc("check", path, "--annotate", tmp_path / "o.xlsx") == 0
    (line,) = [
        line for line in capsys.readouterr().out.splitlines() if "not in the copy" in line or "副本裡沒有" in line
    ]
    if language == "en":
        named = line.partition("not in the copy: ")[2].partition(";")[0].split(", ")
        assert sorted(named) == sorted([*OF_EXCEL, *PARTS])
    else:
        assert line.count("）") == len(OF_EXCEL) + len(PARTS)
        assert not re.search("[a-z]{3}", re.sub("a.xlsx|Excel|xl_of_the_future", "", line)), line


def test_nothing_is_named_where_all_of_it_is_in_the_copy(book: Path, tmp_path: Path) -> None:
    def draw(sheet: Worksheet) -> None:
        decorate(sheet)
        sheet.oddHeader.center.text, sheet.auto_filter.ref = "測驗", "A1:H3"
        sheet.protection.set_password("a")
        chart = BarChart()
        chart.add_data(Reference(sheet, min_col=1, min_row=1, max_row=3))
        sheet.add_chart(chart, "L2")
        pixels = BytesIO()
        Image.new("RGB", (9, 9)).save(pixels, "PNG")
        sheet.add_image(Picture(pixels), "L20")

    path = write_xlsx(tmp_path / "a.xlsx", [row(1), row(2, 文章=OTHER)], change=draw)
    content, lost, _changed = annotate(path, None, read_workbook(path), [], fix=False)
    parts = set(zipfile.ZipFile(BytesIO(content)).namelist())
    assert {"xl/media/image1.png", "xl/charts/chart1.xml"} <= parts and not lost


# As Excel writes it: single quotes, prefixes of its own, and an element that is not closed.
VML = """<xml xmlns:v="urn:schemas-microsoft-com:vml" xmlns:o="urn:schemas-microsoft-com:office:office"
 xmlns:x="urn:schemas-microsoft-com:office:excel">
 <v:shapetype id="_x0000_t202" coordsize="21600,21600" o:spt="202" path="m,l,21600r21600,l21600,xe"/>
 <v:shape id="_x0000_s1025" type="#_x0000_t202" style='position:absolute;
  margin-left:107.25pt;margin-top:7.5pt;width:300pt;height:225pt;z-index:1;
  visibility:hidden' fillcolor="#0f0" o:insetmode="auto"><v:textbox><div>a<br></div></v:textbox>
  <x:ClientData ObjectType="Note"><x:Anchor>
    2, 15, 0, 10, 8, 31, 15, 10</x:Anchor><x:Row>1</x:Row><x:Column>3</x:Column></x:ClientData></v:shape>
 <v:shape id="_x0000_s1026" type="#_x0000_t202" style='width:9.6pt;height:300pt;visibility:visible'
  fillcolor="#ffffe1"><x:ClientData ObjectType="Note"><x:Anchor>3, 15, 0, 10, 8, 31, 15, 10</x:Anchor>
  <x:Row>1</x:Row><x:Column>4</x:Column><x:Visible/></x:ClientData></v:shape></xml>"""
RUN = "<r><rPr><b/><sz val='20'/><rFont val='標楷體'/></rPr><t>查&amp;過</t></r>"


def test_comments_keep_their_boxes_and_fonts(tmp_path: Path) -> None:
    def comment(sheet: Worksheet) -> None:
        sheet["D2"].comment, sheet["E2"].comment = Comment("查&過", ""), Comment("查&過", "王老師")

    path = write_xlsx(tmp_path / "a.xlsx", [row(1, 選項2=" 釣魚"), row(2, 文章=OTHER)], change=comment)
    replace_part(path, "xl/drawings/commentsDrawing1.vml", lambda _old: VML.encode())
    plain = "<t>查&amp;過</t>"
    replace_part(path, "xl/comments/comment1.xml", lambda old: old.decode().replace(plain, RUN).encode())
    book = read_workbook(path)
    content, lost, _changed = annotate(path, None, book, book.findings)
    (tmp_path / "o.xlsx").write_bytes(content)
    assert not lost
    package = zipfile.ZipFile(BytesIO(content))
    vml = ElementTree.fromstring(package.read("xl/drawings/commentsDrawing1.vml"))
    excel = "{urn:schemas-microsoft-com:office:excel}"
    same, longer = vml.iter("{urn:schemas-microsoft-com:vml}shape")
    # The box of a comment that says the same is as it was; a longer one is as large at least, and as it needs.
    assert same.get("fillcolor") == "#0f0" and "width:300pt;height:225pt;" in same.get("style", "")
    assert next(same.iter(f"{excel}Anchor")).text == "2, 15, 0, 10, 8, 31, 15, 10"
    assert "width:320px;height:400px;" in longer.get("style", "") and "visible" in longer.get("style", "")
    assert [len(list(one.iter(excel + name))) for one in (same, longer) for name in ("Anchor", "Visible")] == [
        1,
        0,
        0,
        1,
    ]
    comments = package.read("xl/comments/comment1.xml").decode()
    assert comments.count(RUN) == 2 and "None" not in comments
    texts = [load_workbook(tmp_path / "o.xlsx").worksheets[0][cell].comment.text for cell in ("D2", "E2")]
    assert texts[0] == "查&過" and texts[1].startswith("查&過\nrepaired: ")


def test_what_a_copy_loses_of_charts_and_pictures_is_named_and_leaves_it_whole(tmp_path: Path) -> None:
    def draw(sheet: Worksheet) -> None:
        chart, pixels = BarChart(), BytesIO()
        chart.add_data(Reference(sheet, min_col=1, min_row=1, max_row=3))
        sheet.add_chart(chart, "L2")
        Image.new("RGB", (9, 9)).save(pixels, "PNG")
        sheet.add_image(Picture(pixels), "L20")
        sheet["K1"].comment = Comment("甲", "乙")
        sheet.merge_cells("K1:M1")

    path = write_xlsx(tmp_path / "a.xlsm", [row(1), row(2, 文章=OTHER)], change=draw)
    replace_part(path, "xl/charts/chart1.xml", lambda old: old.replace(b"<spPr>", b"<c:dTable xmlns:c='x'/><spPr>", 1))
    link = b'><a:hlinkClick xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main" r:id="rId9"'
    link += b' xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"/></cNvPr>'
    described = re.compile(rb'(<cNvPr id="2" name="Image [^>]*?) ?/>')
    replace_part(path, "xl/drawings/drawing1.xml", lambda old: described.sub(rb"\1" + link, old))
    macros = b"application/vnd.ms-excel.sheet.macroEnabled.main+xml"
    types = b"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"
    replace_part(path, "[Content_Types].xml", lambda old: old.replace(types, macros))
    comment = b"</commentList>"
    more = b'<comment ref="M1" authorId="0"><text><t>a</t></text></comment></commentList>'
    replace_part(path, "xl/comments/comment1.xml", lambda old: old.replace(comment, more))
    content, lost, _changed = annotate(path, None, read_workbook(path), [])
    (line,) = map(str, lost)
    named = "links on pictures and shapes (1), details of charts (1), comments on cells that are merged with others (1)"
    assert named in line
    package = zipfile.ZipFile(BytesIO(content))
    # Excel takes a workbook that refers to what it has not got for a damaged one.
    assert b"hlink" not in package.read("xl/drawings/drawing1.xml")
    assert b"vbaProject" not in package.read("xl/_rels/workbook.xml.rels")


def test_a_workbook_that_openpyxl_refuses_is_refused_with_a_cure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_xlsx(tmp_path / "a.xlsx", [row(1), row(2, 文章=OTHER)])
    replace_part(path, "[Content_Types].xml", lambda old: old.replace(b"sheet.main+xml", b"other+xml"))
    assert lrc("check", path, "--annotate", tmp_path / "o.xlsx") == 1
    assert capsys.readouterr().err.startswith("a.xlsx: cannot be copied (File contains no valid workbook part); save")


def test_a_copy_needs_no_folder_for_temporary_files(
    book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That may be full, or be read only."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    assert lrc("check", book, "--annotate", tmp_path / "o.xlsx") == 1  # for the bad row
    survives(tmp_path / "o.xlsx")


def test_the_same_workbook_gives_the_same_bytes(book: Path, tmp_path: Path) -> None:
    for name in ("one.xlsx", "two.xlsx"):
        assert lrc("check", book, "--fix", tmp_path / name) == 1
    assert (tmp_path / "one.xlsx").read_bytes() == (tmp_path / "two.xlsx").read_bytes()


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["a.xlsx", "--annotate", "a.xlsx"], 1, "already exists"),
        (["a.xlsx", "--annotate", "a.xlsx", "--force"], 1, "named twice"),
        (["a.xlsx", "--annotate", "o.xlsx", "--fix", "o.xlsx"], 1, "named twice"),
        (["a.xlsx", "--annotate", "o.xlsx", "--fix", "O.XLSX"], 1, "named twice"),
        (["a.xlsx", "--annotate", "o.csv"], 1, "end in .xlsx"),
        (["a.csv", "--annotate", "o.xlsx"], 1, "save this file as .xlsx"),
        (["a.xlsx", "a.csv", "--annotate", "o.xlsx"], 2, "take one workbook"),
        (["none.xlsx", "--annotate", "o.xlsx"], 1, "No such file"),
    ],
)
def test_a_copy_that_cannot_be_made_is_refused(
    words: list[str],
    status: int,
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = write_xlsx(tmp_path / "a.xlsx", [row(1), row(2, 文章=OTHER)]).read_bytes()
    write_csv(tmp_path / "a.csv", [row(1), row(2, 文章=OTHER)])
    assert lrc("check", *words) == status
    printed = capsys.readouterr()
    assert told in printed.err + printed.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.xlsx"]
    assert (tmp_path / "a.xlsx").read_bytes() == before


def test_marks_are_seen_on_a_dark_title_and_above_conditional_formats(tmp_path: Path) -> None:
    def colour(sheet: Worksheet) -> None:
        sheet.insert_rows(1)
        sheet["A1"] = "閱讀測驗"
        sheet["A1"].font, sheet["A1"].fill = Font(color="FFFFFF", size=18), PatternFill("solid", fgColor="1F4E78")
        sheet["E3"].font = Font(color=Color(theme=0))
        sheet["E4"].font = Font(color="FF0000", name="標楷體")
        banded = FormulaRule(["MOD(ROW(),2)=1"], fill=PatternFill("solid", bgColor="F2F2F2"))
        sheet.conditional_formatting.add("A2:H9", banded)

    rows = [row(1, 選項2=" 釣魚"), row(2, 文章=OTHER, 選項2=" 釣魚"), row(3, 正確答案=9)]
    path = write_xlsx(tmp_path / "a.xlsx", rows, change=colour)
    assert lrc("check", path, "--annotate", tmp_path / "o.xlsx") == 1
    sheet = load_workbook(tmp_path / "o.xlsx").worksheets[0]
    fonts = [sheet[place].font for place in ("A1", "E3", "E4")]
    assert [font.color.rgb for font in fonts] == ["00000000", "00000000", "00FF0000"]
    assert (fonts[0].size, fonts[2].name) == (18, "標楷體")
    # What comes first in the file and has the smaller number wins, in every spreadsheet.
    *ours, banded = sheet.conditional_formatting
    assert [str(one.sqref) for one in ours] == ["E3 E4", "H5"] and str(banded.sqref) == "A2:H9"
    assert [one.rules[0].priority for one in (*ours, banded)] == [1, 2, 3]
    assert [one.rules[0].dxf.fill.bgColor.rgb for one in ours] == ["00DDEBF7", "00FFC7CE"]


def test_comments_and_summary_are_in_the_readers_language(
    book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LRC_LANG", "zh_TW")
    assert lrc("check", book, "--annotate", tmp_path / "o.xlsx", "--fix", tmp_path / "f.xlsx") == 1
    assert f"已寫入 {tmp_path / 'o.xlsx'}：" in capsys.readouterr().out
    sheet = load_workbook(tmp_path / "o.xlsx").worksheets[0]
    assert sheet["E7"].comment.text == "錯誤：「選項2」是空白；請填寫"
    assert values(tmp_path / "o.xlsx")["lrc check"][7][:4] == ["錯誤", 7, "選項2", "空白選項"]
    fixed = load_workbook(tmp_path / "f.xlsx").worksheets[0]
    assert fixed["E2"].comment.text == "lrc 已更正；原本是：  釣魚 "
    changed = [line for line in values(tmp_path / "f.xlsx")["lrc check"] if line[0] == "已更正" and line[3]]
    assert changed[0][1:] == [2, "選項2", "頭尾的空白", "「選項2」頭尾有空白；已移除"]
    assert ["已更正", 5, "文章", "儲存格的讀法不同"] in [line[:4] for line in changed]
