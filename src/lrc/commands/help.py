"""The help of the commands: in the user's language, aligned and wrapped by columns of the terminal.

The source has it in English: the docstrings of commands, and the `help` of their options. It is translated where click
writes it, so that all else reads English; `docs/extract_texts.py` finds the texts for the catalogue.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterable
from copy import copy
from gettext import gettext
from typing import TypeVar

import click
from click.shell_completion import CompletionItem

from lrc.runtime.findings import columns_of, pad, wrap
from lrc.runtime.translation import ENGLISH, Message, _, language, localized

VERBATIM = "\b"  # click's mark at the beginning of a paragraph that is shown as it is
AnyCommand = TypeVar("AnyCommand", bound=click.Command)


class HelpFormatter(click.HelpFormatter):
    """Counts columns of the terminal where click counts characters: a Chinese one takes two."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """Write the usage; further lines begin below its first argument."""
        label = prefix or gettext("Usage:")
        begin = f"{label}{' ' if label.isascii() else ''}{prog} "
        first, *others = wrap(args, self.width - columns_of(begin))
        self._write_lines([begin + first, *(" " * columns_of(begin) + line for line in others)])

    def write_heading(self, heading: str) -> None:
        """Write a heading, with the colon of the language."""
        self._write_lines([localized(_("{heading}:").format(heading=heading))])

    def write_text(self, text: str) -> None:
        """Write paragraphs."""
        for number, paragraph in enumerate(split_paragraphs(text)):
            self.write("\n" if number else "")
            self._write_lines(_lines(paragraph, self.width - self.current_indent))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Write a list of names and meanings in two columns; a name that is too long has a line of its own."""
        rows = list(rows)
        first = min(max((columns_of(name) for name, _meaning in rows), default=0), col_max) + col_spacing
        for name, meaning in rows:
            room = max(self.width - first - self.current_indent, 10)
            lines = [line for paragraph in split_paragraphs(meaning) for line in _lines(paragraph, room)]
            if columns_of(name) > first - col_spacing:
                lines.insert(0, "")
            names = [name, *[""] * (len(lines) - 1)]
            self._write_lines((pad(one, first) + line).rstrip() for one, line in zip(names, lines, strict=True))

    def _write_lines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(f"{' ' * self.current_indent}{line}".rstrip() + "\n")


class HelpContext(click.Context):
    """A context whose help is written by `HelpFormatter`."""

    formatter_class = HelpFormatter


class TranslatedCommand(click.Command):
    """A command whose help is in the user's language."""

    context_class = HelpContext

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, and refuse to have a list in one option replaced by that in a second one, as click would."""
        rest = super().parse_args(ctx, args.copy())
        if ctx.resilient_parsing:
            return rest
        _values, _rest, order = self.make_parser(ctx).parse_args(args.copy())
        for option, count in Counter(one for one in order if isinstance(one, click.Option)).items():
            if count > 1 and getattr(option.type, "is_list", False):
                text = _("{option} is given {count} times; give it once, with commas between its parts")
                raise click.UsageError(localized(text.format(option=option.opts[-1], count=count)), ctx)
        return rest

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help of a translated copy."""
        super(TranslatedCommand, _translate_command(self)).format_help(ctx, formatter)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """What a shell offers, with the help of a translated copy beside it."""
        return super(TranslatedCommand, _translate_command(self)).shell_complete(ctx, incomplete)

    def get_short_help_str(self, limit: int = 45) -> str:
        """The summary that a shell shows beside the name; click shortens it at a space, which Chinese has not."""
        return super().get_short_help_str(limit) if language() == ENGLISH else summary(self)


def split_paragraphs(text: str) -> list[str]:
    """The paragraphs of a help text, each in one line, except those that are shown as they are."""
    paragraphs = inspect.cleandoc(text).partition("\f")[0].split("\n\n")
    return [one if one.startswith(VERBATIM) else " ".join(one.splitlines()) for one in paragraphs]


def translate_help(text: str) -> str:
    """A help text in the user's language. Every paragraph is a message."""
    paragraphs = split_paragraphs(text)
    return "\n\n".join(one if one.startswith(VERBATIM) else localized(Message(one)) for one in paragraphs)


def summary(command: click.Command) -> str:
    """The first paragraph of a command's help in the user's language."""
    return split_paragraphs(translate_help(command.help or ""))[0]


def _translate_command(command: AnyCommand) -> AnyCommand:
    """A copy for the help; the command itself stays in English."""
    translated = copy(command)
    translated.help = translate_help(command.help or "")
    translated.params = [copy(param) for param in command.params]
    for param in translated.params:
        if isinstance(param, click.Option) and param.help:
            param.help = translate_help(param.help)
    return translated


def _lines(paragraph: str, columns: int) -> list[str]:
    return paragraph.splitlines()[1:] if paragraph.startswith(VERBATIM) else wrap(paragraph, columns)
