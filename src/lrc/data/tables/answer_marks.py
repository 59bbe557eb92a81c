"""Reads what people write in the column 正確答案: the number, letter or other mark of the right option, or its text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

from lrc.data.tables.enumeration import marked_places
from lrc.runtime.findings import abridge
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
_SLIPS = 0.1  # answers that are a last option's number per answer 0, up to which the file counts from 0
_WHOLE = re.compile(r"^([0-9]+)\.0+$")
_ROMAN = str.maketrans("ⅠⅡⅢⅣⅤⅥⅦⅧ", "12345678")
# Powers and indices are not marks, though they become plain digits under NFKC.
_RAISED = re.compile("[\xb2\xb3\xb9\u2070-\u209f]")


class Mark(NamedTuple):
    """An answer that names an option by its position."""

    form: Form  # how it is written; roman and Chinese numerals and 甲乙丙丁 are `character`
    number: int  # as written, from 1 by convention; may be 0, or beyond the question's options


class Reading(NamedTuple):
    """What an answer means."""

    number: int | None  # of the option, from 1; None if the answer is not understood
    error: str = ""  # why it is not understood; follows the name of the column
    doubt: str = ""  # a warning about an answer that can be read in two ways; likewise


class CountedFromZeroError(Exception):
    """The answers of a file count from 0.

    Args:
        places: the indices of the answers that are 0.
        last: the largest number of a last option among their questions.
        count: how many answers are the number of their question's last option.
    """

    def __init__(self, places: list[int], last: int, count: int) -> None:
        super().__init__(places, last, count)
        self.places, self.last, self.count = places, last, count


@lru_cache(maxsize=4096)
def parse_answer(text: str) -> Mark | None:
    """Parse an answer that names an option by its position.

    Understood are `3`, `3.0`, `(C)`, `③`, `丙`, `三`, `選項3`, `第三個`, `答案：3` and the like, in full or half width.

    Returns:
        None if the text is anything else.
    """
    found = None if len(text) > 40 or _RAISED.search(text) else _MARK.fullmatch(_normalise(text))
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
    """Read a single answer, from a format in which answers are numbers; see `read_answers`."""
    return _read(text, options, Habits(places={"number"}))


def read_answers(texts: Sequence[str], questions: Sequence[Options], *, by_text: bool = False) -> list[Reading]:
    """Read the answers of a whole file, which together show whether its author answers by number or by text.

    An answer such as 3 among the options 2, 3, 4 and 5 may be a number or a text. It is read like the unambiguous
    answers of the file; if those are of both sorts, it is an error.

    Args:
        texts: the answers as written, cleaned.
        questions: the options of each question.
        by_text: whether an ambiguous answer is a text if no unambiguous one is a number.

    Returns:
        One reading for each answer.

    Raises:
        CountedFromZeroError: some answers are 0, and hardly any is the number of a last option.
    """
    habits = Habits(by_text=by_text)
    for text, options in zip(texts, questions, strict=True):
        habits.observe(text, options)
    _refuse_counting_from_zero(texts, questions, habits)
    return [_read(text, options, habits) for text, options in zip(texts, questions, strict=True)]


class Habits:
    """How the author of a file answers.

    Attributes:
        places: the forms that are positions in unambiguous answers.
        texts: the forms that are texts of options in unambiguous answers.
        by_text: see `read_answers`.
    """

    def __init__(self, *, places: Iterable[Form] = (), by_text: bool = False) -> None:
        self.places, self.texts, self.by_text = set(places), set[Form](), by_text

    def observe(self, text: str, options: Options) -> None:
        """Learn from an answer, if it can be read in one way only."""
        mark = parse_answer(text)
        if mark is not None:
            within = 1 <= mark.number <= _last_number(options)
            if within and not _find_text(text, options):
                self.places.add(mark.form)
            elif not within and _find_text(text, options):
                self.texts.add(mark.form)


def _read(text: str, options: Options, habits: Habits) -> Reading:
    mark = parse_answer(text)
    if mark is None:
        return _read_text(text, options, habits)
    within = 1 <= mark.number <= _last_number(options)
    numbers, own = marked_places(options) or (False, ())
    place = own.index(mark.number) + 1 if mark.number in own else mark.number
    if place != mark.number and numbers == (mark.form == "number"):
        error = _(
            "is {text}, the mark before 選項{place} and not its place; take the marks off the options, or give the "
            "option's text"
        )
        return Reading(None, error.format(text=text, place=place))
    texts = _find_text(text, options)
    if not texts:
        return Reading(mark.number) if within else Reading(None, _explain(text, options))
    place = texts[0]
    if within and texts == [mark.number]:
        return Reading(place)
    is_place, is_text = mark.form in habits.places, mark.form in habits.texts
    if is_place and not is_text:
        return Reading(mark.number) if within else Reading(None, _explain(text, options))
    if not is_place and (is_text or habits.by_text):
        return _read_text(text, options, habits)
    if within and not is_text and mark.form == "number":
        doubt = _(
            "is {text}, a number and the text of 選項{place}; read as the number: write 選項{place} if it is the text"
        )
        return Reading(mark.number, doubt=doubt.format(text=text, place=place))
    error = _("is {text}, which may be a place or the text of 選項{place}; write 選項{place}")
    if within:
        error = _("is {text}, which may be a place or the text of 選項{place}; write 選項{number} or 選項{place}")
    return Reading(None, error.format(text=text, place=place, number=mark.number))


def _read_text(text: str, options: Options, habits: Habits) -> Reading:
    """Find the option whose text the answer is, alone or after the option's own mark."""
    plain = _as_number(text)
    answers = {plain, _LEAD.sub("", plain, count=1)}
    places = [number for number, option in enumerate(options, start=1) if option and _as_number(option) in answers]
    exact = [number for number in places if options[number - 1] == text]
    places = exact or places
    if len(places) == 1 or exact and habits.by_text:
        return Reading(places[0])
    if places:
        same = alternatives([f"選項{number}" for number in places], _("{words} and {last}"))
        return Reading(None, _("is {text}, the text of {same}; give the number").format(text=abridge(text), same=same))
    for number, option in enumerate(options, start=1):
        bare = _simplify(option)
        if bare and plain.endswith(bare) and (mark := parse_answer(plain.removesuffix(bare))):
            if mark.number == number:
                return Reading(number)
            error = _("is {text}, but that text is 選項{number}; give the number alone")
            return Reading(None, error.format(text=abridge(text), number=number))
    return Reading(None, _explain(text, options))


