"""`lrc generate --output answers.xlsx`: the workbook with answers in it, read back by another reader."""

from __future__ import annotations

import csv
import json
import os
from math import inf, log
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from openpyxl import load_workbook
from openpyxl.styles import Alignment, Border, Font, Side
from openpyxl.worksheet.worksheet import Worksheet
from python_calamine import CalamineWorkbook
from small_models import save_base, save_tokenizer
from small_runs import lrc
from workbooks import TEST, test_row, write_csv, write_xlsx

from lrc.answering import partial_scores
from lrc.answering.answered_workbook import fill_in
from lrc.answering.certainty import describe_certainty, doubts
from lrc.data.alpaca import question_of
from lrc.data.sources import read_questions_to_answer
from lrc.metrics.option_scores import OptionScores
from lrc.runtime.errors import DataError


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_base(tmp_path_factory.mktemp("base"))
    save_tokenizer(folder)
    return folder


def decorate(sheet: Worksheet) -> None:
    sheet.column_dimensions["B"].width = 61.5
    sheet["A1"].font = sheet["C1"].font = Font(bold=True)
    sheet["C2"].border, sheet["C2"].alignment = Border(bottom=Side("thin")), Alignment(vertical="top")
    sheet.auto_filter.ref = "A1:G30"
    sheet["XFD1"].font = Font(bold=True)  # a format where no cell is in use
    sheet.parent.create_sheet("說明")["A1"] = "=1+1"


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    rows = [
        test_row(1, 題號="007", 選項1="'=cmd", 選項2="@SUM(1)"),
        test_row(2, 題號="1.0"),
        test_row(3, 題號="T-3", 選項3=None, 選項4=None),
        test_row(4, 題號=" 12345678901234567890"),
        *(test_row(number, 題號=f"x{number}") for number in range(5, 30)),
    ]
    return write_xlsx(tmp_path / "AI1000.xlsx", rows, TEST, decorate)


def words(base: Path, asked: Path, output: Path) -> list[str | Path]:
    return ["generate", "--model", base, "--data", asked, "--output", output, "--template", "plain"] + [
        "--answer-style", "digit", "--scores", output.with_suffix(".jsonl")
    ]  # fmt: skip


def values(path: Path, sheet: str) -> list[list[Any]]:
    return CalamineWorkbook.from_path(path).get_sheet_by_name(sheet).to_python()


