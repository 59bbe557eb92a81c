"""Renders a number, a date or a text under a number format code, as a spreadsheet shows it.

The codes are described in ECMA-376 part 1, 18.8.31. What depends on the machine or on the width of the column is
approximated, and marked as not exact.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from typing import Literal, NamedTuple

Kind = Literal["general", "number", "fraction", "exponent", "date", "text", "literal"]

_TOKEN = re.compile(
    r'"[^"]*"?|\\.|_.|\*.|\[[^\]]*\]|General|AM/PM|A/P|上午/下午|E[+-](?=[0#?])'
    r"|y+|e+|m+|d+|h+|s+(?:\.0+)?|a{3,4}|g+|.",
    re.IGNORECASE | re.DOTALL,
)
_ELAPSED = re.compile(r"\[(h+|m+|s+)\]", re.IGNORECASE)
_CONDITION = re.compile(r"\[(<=|>=|<>|<|>|=)\s*(-?[0-9.]+)\]")
_LOCALE = re.compile(r"\[\$([^\]-]*)(?:-([0-9A-Fa-f]+|[A-Za-z-]+[^\]]*))?\]")
_COLOR = re.compile(r"\[(?:black|blue|cyan|green|magenta|red|white|yellow|colou?r\s*\d+|[黑藍綠青紅洋白黃]色?)\]", re.I)
# Letters without a meaning here have one in other languages: bbbb is the year of the Buddhist calendar.
_FOREIGN = re.compile("[bcfijklnopqrtuvwxz]", re.I | re.ASCII)
_NOON = ("AM/PM", "A/P", "上午/下午")
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
    "<>": operator.ne,
}
_TAIWAN = 0x404
_CHINESE = (_TAIWAN, 0x804, 0xC04, 0x1004)
_SIMPLIFIED = (0x804, 0x1004)
# The characters that [DBNum1] and [DBNum2] write differently for zh-CN and zh-SG.
_TO_SIMPLIFIED = str.maketrans("貳參陸萬億", "贰叁陆万亿")
SYSTEM = "[$-F400]"  # marks a format that depends on the settings of the machine
_ENGLISH_OR_NONE = (0, 0x409, 0x809)
_WEEKDAYS = "一二三四五六日"
_DIGITS = {1: "〇一二三四五六七八九", 2: "零壹貳參肆伍陸柒捌玖", 3: "０１２３４５６７８９"}
_TENS = {1: ("", "十", "百", "千"), 2: ("", "拾", "佰", "仟"), 3: ("", "十", "百", "千")}
_LONGEST = 255  # characters of a format code
_PRECISE = Context(prec=1000)  # digits; a stored value may be as large as 1.8e308


class Shown(NamedTuple):
    """A cell's text, and whether it is exactly what the sheet shows."""

    text: str
    exact: bool = True


@dataclass
class Section:
    """One of the parts of a format code that semicolons separate."""

    tokens: list[str] = field(default_factory=list)
    condition: tuple[str, float] | None = None  # operator and bound, as in [>=100]
    locale: int = 0  # a Windows language id, such as 0x404
    calendar: int = 0  # 4 is that of the Republic of China
    chinese_digits: int = 0  # n of [DBNumn]; 0 for none
    exact: bool = True  # whether the text does not depend on the machine or the column width

    @property
    def kind(self) -> Kind:
        """What sort of text the section makes of a value."""
        bare = [token for token in self.tokens if token[0] not in '"\\_*']
        if any(_ELAPSED.fullmatch(token) or token[0].lower() in "ymdhsaeg" and _is_date(token) for token in bare):
            return "date"
        if any(token.lower() == "general" for token in bare):
            return "general"
        if any(re.match(r"E[+-]", token, re.I) for token in bare):
            return "exponent"
        digits = any(token in "0#?" for token in bare)
        if digits and _slash(self.tokens):
            return "fraction"
        return "number" if digits else "text" if "@" in bare else "literal"


