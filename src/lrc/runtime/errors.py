"""The exceptions of lrc, in one tree.

    LrcError                what the user can put right; its findings are printed one a line, exit status 1
    ├── DataError           a workbook, a JSON file or a CSV is not what it should be
    ├── RecipeError         a recipe, or a key that overrides it
    ├── ModelError          a base model, an adapter or a tokenizer
    ├── OutputError         an output that exists, or that cannot be written
    └── MachineError        memory, disk, devices, the number of processes

A finding is one line that gives the place, the value and the cure:
``AI.xlsx, row 17: 正確答案 is 5, expected 1 to 4; correct it``.
Wrong usage of the command line is click's ``UsageError``, exit status 2.
"""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path

from lrc.runtime.findings import Finding
from lrc.runtime.system import WINDOWS
from lrc.runtime.translation import _

LONGEST_PATH = 259  # characters

# Frequent error messages of operating systems, for translation.
_OS_ERRORS: dict[str, str] = {
    str(text): text
    for text in (
        _("Address already in use"),
        _("Device or resource busy"),
        _("Disk quota exceeded"),
        _("File exists"),
        _("File name too long"),
        _("File too large"),
        _("Input/output error"),
        _("Is a directory"),
        _("No space left on device"),
        _("No such file or directory"),
        _("Not a directory"),
        _("Operation not permitted"),
        _("Permission denied"),
        _("Read-only file system"),
        _("Too many levels of symbolic links"),
        _("Too many open files"),
    )
}


class LrcError(Exception):
    """Something in the user's input, recipe, model or machine is wrong.

    Args:
        *findings: `Finding`s, or lines, which become findings; a command prints each on stderr.

    Attributes:
        findings: what is wrong, each with its file and place if the line names them.
    """

    def __init__(self, *findings: str | Finding) -> None:
        self.findings = tuple(one if isinstance(one, Finding) else Finding.of_line(one) for one in findings)
        super().__init__(*findings)  # pickle passes these to the constructor again

    def __str__(self) -> str:
        return "\n".join(self.lines("en"))

    def lines(self, language: str | None = None) -> tuple[str, ...]:
        """The lines of the findings, in a language, by default that of the process; see `translation`."""
        return tuple(one.line(language) for one in self.findings)


def no_file(path: Path) -> str:
    """The line for a file that does not exist, with the most similar name in its folder."""
    if (length := _excess_length(path)) is not None:
        text = _(
            "{file}: the path has {length} characters; Windows allows {most} unless long paths are enabled; move it to "
            "a folder with a shorter path"
        )
        return text.format(file=path.name, length=length, most=LONGEST_PATH)
    try:
        names = [one.name for one in path.parent.iterdir()]
    except OSError:
        text = _("{file}: No such file or directory; there is no folder {folder}")
        return text.format(file=path.name, folder=path.parent)
    lower = {name.casefold(): name for name in names}
    near = get_close_matches(path.name.casefold(), lower, n=1, cutoff=0.7)
    if near:
        text = _("{file}: No such file or directory; did you mean {near}?")
        return text.format(file=path.name, near=path.parent / lower[near[0]])
    return _("{file}: No such file or directory; check its name").format(file=path.name)


class DataError(LrcError):
    """A workbook, a JSON file or a CSV is not what it should be."""


class RecipeError(LrcError):
    """A recipe, or a key that overrides it, cannot be used."""


class ModelError(LrcError):
    """A base model, an adapter or a tokenizer cannot be used."""


class OutputError(LrcError):
    """An output already exists, or cannot be written."""


class MachineError(LrcError):
    """The machine lacks memory, disk, a device or a process that the run needs."""


def describe_os_error(error: OSError) -> str:
    """The operating system's reason for an error; as a translatable message if it is a frequent one.

    Windows does not say that another program, such as Excel, has a file open, nor that a path is too long.
    """
    reason = system_message(str(error.strerror or error))
    if WINDOWS and isinstance(error, PermissionError):
        return _("{reason} (is it open in another program? close it there)").format(reason=reason)
    if (length := _excess_length(error.filename or "")) is not None:
        text = _("{reason} (the path has {length} characters; Windows allows {most} unless long paths are enabled)")
        return text.format(reason=reason, length=length, most=LONGEST_PATH)
    return reason


def cannot_read(file: str | Path, error: OSError) -> str:
    """The line for a file that the operating system does not let lrc read.

    Args:
        file: the file, as the line names it.
        error: what was raised.
    """
    return _("{file}: {reason}; check its name and permissions").format(file=file, reason=describe_os_error(error))


def system_message(text: str) -> str:
    """An operating system's error message; as a translatable one if it is frequent."""
    return _OS_ERRORS.get(text, text)


def _excess_length(path: str | Path) -> int | None:
    """The length of a path that is too long for Windows."""
    length = len(os.path.abspath(path)) if WINDOWS else 0  # noqa: PTH100 - of the name as it is, not of what it links to
    return length if length > LONGEST_PATH else None


def first_line(error: BaseException, length: int = 200) -> str:
    """The first line of a library's error, at most `length` characters; the name of its class if it has no text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:length]
