"""Write docs/commands.md: every command with its arguments and flags, as its help has them.

python docs/build_commands.py
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from lrc.cli import cli

HERE = Path(__file__).parent
INTRODUCTION = """\
<!-- Written by docs/build_commands.py from the commands themselves: change src/lrc/cli.py and run it. -->

# Every command

`lrc COMMAND --help` shows the same in the terminal. The commands, in the order in which you need them: {order}.

The exit status is 0 if all is done; 1 if something is wrong with the input, the recipe, the model or the machine, with
one line for each finding; 2 if the command line is wrong; 130 after Ctrl-C, and 143 after SIGTERM. Progress and
findings go to stderr, results to stdout; `lrc --quiet COMMAND` shows no progress. An existing output is never
overwritten without `--force`, and an output appears complete or not at all.
"""
ORDER = (
    *("doctor", "gpu-check", "run", "check", "convert", "preview", "train", "sweep", "evaluate", "compare", "generate"),
    *("vote", "report", "merge", "app", "publish", "init", "schema", "completion", "demo"),
)


def build() -> str:
    """The text of docs/commands.md; commands that `ORDER` does not name come last."""
    names = sorted(cli.commands, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    shown = [name for name in names if not cli.commands[name].hidden]
    order = ", ".join(f"[{name}](#lrc-{name})" for name in shown)
    return "\n".join([INTRODUCTION.format(order=order), *(_section(cli.commands[name]) for name in shown)])


def _section(command: click.Command) -> str:
    context = click.Context(command, info_name=f"lrc {command.name}")
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [f"## lrc {command.name}", "", "```text", f"lrc {command.name} {usage}", "```", ""]
    lines += [*_paragraphs(command.help or ""), ""]
    if rows := [row for flag in command.params if (row := _row(flag, context))]:
        lines += ["| flag | |", "|---|---|", *rows, ""]
    return "\n".join(lines)


def _paragraphs(text: str) -> Iterator[str]:
    """The help's paragraphs; what click is told not to wrap (`\\b`) stays as it is."""
    for number, paragraph in enumerate(inspect.cleandoc(text).split("\n\n")):
        verbatim = paragraph.startswith("\b")
        yield from ([""] if number else [])
        yield f"```text\n{paragraph[2:]}\n```" if verbatim else _plain(" ".join(paragraph.split()))


def _row(flag: click.Parameter, context: click.Context) -> str | None:
    record = flag.get_help_record(context) if isinstance(flag, click.Option) else None
    if record is None:
        return None
    names, meaning = record
    meaning = " ".join(meaning.split())
    names = names.replace(" RANGE", "").replace("|", "\\|")
    return f"| `{names}` | {_plain(meaning).replace('|', '&#124;')} |"


def _plain(text: str) -> str:
    """Text in which Markdown finds no tags and no emphasis."""
    return text.replace("<", "&lt;").replace("*", "\\*")


if __name__ == "__main__":
    (HERE / "commands.md").write_text(build(), encoding="utf-8")