def show_formatted(value: float | str, code: str, epoch: datetime) -> Shown:
    """Render a stored value under a number format.

    Args:
        value: a number, the serial number of a date, or a text.
        code: the format code.
        epoch: day 0 in the date system of the workbook.
    """
    if len(code) > _LONGEST:
        return Shown(value if isinstance(value, str) else plain_number(value), exact=False)
    sections = parse_format(code)
    if isinstance(value, str):
        return _show_text(value, sections)
    section, size = _choose(sections, value)
    match section.kind:
        case "date":
            return _show_date(value, section, epoch)
        case "fraction":
            text = _show_fraction(size, section)
        case "exponent":
            text = _show_exponent(size, section)
        case "general":
            text = "".join(_general(size, section) if t.lower() == "general" else _literal(t) for t in section.tokens)
            text = f"-{text}" if size < 0 else text
        case "text":
            text = "".join(plain_number(size) if token == "@" else _literal(token) for token in section.tokens)
        case _:
            text = _show_number(size, section)
    if section.chinese_digits and section.kind in ("number", "exponent", "fraction"):
        text = text.translate(dict(zip(map(ord, "0123456789"), _DIGITS[section.chinese_digits], strict=True)))
    text = _in_script(text, section)
    if not text.strip():
        return Shown(plain_number(value), exact=False)  # the format hides it
    return Shown(text.strip(), section.exact and not (section.chinese_digits and ("〇" in text or "." in text)))


def plain_number(value: float) -> str:
    """Render a number without a format: up to 15 digits, without an exponent and without `.0`."""
    if value == int(value) and abs(value) < 2**53:
        return str(int(value))
    text = repr(value)
    if len(text.partition("e")[0].replace(".", "").strip("-0")) > 15 and abs(value) < 1e15:
        text = f"{value:.15g}"
    return format(Decimal(text), "f").removesuffix(".0")


@lru_cache(maxsize=512)
def parse_format(code: str) -> tuple[Section, ...]:
    """Parse a format code into its sections, at most four."""
    sections = [Section()]
    for token in _TOKEN.findall(code):
        if token == ";":
            sections.append(Section())
        else:
            _add_token(sections[-1], token)
    return tuple(sections[:4])


def changes_text(code: str) -> bool:
    """Whether a format changes how texts are shown, and not only numbers."""
    section = _text_section(parse_format(code))
    return section is not None and section.tokens != ["@"]


def _add_token(section: Section, token: str) -> None:
    """Add a token to a section; one in square brackets that is not shown becomes a property of it."""
    if not token.startswith("["):
        section.tokens.append(token)
        section.exact &= not token.startswith("*") or token[1:] in (" ", "")
        section.exact &= not _FOREIGN.fullmatch(token)
    elif _ELAPSED.fullmatch(token):
        section.tokens.append(token)
    elif found := _CONDITION.fullmatch(token):
        section.condition = found[1], float(found[2])
    elif found := _LOCALE.fullmatch(token):
        if found[1]:
            section.tokens.append(f'"{found[1]}"')
        _localize(section, found[2] or "")
    elif found := re.fullmatch(r"\[DBNum([1-3])\]", token, re.I):
        section.chinese_digits = int(found[1])
    elif not _COLOR.fullmatch(token):
        section.exact = False


def _localize(section: Section, name: str) -> None:
    if re.fullmatch("[0-9A-Fa-f]+", name):
        number = int(name, 16)
        section.locale, section.calendar = number & 0xFFFF, number >> 16 & 0xFF
        section.exact &= number >> 24 == 0 and section.locale < 0xF000  # the system's own date and time
    elif name:
        section.locale = {"zh-TW": _TAIWAN, "zh-CN": 0x804, "en-US": 0x409}.get(name, 1)
        section.exact &= section.locale != 1


def _slash(tokens: list[str]) -> int:
    """Where the slash of a fraction stands, between placeholders; 0 where there is none."""
    for place in range(1, len(tokens) - 1):
        before, after = tokens[place - 1], tokens[place + 1]
        if tokens[place] == "/" and before in ("0", "#", "?") and (after in ("0", "#", "?") or after in "123456789"):
            return place
    return 0


def _is_date(token: str) -> bool:
    return token.lower() not in ("general", "a", "aa") and not re.match(r"E[+-]", token, re.I)


def _choose(sections: tuple[Section, ...], value: float) -> tuple[Section, float]:
    """The section for a number, and the number without its sign where the section is for negative ones."""
    numeric = [section for section in sections[:3] if section.kind != "text"] or list(sections[:1])
    if any(section.condition for section in numeric):
        return _choose_by_condition(numeric, value)
    if len(numeric) > 1 and value < 0:
        return numeric[1], -value
    if len(numeric) > 2 and value == 0:
        return numeric[2], value
    return numeric[0], value


