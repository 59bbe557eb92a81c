"""Streams the elements of a JSON array: a file of any size takes about the memory of its largest element.

Each element is parsed by the standard library; this module only moves a window over the text.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from lrc.runtime.errors import DataError, cannot_read
from lrc.runtime.library_errors import describe_error
from lrc.runtime.translation import _

CHUNK = 1 << 20  # bytes to read at first; doubled each time an element needs more
_WHITE = " \t\n\r"
# An error this close to the end of the window may come from a token that the window cuts in two, such as `-Infinity`.
_CUT = 16


class DoubledKeyError(ValueError):
    """An object has a key twice, of which JSON parsers silently keep the last value."""


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its pairs; an `object_pairs_hook` for the parser of the standard library.

    Raises:
        DoubledKeyError: a key appears twice.
    """
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        raise DoubledKeyError(next(key for key in keys if keys.count(key) > 1))
    return made


def read_array(path: Path) -> Iterator[Any]:
    """Read a UTF-8 JSON file that holds an array, with or without a byte-order mark.

    Yields:
        Each element, as soon as it is read.

    Raises:
        DataError: the file is missing, has another encoding, is not a JSON array, or has an object with a key twice. It
            may be raised after some elements.
    """
    count = 0
    try:
        with path.open("rb") as file:
            for element in _elements(_Window(file)):
                count += 1
                yield element
    except UnicodeDecodeError as error:
        raise DataError(
            _("{file}: byte {start} is not UTF-8; save the file as UTF-8").format(file=path.name, start=error.start)
        ) from error
    except _NoArrayError as error:
        raise DataError(
            _("{file}: not a JSON array; expected records or questions in one").format(file=path.name)
        ) from error
    except DoubledKeyError as error:
        raise DataError(
            _("{file}, element {count}: key {reason} appears twice; keep one of them").format(
                file=path.name, count=count + 1, reason=error
            )
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(
            _("{file}: not JSON ({reason}); convert or export it again").format(
                file=path.name, reason=describe_error(error)
            )
        ) from error
    except OSError as error:
        raise DataError(cannot_read(path.name, error)) from error


class _NoArrayError(Exception):
    """The file is JSON, but not an array."""


class _Window:
    """The part of the text that is in memory, and the offset of the next value in it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.text, self.place, self.ended = file, "", 0, False
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._json = json.JSONDecoder(object_pairs_hook=unique_keys)
        # Of the text before the window: bytes read, characters, line breaks, and characters since the last of these.
        self._bytes, self._chars, self._lines, self._column = 0, 0, 0, 0
        if (start := file.read(3)) != codecs.BOM_UTF8:
            file.seek(0)
        else:
            self._bytes = len(start)

    def sign(self) -> str:
        """Skip white space, and return the next character; empty at the end of the file."""
        while True:
            while self.place < len(self.text) and self.text[self.place] in _WHITE:
                self.place += 1
            if self.place < len(self.text):
                return self.text[self.place]
            if self.ended:
                return ""
            self.more(CHUNK)

    def value(self) -> Any:
        """Parse the next value and skip it.

        Raises:
            ValueError: there is none; the message has the position in the file.
        """
        size = CHUNK
        while True:
            try:
                value, end = self._json.raw_decode(self.text, self.place)
            except json.JSONDecodeError as error:
                if self.ended or not (error.msg.startswith("Unterminated") or error.pos >= len(self.text) - _CUT):
                    raise self.error(error.msg, error.pos) from None
            else:
                # A number that ends with the window may continue after it.
                if end < len(self.text) or self.ended:
                    self.place = end
                    return value
            self.more(size)
            size *= 2

    def error(self, what: str, place: int | None = None) -> ValueError:
        """An error in the words of the standard library, with the position in the whole file."""
        before = self.text[: self.place if place is None else place]
        lines = before.count("\n")
        column = len(before) - before.rfind("\n") if lines else self._column + len(before) + 1
        return ValueError(f"{what}: line {self._lines + lines + 1} column {column} (char {self._chars + len(before)})")

    def more(self, size: int) -> None:
        """Discard what was parsed, and read on.

        Args:
            size: the number of bytes.
        """
        gone = self.text[: self.place]
        if lines := gone.count("\n"):
            self._lines, self._column = self._lines + lines, len(gone) - gone.rfind("\n") - 1
        else:
            self._column += len(gone)
        self._chars += len(gone)
        chunk = self.file.read(size)
        pending = len(self._decoder.getstate()[0])
        try:
            self.text = self.text[self.place :] + self._decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            error.start += self._bytes - pending
            raise
        self.place, self.ended, self._bytes = 0, not chunk, self._bytes + len(chunk)


def _elements(window: _Window) -> Iterator[Any]:
    if window.sign() != "[":
        window.value()
        _refuse_more(window)
        raise _NoArrayError
    window.place += 1
    if window.sign() == "]":
        window.place += 1
        return _refuse_more(window)
    while True:
        window.sign()
        yield window.value()
        sign = window.sign()
        if sign not in (",", "]"):
            raise window.error("Expecting ',' delimiter")
        window.place += 1
        if sign == "]":
            return _refuse_more(window)


def _refuse_more(window: _Window) -> None:
    if window.sign():
        raise window.error("Extra data")
