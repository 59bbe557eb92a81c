"""What libraries say of a damaged file, as messages that can be translated: JSON, YAML, CSV, XML, zip and UTF-8."""

from __future__ import annotations

import re

from lrc.runtime.translation import Message, _, message_of

_SENTENCES = {
    str(text): text
    for text in (
        # json
        _("Expecting value"),
        _("Expecting ',' delimiter"),
        _("Expecting ':' delimiter"),
        _("Expecting property name enclosed in double quotes"),
        _("Extra data"),
        _("Illegal trailing comma before end of array"),
        _("Illegal trailing comma before end of object"),
        _("Invalid \\escape"),
        _("Invalid \\uXXXX escape"),
        _("Invalid control character at"),
        _("Unterminated string starting at"),
        # yaml
        _("could not find expected ':'"),
        _("expected a single document in the stream"),
        _("found character '\\t' that cannot start any token"),
        _("found unexpected end of stream"),
        _("mapping values are not allowed here"),
        # csv
        _("',' expected after '\"'"),
        _("line contains NUL"),
        _("unexpected end of data"),
        # zip
        _("Bad magic number for central directory"),
        _("Bad magic number for file header"),
        _("File contains no valid workbook part"),
        _("File is not a zip file"),
        _("Truncated file header"),
        # XML
        _("duplicate attribute"),
        _("junk after document element"),
        _("mismatched tag"),
        _("no element found"),
        _("not well-formed (invalid token)"),
        _("syntax error"),
        _("unclosed token"),
        _("undefined entity"),
        # UTF-8
        _("invalid continuation byte"),
        _("invalid start byte"),
    )
}
# Sentences with a place or a value in them: the first that matches is taken, and its groups fill in the message.
_PATTERNS = (
    (
        r"(?P<what>.+): line (?P<line>\d+) column (?P<column>\d+) \(char (?P<char>\d+)\)",
        _("{what}: line {line} column {column} (char {char})"),
    ),
    (r"(?P<what>.+): line (?P<line>\d+), column (?P<column>\d+)", _("{what}: line {line}, column {column}")),
    (r"expected ',' or '\]', but got (?P<token>.+)", _("expected ',' or ']', but got {token}")),
    (r"expected ',' or '\}', but got (?P<token>.+)", _("expected ',' or '}}', but got {token}")),
    (r"expected <block end>, but found (?P<token>.+)", _("expected <block end>, but found {token}")),
    (r"Bad CRC-32 for file '(?P<part>.+)'", _("Bad CRC-32 for file '{part}'")),
    (
        r"'(?P<codec>[\w-]+)' codec can't decode bytes? (?:0x\w+ )?in position (?P<place>[\d-]+): (?P<what>.+)",
        _("not {codec} at byte {place}: {what}"),
    ),
    (r"Exceeds the limit .*: value has (?P<digits>\d+) digits;.*", _("a number has {digits} digits")),
    (r"maximum recursion depth exceeded.*", _("nested too deeply")),
)


def describe_error(error: BaseException | str) -> str:
    """The text of an error; as a translatable message if it is a frequent one of a library that reads files."""
    text = error if isinstance(error, str) else message_of(error)
    if isinstance(text, Message):
        return text
    if text in _SENTENCES:
        return _SENTENCES[text]
    for pattern, message in _PATTERNS:
        if found := re.fullmatch(pattern, text, flags=re.DOTALL):
            return message.format(**{name: describe_error(value) for name, value in found.groupdict().items() if value})
    return text