def _choose_by_condition(sections: list[Section], value: float) -> tuple[Section, float]:
    if not sections[0].condition:  # where the others have one, what the first is for is not written
        sections = [replace(section, exact=False) for section in sections]
    for place, section in enumerate(sections):
        sign, bound = section.condition or (("<", 0.0) if place == 1 and len(sections) > 2 else ("", 0.0))
        if not sign or _COMPARE[sign](value, bound):
            negative = sign in ("<", "<=", "=") and bound <= 0 and not (sign == "<=" and bound == 0)
            return section, abs(value) if negative else value
    return Section(exact=False), value  # no section is for it


def _text_section(sections: tuple[Section, ...]) -> Section | None:
    if len(sections) == 4:
        return sections[3]
    return sections[-1] if sections[-1].kind == "text" else None


def _show_text(value: str, sections: tuple[Section, ...]) -> Shown:
    section = _text_section(sections)
    if section is None:
        return Shown(value)
    if "@" not in section.tokens:
        return Shown(value, exact=False)  # the format hides it
    return Shown("".join(value if token == "@" else _literal(token) for token in section.tokens), section.exact)


def _literal(token: str) -> str:
    if token.startswith('"'):
        return token.strip('"')
    if token.startswith("\\"):
        return token[1:]
    if token.startswith("_"):
        return " "  # a gap as wide as the next character
    return "" if token.startswith(("[", "*")) else token


def _general(value: float, section: Section) -> str:
    text = plain_number(abs(value))
    if not section.chinese_digits or not text.isdecimal():
        return text
    return _numeral(int(text), section.chinese_digits, leading_one=True)


def _numeral(number: int, style: int, *, leading_one: bool) -> str:
    """A Chinese numeral: 一百二十三; below 20 dates write 十二, and other numbers 一十二."""
    digits, tens = _DIGITS[style], _TENS[style]
    zero, text, gap = ("零" if style == 2 else digits[0]), "", False
    groups = []
    while number:
        number, group = divmod(number, 10_000)
        groups.append(group)
    for place in range(len(groups) - 1, -1, -1):
        gap = gap or bool(text) and groups[place] < 1000
        for power in range(3, -1, -1):
            digit = groups[place] // 10**power % 10
            if digit:
                text += (zero if gap and text else "") + digits[digit] + tens[power]
                gap = False
            elif text:
                gap = True
        text += ("", "萬", "億", "兆")[place % 4] if groups[place] else ""
    text = text or zero
    return text if leading_one else re.sub(rf"^{digits[1]}(?={tens[1]})", "", text)


def _decimal(value: float) -> Decimal:
    """A number with the 15 digits that a spreadsheet keeps."""
    return Decimal(f"{value:.15g}")


def _round(number: Decimal, places: int) -> Decimal:
    """Halves go away from zero, as in a spreadsheet."""
    return number.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP, _PRECISE)


def _show_number(value: float, section: Section) -> str:
    tokens = section.tokens
    point = tokens.index(".") if "." in tokens else len(tokens)
    digits = [place for place, token in enumerate(tokens) if token in ("0", "#", "?")]
    whole = [place for place in digits if place < point]
    behind = [place for place in digits if place > point]
    if not digits:
        return ("-" if value < 0 else "") + "".join(map(_literal, tokens))
    end, scale = digits[-1], 0
    while end + 1 + scale < len(tokens) and tokens[end + 1 + scale] == ",":
        scale += 1
    grouped = any("," in tokens[one:other] for one, other in pairwise(whole))
    number = _decimal(abs(value)) * 100 ** tokens.count("%") / 1000**scale
    text = format(_round(number, len(behind)), "f")
    left, _, right = text.partition(".")
    shown = _whole_digits(left.lstrip("0"), [tokens[place] for place in whole], grouped=grouped)
    shown += _decimals(right, [tokens[place] for place in behind])
    pieces = dict(zip([*whole, *behind], shown, strict=True))
    skipped = {place for place in range(digits[0], end + 1 + scale) if tokens[place] == ","}
    body = "".join(pieces.get(place, "" if place in skipped else _literal(t)) for place, t in enumerate(tokens))
    if not whole and behind and left.strip("0"):
        body = body.replace(".", f"{left}.", 1)
    return f"-{body}" if value < 0 and text.strip("0.") else body


