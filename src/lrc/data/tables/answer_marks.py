"""What people write in the 正確答案 column: the right option's number, its letter or another mark, or its text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

from lrc.data.tables.enumeration import own_places
from lrc.runtime.translation import _, alternatives

Options = Sequence[str]
Form = Literal["number", "letter", "character"]

_CHARACTERS = ("一二三四五六七八", "甲乙丙丁戊己庚辛")
_ROMANS = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii")
_MARK = re.compile(
    r"(?:(?:(?:正[確确]|[標标]準|标准|[參参]考)?(?:答案|解答)|(?:correct\s*)?answer|ans\.?)\s*(?:[:=是為为]|is)?)?\s*"
    r"(?:(?:選項|选项|選|选|option|第|no\.?|#)\s*)*"
    r"[(\[【「『〔<{]?\s*(?:(?P<number>[0-9]{1,2})(?:\.0+)?|(?P<roman>viii|vii|vi|v|iv|iii|ii|i)|(?P<letter>[a-h])|(?P<character>[一二三四五六七八甲乙丙丁戊己庚辛]))"
    r"\s*[)\]】」』〕>}]?\s*(?:[個个]?(?:選項|选项|[項项号號個个]))?[.。、:]?"
)
_LEAD = re.compile(r"(?:正[確确])?(?:答案|解答)(?:[:=是為为])")
FROM_ZERO = _("add 1 to every answer, or correct the 0 if the others count from 1")  # the cure of CountedFromZeroError
_SLIPS = 0.1  # last options for each 0 up to which they are slips of someone who counts from 0
_ROMAN = str.maketrans("ⅠⅡⅢⅣⅤⅥⅦⅧ", "12345678")
# Powers and indices are not marks, though they become plain digits under NFKC.
_RAISED = re.compile("[\xb2\xb3\xb9\u2070-\u209f]")


class Mark(NamedTuple):
    """A mark for the place of an option."""

    form: Form
    number: int  # from 1, where the writer counts so; it may be beyond the question's options


class Reading(NamedTuple):
    """What an answer means; `number` is None where it cannot be told, and `error` says why."""

    number: int | None
    error: str = ""  # follows the column's name
    doubt: str = ""  # likewise, where it was read in one of two ways


class CountedFromZeroError(Exception):
    """The answers of a file count from 0.

    Args:
        places: of the answers that are 0, from 0.
        last: the highest number that an answer could be.
        count: how many answers are the number of a last option, against those that are 0.
    """

    def __init__(self, places: list[int], last: int, count: int) -> None:
        super().__init__(places, last, count)
        self.places, self.last, self.count = places, last, count


@lru_cache(maxsize=4096)
def parse_answer(text: str) -> Mark | None:
    """The option's place that an answer names.

    Understood are `3`, `3.0`, `(C)`, `③`, `丙`, `三`, `選項3`, `第三個`, `答案：3` and the like, in any width.

    Returns:
        None where the text is anything else.
    """
    found = None if len(text) > 40 or _RAISED.search(text) else _MARK.fullmatch(_plain(text))
    if found is None or found.lastgroup is None:
        return None
    sign = found[found.lastgroup]
    match found.lastgroup:
        case "number":
            return Mark("number", int(sign))
        case "roman":
            return Mark("character", _ROMANS.index(sign) + 1)
        case "letter":
            return Mark("letter", ord(sign) - ord("a") + 1)
    return Mark("character", next(signs.index(sign) + 1 for signs in _CHARACTERS if sign in signs))


def read_answer(text: str, options: Options) -> Reading:
    """Read one answer for itself, in a format that numbers the options; see `read_answers`."""
    return _read(text, options, Habits(places={"number"}))


def read_answers(texts: Sequence[str], questions: Sequence[Options], *, by_text: bool = False) -> list[Reading]:
    """Read the answers of a whole file, which show together how its writer answers.

    An answer such as 3 among the options 2, 3, 4 and 5 may be a number or a text. It is what the writer's other answers
    are; where they are both, it cannot be told.

    Args:
        texts: the answers as written, cleaned.
        questions: the options of each.
        by_text: whether an answer that may be both is a text where no other tells.

    Raises:
        CountedFromZeroError: 0 is among the answers, and the number of a last option is not, or hardly ever.
    """
    habits = Habits(by_text=by_text)
    for text, options in zip(texts, questions, strict=True):
        habits.observe(text, options)
    _refuse_counting_from_zero(texts, questions, habits)
    return [_read(text, options, habits) for text, options in zip(texts, questions, strict=True)]


class Habits:
    """How a writer answers: the forms that surely name places, and those that surely are texts."""

    def __init__(self, *, places: Iterable[Form] = (), by_text: bool = False) -> None:
        self.places, self.texts, self.by_text = set(places), set[Form](), by_text

    def observe(self, text: str, options: Options) -> None:
        """Learn from an answer that can be read in one way only."""
        mark = parse_answer(text)
        if mark is not None:
            within = 1 <= mark.number <= _count(options)
            if text not in options and within:
                self.places.add(mark.form)
            elif text in options and not within:
                self.texts.add(mark.form)


def _read(text: str, options: Options, habits: Habits) -> Reading:
    mark = parse_answer(text)
    if mark is None:
        return _read_text(text, options, habits)
    within = 1 <= mark.number <= _count(options)
    numbers, own = own_places(options) or (False, ())
    place = own.index(mark.number) + 1 if mark.number in own else mark.number
    if place != mark.number and numbers == (mark.form == "number"):
        error = _(
            "is {text}, the mark before 選項{place} and not its place; take the marks off the options, or give the "
            "option's text"
        )
        return Reading(None, error.format(text=text, place=place))
    if text not in options:
        return Reading(mark.number) if within else Reading(None, _beyond(text, options))
    place = options.index(text) + 1
    if within and place == mark.number and options.count(text) == 1:
        return Reading(place)
    counts, quotes = mark.form in habits.places, mark.form in habits.texts
    if counts and not quotes:
        return Reading(mark.number) if within else Reading(None, _beyond(text, options))
    if quotes and not counts or habits.by_text and not counts:
        return _read_text(text, options, habits)
    if within and not quotes and mark.form == "number":
        doubt = _(
            "is {text}, a number and the text of 選項{place}; read as the number: write 選項{place} if it is the text"
        )
        return Reading(mark.number, doubt=doubt.format(text=text, place=place))
    error = _("is {text}, which may be a place or the text of 選項{place}; write 選項{place}")
    if within:
        error = _("is {text}, which may be a place or the text of 選項{place}; write 選項{number} or 選項{place}")
    return Reading(None, error.format(text=text, place=place, number=mark.number))


def _read_text(text: str, options: Options, habits: Habits) -> Reading:
    """The option whose text the answer is, alone or behind its own mark."""
    plain = _simplify(text)
    answers = {plain, _LEAD.sub("", plain, count=1)}
    places = [number for number, option in enumerate(options, start=1) if option and _simplify(option) in answers]
    exact = [number for number in places if options[number - 1] == text]
    places = exact or places
    if len(places) == 1 or places and habits.by_text:
        return Reading(places[0])
    if places:
        same = alternatives([f"選項{number}" for number in places], _("{words} and {last}"))
        return Reading(None, _("is {text}, the text of {same}; give the number").format(text=_short(text), same=same))
    for number, option in enumerate(options, start=1):
        bare = _simplify(option)
        if bare and plain.endswith(bare) and (mark := parse_answer(plain.removesuffix(bare))):
            if mark.number == number:
                return Reading(number)
            error = _("is {text}, but that text is 選項{number}; give the number alone")
            return Reading(None, error.format(text=_short(text), number=number))
    return Reading(None, _beyond(text, options))


def _refuse_counting_from_zero(texts: Sequence[str], questions: Sequence[Options], habits: Habits) -> None:
    zeros, last, count = [], 0, 0
    for place, (text, options) in enumerate(zip(texts, questions, strict=True)):
        mark = parse_answer(text)
        if mark is None or mark.form != "number":
            continue
        count += mark.number == _count(options)
        if mark.number == 0 and (text not in options or "number" in habits.places):
            zeros.append(place)
            last = max(last, _count(options))
    if zeros and count <= len(zeros) * _SLIPS:
        raise CountedFromZeroError(zeros, last, count)


def _count(options: Options) -> int:
    """The number of the last option that has text."""
    return next((number for number in range(len(options), 0, -1) if options[number - 1]), len(options))


def _beyond(text: str, options: Options) -> str:
    count, mark = _count(options), parse_answer(text)
    if count == 1:
        error = _("is {text}, and there is only one option; fill in the others")
    elif mark is None:
        error = _("is {text}, expected 1 to {count}, a letter, or the text of one option; correct it")
    elif mark.number > count:
        error = _("is {text}, expected 1 to {count}; correct it, or add the option that is missing")
    else:
        error = _("is {text}, expected 1 to {count}; correct it")
    return error.format(text=_short(text), count=count)


def _plain(text: str) -> str:
    """Full-width, circled and bracketed signs as plain ones, in lower case."""
    normal = unicodedata.normalize("NFKC", text.strip().translate(_ROMAN)).lower()
    return "".join(_digit(sign) for sign in normal)


def _digit(sign: str) -> str:
    """❷ and the like, which NFKC leaves, as a digit."""
    return str(unicodedata.digit(sign)) if not sign.isascii() and sign.isdigit() else sign


def _simplify(text: str) -> str:
    """The text without white space, case, width and a full stop at its end."""
    return "".join(_plain(text).split()).rstrip("。.;")


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}…"
