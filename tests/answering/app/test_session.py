"""Trying a model without the page: the effect of the options' order, and questions that somebody typed."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from questions import ask
from small_models import save_base
from workbooks import row, write_xlsx

from lrc.answering.app.session import MAX_CHARACTERS, AppSession, make_question
from lrc.answering.load import load_scorer
from lrc.answering.options import ScoringOptions
from lrc.data.alpaca import to_record
from lrc.runtime.errors import DataError, ModelError


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_base(tmp_path_factory.mktemp("base") / "base"))


@pytest.mark.parametrize("votes", [1, 3])
def test_each_order_is_what_the_reordered_question_scores(base: str, votes: int) -> None:
    session = AppSession(load_scorer(base, ScoringOptions(template="plain", answer_style="digit", votes=votes)))
    question = ask()
    scores, orders, shortened = session.ask(question)
    assert not shortened
    assert scores.probabilities == pytest.approx(session.scorer([to_record(question)])[0].probabilities, rel=1e-4)
    assert [one.shown for one in orders] == ["1 2 3 4", "2 3 4 1", "3 4 1 2", "4 1 2 3"]
    single = AppSession(load_scorer(base, ScoringOptions(template="plain", answer_style="digit")))
    for one in orders:
        moved = single.scorer([to_record(question.reordered(one.order))])[0]
        assert [one.probabilities[place] for place in one.order] == pytest.approx(moved.probabilities, rel=1e-4)
        assert one.prediction == one.probabilities.index(max(one.probabilities)) + 1


def test_where_the_order_cannot_matter_there_are_no_orders(base: str) -> None:
    listed = AppSession(load_scorer(base, ScoringOptions(template="plain", answer_style="digit")))
    assert listed.ask(ask(options=("甲", "乙", "丙", "以上皆是"))).orders == []
    unlisted = AppSession(load_scorer(base, ScoringOptions(template="plain", answer_style="text")))
    scores, orders, _shortened = unlisted.ask(ask())
    assert orders == [] and sum(scores.probabilities) == pytest.approx(1)


def test_what_is_typed_is_cleaned_as_a_cell_is() -> None:
    question = make_question(" 文&amp;章\u200b ", "問\x00題", ["甲 ", "", "丙", "", ""])
    assert (question.passage, question.question, question.options) == ("文&章", "問題", ("甲", "", "丙"))


def test_a_text_that_is_too_long_is_a_line() -> None:
    with pytest.raises(DataError) as refused:
        make_question("長" * (MAX_CHARACTERS + 1), "問題", ["甲", "乙"])
    assert refused.value.lines() == ("Passage (文章): has 20,001 characters, expected up to 20,000; shorten it",)


def test_a_broken_model_does_not_answer(base: str, tmp_path: Path) -> None:
    session = AppSession(load_scorer(base, ScoringOptions(template="plain", answer_style="digit")))
    session.scorer.model.lm_head.weight.data.fill_(math.nan)
    with pytest.raises(ModelError, match="question 1: its scores are not numbers; the model or the adapter is broken"):
        session.ask(ask())
    file = write_xlsx(tmp_path / "a.xlsx", [row(1), row(2)])
    with pytest.raises(ModelError, match="question 1: its scores are not numbers"):
        session.answer_file(file, tmp_path, lambda done, total: None)
    assert list(tmp_path.iterdir()) == [file]


def test_a_passage_that_was_shortened_is_among_the_findings(base: str, tmp_path: Path) -> None:
    session = AppSession(load_scorer(base, ScoringOptions(template="plain", answer_style="digit")))
    session.scorer.model.config.max_position_embeddings = 300
    long = "天氣很好。" * 40
    file = write_xlsx(tmp_path / "a.xlsx", [row(1, 文章=long), row(2, 文章="天氣很好。")])
    answered = session.answer_file(file, tmp_path, lambda done, total: None)
    told = [str(one) for one in answered.findings if one.kind == "shortened-passage"]
    assert told == ["a.xlsx: 1 passage shortened to fit the model's 300 positions: 1"]
    assert [session.ask(ask(passage=text)).shortened for text in (long, "天氣很好。")] == [True, False]


@pytest.mark.parametrize("options", [("é", "e\u0301"), ("甲 乙", "甲  乙"), ("&lt;", "<")])
def test_options_that_look_the_same_are_the_same(options: tuple[str, str]) -> None:
    with pytest.raises(DataError, match=": 1 and 2 have the same text; change one"):
        make_question("文", "問", options)