def _whole_digits(number: str, places: list[str], *, grouped: bool) -> list[str]:
    """The digits of each placeholder; the first one takes all that are too many."""
    if not places:
        return []
    padding = {"0": "0", "?": " ", "#": ""}
    spare = len(places) - len(number)
    signs = [*(padding[place] for place in places[: max(spare, 0)]), *number]
    shown, count = [], sum(sign not in ("", " ") for sign in signs)
    for sign in signs:
        if sign.isdigit():
            count -= 1
            sign += "," if grouped and count and count % 3 == 0 else ""
        shown.append(sign)
    return ["".join(shown[: -spare + 1]), *shown[-spare + 1 :]] if spare < 0 else shown


def _decimals(digits: str, places: list[str]) -> list[str]:
    shown = list(digits)
    for place in range(len(places) - 1, -1, -1):
        if shown[place] != "0" or places[place] == "0":
            break
        shown[place] = "" if places[place] == "#" else " "
    return shown


def _show_exponent(value: float, section: Section) -> str:
    tokens = section.tokens
    mark = next(place for place, token in enumerate(tokens) if re.match(r"E[+-]", token, re.I))
    mantissa = tokens[:mark]
    point = mantissa.index(".") if "." in mantissa else len(mantissa)
    step = sum(token in ("0", "#", "?") for token in mantissa[:point]) or 1
    places = sum(token in ("0", "#", "?") for token in mantissa[point:])
    number = _decimal(abs(value))
    power = number.adjusted() // step * step if number else 0
    if _round(number.scaleb(-power), places) >= 10**step:
        power += step
    body = _show_number(float(number.scaleb(-power)), Section(mantissa))
    width = 0
    while mark + 1 + width < len(tokens) and tokens[mark + 1 + width] in ("0", "#", "?"):
        width += 1
    sign = "-" if power < 0 else "+" if tokens[mark][1] == "+" else ""
    rest = "".join(map(_literal, tokens[mark + 1 + width :]))
    return ("-" if value < 0 else "") + body + "E" + sign + str(abs(power)).zfill(width) + rest


def _show_fraction(value: float, section: Section) -> str:
    """A fraction; the spaces that only align it are left out."""
    tokens = section.tokens
    start = slash = _slash(tokens)
    while start and tokens[start - 1] in ("0", "#", "?"):
        start -= 1
    end = slash + 1
    while end < len(tokens) and (tokens[end] in ("0", "#", "?") or tokens[end].isdigit()):
        end += 1
    below = "".join(tokens[slash + 1 : end])
    mixed = any(token in ("0", "#", "?") for token in tokens[:start])
    number = Fraction(_decimal(abs(value)))
    if below.strip("0").isdigit():
        bottom = int(below)
        top = int(number * bottom + Fraction(1, 2))
    else:
        top, bottom = _near_fraction(number, 10 ** len(below) - 1)
    whole, top = divmod(top, bottom) if mixed else (0, top)
    fraction = f"{top}/{bottom}" if top or not mixed else ""
    zero = "0" in tokens[:start] or not fraction
    parts = [str(whole) if mixed and (whole or zero) else "", fraction]
    before = "".join(_literal(token) for token in tokens[:start] if token not in ("0", "#", "?") and token != " ")
    after = "".join(map(_literal, tokens[end:]))
    sign = "-" if value < 0 and (whole or top) else ""
    return sign + before.strip() + " ".join(filter(None, parts)) + after


def _near_fraction(number: Fraction, largest: int) -> tuple[int, int]:
    """The last convergent of the continued fraction whose denominator is not too large, as spreadsheets take it."""
    top, bottom, previous_top, previous_bottom = 1, 0, 0, 1
    while True:
        whole = number.numerator // number.denominator
        next_bottom = whole * bottom + previous_bottom
        if next_bottom > largest:
            return top, bottom
        previous_top, top = top, whole * top + previous_top
        previous_bottom, bottom = bottom, next_bottom
        if number == whole:
            return top, bottom
        number = 1 / (number - whole)


def _show_date(value: float, section: Section, epoch: datetime) -> Shown:
    first = epoch.year == 1899 and value < 61
    if not 0 <= value < 2_958_466:  # the day after 9999/12/31; the sheet shows ####
        return Shown(plain_number(value), exact=False)
    exact = section.exact and not (first and (value < 1 or value >= 60) and _has_day(section))
    # Spreadsheets count a 29th of February 1900, which there was not.
    days = value + (1 if first and 1 <= value < 60 else 0)
    tokens = section.tokens
    # A day's fraction is a binary one: 12:30 is stored as 12:29:59.9999.
    places = max((len(token.partition(".")[2]) for token in tokens if token[0].lower() == "s"), default=0)
    unit = timedelta(microseconds=10 ** (6 - min(places, 6)))
    try:
        moment = epoch + (timedelta(days=days) + unit / 2) // unit * unit
    except OverflowError:  # a moment before the end of 9999, or a day of the other date system after it
        return Shown(plain_number(value), exact=False)
    shown = [_date_part(moment, part, section, value) for part in _date_tokens(tokens)]
    text = _in_script("".join(text for text, _ in shown).strip(), section)
    return Shown(text, exact and all(sure for _, sure in shown) and not (section.chinese_digits and "〇" in text))


