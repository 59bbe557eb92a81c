"""The help of every command: translated as a whole, and aligned and wrapped by the columns of a terminal."""

from __future__ import annotations

import gettext
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from rich.cells import cell_len

import lrc
from lrc.cli import cli
from lrc.commands.help import HelpFormatter
from lrc.runtime.findings import wrap
from lrc.runtime.translation import CHINESE

ROOT = Path(__file__).parents[2]
COLUMNS = 80
END = "\x1f"
PROGRAM = f"""
from lrc.cli import cli, main
for words in ([], *([name] for name in cli.commands)):
    try:
        main([*words, "--help"])
    except SystemExit:
        pass
    print("{END}", end="")
"""
MEANING = re.compile(r"^ {2}(?:\S+(?: \S+)*)? {2,}(?=\S)")  # where it begins, in a list of options or commands
ENGLISH = re.compile(r"\b[a-z]{2,}(?:,? [a-z]{2,}){2,}\b")  # three words on end
NO_PROSE = re.compile(r"`[^`]*`|^ *(?:~/|fish: ).*$", re.MULTILINE)  # commands


def help_of_all(language: str) -> dict[str, str]:
    """The help of lrc, under an empty name, and of every command: what one process prints."""
    environment = {**os.environ, "LRC_LANG": language, "COLUMNS": str(COLUMNS), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, encoding="utf-8", env=environment, check=True
    )
    return dict(zip(["", *cli.commands], done.stdout.split(END), strict=False))


@pytest.fixture(scope="module")
def chinese() -> dict[str, str]:
    return help_of_all(CHINESE)


@pytest.fixture(scope="module")
def english() -> dict[str, str]:
    return help_of_all("en")


def catalogue(domain: str) -> gettext.GNUTranslations:
    folder = Path(lrc.__file__).parent / "runtime" / "locale" / CHINESE / "LC_MESSAGES"
    with (folder / f"{domain}.mo").open("rb") as file:
        return gettext.GNUTranslations(file)


def texts(name: str) -> Iterator[str]:
    """What the help of a command is made of, in English: its paragraphs, and what its options say."""
    command = cli.commands.get(name, cli)
    for paragraph in (command.help or "").split("\n\n"):
        if not paragraph.strip().startswith("\b"):
            yield " ".join(line.strip() for line in paragraph.strip().splitlines())
    yield from (option.help for option in command.params if isinstance(option, click.Option) and option.help)


def squeeze(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize("name", ["", *cli.commands])
def test_every_help_text_is_translated_and_shown_whole(name: str, chinese: dict[str, str]) -> None:
    shown = squeeze(chinese[name])
    for text in texts(name):
        translated = catalogue("lrc").gettext(text)
        assert re.search("[\u4e00-\u9fff]", translated), f"not in the catalogue: {text}"
        assert squeeze(translated) in shown and squeeze(text) not in shown


@pytest.mark.parametrize("name", ["", *cli.commands])
def test_no_english_is_left(name: str, chinese: dict[str, str]) -> None:
    help_text = chinese[name]
    assert help_text.startswith(f"用法：{f'lrc {name}'.strip()} [OPTIONS]") and "顯示這段說明後結束。" in help_text
    assert not re.search(r"Usage|Options:|Commands:|default:|required\]|Show this", help_text)
    joined = " ".join(NO_PROSE.sub("", help_text).split())
    assert not ENGLISH.search(joined), ENGLISH.search(joined)


def test_english_would_be_seen(english: dict[str, str]) -> None:
    for help_text in english.values():
        assert ENGLISH.search(" ".join(NO_PROSE.sub("", help_text).split()))
        assert not re.search("[，。：；\u4e00-\u9fff]", help_text.replace("文章=HEADER", ""))


def test_the_list_of_commands_has_whole_summaries(chinese: dict[str, str]) -> None:
    listed = squeeze(chinese[""].partition("指令：")[2])
    for name in cli.commands:
        assert squeeze(name + catalogue("lrc").gettext(next(texts(name)))) in listed


def test_lines_fit_and_meanings_begin_in_one_column(chinese: dict[str, str], english: dict[str, str]) -> None:
    for help_text in [*chinese.values(), *english.values()]:
        assert max(map(cell_len, help_text.splitlines())) <= COLUMNS
        for section in re.split(r"^\S.*[:：]\n", help_text, flags=re.MULTILINE)[1:]:
            begins = [found[0] for line in section.splitlines() if (found := MEANING.match(line))]
            assert len(set(map(cell_len, begins))) == 1, section


@pytest.mark.parametrize("language", ["en", CHINESE])
def test_the_entrypoint_of_training_mixes_no_languages(language: str) -> None:
    """It takes the keys of a recipe, and has no help of its own: it names that of `lrc train`."""
    done = subprocess.run(
        [sys.executable, "-m", "lrc.sft", "--help"],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "LRC_LANG": language, "PYTHONIOENCODING": "utf-8"},
    )
    lines = done.stderr.splitlines()
    assert done.returncode == 1 and not done.stdout and "`lrc train --help`" in lines[0]
    if language == CHINESE:
        assert all(line.startswith("命令列：") and not ENGLISH.search(NO_PROSE.sub("", line)) for line in lines)
    else:
        assert all(line.startswith("command line: ") and line.isascii() for line in lines)


