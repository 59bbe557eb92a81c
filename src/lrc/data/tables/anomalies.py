"""Warns of texts that a spreadsheet or a data frame has probably damaged, such as 5/19 that became a number."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from fractions import Fraction
from unicodedata import is_normalized

from lrc.data.questions import HALF_WIDTH, Question
from lrc.data.tables.cell_text import EPOCH, show_number
from lrc.data.tables.cleaning import collapse
from lrc.runtime.findings import Finding, abridge
from lrc.runtime.translation import _, alternatives

_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_NUMBER_LINE = re.compile(r"^[0-9][0-9.]*$", re.MULTILINE)
_FIRST_SERIAL, _LAST_SERIAL = 20_000, 60_000  # 1954 to 2064, where the text writes the date out
_FIRST_RECENT, _LAST_RECENT = 40_909, 47_482  # 2012 to 2029, where the number is the only evidence of a date
_LONG = 10  # characters; nobody types 0.0006944444444444445
_DAY = 24 * 60  # minutes
_KEPT = 15  # significant digits that a spreadsheet keeps
_EXPONENT = re.compile(r"[0-9](?:\.[0-9]+)?E\+[0-9]+", re.IGNORECASE)
_FORMULA = re.compile(r"[=@]|[+-](?![\d.]*$)")  # a number has no effect
_LOST = _("a spreadsheet has rounded it; type it as text")

# What people and data frames write into an empty cell.
_NOTHING = re.compile(r"[\W_]{1,4}|n/?a|nan|null|none|nil|無|无|空白?|x", re.I)
_NONE = ("無", "无")
_NOTHING_LINE = re.compile(rf"^(?:{_NOTHING.pattern})$", re.I | re.MULTILINE)

_WIDE = re.compile("[ \t\xa0\u3000\uff01-\uff5e]")
# U+FFFD and pictures for what was lost, and private characters (造字), which only some fonts and no model knows.
_LOST_CHARACTER = re.compile("[\ufffc\ufffd\ue000-\uf8ff\U000f0000-\U0010fffd]")
_FULL_CELL = range(32_760, 32_768)  # UTF-16 units; a cell holds 32,767, of which some may be white space at the end

Suspicion = tuple[str, str, list[int]]  # kind, text, and the numbers of the options


def find_anomalies(questions: Iterable[Question], file: str) -> list[Finding]:
    """Look for anomalies in each question.

    Args:
        questions: the good questions of a file.
        file: the name of the file.

    Returns:
        Warnings of the kinds `ambiguous-answer` (the text of the right option appears twice), `duplicate-option`,
        `percent-lost`, `date-serial`, `time-serial`, `fraction-lost` (a spreadsheet turned 36.4%, 5/19, 16:17 or 1/3
        into a number), `long-decimal`, `exponent`, `lost-character`, `cut-off` (a text that fills its cell), and
        `placeholder` (N/A, nan or - for an empty cell).
    """
    return [
        Finding("warning", kind, file, text, question.row, options=tuple(numbers))
        for question in questions
        for kind, text, numbers in _find_suspicions(question)
    ]


def find_id_anomalies(ids: Iterable[tuple[int, str]], file: str, header: str) -> list[Finding]:
    """Look for ids that a spreadsheet or a data frame has turned into numbers.

    Args:
        ids: the row number and the id of each row; an id may be empty.
        file: the name of the file.
        header: the header of the column.

    Returns:
        Warnings of the kinds `decimal-id` (all ids end in `.0`), `exponent-id` (1.23457E+17), `formula-id` (=1+1) and
        `rounded-id` (all digits beyond the 15 that a spreadsheet keeps are zeros, in all long ids).
    """
    found = [(row, name) for row, name in ids if name]
    findings = []
    if found and all(name.endswith(".0") for _row, name in found):
        text = _("{header} ends in .0 in every row; remove it if the ids are whole numbers").format(header=header)
        findings.append(Finding("warning", "decimal-id", file, text, None, header))
    text = _("{column} is {value}, which a spreadsheet takes for a formula in a CSV of answers; give it another id")
    for row, name in found:
        if _FORMULA.match(name):
            told = text.format(column=header, value=abridge(name))
            findings.append(Finding("warning", "formula-id", file, told, row, header))
    long = [(row, name) for row, name in found if name.isdecimal() and len(name) > _KEPT]
    rounded = long if len(long) > 1 and all(not name[_KEPT:].strip("0") for _row, name in long) else []
    exponents = [(row, name) for row, name in found if _EXPONENT.fullmatch(name)]
    text = _("{column} is {value}; {cure}")
    for kind, lost in (("rounded-id", rounded), ("exponent-id", exponents)):
        for row, name in lost:
            told = text.format(column=header, value=name, cure=_LOST)
            findings.append(Finding("warning", kind, file, told, row, header))
    return findings


def _find_suspicions(question: Question) -> Iterator[Suspicion]:
    options = question.options
    # Cheap checks of all options together, which rule out most questions.
    joined = "\n".join(options)
    if (
        len(set(options)) < len(options)
        or _WIDE.search(joined)
        or joined.count("\n") >= len(options)
        or not is_normalized("NFC", joined)
    ):
        yield from _find_duplicate_options(question)
    if _NOTHING_LINE.search(joined) or _NOTHING.fullmatch(question.passage) or _NOTHING.fullmatch(question.question):
        yield from _find_placeholders(question)
    yield from _find_losses(question)
    if _NUMBER_LINE.search(joined):
        numbers = {number: text for number, text in enumerate(options, start=1) if _NUMBER.fullmatch(text)}
        yield from _find_lost_formats(question, numbers)


def _find_duplicate_options(question: Question) -> Iterator[Suspicion]:
    places: dict[str, list[int]] = {}
    for number, option in enumerate(question.options, start=1):
        if option:
            places.setdefault(collapse(option.translate(HALF_WIDTH)), []).append(number)
    for numbers in places.values():
        if len(numbers) < 2:
            continue
        same = alternatives([f"選項{number}" for number in numbers], _("{words} and {last}"))
        if question.answer in numbers:
            yield (
                "ambiguous-answer",
                _("{same} are the same text, and the answer is {answer}; change one of them").format(
                    same=same, answer=question.answer
                ),
                numbers,
            )
        else:
            yield "duplicate-option", _("{same} are the same text; change one of them").format(same=same), numbers


def _find_placeholders(question: Question) -> Iterator[Suspicion]:
    cure = _("leave the cell empty if nothing is meant")
    for header, text in (("文章", question.passage), ("問題", question.question)):
        if text and len(text) > 1 and _NOTHING.fullmatch(text):
            yield "placeholder", _("{column} is {value}; {cure}").format(column=header, value=text, cure=cure), []
    ends = list(question.options)
    while ends and (not ends[-1] or _NOTHING.fullmatch(ends[-1])):
        ends.pop()
    left = [text for text in question.options[len(ends) :] if text]
    # Where all options are signs, the question is about signs; where the one before is written out, they are not.
    # A last option 無 means that there is none, as 以上皆無 does.
    if ends and left and not (len(left) == 1 and left[0] in _NONE):
        place = question.options.index(left[0]) + 1
        column = f"選項{place}"
        yield "placeholder", _("{column} is {value}; {cure}").format(column=column, value=left[0], cure=cure), [place]


def _find_losses(question: Question) -> Iterator[Suspicion]:
    """Texts of which a part is lost: characters, digits, or the end."""
    options = [(f"選項{number}", text) for number, text in enumerate(question.options, start=1)]
    for place, (header, text) in enumerate((("文章", question.passage), ("問題", question.question), *options)):
        numbers = [place - 1] if place > 1 else []
        if found := _LOST_CHARACTER.findall(text):
            lost = _("{column} has {count:,} characters that nobody can read, such as U+{code:04X}; type them again")
            yield "lost-character", lost.format(column=header, count=len(found), code=ord(found[0])), numbers
        if len(text) > 16_000 and len(text.encode("utf-16-le")) // 2 in _FULL_CELL:
            lost = _("{column} is as long as a cell can be; compare its end with the original, which may be cut off")
            yield "cut-off", lost.format(column=header), numbers
        if numbers and _EXPONENT.fullmatch(text):
            yield "exponent", _("{column} is {value}; {cure}").format(column=header, value=text, cure=_LOST), numbers


def _find_lost_formats(question: Question, numbers: dict[int, str]) -> Iterator[Suspicion]:
    """Percentages, fractions, times and dates among the options that were stored as plain numbers.

    Args:
        numbers: the options that are numbers, by option number.
    """
    text = question.passage + "\n" + question.question
    values = {number: float(shown) for number, shown in numbers.items()}
    fractions = {number: value for number, value in values.items() if 0 < value < 1}
    for number, value in fractions.items():
        percent = show_number(round(value * 100, 8))
        if re.search(rf"(?<![0-9.]){re.escape(percent)}\s*[%％﹪]", text):
            lost = _("選項{number} is {value} where the text says {percent}%; type it as text")
            yield "percent-lost", lost.format(number=number, value=numbers[number], percent=percent), [number]
            return
    for number, value in fractions.items():
        if len(numbers[number]) > _LONG:
            yield _explain_fraction(number, value)
            return
    serials = {
        number: int(value)
        for number, value in values.items()
        if value.is_integer() and _FIRST_SERIAL <= value <= _LAST_SERIAL
    }
    dated = _find_date(serials, numbers, text)
    if dated is not None:
        day = EPOCH + timedelta(days=serials[dated])
        serial = _("選項{number} is {value}, as a date {day}; type it as text")
        yield "date-serial", serial.format(number=dated, value=numbers[dated], day=f"{day:%Y/%m/%d}"), [dated]


def _explain_fraction(number: int, value: float) -> Suspicion:
    """What a number between 0 and 1 with many digits was: a simple fraction, a time of day, or not known."""
    shown, was = _("選項{number} is {value}, which may have been {original}; type it as text"), show_number(value)
    simple = Fraction(value).limit_denominator(12)
    if abs(simple - Fraction(value)) < 1e-9:
        return "fraction-lost", shown.format(number=number, value=was, original=str(simple)), [number]
    hours, minutes = divmod(round(value * _DAY), 60)
    if abs(value * _DAY - round(value * _DAY)) < 1e-6:
        return "time-serial", shown.format(number=number, value=was, original=f"{hours}:{minutes:02d}"), [number]
    text = _("選項{number} is {value}; type it as it should be read")
    return "long-decimal", text.format(number=number, value=was), [number]


def _find_date(serials: dict[int, int], numbers: dict[int, str], text: str) -> int | None:
    """The first option that is probably a date: the text contains that date, or none of the numbers.

    Args:
        serials: the options that may be the serial number of a date, by option number.
        numbers: all options that are numbers.
        text: passage and question.
    """
    for number, serial in serials.items():
        if numbers[number] not in text and _contains_date(text, EPOCH + timedelta(days=serial)):
            return number
    if any(shown in text for shown in numbers.values() if len(shown) > 1):
        return None
    return next((number for number, serial in serials.items() if _FIRST_RECENT <= serial <= _LAST_RECENT), None)


def _contains_date(text: str, day: datetime) -> bool:
    month = rf"(?<![0-9])0?{day.month}\s*[月/\-.]\s*0?{day.day}(?![0-9])"
    if re.search(month, text):
        return True
    # 7月 and 1957年 are stored as the first day of the month and of the year.
    first_of_year = day.day == day.month == 1 and f"{day.year}年" in text
    return first_of_year or day.day == 1 and f"{day.year}年{day.month}月" in text