def _find_text(text: str, options: Options) -> list[int]:
    """The numbers of the options whose text a short answer is: exactly, or else but for width, white space and `.0`."""
    if exact := [number for number, option in enumerate(options, start=1) if option == text]:
        return exact
    short = [(number, option) for number, option in enumerate(options, start=1) if 0 < len(option) <= len(text) + 4]
    return [number for number, option in short if _as_number(option) == _as_number(text)]


def _as_number(text: str) -> str:
    """The text simplified; ３．０ and 3.0 are 3."""
    return _WHOLE.sub(r"\1", _simplify(text))


def _refuse_counting_from_zero(texts: Sequence[str], questions: Sequence[Options], habits: Habits) -> None:
    zeros, last, count = [], 0, 0
    for place, (text, options) in enumerate(zip(texts, questions, strict=True)):
        mark = parse_answer(text)
        if mark is None or mark.form != "number":
            continue
        count += mark.number == _last_number(options)
        if mark.number == 0 and (not _find_text(text, options) or "number" in habits.places):
            zeros.append(place)
            last = max(last, _last_number(options))
    if zeros and count <= len(zeros) * _SLIPS:
        raise CountedFromZeroError(zeros, last, count)


def _last_number(options: Options) -> int:
    """The number of the last option that has text."""
    return next((number for number in range(len(options), 0, -1) if options[number - 1]), len(options))


def _explain(text: str, options: Options) -> str:
    """Why an answer is none of the options."""
    count, mark = _last_number(options), parse_answer(text)
    if count == 1:
        error = _("is {text}, and there is only one option; fill in the others")
    elif mark is None:
        error = _("is {text}, expected 1 to {count}, a letter, or the text of one option; correct it")
    elif mark.number > count:
        error = _("is {text}, expected 1 to {count}; correct it, or add the option that is missing")
    else:
        error = _("is {text}, expected 1 to {count}; correct it")
    return error.format(text=abridge(text), count=count)


def _normalise(text: str) -> str:
    """The text in lower case, with plain characters for full-width, circled and bracketed ones."""
    normal = unicodedata.normalize("NFKC", text.strip().translate(_ROMAN)).lower()
    # NFKC leaves ❷ and the like.
    return "".join(str(unicodedata.digit(sign)) if not sign.isascii() and sign.isdigit() else sign for sign in normal)


def _simplify(text: str) -> str:
    """The text normalised, without white space and without a full stop at its end."""
    return "".join(_normalise(text).split()).rstrip("。.;")
