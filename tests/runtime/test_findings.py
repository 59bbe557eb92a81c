"""Findings are format_findings in one way by every verb that reads a file, and errors carry them."""

from __future__ import annotations

import copy
import io
import json
import re
import sys
from collections.abc import Callable
from importlib.resources import files
from io import BytesIO
from pathlib import Path

import pytest
from babel.messages.pofile import read_po
from click.testing import CliRunner
from questions import ask
from rich.cells import cell_len
from workbooks import LABELLED, TEST, row, test_row, write_xlsx

from lrc.cli import cli
from lrc.config.yaml_reader import read_mapping
from lrc.data.alpaca import dump_records, to_record
from lrc.data.sources import read_records
from lrc.runtime.errors import DataError, RecipeError
from lrc.runtime.exit_status import exit_on_error
from lrc.runtime.findings import ERRORS_SHOWN, Finding, format_findings, wrap_line
from lrc.runtime.progress import notify

BLANK = Finding("error", "empty-option", "a.xlsx", "選項2 is empty", 9, "選項2")


def test_an_error_carries_findings_or_lines() -> None:
    error = DataError(BLANK, "b.json: two\nlines")
    assert error.lines("en") == ("a.xlsx, row 9: 選項2 is empty", "b.json: two lines")
    assert error.findings[0] is BLANK and error.findings[1].file == ""
    assert str(error) == "\n".join(error.lines("en"))
    again = copy.copy(error)  # made again as where a worker sends it
    assert again.findings == error.findings and type(again) is DataError


def test_a_line_that_names_its_place_is_a_finding_of_that_place(tmp_path: Path) -> None:
    """A line in English or Chinese is the same whether it was told as a whole or in its parts."""
    records = tmp_path / "a.json"
    records.write_text('[{"instruction": "", "input": "x", "output": "1"}, 7]', encoding="utf-8")
    recipe = tmp_path / "r.yaml"
    recipe.write_text("lora_r: 8\nlora_r: 9\n", encoding="utf-8")
    with pytest.raises(DataError) as bad_record:
        read_records(records)
    with pytest.raises(RecipeError) as bad_recipe:
        read_mapping(recipe)
    with pytest.raises(DataError) as no_file:
        read_records(tmp_path / "none.csv")
    (record,), (key,), (file,) = (one.value.findings for one in (bad_record, bad_recipe, no_file))
    assert (record.file, record.place, record.text.startswith("is 7, ")) == ("a.json", "record 2", True)
    assert (key.file, key.place) == ("r.yaml", "line 2")
    assert (file.file, file.place, file.row) == ("none.csv", "", None)
    assert record.line("en").startswith("a.json, record 2: is 7, ")
    assert record.line("zh_TW").startswith("a.json，記錄 2：是 7")
    assert key.line("zh_TW").startswith("r.yaml，第 2 行：lora_r ")
    assert file.line("zh_TW").startswith("none.csv：")


def test_every_message_that_begins_with_its_place_does_so_in_chinese() -> None:
    """What is taken off at the colon in English is what is taken off at the colon in Chinese."""
    catalogue = files("lrc.runtime") / "locale" / "zh_TW" / "LC_MESSAGES" / "lrc.po"
    placed = re.compile(r"(\{(?:file|path|place|where|package)\}(?:, [^{}:]+\{\w+\})?): ")
    n_placed = 0
    for message in read_po(BytesIO(catalogue.read_bytes()), locale="zh_TW"):
        if found := placed.match(str(message.id)):
            n_placed += 1
            place, colon, text = str(message.string).partition("：")
            assert colon and text, message.id
            assert sorted(re.findall(r"\{\w+\}", place)) == sorted(re.findall(r"\{\w+\}", found[1])), message.id
    assert n_placed > 100