def test_the_copy_has_what_the_csv_and_the_scores_have(base: Path, asked: Path, tmp_path: Path) -> None:
    before = asked.read_bytes()
    assert lrc(*words(base, asked, tmp_path / "c.csv")) == 0
    assert lrc(*words(base, asked, tmp_path / "a.xlsx")) == 0
    assert asked.read_bytes() == before
    with (tmp_path / "c.csv").open(encoding="utf-8", newline="") as file:
        answers = [(line["ID"], int(line["Answer"])) for line in csv.DictReader(file)]
    lines = [json.loads(line) for line in (tmp_path / "c.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {(line["model"], len(line["model_sha256"])) for line in lines} == {(base.name, 64)}  # for `lrc vote`
    asking = {
        "template": "plain",
        "answer_style": "digit",
        "list_options": True,
        "score_normalisation": "sum",
        "votes": 1,
    }
    assert all(line["asked"] == asking for line in lines)
    questions = map(question_of, read_questions_to_answer(asked))
    assert [line["content_sha256"] for line in lines] == [question.content for question in questions]
    header, *rows = values(tmp_path / "a.xlsx", "Sheet")
    assert header == [*TEST, "預測答案", *(f"選項{n}的機率" for n in (1, 2, 3, 4)), "請人工檢查"]
    assert [(str(line[0]).strip(), line[7]) for line in rows] == answers
    for line, scored in zip(rows, lines, strict=True):
        found = [cell for cell in line[8:12] if cell != ""]
        assert found == pytest.approx(scored["probabilities"])
    old = values(asked, "Sheet")
    assert [line[:7] for line in (header, *rows)] == old  # with ids that are texts
    certain = [max(scored["probabilities"]) for scored in lines]
    worst = sorted(range(len(certain)), key=certain.__getitem__)[:20]
    assert {place for place, line in enumerate(rows) if line[12]} == {
        place for place in range(len(rows)) if place in worst or certain[place] < 0.4
    }
    sheet = load_workbook(tmp_path / "a.xlsx").worksheets[0]
    assert sheet.column_dimensions["B"].width == 61.5 and sheet["A1"].font.b and sheet["H1"].font.b
    assert sheet["I2"].number_format == "0.0%" and sheet["A2"].data_type == "s" and sheet["A2"].value == "007"
    for new in ("H2", "I2", "M2"):  # they look like the question beside them
        assert (sheet[new].border.bottom.style, sheet[new].alignment.vertical) == ("thin", "top")
    assert sheet["H3"].border.bottom.style is None and sheet.auto_filter.ref == "A1:M30"
    assert load_workbook(tmp_path / "a.xlsx")["說明"]["A1"].value == "=1+1"
    summary = values(tmp_path / "a.xlsx", "lrc 摘要")
    assert [line[1] for line in summary[:4]] == [sum(number == n for _, number in answers) for n in (1, 2, 3, 4)]


def test_the_answered_workbook_is_not_taken_for_one_to_train_on(base: Path, asked: Path, tmp_path: Path) -> None:
    assert lrc(*words(base, asked, tmp_path / "a.xlsx")) == 0
    assert lrc("convert", tmp_path / "a.xlsx", "--output-dir", tmp_path / "out") == 1
    assert not (tmp_path / "out").exists()


def test_the_same_command_finds_it_done_and_a_killed_one_goes_on(
    base: Path, asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = words(base, asked, tmp_path / "a.xlsx"), words(base, asked, tmp_path / "b.xlsx")
    assert lrc(*one) == 0
    before = (tmp_path / "a.xlsx").read_bytes()
    capsys.readouterr()
    assert lrc(*one) == 0
    assert "nothing to do" in capsys.readouterr().out and (tmp_path / "a.xlsx").read_bytes() == before
    assert lrc(*one, "--row-tokens", "999") == 1
    child = os.fork()
    if child == 0:  # killed once its scores are on the disk
        monkeypatch.setattr(partial_scores, "remove_partial_scores", lambda output: os._exit(9))
        monkeypatch.setattr("lrc.commands.generate.fill_in", lambda *args, **options: os._exit(9))
        lrc(*two)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert (tmp_path / ".b.xlsx.partial.jsonl").exists() and not (tmp_path / "b.xlsx").exists()
    assert lrc(*two) == 0
    assert (tmp_path / "b.xlsx").read_bytes() == before
    assert not (tmp_path / ".b.xlsx.partial.jsonl").exists()


def test_another_format_is_refused_before_the_model_is_looked_for(
    asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_csv(tmp_path / "t.csv", [test_row(1)], TEST)
    for data, output, told in (
        (table, "a.xlsx", "save this file as .xlsx"),
        (asked, "a.xlsm", "end in .xlsx"),
        (asked, "a.ods", "answers are written as .csv"),
        (asked, "a.pdf", "answers are written as .csv"),
    ):
        assert lrc("generate", "--model", tmp_path / "none", "--data", data, "--output", tmp_path / output) == 1
        assert told in capsys.readouterr().err
    assert lrc("generate", "--model", tmp_path / "none", "--data", asked, "--output", asked, "--force") == 1
    assert asked.exists()


def scores(*probabilities: float, consistent: bool = True) -> OptionScores:
    best = max(range(len(probabilities)), key=probabilities.__getitem__) + 1
    log_probs = tuple(log(one) if one else -inf for one in probabilities)
    return OptionScores(log_probs, probabilities, best, consistent)


def test_a_workbook_that_has_changed_since_it_was_read_is_refused(asked: Path) -> None:
    """A row more would put every answer below it beside another question."""
    records = read_questions_to_answer(asked)
    answers = [scores(0.7, 0.1, 0.1, 0.1)] * len(records)
    assert fill_in(asked, records, answers)
    rows = [test_row(0, 題號="new"), *(test_row(number, 題號=f"y{number}") for number in range(1, 30))]
    write_xlsx(asked, rows, TEST, decorate)
    with pytest.raises(DataError, match=r"AI1000\.xlsx: has changed since its questions were read; run again"):
        fill_in(asked, records, answers)


def test_what_a_person_is_told() -> None:
    some = [scores(0.97, 0.01, 0.01, 0.01)] * 30 + [scores(0.1, 0.39, 0.3, 0.21), scores(0.2, 0.8, consistent=False)]
    lines = [*describe_certainty([str(number) for number in range(32)], some)]
    assert lines[0].strip() == "by position   option 1: 30, option 2: 2, option 3: 0, option 4: 0"
    assert "1 of 32" in lines[1] and "40%" in lines[1]
    assert lines[2].split()[:3] == ["by", "order", "1"]
    assert lines[3].startswith("  look first at 30 (39%), 31 (80%), 0 (97%)") and lines[3].count("%") == 20
    tied = [*describe_certainty(["a", "b", "c"], [scores(0.4, 0.4, 0.2), scores(0.2, 0.4, 0.4), scores(0.5, 0.3, 0.2)])]
    assert tied[2].split()[:2] == ["ties", "2"] and "ties" not in " ".join(lines)
    assert {place: why for place, why in doubts(some).items() if place >= 30} == {30: "uncertain", 31: "order"}


@pytest.mark.parametrize(
    ("probabilities", "uncertain"),
    [
        ((0.39, 0.35, 0.26, 0.0), True),  # an option that has no text is none
        ((0.39, 0.3, 0.2, 0.11), True),
        ((0.41, 0.3, 0.2, 0.09), False),
        ((0.59, 0.41), True),  # a guess has 0.5
        ((0.61, 0.39), False),
        ((0.0, 0.59, 0.0, 0.41), True),
        ((0.35, *[0.65 / 7] * 7), False),  # a guess has 0.125
        ((0.28, *[0.72 / 7] * 7), True),
        ((1.0, 0.0), False),
    ],
)
def test_what_is_uncertain_depends_on_the_number_of_options(probabilities: tuple[float, ...], uncertain: bool) -> None:
    assert (doubts([scores(*probabilities)])[0] == "uncertain") == uncertain


def test_a_workbook_that_cannot_be_copied_is_refused_before_the_model_is_loaded(
    base: Path, asked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The questions can be read, but a colour of the styles is one that openpyxl does not know."""
    with ZipFile(asked) as package:
        parts = {part: package.read(part) for part in package.namelist()}
    styles = parts["xl/styles.xml"]
    parts["xl/styles.xml"] = styles.replace(b'<b val="1" />', b'<b val="1" /><color rgb="F00" />')
    assert parts["xl/styles.xml"] != styles
    with ZipFile(asked, "w") as package:
        for part, content in parts.items():
            package.writestr(part, content)
    monkeypatch.setattr("lrc.answering.load.load_scorer", lambda *_: pytest.fail("the model was loaded"))
    assert lrc(*words(base, asked, tmp_path / "a.xlsx")) == 1
    assert "AI1000.xlsx: cannot be copied" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["AI1000.xlsx"]
