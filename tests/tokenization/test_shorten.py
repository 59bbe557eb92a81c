"""A passage that is too long loses its farthest split_sentences, and nothing else."""

from __future__ import annotations

from itertools import combinations

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


@given(st.text(alphabet="甲乙。！？；\n」a ", max_size=40))
def test_sentences_join_to_the_passage(passage: str) -> None:
    assert "".join(split_sentences(passage)) == passage


def test_sentences_keep_closing_marks() -> None:
    assert split_sentences("他說：「好！」她走了。\n沒有句號") == ["他說：「好！」", "她走了。\n", "沒有句號"]


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


def test_not_even_an_empty_passage_fits() -> None:
    assert shorten(question(NEAR), lambda asked: False) is None


@given(st.lists(st.sampled_from([FAR, NEAR, "她在高雄。", "圖書館很大！"]), min_size=1, max_size=6), st.integers(0, 60))
def test_a_shortened_passage_is_some_of_the_sentences_in_their_order(pieces: list[str], length: int) -> None:
    short = shorten(question("".join(pieces)), at_most(length))
    assert short is not None and len(short.passage) <= length
    some = {"".join(chosen) for n in range(len(pieces) + 1) for chosen in combinations(pieces, n)}
    assert short.passage in some
