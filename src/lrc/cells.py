"""What a cell shows: the text that a reader of the sheet sees for a stored value and its number format.

Number formats are described in ECMA-376 part 1, 18.8.30; the built-in numbers 27 to 36 and 50 to 58 are those
of its zh-TW list.
"""

from __future__ import annotations

import math
import re
from datetime import date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal

Value = str | float | int | bool | date | datetime | time | timedelta

BUILT_IN = {
    9: "0%",
    10: "0.00%",
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
    45: "mm:ss",
    46: "[h]:mm:ss",
    47: "mm:ss.0",
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
EPOCH, EPOCH_1904 = datetime(1899, 12, 30), datetime(1904, 1, 1)  # day 0 of the two date systems

_LITERAL = re.compile(r'"[^"]*"|\\.|_.|\*.|\[[^\]]*\]', re.DOTALL)
_TOKEN = re.compile(
    r'"[^"]*"|\\.|_.|\*.|\[[^\]]*\]|AM/PM|A/P|上午/下午|y+|e+|m+|d+|h+|s+(?:\.0+)?|a{3,4}|.', re.I | re.DOTALL
)
_ELAPSED = re.compile(r"\[(h+|m+|s+)\]", re.I)
_DATE = re.compile(r"[ymdhse]", re.I)
_EXPONENT = re.compile(r"E[+-]", re.I)
_PLAIN = {datetime: "yyyy/m/d h:mm", date: "yyyy/m/d", time: "h:mm", timedelta: "[h]:mm:ss"}
_BEYOND = 2_958_466  # the day after 9999/12/31
_WEEKDAYS = "一二三四五六日"


def kind_of(code: str) -> str | None:
    """What a number format does to the text: `percent`, `date`, `padded` (leading zeros), or None."""
    section = code.split(";", 1)[0]
    bare = _LITERAL.sub("", section)
    if "%" in bare:
        return "percent"
    if _ELAPSED.search(section) or bare.lower() != "general" and _DATE.search(_EXPONENT.sub("", bare)):
        return "date"
    return "padded" if re.fullmatch("0{2,}", bare) else None


def show(value: Value, code: str | None = None, epoch: datetime = EPOCH) -> str:
    """The text of a stored value.

    Args:
        value: as calamine gives it.
        code: the cell's number format, where `kind_of` says that it matters.
        epoch: day 0 of the workbook's date system.
    """
    if code is None and type(value) is float:  # nearly every number
        return show_number(value)
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, date | time | timedelta):
        return show_date(_moment(value), code or _PLAIN[type(value)])
    kind = kind_of(code) if code and math.isfinite(value) else None
    if kind == "percent":
        return show_percent(value, str(code))
    if kind == "date" and 0 <= value < _BEYOND:
        return show_date(epoch + timedelta(days=value), str(code))
    text = show_number(value)
    return text.zfill(str(code).count("0")) if kind == "padded" else text


def show_number(value: float) -> str:
    """The shortest decimal that reads back as `value`, without exponent and without `.0`."""
    if -1e15 < value < 1e15 and value == int(value):
        return str(int(value))
    if not math.isfinite(value):
        return str(value)
    return format(Decimal(repr(value)), "f")


def show_percent(value: float, code: str) -> str:
    """A share as a percentage with its format's decimals; halves go away from zero, as in a spreadsheet."""
    pattern = _LITERAL.sub("", code.split(";", 1)[0])
    places = re.search(r"\.([0#?]*)", pattern)
    decimals = min(len(places[1]), 30) if places else 0
    optional = len(places[1]) - len(places[1].rstrip("#")) if places else 0
    # The default context has 28 digits; a stored value may be as large as 1.8e308.
    exact = (Decimal(repr(value)) * 100).quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP, Context(prec=400))
    text = format(exact, "f")
    for _ in range(optional):
        text = text.removesuffix("0")
    return text.removesuffix(".") + "%"


def show_date(moment: datetime, code: str) -> str:
    """A date, a time or a duration under its number format."""
    section = code.split(";", 1)[0]
    # A day's fraction is a binary one: 12:30 is stored as 12:29:59.9999.
    moment = (moment + timedelta(microseconds=500)).replace(microsecond=0) if ".0" not in section else moment
    tokens = _TOKEN.findall(section)
    noon = any(token.upper() in ("AM/PM", "A/P", "上午/下午") for token in tokens)
    shown = []
    for place, token in enumerate(tokens):
        if token[0].lower() == "m" and _is_minute(tokens, place):
            token = token.replace("m", "n").replace("M", "n")
        shown.append(_show_token(moment, token, noon, taiwan="[$-404]" in section))
    return "".join(shown).strip()


def _moment(value: date | time | timedelta) -> datetime:
    if isinstance(value, datetime):
        return value
    if isinstance(value, timedelta):
        return EPOCH + value
    return datetime.combine(EPOCH, value) if isinstance(value, time) else datetime.combine(value, time())


def _is_minute(tokens: list[str], place: int) -> bool:
    """`m` is minutes after an hour and before seconds, and months otherwise."""
    before = [token for token in tokens[:place] if token[0].lower() in "ymdhse" or _ELAPSED.match(token)]
    after = [token for token in tokens[place + 1 :] if token[0].lower() in "ymdhse"]
    after_hour = bool(before) and before[-1].strip("[")[0].lower() == "h"
    return after_hour or bool(after) and after[0][0].lower() == "s"


def _show_token(moment: datetime, token: str, noon: bool, taiwan: bool) -> str:
    size, letter = len(token), token[0].lower()
    if elapsed := _ELAPSED.fullmatch(token):
        seconds = round((moment - EPOCH).total_seconds())
        unit = {"h": 3600, "m": 60, "s": 1}[elapsed[1][0].lower()]
        return str(seconds // unit).zfill(len(elapsed[1]))
    if token.upper() in ("AM/PM", "A/P", "上午/下午"):
        return token.split("/")[moment.hour >= 12]
    if letter == "y":
        return f"{moment.year:04d}" if size > 2 else f"{moment.year % 100:02d}"
    if letter == "e":
        return str(moment.year - 1911 if taiwan else moment.year)
    if letter in "md" and size > 2:
        long = "%B" if letter == "m" else "%A"
        return moment.strftime(long if size > 3 else long.lower())
    if letter == "a" and size > 2:
        return ("週" if size == 3 else "星期") + _WEEKDAYS[moment.weekday()]
    hour = (moment.hour - 1) % 12 + 1 if noon else moment.hour
    parts = {"m": moment.month, "d": moment.day, "h": hour, "n": moment.minute, "s": moment.second}
    number = parts.get(letter)
    if number is not None:
        places = token.partition(".")[2]
        fraction = f".{moment.microsecond:06d}"[: len(places) + 1] if places else ""
        return str(number).zfill(min(len(token.partition(".")[0]), 2)) + fraction
    return _show_literal(token)


def _show_literal(token: str) -> str:
    if token.startswith('"'):
        return token.strip('"')
    if token.startswith("\\"):
        return token[1:]
    if token.startswith("_"):
        return " "  # a gap as wide as the next character
    return "" if token.startswith(("[", "*")) else token
