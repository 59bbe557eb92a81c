"""Flags that several commands share, and the types of their values."""

from __future__ import annotations

import os
from collections.abc import Container
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from lrc.config.run_record import DTYPES, NORMALISATIONS, STYLES, TEMPLATE_NAMES
from lrc.data.tables.headers import ROLES, role_of
from lrc.runtime.system import expand_home
from lrc.runtime.translation import _, localized


class NonEmptyPath(click.Path):
    """A file or a folder, but not an empty name, which `Path` would take for the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse an empty name."""
        if not os.fspath(value).strip():
            self.fail(localized(_("is empty; give a path")), param, ctx)
        return super().convert(expand_home(os.fspath(value)), param, ctx)  # as bash does not in `--data=~/AI.xlsx`


class NonEmptyText(click.types.StringParamType):
    """A text that is not empty."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse an empty text."""
        if not str(value).strip():
            self.fail(localized(_("is empty; give a name")), param, ctx)
        return super().convert(value, param, ctx)


class ModelName(NonEmptyText):
    """A model: a folder, or a name on the Hub."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Put the home folder in the place of `~`."""
        return expand_home(str(super().convert(value, param, ctx)))


class ColumnNames(click.ParamType):
    """The headers of a table's columns, as `文章=短文,問題=題目`; a header may contain commas."""

    name = "文章=HEADER,…"
    is_list = True

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, str]:
        """Make a dictionary of headers, by the roles of their columns."""
        columns: dict[str, str] = {}
        last = ""
        for piece in str(value).split(","):
            role, is_one, header = piece.partition("=")
            known = role_of(role) if is_one else None
            if known and known in columns:
                self.fail(localized(_("names {column} twice").format(column=known)), param, ctx)
            if known:
                columns[known], last = header, known
            elif last and not is_one:
                columns[last] += f",{piece}"
            else:
                text = _("{piece} is not {columns} with = and a header")
                self.fail(localized(text.format(piece=repr(piece), columns=tuple(ROLES))), param, ctx)
        if empty := next((role for role, header in columns.items() if not header.strip()), None):
            self.fail(localized(_("{column} has no header").format(column=empty)), param, ctx)
        return columns


FILE, TEXT, MODEL = NonEmptyPath(path_type=Path), NonEmptyText(), ModelName()
force = click.option("--force", is_flag=True, help="Overwrite an existing output.")
accelerate_config = click.option(
    "--accelerate-config", type=TEXT, help="A launch config: a file, or the name of one that lrc ships."
)
on_error = click.option(
    "--on-error",
    type=click.Choice(["refuse", "skip"]),
    default="refuse",
    show_default=True,
    help="What to do with a file that has bad rows: refuse it, or leave them out and count them.",
)


def table(command: Any) -> Any:
    """The flags for reading a table."""
    for option in (
        click.option(
            "--columns", type=ColumnNames(), help="Which column is which, for headers that lrc does not recognize."
        ),
        click.option("--sheet", type=TEXT, help="The sheet to read.  [default: the first visible one]"),
    ):
        command = option(command)
    return command


def answering(command: Any) -> Any:
    """The flags for answering, for generate, evaluate and app."""
    for option in (
        click.option("--list-options/--no-list-options", default=None, help="Default: as trained."),
        click.option("--answer-style", type=click.Choice(STYLES), help="Default: as trained."),
        click.option("--template", type=click.Choice(TEMPLATE_NAMES), help="Default: as trained."),
        click.option(
            "--load-in-4bit/--no-load-in-4bit", default=None, help="Default: as the first adapter's base was trained."
        ),
        click.option(
            "--dtype",
            type=click.Choice(DTYPES),
            help="Data type to compute in. Default: as trained or stored, if the device supports it.",
        ),
        click.option(
            "--score-normalisation",
            type=click.Choice(NORMALISATIONS),
            help="How an option's log-likelihood is normalized. Default: as trained.",
        ),
        click.option("--row-tokens", type=click.IntRange(min=1), help="Token budget of a packed row."),
        click.option(
            "--votes",
            type=click.IntRange(min=1),
            default=1,
            show_default=True,
            help="Ask in this many orders of the options, and average.",
        ),
        click.option(
            "--adapter",
            "adapters",
            type=FILE,
            multiple=True,
            help="An adapter for the model; repeat to average several.",
        ),
        click.option(
            "--average-weights",
            is_flag=True,
            help="Average the weights of several LoRA adapters, instead of their answers.",
        ),
    ):
        command = option(command)
    return command


class TakesSeveral(click.Command):
    """A command whose repeatable flags also take several values at once, up to the next flag."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat the flag before each of its values."""
        several = {name for flag in self.params if getattr(flag, "multiple", False) for name in flag.opts}
        spread: list[str] = []
        current = ""
        for place, word in enumerate(args):
            if word.startswith("-"):
                current = word if word in several else ""
            elif current and args[place - 1] != current:
                spread.append(current)
            spread.append(word)
        return super().parse_args(ctx, spread)


def given(ctx: click.Context, *, besides: Container[str]) -> list[str]:
    """The flags given on the command line, as the help spells them.

    Args:
        ctx: of the command.
        besides: names of parameters to ignore.
    """
    return [
        "/".join([*flag.opts, *flag.secondary_opts])
        for flag in ctx.command.params
        if flag.name not in besides and ctx.get_parameter_source(flag.name or "") is ParameterSource.COMMANDLINE
    ]
