"""The quick way through a sheet and the slow one find the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from openpyxl.worksheet.worksheet import Worksheet
from workbooks import replace_part, row, write_xlsx

from lrc.data.tables.xlsx_package import open_package
from lrc.data.tables.xlsx_scan import Marks, scan

SHEET = "xl/worksheets/sheet1.xml"


def special_cells(sheet: Worksheet) -> None:
    sheet["D700"], sheet["D1300"] = "=1+1", 0.5
    sheet["D1300"].number_format = "0%"
    sheet["E1900"].data_type = "e"
    sheet.merge_cells("B2500:B2501")
    sheet.row_dimensions[2700].hidden = True
    sheet.column_dimensions["C"].hidden = True


def marks(path: Path) -> Marks:
    with open_package(path) as package:
        return scan(package, SHEET)


def shared_strings(path: Path) -> Path:
    """openpyxl writes strings into the cells; make them shared ones, as spreadsheets do."""
    strings = b"<sst>" + b"<si><t>\xe6\x96\x87</t></si>" * 50 + b"</sst>"
    replace_part(path, SHEET, lambda xml: xml.replace(b't="n"><v>7</v>', b't="s"><v>7</v>'))
    return replace_part(path, "[Content_Types].xml", lambda xml: xml, **{"xl/sharedStrings.xml": strings})


@pytest.mark.parametrize("change", [None, special_cells])
def test_both_ways_agree(tmp_path: Path, change: Callable[[Worksheet], None] | None) -> None:
    rows = [row(n, 正確答案=7) for n in range(3000)]
    path = shared_strings(write_xlsx(tmp_path / "a.xlsx", rows, change=change))
    quick = marks(path)
    # After a comment, what looks like a tag may be none: the quick way is closed.
    replace_part(path, SHEET, lambda xml: xml.replace(b"<sheetData>", b"<!-- --><sheetData>"))
    slow = marks(path)
    assert quick.last == slow.last == (3001, 7)
    assert (quick.formats, quick.formulas, quick.errors) == (slow.formats, slow.formulas, slow.errors)
    assert quick.merged == slow.merged
    assert (quick.hidden_rows, quick.hidden_columns) == (slow.hidden_rows, slow.hidden_columns)
    assert 3000 <= slow.text_size <= quick.text_size <= 3000 * len(b"<sst><si><t>\xe6\x96\x87</t>")
    if change:
        assert (700, 3) in quick.formulas and (1900, 4) in quick.errors and (1300, 3) in quick.formats
        assert (quick.hidden_rows, quick.hidden_columns) == ({2700}, {2})
