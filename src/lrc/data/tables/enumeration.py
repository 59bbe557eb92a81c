"""Removes the letters or numbers that a source writes before its options: `A．學校`, `(B)圖書館`, `③公園`.

The prompt numbers the options itself, and options may be reordered, so an enumeration would contradict it. It is
removed only if it is certainly one: every option of the question begins with the mark of its own position, no text
refers to a mark, and enough questions of the file have one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from lrc.runtime.translation import _

Options = tuple[str, ...]

# The texts of findings.
REMOVED = _("options began with their own letters or numbers; they were removed")
LEFT = _("options begin with their own letters or numbers, as hardly any others do here; they were left as text")
HABIT = 0.01  # the least share of a file's questions with an enumeration; fewer are coincidences

_SERIES = ("ABCDEFGH", "abcdefgh", "12345678", "一二三四五六七八", "甲乙丙丁戊己庚辛", "ⅠⅡⅢⅣⅤⅥⅦⅧ")
_CLOSED = ("①②③④⑤⑥⑦⑧", "❶❷❸❹❺❻❼❽", "⑴⑵⑶⑷⑸⑹⑺⑻", "⒈⒉⒊⒋⒌⒍⒎⒏", "㈠㈡㈢㈣㈤㈥㈦㈧")  # marks without a full stop
_HALF_WIDTH = str.maketrans("ＡＢＣＤＥＦＧＨａｂｃｄｅｆｇｈ１２３４５６７８", "ABCDEFGHabcdefgh12345678")
_OPEN, _SHUT, _STOP = r"[(（\[【〔]", r"[)）\]】〕]", r"[.．、:：)）]"
_MARKED = re.compile(
    rf"(?:(?:選項|选项)?(?:{_OPEN}([{''.join(_SERIES)}]){_SHUT}|([{''.join(_SERIES)}]){_STOP})"
    rf"|([{''.join(_CLOSED)}]){_STOP}?)\s*"
)
# A number is often part of the text: 1.5公里, 1:3, 1、2月, (1)和(2).
_NUMBER = re.compile(rf"{_OPEN}?[1-8]{_STOP[:-1]}\]】〕][\d(（、,，和與与及]")
_AND = r"\s*[)）]?\s*(?:[和與与及或跟、,，&]|and\b|or\b)?\s*[(（]?\s*"


def remove_enumerations(
    options: Sequence[tuple[str, ...]], questions: Sequence[str]
) -> tuple[dict[int, tuple[str, ...]], list[int]]:
    """Find the questions of a file whose options are enumerated.

    Args:
        options: the options of each question.
        questions: the text of each question.

    Returns:
        The options without their marks, by the index of the question; and the indices of the questions whose marks are
        kept, because too few questions of the file have them.
    """
    found = {
        place: bare
        for place, (texts, question) in enumerate(zip(options, questions, strict=True))
        if (bare := strip_enumeration(texts, question))
    }
    return (found, []) if len(found) >= HABIT * len(options) else ({}, list(found))


def strip_enumeration(options: Sequence[str], question: str = "") -> Options | None:
    """The options without their marks.

    Returns:
        None unless every option that has text begins with the mark of its own position, all in one series, and has text
        after the mark; no two options become equal; and neither an option nor the question refers to a mark.
    """
    # Nearly every question ends here.
    if not options[0] or not _MARKED.match(options[0].translate(_HALF_WIDTH)):
        return None
    series: set[str] = set()
    bare = []
    for place, option in enumerate(options):
        shown = option.translate(_HALF_WIDTH)
        found = _MARKED.match(shown) if option else None
        if option and (found is None or _NUMBER.match(shown) or not (signs := _match_series(found, place))):
            return None
        series |= {signs} if option else set()
        bare.append(option[found.end() :] if found else option)
    texts = [text for text in bare if text]
    if len(series) != 1 or len(texts) < sum(map(bool, options)) or len(set(texts)) < len(set(filter(None, options))):
        return None
    return None if _refer_to_marks([*texts, question], series.pop(), len(options)) else tuple(bare)


def marked_places(options: Sequence[str]) -> tuple[bool, tuple[int, ...]] | None:
    """The positions that the marks before the options name, if these differ from where the options are.

    Returns:
        Whether the marks are numbers, and the positions, from 1, such as 2, 1, 3, 4 for B. A. C. D.; None unless every
        option has a mark, all in one series and none twice.
    """
    if not options[0] or not _MARKED.match(options[0].translate(_HALF_WIDTH)):
        return None
    shown = [option.translate(_HALF_WIDTH) for option in options]
    found = [_MARKED.match(text) for text in shown]
    signs = [next(filter(None, one.groups())) for one in found if one]
    series = next((one for one in (*_SERIES, *_CLOSED) if all(sign in one for sign in signs)), None)
    if series is None or len(set(signs)) < len(options) or any(map(_NUMBER.match, shown)):
        return None
    places = tuple(series.index(sign) + 1 for sign in signs)
    numbers = all(map(str.isdigit, signs))
    return None if places == tuple(range(1, len(places) + 1)) else (numbers, places)


def _match_series(found: re.Match[str], place: int) -> str:
    """The series in which a mark is the sign for this position (from 0); empty if there is none."""
    sign = next(group for group in found.groups() if group)
    return next((signs for signs in (*_SERIES, *_CLOSED) if signs[place] == sign), "")


def _refer_to_marks(texts: Sequence[str], signs: str, count: int) -> bool:
    """Whether a text refers to an option by its mark: A和B都對, 甲乙皆是, ①③, 選項B."""
    sign = rf"[{signs[:count]}]"
    pattern = rf"{sign}(?:{_AND}{sign})+(?![0-9])|(?:[選选][項项]?|僅有?|只有|除了?)\s*[(（]?{sign}|[(（]{sign}[)）]"
    pattern += rf"|{sign}[項项]|^{sign}[)）]?\s*[皆都均對对錯错正]"
    if signs in _CLOSED:
        pattern += f"|{sign}"
    elif signs.isascii() and signs.isalpha():
        pattern = rf"(?<![A-Za-z])(?:{pattern}|{sign}+(?!\s+[a-z]))(?![A-Za-z])"  # A dog is not option A
    elif signs.isdecimal():
        pattern = rf"(?<![0-9.])(?:{pattern})(?![0-9.])"
    else:
        pattern += f"|^{sign}$"
    return any(re.search(pattern, text.translate(_HALF_WIDTH)) for text in texts)
