"""A passage that is too long loses its farthest split_sentences, and nothing else."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrc.data.questions import Question
from lrc.tokenization.max_length import bigrams, shorten, split_sentences

FAR = "天氣很好。"
NEAR = "小明在台北的圖書館工作。"


def question(passage: str) -> Question:
    return Question("1", passage, "小明在哪裡工作？", ("台北的圖書館", "高雄"), 1)


def at_most(length: int) -> object:
    return lambda asked: len(asked.passage) <= length


@given(st.text(alphabet="甲乙。！？；\n」a .，", max_size=40))
def test_sentences_join_to_the_passage(passage: str) -> None:
    assert "".join(split_sentences(passage)) == passage


def test_sentences_keep_closing_marks() -> None:
    assert split_sentences("他說：「好！」她走了。\n沒有句號") == ["他說：「好！」", "她走了。\n", "沒有句號"]


def test_english_sentences_end_with_a_full_stop_before_white_space() -> None:
    assert split_sentences("It costs 3.5 dollars. He paid.\nShe left") == [
        "It costs 3.5 dollars.",
        " He paid.\n",
        "She left",
    ]


def test_bigrams_skip_white_space() -> None:
    assert bigrams("台 北\n市") == {"台北", "北市"}
    assert bigrams("台") == bigrams("") == set()


def test_the_sentence_that_the_question_is_about_is_kept() -> None:
    short = shorten(question(FAR * 3 + NEAR + FAR * 3), at_most(len(NEAR)))
    assert short is not None and short.passage == NEAR


def test_kept_sentences_keep_their_order() -> None:
    passage = "圖書館在台北。" + FAR + NEAR + FAR
    short = shorten(question(passage), at_most(len(passage) - len(FAR) - 1))
    assert short is not None and short.passage == "圖書館在台北。" + NEAR


def test_nothing_but_the_passage_changes() -> None:
    asked = question(FAR * 10)
    short = shorten(asked, at_most(12))
    assert short is not None
    assert (short.id, short.question, short.options, short.answer) == ("1", asked.question, asked.options, 1)


def test_what_fits_stays_whole() -> None:
    asked = question(FAR + NEAR)
    assert shorten(asked, at_most(100)) == asked


def test_no_sentence_fits() -> None:
    short = shorten(question(NEAR), at_most(3))
    assert short is not None and short.passage == ""


@pytest.mark.parametrize(
    ("far", "near"),
    [("天氣很好，", "小明在台北工作，"), ("天" * 40, "小明在台北的圖書館工作"), ("Fine days, ", "小明在台北, ")],
    ids=["commas", "no mark at all", "English"],
)
def test_of_a_sentence_that_is_too_long_the_clauses_nearest_to_the_question_are_kept(far: str, near: str) -> None:
    """A page that was pasted without a full stop is one sentence: without it, the question would have no passage."""
    passage = f"{far * 30}{near}{far * 30}"
    short = shorten(question(passage), at_most(100))
    assert short is not None and len(short.passage) <= 100
    assert near.strip("， ,") in short.passage
    rest = iter(passage)
    assert all(character in rest for character in short.passage), "it is in the order of the passage"
    assert len(short.passage) > 50


def test_short_sentences_remain_beside_one_that_is_too_long() -> None:
    """The longest one shares most with the question, so that it alone would be kept, and does not fit."""
    short = shorten(question(FAR + NEAR.rstrip("。") * 40 + "。" + FAR), at_most(60))
    assert short is not None and NEAR.rstrip("。") in short.passage


def test_not_even_an_empty_passage_fits() -> None:
    assert shorten(question(NEAR), lambda asked: False) is None


@given(st.lists(st.sampled_from([FAR, NEAR, "她在高雄。", "圖書館很大！"]), min_size=1, max_size=6), st.integers(0, 60))
def test_a_shortened_passage_is_some_of_the_sentences_in_their_order(pieces: list[str], length: int) -> None:
    short = shorten(question("".join(pieces)), at_most(length))
    assert short is not None and len(short.passage) <= length
    some = {"".join(chosen) for n in range(len(pieces) + 1) for chosen in combinations(pieces, n)}
    assert short.passage in some
