"""Messages in the user's language: English in the source, others in gettext's catalogues under `runtime/locale`.

A message is English wherever a program reads it (`--json`, logs, tests), and is translated only for people: with
`localized(text)` on the terminal, by `LRC_LANG` or the locale; with `localized(text, language)` on a page, for its
reader.
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

VARIABLES = ("LRC_LANG", "LC_ALL", "LC_MESSAGES", "LANG")  # the first that is set decides
ENGLISH: Final = "en"
CHINESE: Final = "zh_TW"
DOMAIN = "lrc"
_FILE = r"\{(?P<file>file|path|place|where|package)\}"
_PLACE = re.compile(_FILE + r"(?:, (?P<place>row \{(?P<row>rows?)\}|[^{}:]+\{\w+\}))?: ")
# What agrees with a number in English: the noun after it, and the verb of both. A message may have several
# numbers, and gettext's plural forms depend on one; Chinese has no plural.
_PLURALS = (
    "answers|bands|bits|bytes|cards|cells|characters|checkpoints|choices|columns|cores|devices|digits|"
    "evaluations|examples|files|findings|folds|headers|hours|ids|layers|minutes|models|options|orders|parts|"
    "passages|plans|points|positions|questions|records|rows|scores|seconds|steps|tensors|texts|threads|times|"
    "tokens|trials"
)
_SINGULARS = {noun: noun[:-1] for noun in _PLURALS.split("|")} | {"batches": "batch", "processes": "process"}
_VERBS = {"are": "is", "have": "has", "were": "was", "do": "does"}
_NUMBERED = re.compile(
    rf"(?P<noun>(?: (?:more|other|such|unique|bad|empty))? (?:{'|'.join(_SINGULARS)}))\b"
    rf"(?P<verb> (?:{'|'.join(_VERBS)})\b)?"
)
_PLACE_ALONE = re.compile(_FILE + r", (?P<place>[^{}:]+\{\w+\})")


class Message(str):
    """A text in English that keeps its message id and the values that were filled in.

    As a string it is the English text; `localized` returns it in another language.
    """

    __slots__ = ("cut", "msgid", "values")
    msgid: str
    values: Mapping[str, Any]
    cut: str  # which part of the message it is: `clause`, `place` or `text` (see below); empty is the whole message

    def __new__(cls, text: str, msgid: str = "", values: Mapping[str, Any] | None = None, cut: str = "") -> Message:
        made = super().__new__(cls, text)
        made.msgid, made.values, made.cut = msgid or text, values or {}, cut
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return Message, (str(self), self.msgid, dict(self.values), self.cut)

    def format(self, /, *_unused: object, **values: object) -> Message:
        """Fill in placeholders by name; those that are not given stay, and may be filled in later.

        A tuple becomes a list: `a, b`, in Chinese `甲、乙`.
        """
        # Errors are sent between processes, so only immutable values that can be pickled are kept as they are.
        plain = {name: one if isinstance(one, str | Number | tuple) else str(one) for name, one in values.items()}
        values = {**self.values, **plain}
        return Message(_fill(self.msgid, values, None), self.msgid, values)

    def with_renamed(self, old: str, new: str) -> Message:
        """A copy with `old` replaced by `new` in the text and the values."""
        values = {name: _rename(one, old, new) for name, one in self.values.items()}
        return Message(self.replace(old, new), self.msgid, values, self.cut)


def _(text: str) -> Message:
    """Mark a whole sentence for translation; placeholders have names, and `format` fills them in."""
    return Message(text)


def message_of(error: BaseException) -> str:
    """An error's text; as a `Message` if the error was raised with one."""
    message = error.args[0] if error.args else ""
    return message if isinstance(message, Message) else str(error)


def first_clause(text: str) -> str:
    """The part of a message before its semicolon, after which comes the cure."""
    if not isinstance(text, Message):
        return text.partition(";")[0]
    # A semicolon in a value does not count, unless the message itself has none.
    clause, semicolon, _cure = text.msgid.partition(";")
    filled = _fill(clause, text.values, None)
    return Message(filled if semicolon else filled.partition(";")[0], text.msgid, text.values, "clause")


class PlacedMessage(NamedTuple):
    """The parts of a message that begins with a place: `{file}, record {number}: {reason}`."""

    file: str
    place: str  # in the file: `record 3`; empty for the whole file, or if there is a row
    row: int | None  # the row of a table
    text: str  # what is wrong there


def split_place(message: str) -> PlacedMessage | None:
    """Split the place from the rest of a message; None if it does not begin with one, or is not a `Message`.

    The place is a file and what follows it up to the colon: `{file}: …`, `{path}, row {row}: …`. The value of the file
    may itself be such a place, without a colon.
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
    """The language of this process, by `LRC_LANG` or the locale; English if lrc does not have it."""
    locale_name = next((value for name in VARIABLES if (value := os.environ.get(name))), "")
    if not locale_name and sys.platform == "win32":
        import locale

        locale_name = locale.getlocale()[0] or ""
    return CHINESE if locale_name.casefold().startswith(("zh", "chinese")) else ENGLISH


def localized(text: str, to: str | None = None) -> str:
    """A message in a language, by default that of the process; a text that is not a `Message` as it is."""
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
    """Join words with `joint`, which has placeholders for all but the last (`words`) and for the last (`last`)."""
    return words[0] if len(words) == 1 else joint.format(words=tuple(words[:-1]), last=words[-1])


def _fill(text: str, values: Mapping[str, Any], to: str | None) -> str:
    pieces: list[str] = []
    for literal, name, spec, _conversion in Formatter().parse(text):
        alone = to is None and pieces and pieces[-1] == "1"
        pieces.append(_make_singular(literal) if alone else literal)
        if name is None:
            continue
        if name not in values:
            pieces.append(f"{{{name}{':' if spec else ''}{spec}}}")
            continue
        pieces.append(_format_value(values[name], spec or "", to))
    return "".join(pieces)


def _make_singular(after: str) -> str:
    """What follows the number 1, such as ` questions have no answer`, with its noun and its verb in the singular."""
    if (found := _NUMBERED.match(after)) is None:
        return after
    before, _space, noun = found["noun"].rpartition(" ")
    verb = f" {_VERBS[found['verb'].strip()]}" if found["verb"] else ""
    return f"{before} {_SINGULARS[noun]}{verb}{after[found.end() :]}"


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
