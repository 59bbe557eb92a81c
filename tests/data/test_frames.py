"""Frames and questions: the same rules as for a workbook, and the documented lines run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_models import save_adapter, save_base, save_tokenizer
from small_runs import lrc as command
from workbooks import TEST, row, test_row, write_xlsx

import lrc

OTHER = "圖書館每週一休館，其餘各日開到晚上九點。"


def test_importing_lrc_is_light() -> None:
    code = "import sys, lrc; print([m for m in ('torch', 'pandas', 'numpy', 'openpyxl', 'click') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
    assert "Answerer" in dir(lrc)
    with pytest.raises(AttributeError, match="no attribute 'answerer_'"):
        lrc.answerer_  # type: ignore[attr-defined]  # noqa: B018


def test_a_workbook_becomes_a_frame_and_questions_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_xlsx(tmp_path / "a.xlsx", [row(7, 選項1=26, 選項4=None), row(8, 文章=f" {OTHER}", 正確答案="選項3")])
    frame = lrc.read_questions(path)
    assert list(frame) == ["id", "row", "passage", "question", "option_1", "option_2", "option_3", "option_4", "answer"]
    assert frame["id"].tolist() == ["7", "8"] and frame["row"].tolist() == [2, 3] and frame["answer"].tolist() == [1, 3]
    assert frame["option_1"][0] == "26" and frame["passage"][1] == OTHER
    capsys.readouterr()
    questions = lrc.to_questions(frame)
    assert "not read" not in capsys.readouterr().err  # not even of its own column `row`
    lrc.to_questions(frame.assign(remark="a"))
    assert "note: frame: columns not read: remark\n" in capsys.readouterr().err
    assert [(one.id, one.options, one.answer, one.row) for one in questions] == [
        ("7", ("26", "釣魚", "睡覺"), 1, 1),
        ("8", ("放風箏", "釣魚", "睡覺", "讀書"), 3, 2),
    ]
    pd.testing.assert_frame_equal(lrc.to_frame(questions).drop(columns="row"), frame.drop(columns="row"))


def test_a_frame_as_pandas_reads_a_workbook(tmp_path: Path) -> None:
    headers = ["文章", "問題", "選項1", "選項2", "選項3"]
    frame = pd.DataFrame([[OTHER, "問？", 1.0, 2.5, np.nan], [OTHER, "誰？", np.int64(3), True, "丙"]], columns=headers)
    questions = lrc.to_questions(frame.set_axis(["p", "q"]))
    assert [(one.id, one.options) for one in questions] == [("p", ("1", "2.5")), ("q", ("3", "TRUE", "丙"))]


def test_bad_rows_and_columns_are_refused() -> None:
    frame = lrc.to_frame([lrc.Question("1", "文", "問", ("甲", "乙"), 2, 2)])
    with pytest.raises(lrc.LrcError, match="row 1: answer is 5"):
        lrc.to_questions(frame.assign(answer=5))
    with pytest.raises(lrc.LrcError, match="no column"):
        lrc.to_questions(frame.drop(columns="passage"))


FRAME = pd.DataFrame(
    {
        **{"passage": ["甲在家。", OTHER], "question": ["誰在家？", "何時？"]},
        **{"option_1": ["甲", "早"], "option_2": ["乙", "晚"]},
    }
)


def _refusal(questions: object) -> tuple[str, ...]:
    with pytest.raises(lrc.LrcError) as refused:
        lrc.to_questions(questions)  # type: ignore[arg-type]
    return refused.value.lines()


def test_what_is_wrong_with_a_frame_is_cured_in_python(tmp_path: Path) -> None:
    renamed = "in place of --columns, rename the columns of the frame: frame.rename(columns=…)"
    assert _refusal(FRAME.rename(columns={"question": "prompt"}))[-1] == renamed
    by_index = "these ids are the index; add a column id, or use frame.reset_index(drop=True)"
    twice = pd.concat([FRAME[:1], FRAME[1:].set_axis([0])])
    assert _refusal(twice) == ("frame, row 2: ID is 0, which row 1 has too; give each row its own", by_index)
    assert len(lrc.to_questions(twice.reset_index(drop=True))) == 2
    assert by_index not in _refusal(FRAME.assign(id=[7, 7]))
    assert _refusal(FRAME[:0]) == _refusal(pd.DataFrame()) == ("frame: has no rows; add the questions",)
    (tmp_path / "a.csv").write_text("短文,問題,選項1,選項2,ID\n甲在家。,誰？,甲,乙,1\n", encoding="utf-8")
    with pytest.raises(lrc.LrcError, match="`columns` of lrc.read_questions") as refused:
        lrc.read_questions(tmp_path / "a.csv", columns={"文章": "長文"})
    assert len(refused.value.lines()) == 2


@pytest.mark.parametrize(
    "stranger", [["甲"], {"甲": 1}, ("甲",), b"x", object(), np.array(["甲"])], ids=lambda x: type(x).__name__
)
def test_a_cell_that_no_spreadsheet_holds_is_refused(stranger: object) -> None:
    cells = pd.Series([stranger, "早"], dtype=object)
    kind = type(stranger).__name__
    assert _refusal(FRAME.assign(option_1=cells)) == (
        f"frame, row 1: option_1 is {kind}, which is neither text nor a number; give text",
    )
    assert (
        len(lrc.to_questions(FRAME.assign(tags=pd.Series([stranger, "六月的一課"])))) == 2
    )  # a column that is not read


def test_dates_numbers_and_missing_values_are_shown_as_text() -> None:
    held = FRAME.assign(option_1=pd.to_datetime(["2026-01-02", None]), option_2=[3.0, 4.5], option_3=[np.int64(5), 6])
    first, second = lrc.to_questions(held)
    assert first.options == ("2026-01-02 00:00:00", "3", "5") and second.options[1:] == ("4.5", "6")


@pytest.mark.parametrize(
    "questions", [[{"passage": "甲"}], "AI1000.xlsx", [1]], ids=["dictionaries", "path", "numbers"]
)
def test_what_is_neither_a_frame_nor_questions_is_refused(questions: object) -> None:
    (line,) = _refusal(questions)
    assert line.startswith("expected a pandas data frame, not ")
    unloaded = object.__new__(lrc.Answerer)  # what it is given is looked at before the model is asked
    with pytest.raises(lrc.LrcError, match=r"expected a data frame or lrc.Question objects, not (dict|str|int);"):
        unloaded.answer(questions)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"validation_fraction": 20}, "validation_fraction is 20, expected 0 or more and less than 1, such as 0.2"),
        ({"validation_fraction": 1.0}, "validation_fraction is 1.0, expected 0 or more"),
        ({"validation_fraction": np.nan}, "validation_fraction is nan, expected 0 or more"),
        ({"validation_fraction": "0.2"}, "validation_fraction is '0.2', expected 0 or more"),
        ({"folds": 1}, "folds is 1, expected a whole number from 2"),
        ({"folds": 2.0}, "folds is 2.0, expected a whole number from 2"),
        ({"layout": "line"}, "layout is 'line', expected one of lines, reference"),
        ({"on_error": "ignore"}, "on_error is 'ignore', expected one of refuse, skip"),
    ],
)
def test_converting_in_python_takes_what_the_flags_take(given: dict[str, object], told: str, tmp_path: Path) -> None:
    write_xlsx(tmp_path / "a.xlsx", [row(n, 文章=OTHER * n) for n in range(1, 4)])
    with pytest.raises(lrc.LrcError, match=f"^{re.escape(told)}"):
        lrc.convert(tmp_path / "a.xlsx", output_dir=tmp_path / "data", **given)  # type: ignore[arg-type]
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        (("文", "問", ("甲", 2)), "question 7: option 2 is 2, expected a text"),
        (("文", None, ("甲", "乙")), "question 7: question is None, expected a text"),
        (("文", "問", ("甲\ud800", "乙")), "question 7: option 1 has an unpaired surrogate at character 2; correct it"),
    ],
)
def test_parts_of_a_question_that_are_not_text_are_refused(parts: tuple[Any, ...], told: str) -> None:
    with pytest.raises(lrc.LrcError) as refused:
        object.__new__(lrc.Answerer).answer([lrc.Question("7", *parts)])
    assert refused.value.lines() == (told,)


HEADERS = "ID,文章,短文,問題,選項1,選項2,正確答案"


@pytest.mark.parametrize("role", ["文章", "passage", "Article"])
def test_a_role_has_any_of_its_names(role: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"{HEADERS}\n1,這是文章。,這是短文。,問？,甲,乙,1\n", encoding="utf-8")
    assert lrc.read_questions(tmp_path / "a.csv", columns={role: "短文"})["passage"].tolist() == ["這是短文。"]


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"foo": "短文"}, "columns: role is 'foo', expected one of 文章, 問題, 選項1"),
        ({"選項9": "短文"}, "columns: role is '選項9', expected one of"),
        ({"文章": "短文", "passage": "文章"}, "columns: 文章 is named twice; keep one of the two"),
        ({"文章": " "}, "columns: 文章 has no header; give the text above its column"),
        ({"文章": 3}, "columns: 文章 has no header"),
    ],
)
def test_columns_that_name_nothing_are_refused(columns: dict[str, str], told: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"{HEADERS}\n1,這是文章。,這是短文。,問？,甲,乙,1\n", encoding="utf-8")
    with pytest.raises(lrc.LrcError, match=f"^{re.escape(told)}"):
        lrc.read_questions(tmp_path / "a.csv", columns=columns)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"votes": 0}, "votes is 0, expected a whole number from 1"),
        ({"votes": True}, "votes is True, expected a whole number from 1"),
        ({"row_tokens": -5}, "row_tokens is -5, expected a whole number from 1"),
        ({"template": "llama"}, "template is 'llama', expected one of"),
        ({"score_normalisation": "words"}, "score_normalisation is 'words', expected one of character, token, sum"),
        ({"dtype": "float8"}, "dtype is 'float8', expected one of auto, float32"),
    ],
)
def test_answering_in_python_takes_what_the_flags_take(given: dict[str, object], told: str) -> None:
    with pytest.raises(lrc.LrcError, match=f"^{re.escape(told)}"):
        lrc.Answerer("base", **given)


def _python_lines(page: str) -> str:
    text = (Path(__file__).parents[2] / page).read_text(encoding="utf-8")
    (code,) = re.findall("```python\n(.*?)```", text, re.DOTALL)
    return str(code)


def test_the_documented_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They run, and give what the command gives."""
    monkeypatch.chdir(tmp_path)
    write_xlsx(tmp_path / "AI.xlsx", [row(1), row(2, 文章=OTHER)])
    write_xlsx(tmp_path / "AI1000.xlsx", [test_row(n, 題號=f"{n:03}") for n in range(1, 26)], TEST)
    save_tokenizer(save_base(tmp_path / "base"))
    save_adapter(tmp_path / "adapter", tmp_path / "base")
    (code,) = {_python_lines(page) for page in ("docs/python.md", "README.md", "README.zh-TW.md")}  # the same on all
    plain = 'template="plain", answer_style="digit"'
    code = code.replace('"base", "adapter")', f'"base", "adapter", {plain})')
    names: dict[str, object] = {}
    exec(code, names)
    answers = names["answers"]
    assert isinstance(answers, pd.DataFrame) and len(answers) == 25
    assert capsys.readouterr().out.count("\n") >= 21
    words = ["--template", "plain", "--answer-style", "digit", "--output", "a.csv"]
    assert command("generate", "--model", "base", "--adapter", "adapter", "--data", "AI1000.xlsx", *words) == 0
    written = pd.read_csv(tmp_path / "a.csv", dtype=str)
    assert written["ID"].tolist() == answers["id"].tolist()
    assert written["Answer"].astype(int).tolist() == answers["prediction"].tolist()
    shares = answers.filter(like="probability_").to_numpy(dtype=float)
    assert np.allclose(shares.sum(axis=1), 1) and (shares.argmax(axis=1) + 1 == answers["prediction"]).all()
    model = names["model"]
    again = model.answer(lrc.to_questions(answers))  # type: ignore[attr-defined]
    assert again["prediction"].tolist() == answers["prediction"].tolist()
    assert (tmp_path / "data" / "AI_train.json").exists()
