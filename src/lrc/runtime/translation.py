"""Messages in the user's language: English in the source, the others in gettext's catalogues under `runtime/locale`.

A message is English wherever a program reads it (`--json`, logs, tests), and is translated only where a person does:
`localized` on the terminal, by `LRC_LANG` or the locale; `localized(text, language)` on a page, by its reader's.
"""

from __future__ import annotations

import gettext
import os
import re
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import as_file, files
from numbers import Number
from string import Formatter
from typing import Any, Final, NamedTuple

VARIABLES = ("LRC_LANG", "LC_ALL", "LC_MESSAGES", "LANG")  # the first that says something decides
ENGLISH: Final = "en"
CHINESE: Final = "zh_TW"
DOMAIN = "lrc"
_FILE = r"\{(?P<file>file|path|place|where|package)\}"
_PLACE = re.compile(_FILE + r"(?:, (?P<place>row \{(?P<row>rows?)\}|[^{}:]+\{\w+\}))?: ")
_PLACE_ALONE = re.compile(_FILE + r", (?P<place>[^{}:]+\{\w+\})")


class Message(str):
    """A text in English that knows which message it is, and what was filled in.

    As a string it is the English text; `localized` gives another language's.
    """

    __slots__ = ("cut", "msgid", "values")
    msgid: str
    values: Mapping[str, Any]
    cut: str  # which part of the sentence is meant, where it is not all of it: `clause`, `place` or `text`, see below

    def __new__(cls, text: str, msgid: str = "", values: Mapping[str, Any] | None = None, cut: str = "") -> Message:
        made = super().__new__(cls, text)
        made.msgid, made.values, made.cut = msgid or text, values or {}, cut
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return Message, (str(self), self.msgid, dict(self.values), self.cut)

    def format(self, /, *_unused: object, **values: object) -> Message:
        """Fill in placeholders by name; those that are not given stay, to be filled in later.

        A tuple fills in a list: `a, b`, in Chinese `甲、乙`.
        """
        # Errors go from process to process: what is filled in stays only where it can be sent, and cannot change.
        plain = {name: one if isinstance(one, str | Number | tuple) else str(one) for name, one in values.items()}
        values = {**self.values, **plain}
        return Message(_fill(self.msgid, values, None), self.msgid, values)

    def with_renamed(self, old: str, new: str) -> Message:
        """The same of another file: `old` replaced wherever a value names it."""
        values = {name: _rename(one, old, new) for name, one in self.values.items()}
        return Message(self.replace(old, new), self.msgid, values, self.cut)


def _(text: str) -> Message:
    """Mark a whole sentence for translation; placeholders have names, and `format` fills them in."""
    return Message(text)


def message_of(error: BaseException) -> str:
    """What an error says, as the message that it was made of where it was made of one."""
    message = error.args[0] if error.args else ""
    return message if isinstance(message, Message) else str(error)


def first_clause(text: str) -> str:
    """What a message says before its semicolon, which the cure follows."""
    if not isinstance(text, Message):
        return text.partition(";")[0]
    # A semicolon in what was filled in ends no clause, unless it is the clause that was filled in.
    clause, semicolon, _cure = text.msgid.partition(";")
    filled = _fill(clause, text.values, None)
    return Message(filled if semicolon else filled.partition(";")[0], text.msgid, text.values, "clause")


class PlacedMessage(NamedTuple):
    """A message whose first words say where something is, taken apart: `{file}, record {number}: {reason}`."""

    file: str
    place: str  # in the file: `record 3`; empty where it is the file as a whole
    row: int | None  # where the place is a row of a table, which `place` is not then
    text: str  # what is there


def split_place(message: str) -> PlacedMessage | None:
    """Take the place off a message; None where the message does not begin with one, or is a text without parts.

    The place is a file, and what follows it up to the colon: `{file}: …`, `{path}, row {row}: …`. What it is filled in
    with may itself be such a place, without a colon.
    """
    if not isinstance(message, Message) or not (found := _PLACE.match(message.msgid)):
        return None
    file, place, row = message.values[found["file"]], found["place"] or "", None
    if isinstance(file, Message) and (inner := _PLACE_ALONE.fullmatch(file.msgid)):
        place = Message(_fill(inner["place"], file.values, None), file.msgid, file.values, "place")
        file = file.values[inner["file"]]
    elif found["row"]:
        place, row = "", message.values[found["row"]]
    elif place:
        place = Message(_fill(place, message.values, None), message.msgid, message.values, "place")
    text = Message(_fill(message.msgid[found.end() :], message.values, None), message.msgid, message.values, "text")
    return PlacedMessage(file if isinstance(file, Message) else str(file), place, row, text)


def language() -> str:
    """The language of this process: what `LRC_LANG` or the locale says, English where lrc does not have it."""
    locale_name = next((value for name in VARIABLES if (value := os.environ.get(name))), "")
    if not locale_name and sys.platform == "win32":
        import locale

        locale_name = locale.getlocale()[0] or ""
    return CHINESE if locale_name.casefold().startswith(("zh", "chinese")) else ENGLISH


def localized(text: str, to: str | None = None) -> str:
    """A message in a language, that of the process by default; any other text as it is."""
    to = to or language()
    if not isinstance(text, Message):
        return text
    if to == ENGLISH:
        return str(text)
    translated = _catalogue(to).gettext(text.msgid)
    place, _colon, rest = translated.partition("：")
    match text.cut:
        case "clause":
            clause, semicolon, _cure = translated.partition("；")
            filled = _fill(clause, text.values, to)
            return filled if semicolon else filled.partition("；")[0]
        case "place":
            return _fill(place.partition("，")[2], text.values, to)
        case "text":
            return _fill(rest, text.values, to)
    return _fill(translated, text.values, to)


def translate_library(domain: str) -> None:
    """Have a library that takes its messages from gettext say them in this process's language, as far as lrc has them.

    Args:
        domain: of the catalogue under `runtime/locale`. Only one library can have the process's domain.
    """
    if language() != ENGLISH:
        gettext.bindtextdomain(domain, str(files("lrc.runtime") / "locale"))
        gettext.textdomain(domain)
        os.environ["LANGUAGE"] = language()  # which gettext looks at first


def alternatives(words: Sequence[str], joint: Message) -> str:
    """Words in one: `joint` has a place for all but the last, `words`, and one for it, `last`."""
    return words[0] if len(words) == 1 else joint.format(words=tuple(words[:-1]), last=words[-1])


def _fill(text: str, values: Mapping[str, Any], to: str | None) -> str:
    pieces = []
    for literal, name, spec, _conversion in Formatter().parse(text):
        pieces.append(literal)
        if name is None:
            continue
        if name not in values:
            pieces.append(f"{{{name}{':' if spec else ''}{spec}}}")
            continue
        pieces.append(_format_value(values[name], spec or "", to))
    return "".join(pieces)


def _rename(value: Any, old: str, new: str) -> Any:
    if isinstance(value, Message):
        return value.with_renamed(old, new)
    return value.replace(old, new) if isinstance(value, str) else value


def _format_value(value: Any, spec: str, to: str | None) -> str:
    if isinstance(value, tuple):
        return ("、" if to == CHINESE else ", ").join(_format_value(one, spec, to) for one in value)
    return localized(value, to) if to and isinstance(value, Message) else format(value, spec)


@cache
def _catalogue(to: str) -> gettext.NullTranslations:
    with as_file(files("lrc.runtime") / "locale") as folder:
        return gettext.translation(DOMAIN, folder, [to], fallback=True)
