"""Accidents of the spreadsheet are suspected where there is evidence, and only there."""

from __future__ import annotations

import pytest

from lrc.data.questions import Question
from lrc.data.tables.anomalies import find_anomalies


def kinds(passage: str, options: tuple[str, ...], question: str = "何者正確？") -> list[str]:
    asked = Question("1", passage, question, options, answer=1, row=2)
    return [finding.kind for finding in find_anomalies([asked], "a.xlsx")]


def test_twice() -> None:
    assert kinds("文", ("甲", "乙", "甲 ")) == ["ambiguous-answer"]
    assert kinds("文", ("甲", "乙", "乙")) == ["duplicate-option"]
    assert kinds("文", ("甲", "", "")) == []


@pytest.mark.parametrize("passage", ["普及率為36.4%。", "普及率為 36.4 ％"])
def test_lost_percent_sign(passage: str) -> None:
    assert kinds(passage, ("0.364", "0.5")) == ["percent-lost"]


def test_a_share_without_a_percentage_in_the_text() -> None:
    assert kinds("酒測值0.36毫克，成長136%", ("0.36", "0.5")) == []


@pytest.mark.parametrize(
    ("passage", "options"),
    [
        ("婚禮在5月19日舉行", ("43270", "43239")),
        ("直到1957年落幕", ("1990年", "20821")),
        ("每週二到三天", ("43195", "43134", "1")),
    ],
)
def test_date_serials(passage: str, options: tuple[str, ...]) -> None:
    assert kinds(passage, options) == ["date-serial"]


@pytest.mark.parametrize(
    ("passage", "options"),
    [
        ("基本工資調為21009元", ("22009", "21009")),
        ("薪資近39679元", ("39679", "45687")),
        ("台灣", ("35873", "34774")),
    ],
)
def test_numbers_that_are_not_dates(passage: str, options: tuple[str, ...]) -> None:
    assert kinds(passage, options) == []


def test_long_decimals() -> None:
    assert kinds("文", ("0.17847222222222223", "1")) == ["time-serial"]
    assert kinds("文", ("0.3333333333333333", "1")) == ["fraction-lost"]
    assert kinds("文", ("0.123456789012", "1")) == ["long-decimal"]


@pytest.mark.parametrize(
    ("option", "kind"),
    [
        ("丙\ufffd", "lost-character"),
        ("丙\ue000", "lost-character"),
        ("丙\U000f0001", "lost-character"),
        ("8.86912E+11", "exponent"),
        ("長" * 32_767, "cut-off"),
        ("𠮷" * 16_383, "cut-off"),
        ("ＡＢ，Ｃ", "duplicate-option"),
        ("AB,\u3000C", ""),
        ("葛\U000e0100", ""),
        ("E+11", ""),
    ],
)
def test_what_a_spreadsheet_or_a_code_page_has_lost(option: str, kind: str) -> None:
    assert kinds("文", ("甲", "AB,C", option)) == [kind] * bool(kind)


def test_options_that_look_the_same_are_the_same() -> None:
    assert kinds("文", ("caf\u00e9", "cafe\u0301")) == ["ambiguous-answer"]
    assert kinds("文", ("caf\u00e9", "cafe")) == []


def test_place_of_a_finding() -> None:
    (finding,) = find_anomalies([Question("1", "文", "問", ("甲", "乙", "乙"), 1, row=304)], "AI.xlsx")
    assert finding.level == "warning"
    assert str(finding) == "AI.xlsx, row 304: 選項2 and 選項3 are the same text; change one of them"
