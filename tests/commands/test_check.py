"""`lrc check` tells everything, writes nothing, and says whether convert would accept the files."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from openpyxl import load_workbook
from workbooks import TEST, row, test_row, write_csv, write_xlsx

from lrc.cli import main
from lrc.commands.check import check
from lrc.commands.convert import convert

ROOT = Path(__file__).parents[2]
TWO = [row(1), row(2, 文章="圖書館每週一休館，其餘各日開到晚上九點。")]  # passages enough to split


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().out.splitlines() if line[:1].isalpha()]


def test_a_good_workbook(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check([write_xlsx(tmp_path / "a.xlsx", TWO)])
    printed = capsys.readouterr().out
    assert "labelled workbook" in printed and "2 of 2" in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.xlsx"]


def test_a_line_a_kind_and_one_an_error_with_the_errors_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row(n, 文章=f" {n}") for n in range(1, 41)] + [row(50, 選項2=None), row(51, 文章="同上")]
    assert not check([write_csv(tmp_path / "a.csv", rows)])
    assert lines(capsys) == [
        "repaired: a.csv: white space at the ends, 40 times (rows 2, 3, 4, 5, 6, …); the first: "
        "文章 had white space at its ends; it was removed",
        "warning: a.csv, row 43: 文章 is 同上; the passage of row 42 was taken",
        "error: a.csv, row 42: 選項2 is empty; fill it in",
        "next: correct the 1 bad row of a.csv, or skip it: "
        f"lrc convert {tmp_path / 'a.csv'} --output-dir data --on-error skip",
    ]


def test_the_next_command_reads_the_same_sheet_and_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, other = write_xlsx(tmp_path / "a.xlsx", TWO), tmp_path / "b.xlsx"
    book = load_workbook(path)
    book.worksheets[0].title = "題 目"
    book.worksheets[0]["B1"] = "短文"
    book.create_sheet("封面", 0)
    book.save(other)
    flags = ["--sheet", "題 目", "--columns", "文章=短文"]
    with pytest.raises(SystemExit) as ended:
        main(["check", str(other), *flags])
    assert ended.value.code == 0
    words = shlex.split(lines(capsys)[-1].removeprefix("next: lrc "))
    assert words == ["convert", str(other), *flags, "--output-dir", "data"]
    words[-1] = str(tmp_path / "data")
    main(words)
    assert (tmp_path / "data" / "b_train.json").is_file()


def test_the_next_command_takes_the_json_that_was_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    headers = ("id", "短文", "question", "option1", "option2", "option3", "option4", "answer")
    table, records = tmp_path / "t.json", tmp_path / "A.JSON"
    table.write_text(json.dumps([dict(zip(headers, one, strict=True)) for one in TWO]), encoding="utf-8")
    flags = ["--columns", "文章=短文"]
    assert check([table], columns={"文章": "短文"})
    words = shlex.split(lines(capsys)[-1].removeprefix("next: lrc "))
    assert words == ["convert", str(table), *flags, "--output-dir", "data"]
    main([*words[:-1], str(tmp_path / "data"), "--validation-fraction", "0"])
    (tmp_path / "data" / "t.json").rename(records)
    assert check([records])
    assert lines(capsys)[-1] == f"next: lrc train RECIPE --train_file {records}"


@pytest.mark.parametrize("cells", [{}, {"正確答案": 9}])
def test_as_a_step_of_another_verb_it_names_no_next_command(
    cells: dict[str, int], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_xlsx(tmp_path / "a.xlsx", [row(1), row(2, **cells), row(3)])
    accepted, alone = check([path]), capsys.readouterr().out
    monkeypatch.setenv("LRC_STEP", "1")
    assert check([path]) is accepted
    step = capsys.readouterr().out
    assert alone.startswith(step) and alone.removeprefix(step).startswith("next: ")


def test_structure_is_a_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    doubled = write_xlsx(tmp_path / "t.xlsx", [test_row(1), test_row(1)], TEST)
    assert not check([tmp_path / "none.xlsx", doubled, write_xlsx(tmp_path / "a.xlsx", TWO)])
    assert lines(capsys)[:2] == [
        "error: none.xlsx: No such file or directory; check its name",
        "error: t.xlsx, row 3: 題號 is 1, which row 2 has too; give each row its own",
    ]


def test_shared_passages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labelled = write_xlsx(tmp_path / "a.xlsx", TWO)
    unlabelled = write_xlsx(tmp_path / "t.xlsx", [test_row(2, 文章=TWO[1][1] + " "), test_row(3, 文章="溪口")], TEST)
    assert check([labelled, unlabelled])
    told = lines(capsys)
    assert any("t.xlsx: shares 1 passage, or a part of it, with a.xlsx" in line for line in told)
    found = "identical passages: 1; with near-duplicates: 1; with parts of one another: 1; identical questions: 1"
    assert f"a.xlsx and t.xlsx: {found}" in told


def test_a_passage_of_the_test_that_is_part_of_one_of_training_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = "".join(chr(0x4E00 + place) for place in range(300))
    labelled = write_xlsx(tmp_path / "a.xlsx", [*TWO, row(9, 文章=long)])
    excerpt = "　".join(long[100:160])
    unlabelled = write_xlsx(tmp_path / "t.xlsx", [test_row(2, 文章=excerpt), test_row(3, 文章="溪口")], TEST)
    assert check([labelled, unlabelled])
    told = " ".join(lines(capsys))
    assert "a.xlsx and t.xlsx: identical passages: 0; with near-duplicates: 0; with parts of one another: 1; " in told
    assert "t.xlsx: shares 1 passage, or a part of it, with a.xlsx; do not train on the test set" in told
    assert check([labelled, unlabelled], as_json=True)
    (shared,) = json.loads(capsys.readouterr().out)["shared"]
    assert (shared["passages"], shared["nearly_the_same"], shared["parts_of_one_another"]) == (0, 0, 1)


def test_json_for_machines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_xlsx(tmp_path / "a.xlsx", [row(1), row(2, 正確答案=9)])
    assert not check([path], as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["accepted"] is False
    (file,) = document["files"]
    assert (file["rows"], file["questions"], file["errors"]) == (2, 1, {"impossible-answer": 1})
    assert file["findings"][0]["row"] == 3 and file["findings"][0]["column"] == "正確答案"


@pytest.mark.parametrize("suffix", [".csv", ".json", ".yaml"])
def test_a_file_that_cannot_be_looked_at_does_not_end_the_check_of_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    far = tmp_path / ("a" * 300 + suffix)
    assert not check([far, write_xlsx(tmp_path / "b.xlsx", TWO)], as_json=True)
    first, second = json.loads(capsys.readouterr().out)["files"]
    assert (first["accepted"], second["accepted"]) == (False, True)
    assert "File name too long; " in first["findings"][0]["line"]


def test_the_command_exits_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = write_xlsx(tmp_path / "a.xlsx", TWO)
    for arguments, status in ((["check", str(good)], 0), (["check", str(good), str(tmp_path / "b.csv")], 1)):
        with pytest.raises(SystemExit) as done:
            main(arguments)
        assert done.value.code == status


def test_a_file_that_cannot_be_split_is_not_accepted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not check([write_xlsx(tmp_path / "a.xlsx", [row(1)])])
    assert "--validation-fraction 0" in lines(capsys)[0]


def test_repeated_questions_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check([write_xlsx(tmp_path / "a.xlsx", [*TWO, row(1)])])
    assert any("row 2: the same question is in row 4" in line for line in lines(capsys))


@pytest.mark.parametrize(("page", "language"), [("tutorial.md", "en"), ("tutorial.zh-TW.md", "zh_TW")])
def test_what_the_tutorial_quotes_is_what_is_printed(
    page: str, language: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("LRC_LANG", language)
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    checked, converted = re.findall(r"```text\n(.*?)```", text, re.DOTALL)[:2]
    assert check([Path("examples/sample.xlsx")])
    printed = capsys.readouterr().out.splitlines()
    assert {line for line in checked.splitlines() if line != "…"} <= set(printed)
    convert(Path("examples/sample.xlsx"), output_dir=tmp_path)
    printed = capsys.readouterr().out.replace(str(tmp_path), "tutorial/data").splitlines()
    assert converted.splitlines() == [line for line in printed if line in converted]


def test_keys_of_a_recipe_without_effect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("model_name_or_path: m\ntrain_file: a_train.json\noutput_dir: o\nremove_unused_columns: false\n")
    assert check([recipe])
    told = capsys.readouterr().out
    assert "warning: r.yaml: has no effect: remove_unused_columns (rows carry their own targets)" in told
    assert f"next: lrc preview {recipe}" in told
    recipe.write_text(recipe.read_text().replace("remove_unused_columns: false\n", ""))
    assert check([recipe]) and "has no effect" not in capsys.readouterr().out


def test_records_are_examined_as_rows_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    same = {"instruction": "請回答", "input": "小明放風箏。\n問題：誰？\n1: 小明\n2: 小華", "output": "1"}
    twice = {**same, "input": "小明放風箏。\n問題：誰放？\n1: 小明\n2: 小明"}
    path = tmp_path / "a.json"
    path.write_text(json.dumps([same, twice, {**same, "output": "2"}], ensure_ascii=False), encoding="utf-8")
    assert check([path])
    told = capsys.readouterr().out
    assert "warning: a.json, record 2: 選項1 and 選項2 are the same text, and the answer is 1" in told
    assert "warning: a.json: same question, other answer, 2 times; the first: output gives 「小明」, but row 3" in told


def test_errors_come_in_the_order_of_rows_file_after_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [
        "1,甲,乙,丙,丁,9",
        "2,甲,,丙,丁,1",
        "3,甲,乙,丙,丁,8",
        "4,,乙,丙,丁,1",
        "5,甲,乙,丙,丁,1",
        "6,乙,乙,丙,丁,2",
    ]
    for name in ("b.csv", "a.csv"):
        Path(name).write_text("\n".join(["ID,文章,問題,選項1,選項2,正確答案", *rows, ""]), encoding="utf-8")
    assert not check([Path("b.csv"), Path("a.csv")])
    told = [line.split(":")[1].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("error:")]
    assert told == [f"{name}, row {row}" for name in ("b.csv", "a.csv") for row in (2, 3, 4, 5)]