def test_a_line_a_kind_and_the_errors_last() -> None:
    spaces = [Finding("repair", "white-space", "a.xlsx", "文章 had white space", n, "文章") for n in range(2, 9)]
    hidden = Finding("warning", "hidden-row", "a.xlsx", "is a hidden row; it was read", 3)
    unread = Finding("note", "unread-columns", "a.xlsx", "columns not read: 備註")
    assert list(format_findings([BLANK, hidden, *spaces, unread])) == [
        "repaired: a.xlsx: white space at the ends, 7 times (rows 2, 3, 4, 5, 6, …); the first: 文章 had white space",
        "note: a.xlsx: columns not read: 備註",
        "warning: a.xlsx, row 3: is a hidden row; it was read",
        "error: a.xlsx, row 9: 選項2 is empty",
    ]


def test_thousands_of_errors_are_counted() -> None:
    errors = [Finding("error", "empty-option", "a.xlsx", "選項2 is empty", n) for n in range(2, 4002)]
    lines = list(format_findings([*errors, Finding("error", "error-cell", "a.xlsx", "文章 is an error value", 5000)]))
    assert len(lines) == ERRORS_SHOWN + 2
    assert lines[-2:] == [
        "error: a.xlsx, row 5000: 文章 is an error value",
        "error: a.xlsx: 3,950 more of the kind “empty option”; lrc check --json lists all",
    ]


