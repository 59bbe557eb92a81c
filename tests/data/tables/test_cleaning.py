"""Text is cleaned of what no reader sees, and of nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrc.data.tables.cleaning import clean, collapse, is_clean


@pytest.mark.parametrize(
    ("dirty", "text", "kinds"),
    [
        ("小明", "小明", ()),
        ("  小明\u3000\n", "小明", ("white-space",)),
        ("_x0000__x001F_小_x000D_明", "小\n明", ("escape", "line-break", "control")),
        ("a&mdash;b &#39;c&#x27; &apos;", "a—b 'c' '", ("entity",)),
        ("小\u2028明\r\n大\r中", "小\n明\n大\n中", ("line-break",)),
        ("小\x00\x07明", "小明", ("control",)),
        ("\ufeff小\u200b明\u202a\u200d", "小明", ("zero-width",)),
        ("&#8203;小明", "小明", ("entity", "zero-width")),
    ],
)
def test_repairs(dirty: str, text: str, kinds: tuple[str, ...]) -> None:
    assert clean(dirty) == (text, kinds)


@pytest.mark.parametrize(
    "text",
    [
        "１２３ＡＢ ｶﾅ ㎏ ① 金\uf90a é e\u0301 神\ufa19",  # NFC or NFKC would change them
        "一\u3000二\xa0三\t四\n五",
        "AT&T; a & b &unknown; &#xD800; R&D",
        "_x4E00_ _x_ snake_case __init__",
        "👨\u200d👩\u200d👧 ❤\ufe0f",
        "NA None null #N/A",
    ],
)
def test_keeps(text: str) -> None:
    assert clean(text) == (text, ())


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "S", "M"], exclude_characters="&_")))
def test_never_loses_letters(text: str) -> None:
    assert clean(text)[0] == text


@given(st.text(alphabet="小&_x0;#\u200b \n\x00a"))
def test_result_has_no_white_space_at_its_ends(text: str) -> None:
    assert clean(text)[0] == clean(text)[0].strip()


def test_collapse() -> None:
    assert collapse(" 小\u3000\n明 ") == "小 明"


@pytest.mark.parametrize("text", ["\u3164", "\u2800 \u2800", "\ufe0f", "\u200b\u034f", "\U000e0100"])
def test_a_text_that_shows_nothing_is_empty(text: str) -> None:
    assert clean(text) == ("", ("zero-width",)) and not is_clean([text])
    assert clean(f"葛{text}城")[0][0] == "葛" and clean(f"葛{text}城")[0][-1] == "城"
    assert clean("葛\U000e0100") == ("葛\U000e0100", ())
