"""Copies of one question must agree on the text of the right option."""

from __future__ import annotations

from lrc.data.near_duplicates import group_passages
from lrc.data.questions import Question
from lrc.data.repeated import duplicate_key, find_conflicts, find_duplicates


def ask(row: int, options: str, answer: int, passage: str = "文 章") -> Question:
    return Question(str(row), passage, "問", tuple(options), answer, row)


def rows(*questions: Question) -> list[int | None]:
    return [finding.row for finding in find_conflicts(questions, "a.xlsx", "正確答案")]


def test_the_order_of_options_makes_no_difference() -> None:
    assert rows(ask(2, "甲乙", 1), ask(3, "乙甲", 2)) == []
    assert rows(ask(2, "甲乙", 1), ask(3, "乙甲", 1)) == [2, 3]


def test_another_passage_is_another_question() -> None:
    assert rows(ask(2, "甲乙", 1), ask(3, "甲乙", 2, "別的"), ask(4, "甲乙", 2, "文\n章 ")) == [2, 4]


def test_all_copies_are_named_with_a_twin_that_differs() -> None:
    findings = find_conflicts([ask(2, "甲乙", 1), ask(3, "甲乙", 1), ask(4, "甲乙", 2)], "a.xlsx", "正確答案")
    assert str(findings[0]).startswith(
        "a.xlsx, row 2: 正確答案 gives 「甲」, but row 4 has the same question and gives 「乙」"
    )
    assert [finding.row for finding in findings] == [2, 3, 4]


def test_the_same_question_is_the_same_for_conflicts_and_for_repeats() -> None:
    """White space is no difference, between words or inside one."""
    spaced = Question("3", "文章", "問 ", ("甲 ", "乙"), 2, 3)
    pair = [ask(2, "甲乙", 1), spaced]
    assert [finding.row for finding in find_conflicts(pair, "a.xlsx", "正確答案")] == [2, 3]
    pair[1] = Question("3", "文章", "問", ("小\u3000甲", "乙"), 1, 3)
    pair[0] = Question("2", "文章", "問", ("小甲", "乙"), 1, 2)
    assert find_conflicts(pair, "a.xlsx", "正確答案") == []
    kinds = [finding.kind for finding in find_duplicates(pair, group_passages(["文章", "文章"]), "a.xlsx")]
    assert kinds == ["duplicate-question"]


def test_width_and_case_of_a_passage_make_no_difference_to_either() -> None:
    pair = [ask(2, "甲乙", 1, "ＡＩ 的 passage"), ask(3, "甲乙", 2, "AI的Passage")]
    assert rows(*pair) == [2, 3]
    groups = group_passages(question.passage for question in pair)
    assert [finding.kind for finding in find_duplicates(pair, groups, "a.xlsx")] == ["duplicate-question"]
    assert len(set(map(duplicate_key, pair))) == 1