REMARKS = [
    "note: t.xlsx: columns not read: 備註",
    "warning: t.xlsx, row 3: has 2 options; those after 選項2 are empty",
]


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A test workbook with something to be told of."""
    rows = [[*test_row(1), "x"], [*test_row(2, 文章="另一篇短文。", 選項3=None, 選項4=None), ""]]
    return write_xlsx(tmp_path / "t.xlsx", rows, [*TEST, "備註"])


def test_what_is_answered_is_told_of(odd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert [record.id for record in read_records(odd)] == ["1", "2"]
    assert capsys.readouterr().err.splitlines() == REMARKS


def test_convert_and_check_tell_the_same(odd: Path, tmp_path: Path) -> None:
    converted = CliRunner().invoke(cli, ["convert", str(odd), "--output-dir", str(tmp_path / "out")])
    checked = CliRunner().invoke(cli, ["check", str(odd)])
    for done in (converted, checked):
        assert done.exit_code == 0
        assert [line for line in done.stdout.splitlines() if line.startswith(("note", "warning"))][:2] == REMARKS


def test_a_refusal_tells_the_rest_as_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_xlsx(tmp_path / "a.xlsx", [[*row(1, 選項2=None), "x"], [*row(2), ""]], [*LABELLED, "備註"])
    with pytest.raises(DataError) as refused:
        read_records(path)
    assert refused.value.lines() == (
        "a.xlsx, row 2: 選項2 is empty; fill it in, or leave the row out by converting the file first (lrc convert)",
    )
    assert capsys.readouterr().err == "note: a.xlsx: columns not read: 備註\n"


@pytest.mark.parametrize("verb", ["check", "convert"])
def test_columns_are_named_on_the_command_line(tmp_path: Path, verb: str) -> None:
    headers = ["ID", "甲,文", "某題", *LABELLED[3:]]
    path = write_xlsx(tmp_path / "a.xlsx", [row(1), row(2, 文章="圖書館每週一休館。")], headers)
    more = ["--output-dir", str(tmp_path / "out")] if verb == "convert" else []
    done = CliRunner().invoke(cli, [verb, str(path), "--columns", "文章=甲,文,question=某題", *more])
    assert done.exit_code == 0, done.output
    if verb == "convert":
        (record,) = json.loads((tmp_path / "out" / "a_validation.json").read_text(encoding="utf-8"))
        assert record["passage"] in ("第1篇文章：小明在公園裡放風箏。", "圖書館每週一休館。")


@pytest.mark.parametrize("words", ["文章", "內容=文", "文章=", "文章=甲,文章=乙", "=文"])
def test_columns_that_say_nothing_are_wrong_usage(tmp_path: Path, words: str) -> None:
    path = write_xlsx(tmp_path / "a.xlsx", [row(1)])
    assert CliRunner().invoke(cli, ["check", str(path), "--columns", words]).exit_code == 2


def test_alpaca_json_has_no_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("".join(dump_records([to_record(ask())])), encoding="utf-8")
    with pytest.raises(DataError, match="has no columns to name; leave out --columns"):
        read_records(path, columns={"文章": "passage"})


@pytest.mark.parametrize(("asked", "nearest"), [("AI.xlsx", "ai.xlsx"), ("ai.xls", "ai.xlsx"), ("a1.xlsx", "ai.xlsx")])
@pytest.mark.parametrize("verb", ["check", "convert"])
def test_a_file_that_is_not_there_has_a_neighbour(tmp_path: Path, asked: str, nearest: str, verb: str) -> None:
    write_xlsx(tmp_path / "ai.xlsx", [row(1)])
    more = ["--output-dir", str(tmp_path / "out")] if verb == "convert" else []
    done = CliRunner().invoke(cli, [verb, str(tmp_path / asked), *more])
    said = done.output if verb == "check" else str(done.exception)
    assert f"{asked}: No such file or directory; did you mean {tmp_path / nearest}?" in said


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_a_terminal_gets_lines_of_its_width_broken_between_words(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    line = "warning: AI.xlsx, row 17: 文章與第 9 列幾乎相同，全部保留，且會分到同一邊；see the rows 19, 20 and 21 " * 3
    found = wrap_line(line, stream=Terminal())
    # Of rich, which counts columns in its own way.
    assert max(map(cell_len, found)) <= columns < cell_len(line)
    assert "".join("".join(found).split()) == "".join(line.split())
    words = {word for word in line.split() if word.isascii()}
    assert words <= {word for piece in found for word in piece.split()}  # none is cut
    assert not any(piece.lstrip()[0] in "，；、。" for piece in found)
    assert wrap_line(line, stream=io.StringIO()) == [line]  # a file or a pipe


@pytest.mark.parametrize(
    "line", ["not found here (see `lrc train --help`), or ask", "找不到這個檔案；請用`lrc train --help`，或問"]
)
def test_a_command_is_not_broken(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    long = line.replace("--help", "--train_file a.json --validation_file b.json")
    for text in (line, long):
        found = wrap_line(text, stream=Terminal())
        assert len(found) > 1 and sum("`lrc train" in piece and piece.count("`") == 2 for piece in found) == 1, found


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (
            "an adapter of this kind takes bitsandbytes; pip install -U bitsandbytes, or leave it",
            "pip install -U bitsandbytes,",
        ),
        (
            "找不到檔案；請先產生它：lrc convert sample.xlsx --output-dir demo/data --seed 1",
            "lrc convert sample.xlsx --output-dir demo/data --seed 1",
        ),
        (
            "next: correct the 4 bad rows, or skip them: lrc convert '考卷.xlsx' --output-dir data --on-error skip",
            "lrc convert '考卷.xlsx' --output-dir data --on-error skip",
        ),
        (
            "edit one of the recipes, then: cd a && lrc train recipes/qwen3-8b/qlora.yaml",
            "cd a && lrc train recipes/qwen3-8b/qlora.yaml",
        ),
        ("a.yaml: lrc takes adapters of single layers, such as LoRA; name another", "name another"),
    ],
)
def test_nor_is_one_without_backticks(line: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    found = wrap_line(line, stream=Terminal())
    assert len(found) > 1 and any(command in piece for piece in found), found


def fail(line: str) -> None:
    with pytest.raises(SystemExit), exit_on_error(""):
        raise DataError(line)


@pytest.mark.parametrize("say", [notify, fail], ids=["notice", "error"])
def test_notices_and_errors_are_wrapped_in_a_terminal(
    say: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    monkeypatch.setattr("sys.stderr", Terminal())
    line = "AI.xlsx, row 17: 正確答案 is 5, expected 1 to 4; correct it, or leave the row out with --on-error skip"
    say(line)
    shown = sys.stderr.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(cell_len, shown)) <= 50 and " ".join(" ".join(shown).split()) == line