def test_no_line_begins_with_punctuation_or_ends_with_an_open_bracket() -> None:
    text = "檔案裡有錯誤的列時：不接受整個檔案（refuse），或略過這些列並計數（skip）。  [預設：refuse]"
    for columns in range(14, 60):
        lines = wrap(text, columns)
        assert max(map(cell_len, lines)) <= columns
        assert squeeze("".join(lines)) == squeeze(text)
        assert all(line[0] not in "，。：）]" and line[-1] not in "（[" for line in lines), lines


def test_a_remark_in_brackets_stays_in_one_line_if_it_fits() -> None:
    text = "用來驗證的題目比例。  [預設：0.2; 0<=x<1]"
    assert wrap(text, 30) == ["用來驗證的題目比例。", "[預設：0.2; 0<=x<1]"]
    assert wrap(text, 14) == ["用來驗證的題目", "比例。  [預", "設：0.2;", "0<=x<1]"]


def test_a_long_usage_goes_on_below_its_first_argument() -> None:
    formatter = HelpFormatter(width=40)
    formatter.write_usage("lrc x", "[OPTIONS] FIRST SECOND THIRD FOURTH FIFTH", "用法：")
    lines = formatter.getvalue().splitlines()
    assert lines == ["用法：lrc x [OPTIONS] FIRST SECOND THIRD", "            FOURTH FIFTH"]


def test_the_page_of_commands_does_not_change_by_the_readers_language() -> None:
    environment = os.environ | dict.fromkeys(("LRC_LANG", "LANG", "LANGUAGE", "LC_ALL"), CHINESE)
    environment |= {"PYTHONPATH": str(ROOT / "docs"), "PYTHONIOENCODING": "utf-8"}
    program = "import build_commands; print(build_commands.build(), end='')"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, encoding="utf-8", env=environment, check=True
    )
    assert done.stdout == (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")


def test_the_extractor_finds_the_help() -> None:
    pytest.importorskip("babel")
    spec = importlib.util.spec_from_file_location("extract_texts", ROOT / "docs" / "extract_texts.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    found = set()
    for module in ("cli.py", "commands/options.py"):
        with (Path(lrc.__file__).parent / module).open("rb") as file:
            found |= {text for _line, _name, text, _comments in script.extract_module(file, {"_": None}, (), {})}
    assert {text for name in ["", *cli.commands] for text in texts(name)} <= found
    assert "run the same command again" in found  # what is in `_()`
