"""Which script texts are in."""

from __future__ import annotations

import pytest

from lrc.data.questions import script_of


@pytest.mark.parametrize(
    ("texts", "script"),
    [
        (["請根據以下輸入回答選擇題，並以數字回答"], "Hant"),
        (["请根据以下输入回答选择题，并以数字回答"], "Hans"),
        (["請根據以下輸入回答選擇題", "请根据以下输入回答选择题"], None),  # both
        (["一二三"], None),  # the same in both
        (["English only"], None),
        ([], None),
        (["請根據以下輸入回答選擇題，並說明理由。" * 9, "请"], "Hant"),  # one quotation of the other
    ],
)
def test_the_script_is_that_of_nearly_all_distinctive_characters(texts: list[str], script: str | None) -> None:
    assert script_of(texts) == script
