"""The letters or numbers that a source writes before its options: `A．學校`, `(B)圖書館`, `3、公園`.

The prompt numbers the options itself, and options may change places, so an enumeration would contradict it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# What a finding tells of it.
TAKEN_OFF = "options began with their own letters or numbers; they were taken off"

_MARKED = re.compile(
    r"(?:[(（]([A-HＡ-Ｈ])[)）]|([A-HＡ-Ｈ])[.．、:：)）]"
    # A number is more often a part of the text: 1.5公里, 1:3, 1、2月, (1)和(2).
    r"|(?:[(（]([1-8１-８])[)）]|([1-8１-８])[.．、:：)）])(?!\s*[\d(（、,，和與与及]))\s*"
)
_PLACES = ("ABCDEFGH", "ＡＢＣＤＥＦＧＨ", "12345678", "１２３４５６７８")
# A、B of `A、B`, `B、C`, `C、D` names the places of others, and enumerates nothing.
_NAMES_OTHERS = re.compile(r"[A-HＡ-Ｈ](?:[、,，和與与及]?[A-HＡ-Ｈ])*")


def without_enumeration(options: Sequence[str]) -> tuple[str, ...] | None:
    """The options without what enumerates them.

    Returns:
        None where that is not sure: unless every option that has text begins with the letter or number of its own
        place and a mark, and has text behind it.
    """
    # Nearly every question ends here.
    if not options[0] or not _MARKED.match(options[0]):
        return None
    found = [_MARKED.match(option) for option in options]
    bare = tuple(option[one.end() :] if one else option for option, one in zip(options, found, strict=True))
    for place, (option, one) in enumerate(zip(options, found, strict=True)):
        if option and (one is None or not _is_place(one[one.lastindex or 0], place) or not bare[place]):
            return None
    return None if all(_NAMES_OTHERS.fullmatch(text) for text in bare if text) else bare


def _is_place(sign: str, place: int) -> bool:
    return any(sign == signs[place] for signs in _PLACES)