def _has_day(section: Section) -> bool:
    return any(token[0].lower() in "ydega" and token.upper() not in _NOON for token in section.tokens)


def _date_tokens(tokens: list[str]) -> Iterator[str]:
    """The tokens, with `n` for minutes: `m` after an hour and before seconds."""
    units = [token[1] if _ELAPSED.fullmatch(token) else token[0] for token in tokens]
    for place, token in enumerate(tokens):
        if units[place].lower() != "m" or token[0] == "[":
            yield token
            continue
        before = next((unit for unit in reversed(units[:place]) if unit.lower() in "ymdhse"), "")
        after = next((unit for unit in units[place + 1 :] if unit.lower() in "ymdhse"), "")
        yield "n" * len(token) if before.lower() == "h" or after.lower() == "s" else token


def _date_part(moment: datetime, token: str, section: Section, value: float) -> tuple[str, bool]:
    """The text of one token, and whether it is surely the sheet's."""
    if elapsed := _ELAPSED.fullmatch(token):
        unit = {"h": 3600, "m": 60, "s": 1}[elapsed[1][0].lower()]
        return str(round(value * 86400) // unit).zfill(len(elapsed[1])), True
    letter, size = token[0].lower(), len(token)
    noon = any(part.upper() in _NOON for part in section.tokens)
    if token.upper() in _NOON:
        names = "上午/下午" if section.locale in _CHINESE and token.upper() == "AM/PM" else token
        return names.split("/")[moment.hour >= 12], True
    if letter in "ye" and token[0] not in '"\\':
        republic = section.calendar == 4 or letter == "e" and section.locale == _TAIWAN
        year = moment.year - 1911 if republic else moment.year
        text = f"{year % 100:02d}" if letter == "y" and size < 3 and not republic else str(year)
        return _in_chinese(text, section, by_digit=True), year > 0
    if letter == "g":
        return ("民國", size == 3) if section.locale == _TAIWAN else ("", False)
    if letter == "a" and size > 2 or letter in "md" and size > 2:
        return _name(moment, letter, size, section)
    hour = (moment.hour - 1) % 12 + 1 if noon else moment.hour
    number = {"m": moment.month, "d": moment.day, "h": hour, "n": moment.minute, "s": moment.second}.get(letter)
    if number is None or not token[0].isalpha():
        return _literal(token), True
    whole, _, places = token.partition(".")
    fraction = f".{moment.microsecond:06d}"[: len(places) + 1] if places else ""
    return _in_chinese(str(number).zfill(min(len(whole), 2)), section) + fraction, True


def _in_script(text: str, section: Section) -> str:
    """The text with its numerals in simplified script where the format is of such a place."""
    simplified = section.chinese_digits and section.locale in _SIMPLIFIED
    return text.translate(_TO_SIMPLIFIED) if simplified else text


def _in_chinese(digits: str, section: Section, *, by_digit: bool = False) -> str:
    style = section.chinese_digits
    if not style:
        return digits
    if by_digit or style == 3:
        return digits.translate(dict(zip(map(ord, "0123456789"), _DIGITS[style], strict=True)))
    return _numeral(int(digits), style, leading_one=False)


def _name(moment: datetime, letter: str, size: int, section: Section) -> tuple[str, bool]:
    """The name of a month or a weekday."""
    if letter == "a" or letter == "d" and section.locale in _CHINESE:
        short = "周" if section.locale == 0x804 else "週"
        return (short if size == 3 else "星期") + _WEEKDAYS[moment.weekday()], True
    if letter == "m" and section.locale in _CHINESE:
        return _numeral(moment.month, 1, leading_one=False) + "月", size == 4
    name = moment.strftime("%B" if letter == "m" else "%A")
    text = name[:1] if letter == "m" and size == 5 else name if size > 3 else name[:3]
    return text, section.locale in _ENGLISH_OR_NONE
