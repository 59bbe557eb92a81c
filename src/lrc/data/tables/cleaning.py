"""Cleans the text of a cell: removes what nobody can see in the sheet, and decodes escapes and HTML entities.

A text is normalised only to compare it: full-width digits, CJK compatibility characters and simplified script are kept,
and so is white space inside a text (U+3000, no-break space, tab, line feed).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from html.entities import html5

# Fillers and variation selectors, which show nothing where they are alone.
_UNSEEN = "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff"
# One character class, which `re` scans fastest; `_` and `&` may begin an escape or an entity.
_SUSPECT = re.compile(
    f"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff&_{_UNSEEN}]"
)
_BLANK = re.compile(rf"[\s{_UNSEEN}]+")
_ESCAPE = re.compile(r"_x00([01][0-9A-Fa-f]|7[Ff]|[89][0-9A-Fa-f])_")
_ENTITY = re.compile(r"&(?:#(\d{1,7})|#[xX]([0-9A-Fa-f]{1,6})|([A-Za-z][A-Za-z0-9]{1,31}));")
_LINE_BREAK = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f]")
_UNPRINTED = re.compile(f"{_LINE_BREAK.pattern}|{_CONTROL.pattern}")
# A zero-width joiner is kept between two pictographs only, where it makes one emoji of them.
_PICTURE = "\u2190-\u2bff\ufe0f\U0001f000-\U0001faff"
_INVISIBLE = re.compile(
    "[\xad\u061c\u180e\u200b\u200c\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff]"
    f"|(?<![{_PICTURE}])\u200d|\u200d(?![{_PICTURE}])"
)


def is_clean(texts: list[str]) -> bool:
    """A fast check of a whole row: true only if `clean` would change none of its texts."""
    return _SUSPECT.search("".join(texts)) is None and list(map(str.strip, texts)) == texts


def clean(text: str) -> tuple[str, tuple[str, ...]]:
    """Clean the text of a cell.

    Returns:
        The text, and the kinds of repair in the order in which they were made: `escape` (`_x0000_` is decoded),
        `entity` (`&mdash;` is decoded), `line-break` (U+2028, CR and the like become a line feed), `control` and
        `zero-width` (such characters are removed, and a text that shows nothing at all), and `white-space` (removed at
        the ends).
    """
    if _SUSPECT.search(text) is None:
        stripped = text.strip()
        return (text, ()) if len(stripped) == len(text) else (stripped, ("white-space",))
    repairs: list[str] = []
    for kind, repair in _REPAIRS:
        repaired = repair(text)
        if repaired != text:
            repairs.append(kind)
            text = repaired
    return text, tuple(repairs)


def collapse(text: str) -> str:
    """Normalise a text to compare it: each run of white space is one space, and é is one character (NFC)."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def unpaired_surrogate(text: str) -> int | None:
    """The place, from 1, of the first unpaired surrogate: half of a character, which no tokenizer or file accepts."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return error.start + 1
    return None


def control_character(text: str) -> int | None:
    """The place, from 1, of the first character that `clean` removes as control or replaces as line break."""
    found = _UNPRINTED.search(text)
    return found.start() + 1 if found else None


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text)


def _remove_invisible(text: str) -> str:
    text = _INVISIBLE.sub("", text)
    return "" if _BLANK.fullmatch(text) else text


def _decode_entities(text: str) -> str:
    return _ENTITY.sub(_decode_entity, text)


def _decode_entity(entity: re.Match[str]) -> str:
    decimal, hexadecimal, name = entity.groups()
    if name:
        return html5.get(f"{name};", entity[0])
    code = int(decimal) if decimal else int(hexadecimal, 16)
    # A surrogate, or a number beyond Unicode, is not a character.
    return entity[0] if 0xD800 <= code <= 0xDFFF or code > 0x10FFFF else chr(code)


# Escapes and entities first, since they may decode to characters that are removed.
_REPAIRS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("escape", _unescape),
    ("entity", _decode_entities),
    ("line-break", lambda text: _LINE_BREAK.sub("\n", text)),
    ("control", lambda text: _CONTROL.sub("", text)),
    ("zero-width", _remove_invisible),
    ("white-space", str.strip),
)
