"""The text that a spreadsheet shows for a stored value and its number format.

Number formats are described in ECMA-376 part 1, 18.8.30; the built-in numbers 27 to 36 and 50 to 58 are those
of its zh-TW list. The currencies (5 to 8, 42, 44), and how the others of 37 to 43 show negative numbers, depend on the
machine: Excel in Taiwan shows -3, where a program that wrote the file most likely meant (3).
"""

from __future__ import annotations

import math
import re
from datetime import date, datetime, time, timedelta
from functools import lru_cache

from lrc.data.tables.number_formats import SYSTEM, Shown, changes_text, parse_format, plain_number, show_formatted

Value = str | float | int | bool | date | datetime | time | timedelta

BUILT_IN = {
    1: "0",
    2: "0.00",
    3: "#,##0",
    4: "#,##0.00",
    5: f'{SYSTEM}"NT$"#,##0;{SYSTEM}-"NT$"#,##0',
    6: f'{SYSTEM}"NT$"#,##0;{SYSTEM}[Red]-"NT$"#,##0',
    7: f'{SYSTEM}"NT$"#,##0.00;{SYSTEM}-"NT$"#,##0.00',
    8: f'{SYSTEM}"NT$"#,##0.00;{SYSTEM}[Red]-"NT$"#,##0.00',
    9: "0%",
    10: "0.00%",
    11: "0.00E+00",
    12: "# ?/?",
    13: "# ??/??",
    14: "yyyy/m/d",
    15: "d-mmm-yy",
    16: "d-mmm",
    17: "mmm-yy",
    18: "h:mm AM/PM",
    19: "h:mm:ss AM/PM",
    20: "h:mm",
    21: "h:mm:ss",
    22: "yyyy/m/d h:mm",
    27: "[$-404]e/m/d",
    28: '[$-404]e"年"m"月"d"日"',
    29: '[$-404]e"年"m"月"d"日"',
    30: "m/d/yy",
    31: 'yyyy"年"m"月"d"日"',
    32: 'hh"時"mm"分"',
    33: 'hh"時"mm"分"ss"秒"',
    34: '上午/下午hh"時"mm"分"',
    35: '上午/下午hh"時"mm"分"ss"秒"',
    36: "[$-404]e/m/d",
    37: f"#,##0_);{SYSTEM}(#,##0)",
    38: f"#,##0_);{SYSTEM}[Red](#,##0)",
    39: f"#,##0.00_);{SYSTEM}(#,##0.00)",
    40: f"#,##0.00_);{SYSTEM}[Red](#,##0.00)",
    41: f"#,##0_);{SYSTEM}(#,##0);-",
    42: f'{SYSTEM}"NT$"#,##0;{SYSTEM}-"NT$"#,##0;{SYSTEM}"NT$"-',
    43: f"#,##0.00_);{SYSTEM}(#,##0.00);-",
    44: f'{SYSTEM}"NT$"#,##0.00;{SYSTEM}-"NT$"#,##0.00;{SYSTEM}"NT$"-',
    45: "mm:ss",
    46: "[h]:mm:ss",
    47: "mm:ss.0",
    48: "##0.0E+0",
    49: "@",
    50: "[$-404]e/m/d",
    51: '[$-404]e"年"m"月"d"日"',
    52: '上午/下午hh"時"mm"分"',
    53: '上午/下午hh"時"mm"分"ss"秒"',
    54: '[$-404]e"年"m"月"d"日"',
    55: '上午/下午hh"時"mm"分"',
    56: '上午/下午hh"時"mm"分"ss"秒"',
    57: "[$-404]e/m/d",
    58: '[$-404]e"年"m"月"d"日"',
}
EPOCH, EPOCH_1904 = datetime(1899, 12, 30), datetime(1904, 1, 1)  # day 0 in the two date systems
_PLAIN = {datetime: "yyyy/m/d h:mm", date: "yyyy/m/d", time: "h:mm", timedelta: "[h]:mm:ss"}


@lru_cache(maxsize=512)
def kind_of(code: str) -> str | None:
    """Classify a number format: `date`, `percent`, `padded` (with leading zeros), `number` or `text`.

    Returns:
        None if the format shows every value as it is stored.
    """
    sections = parse_format(code)
    kinds = [section.kind for section in sections]
    if "date" in kinds:
        return "date"
    if "%" in sections[0].tokens and kinds[0] == "number":
        return "percent"
    if re.fullmatch("0{2,}", code):
        return "padded"
    if set(kinds) & {"number", "fraction", "exponent", "literal"}:
        return "number"
    plain = all(token.lower() in ("general", "@") for section in sections for token in section.tokens)
    changed = not plain or any(section.chinese_digits for section in sections)
    return "text" if changed or changes_text(code) else None


def show_value(value: Value, code: str | None = None, epoch: datetime = EPOCH) -> str:
    """The text that a sheet shows for a value; see `show_cell`."""
    return show_cell(value, code, epoch).text


def show_cell(value: Value, code: str | None = None, epoch: datetime = EPOCH) -> Shown:
    """The text that a sheet shows for a value, and whether it is exact.

    Args:
        value: as calamine returns it.
        code: the number format of the cell; None for one that shows values as they are stored (see `kind_of`).
        epoch: day 0 in the date system of the workbook.
    """
    if isinstance(value, str):
        return Shown(value) if code is None else show_formatted(value, code, epoch)
    if isinstance(value, bool):
        return Shown(str(value).upper())
    if isinstance(value, date | time | timedelta):
        code, value, epoch = code or _PLAIN[type(value)], _serial(value), EPOCH
    if code is None or not math.isfinite(value):
        return Shown(show_number(value))
    return show_formatted(value, code, epoch)


def show_number(value: float) -> str:
    """The number with up to 15 digits, without an exponent and without `.0`."""
    return plain_number(value) if math.isfinite(value) else str(value)


def _serial(value: date | time | timedelta) -> float:
    """The serial number of a date or time: days since `EPOCH`."""
    if isinstance(value, timedelta):
        return value / timedelta(days=1)
    if isinstance(value, time):
        return (datetime.combine(EPOCH, value) - EPOCH) / timedelta(days=1)
    moment = value if isinstance(value, datetime) else datetime.combine(value, time())
    days = (moment - EPOCH) / timedelta(days=1)
    return days - 1 if 1 < days <= 60 else days  # spreadsheets count a 29th of February 1900, which did not exist
