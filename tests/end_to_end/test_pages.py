"""Every command on every page is one that its program understands: verb, arguments, flags, recipe and keys.

Those of `bash` blocks are run besides, by tests/end_to_end/test_docs.py.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import pytest
from packaging.requirements import Requirement
from page_commands import PROGRAMS, ROOT, RUN, Line, blocks, inline, lines, pages

from lrc.cli import cli
from lrc.config.accelerate_config import find_accelerate_config
from lrc.config.recipe import find_recipe, read_given
from lrc.config.schema import shipped_schema
from lrc.runtime.errors import LrcError

# Words that stand for what a user has; a recipe of one's own is not there to be read.
OWN = re.compile(r"[A-Z_]+|my\S*|\S*tutorial/\S+|\S*recipes?/\S+|recipe\.yaml")
MODULES = {"lrc.generate": "generate", "lrc.evaluation": "evaluate"}
TARGETS = set(re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)[1].split())  # type: ignore[index]


def check_lrc(words: Sequence[str]) -> None:
    words = [word for word in words if word not in ("--quiet", "-q")]
    if words and words[0] in ("--help", "-h", "--version"):
        return
    command = cli.commands[words[0]]
    if words[1:] == ["--help"]:
        return
    context = command.make_context(words[0], list(words[1:]))
    if words[0] in ("train", "preview", "run"):
        check_recipe(context.params["recipe"], context.params["overrides"])
    if config := context.params.get("accelerate_config"):
        find_accelerate_config(config)


def check_recipe(recipe: str | None, overrides: Sequence[str]) -> None:
    try:
        path = find_recipe(recipe or "tiny/lora")
    except LrcError:
        assert recipe is not None and OWN.fullmatch(recipe), f"{recipe}: no such recipe"
        path = find_recipe("tiny/lora")  # in the place of one's own
    read_given(path, overrides)


def check_accelerate(words: Sequence[str]) -> None:
    launch, module = list(words[: words.index("-m")]), words[words.index("-m") + 1]
    assert launch[0] == "launch"
    if "--config_file" in launch:
        find_accelerate_config(launch[launch.index("--config_file") + 1])
    rest = list(words[words.index("-m") + 2 :])
    if module == "lrc.sft":
        assert rest[0] == "--config"
        check_recipe(rest[1], rest[2:])
    elif rest:
        cli.commands[MODULES[module]].make_context(module, rest)
    else:
        assert module in MODULES  # named in a sentence: with the same flags


def check_make(words: Sequence[str]) -> None:
    assert {word for word in words if "=" not in word} <= TARGETS


def check_python(words: Sequence[str]) -> None:
    if words[0] == "-c":
        compile(words[1], "a page", "exec")
    elif words[0] == "-m":
        assert importlib.util.find_spec(words[1]) is not None
    else:
        assert (ROOT / words[0]).is_file()


def check_install(words: Sequence[str]) -> None:
    words = words[1:] if words[0] == "pip" else words
    if words[0] != "install":
        assert words[0] in ("check", "uninstall", "venv", "wheel", "show")
        return
    skipped = {
        place + 1
        for place, word in enumerate(words)
        if word in ("-c", "--constraint", "--index-url", "--find-links", "-r")
    }
    given = [word for place, word in enumerate(words[1:], start=1) if place not in skipped and word[0] != "-"]
    assert all(word in (".", ".[app]") or Path(word).suffix == ".whl" or Requirement(word).name for word in given)


CHECKS: dict[str, Callable[[Sequence[str]], None]] = {
    "lrc": check_lrc,
    "accelerate": check_accelerate,
    "make": check_make,
    "python": check_python,
    "pip": check_install,
    "uv": check_install,
}
GENERATED = ROOT / "docs" / "commands.md"  # from the commands themselves, see below
COMMANDS = [line for page in pages() if page != GENERATED for line in lines(page)]


@pytest.mark.parametrize("line", COMMANDS, ids=str)
def test_a_command_of_a_page_is_understood(line: Line) -> None:
    program, *words = line.words
    if program in CHECKS:
        CHECKS[program](words)
    else:
        assert program in PROGRAMS


@pytest.mark.parametrize("line", [line for page in pages() for line in inline(page)], ids=str)
def test_a_command_in_a_sentence_has_verbs_and_flags_that_there_are(line: Line) -> None:
    verbs = [word for word in line.words[1:] if not word.startswith("-")]
    flags = {word.partition("=")[0] for word in line.words[1:] if word.startswith("--")} - {"--help"}
    if not verbs or not re.fullmatch(r"[a-z-]+", verbs[0]):
        assert flags <= {"--quiet", "--version"} or re.fullmatch(r"[A-Z]+|…", verbs[0])
        return
    command = cli.commands[verbs[0]]
    known = {name for flag in command.params for name in (*flag.opts, *flag.secondary_opts)}
    if command.context_settings.get("ignore_unknown_options"):
        known |= {f"--{key}" for key in shipped_schema()}
    assert flags <= known


@pytest.mark.parametrize(
    "wrong",
    [
        "lrc chekc a.xlsx",
        "lrc convert a.xlsx --output-folder b",
        "lrc merge --adapter a",
        "lrc train qwen9/lora",
        "lrc train tiny/lora --lora_rnak 4",
        "accelerate launch --config_file accelerate_configs/gpu.yaml -m lrc.sft --config recipes/tiny/lora.yaml",
        "accelerate launch -m lrc.generate --model m",
        "make everything",
        "python docs/build_all.py",
        "rm -rf .",
    ],
)
def test_a_wrong_command_is_found(wrong: str) -> None:
    with pytest.raises((click.ClickException, KeyError, AssertionError, LrcError, StopIteration)):
        test_a_command_of_a_page_is_understood(Line(ROOT / "README.md", "text", wrong))


def test_what_is_to_be_run_is_on_a_page_whose_commands_are_run() -> None:
    shells = {page.relative_to(ROOT).as_posix() for page in pages() if any(name == "bash" for name, _ in blocks(page))}
    assert {name.replace(".zh-TW", "") for name in shells} == set(RUN)


def test_every_line_of_a_shell_block_is_a_command_that_is_looked_at() -> None:
    for page in pages():
        found = [line.text for line in lines(page) if line.language == "bash"]
        written = [line for name, block in blocks(page) if name == "bash" for line in block.splitlines()]
        assert len(found) == len([line for line in written if line.strip() and not line.lstrip().startswith("#")]), page


def test_the_page_of_commands_is_current() -> None:
    spec = importlib.util.spec_from_file_location("build_commands", ROOT / "docs" / "build_commands.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert GENERATED.read_text(encoding="utf-8") == script.build(), "run docs/build_commands.py"
    text = GENERATED.read_text(encoding="utf-8")
    for verb, command in cli.commands.items():
        section = text.partition(f"## lrc {verb}\n")[2].partition("\n## ")[0]
        assert all(name in section for flag in command.params if isinstance(flag, click.Option) for name in flag.opts)


def test_the_pages_have_commands() -> None:
    assert len(COMMANDS) > 100
    assert {"README.md", "docs/tutorial.md", "docs/answers-and-votes.md"} <= {
        line.page.relative_to(ROOT).as_posix() for line in COMMANDS
    }
