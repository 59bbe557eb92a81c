"""What stands twice is named by its rows."""

from __future__ import annotations

from questions import ask

from lrc.data.near_duplicates import group_passages
from lrc.data.questions import Question
from lrc.data.repeated import find_duplicates
from lrc.runtime.findings import Finding

LONG = "".join(chr(0x4E00 + i) for i in range(200))


def find(*questions: Question) -> list[Finding]:
    groups = group_passages(question.passage for question in questions)
    return find_duplicates(questions, groups, "a.xlsx")


def test_a_repeated_question_is_one_finding_with_all_its_rows() -> None:
    same = {"passage": "文章", "question": "問？", "options": ("甲", "乙"), "answer": 1}
    twin = same | {"passage": "文 章", "options": ("乙", "甲 "), "answer": 2}
    (finding,) = find(ask(2, **same), ask(3), ask(4, **twin), ask(5, **same))
    assert (finding.level, finding.kind, finding.row) == ("warning", "duplicate-question", 2)
    assert "rows 4, 5;" in finding.text


def test_many_copies_are_counted() -> None:
    same = {"passage": "文章", "question": "問？"}
    (finding,) = find(*(ask(row, **same) for row in range(2, 22)))
    assert "rows 3, 4, 5, 6, 7 and 14 more;" in finding.text


def test_near_duplicate_passages_are_named_once() -> None:
    findings = find(ask(2, passage=LONG), ask(3, passage=LONG), ask(4, passage=LONG + "。"), ask(5))
    assert [(finding.kind, finding.row) for finding in findings] == [("near-duplicate-passage", 2)]
    assert "row 4;" in findings[0].text


def test_passages_that_are_parts_of_one_another_are_named_once() -> None:
    findings = find(
        ask(2, passage=LONG), ask(3, passage=LONG + "。"), ask(4, passage=LONG[50:90]), ask(5, passage=LONG[50:90])
    )
    assert [(finding.level, finding.kind, finding.row) for finding in findings] == [
        ("warning", "near-duplicate-passage", 2),
        ("warning", "partial-passage", 2),
    ]
    assert "row 3;" in findings[0].text
    assert findings[1].text.startswith("文章 and that of row 4 are parts of one another; ")


def test_another_question_or_option_is_not_a_duplicate() -> None:
    base = {"passage": "文章", "question": "問？", "options": ("甲", "乙")}
    assert not find(ask(2, **base), ask(3, **base | {"question": "答？"}), ask(4, **base | {"options": ("甲", "丙")}))
