"""The 正確答案 column is understood as people write it, and not guessed at."""

from __future__ import annotations

import pytest

from lrc.answers import understand


@pytest.mark.parametrize(
    "text", ["3", "選項3", "选项3", "選項 ３", "３", "3.0", "３．０", "C", "c", "Ｃ", " 3\n", "選項C", "03"]
)
def test_understood(text: str) -> None:
    assert understand(text) == 3


@pytest.mark.parametrize("text", ["", "③", "3.5", "3%", "三", "3 4", "-3", "選項", "I", "TRUE", "1000", "3,", "²"])
def test_not_understood(text: str) -> None:
    assert understand(text) is None


def test_range_is_the_callers_business() -> None:
    assert (understand("0"), understand("9"), understand("H")) == (0, 9, 8)
