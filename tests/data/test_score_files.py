"""Files of scores: what ties each line to its question, and what is told of lines that are tied to another one."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import log
from pathlib import Path
from random import Random
from typing import Any

import pytest
from small_runs import lrc, write_questions

from lrc.data.questions import Question
from lrc.data.score_files import match_scores, read_scores
from lrc.runtime.errors import DataError

TEXTS = ("北", "南", "東", "西")


def ask(count: int) -> list[Question]:
    """Questions with the same options in orders of their own."""
    random = Random(3)
    orders = [tuple(random.sample(TEXTS, 4)) for _ in range(count)]
    return [Question(f"q{n}", f"文{n}", f"問{n}", order, random.randint(1, 4)) for n, order in enumerate(orders)]


def keep(path: Path, lines: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def match(path: Path, asked: Sequence[Question]) -> list[list[float]]:
    found: list[list[float]] = match_scores(path, read_scores(path), asked, Path("data.xlsx")).tolist()
    return found


def test_the_hash_is_of_the_texts_but_for_white_space() -> None:
    question = Question("1", "文", "問", ("甲", "乙"))
    # printf '%s' '["\u6587", "\u554f", "\u7532", "\u4e59"]' | sha256sum | cut -c1-16
    digits = "04a898a421effa09"
    assert question.content == digits
    assert replace(question, id="2", answer=1, row=7, passage=" 文\n", options=("甲 ", "乙")).content == digits
    others = {"passage": "交", "question": "聞", "options": ("乙", "甲")}
    assert digits not in {replace(question, **{part: value}).content for part, value in others.items()}


@pytest.mark.parametrize(
    "change",
    [
        lambda one: replace(one, passage="別的"),
        lambda one: replace(one, question="別的"),
        lambda one: one.reordered((1, 0, 2, 3)),
    ],
    ids=["passage", "question", "order of the options"],
)
def test_scores_of_a_question_that_was_changed_since_are_refused(
    tmp_path: Path, change: Callable[[Question], Question]
) -> None:
    asked = ask(5)
    lines = [{"id": one.id, "content_sha256": one.content, "scores": [0.0, -1.0, -2.0, -3.0]} for one in asked]
    path = keep(tmp_path / "s.jsonl", lines)
    assert match(path, asked) == [[0.0, -1.0, -2.0, -3.0]] * 5
    changed = [*asked[:3], change(asked[3]), asked[4]]
    said = "differs from data.xlsx in 1 question, first question q3, whose content is another; score data.xlsx with"
    with pytest.raises(DataError, match=said):
        match(path, changed)
    # As an earlier version wrote it.
    keep(path, [{key: value for key, value in line.items() if key != "content_sha256"} for line in lines])
    assert len(match(path, changed)) == 5


def test_what_a_vote_writes_is_tied_to_the_questions_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ask(12)
    data = write_questions(tmp_path / "data.json", asked)
    scores = keep(tmp_path / "s.jsonl", [{"id": one.id, "scores": [0.0, -1.0, -2.0, -3.0]} for one in asked])
    assert lrc("vote", scores, "--data", data, "--scores", tmp_path / "vote.jsonl") == 0
    kept = [json.loads(line) for line in (tmp_path / "vote.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["content_sha256"] for line in kept] == [one.content for one in asked]
    capsys.readouterr()
    turned = write_questions(tmp_path / "turned.json", [one.reordered((3, 2, 1, 0)) for one in asked])
    assert lrc("vote", tmp_path / "vote.jsonl", "--data", turned) == 1
    assert "differs from turned.json in 12 questions, first question q0, whose content" in capsys.readouterr().err


def sample(number: int, question: Question, target: str, choices: Sequence[str] = ()) -> dict[str, Any]:
    """As lm-evaluation-harness 0.4.3 and later log a sample of a multiple-choice task."""
    arguments = {f"gen_args_{k}": {"arg_0": "題目", "arg_1": f" {choice}"} for k, choice in enumerate(choices)}
    scores = [[str(-float(k)), "False"] for k in range(len(question.options))]
    line = {"doc_id": number, "doc": {"id": question.id}, "target": target, "filtered_resps": scores}
    return line | ({"arguments": arguments} if choices else {})


SAID: dict[str, Callable[[Question], tuple[str, Sequence[str]]]] = {
    "index": lambda one: (str((one.answer or 0) - 1), one.options),
    "index, without arguments": lambda one: (str((one.answer or 0) - 1), ()),
    "option": lambda one: (one.options[(one.answer or 0) - 1], one.options),
    "option, without arguments": lambda one: (one.options[(one.answer or 0) - 1], ()),
    "letter": lambda one: ("ABCD"[(one.answer or 0) - 1], "ABCD"),
    "letter, without arguments": lambda one: ("ABCD"[(one.answer or 0) - 1], ()),
    "number as a choice": lambda one: (str(one.answer), "1234"),
    "the same choice behind each prompt": lambda one: (str((one.answer or 0) - 1), ("對",) * 4),
}


@pytest.mark.parametrize("kind", SAID)
def test_samples_have_the_answers_of_the_data(tmp_path: Path, kind: str) -> None:
    asked, says = ask(40), SAID[kind]
    path = keep(tmp_path / "s.jsonl", [sample(n, one, *says(one)) for n, one in enumerate(asked)])
    assert match(path, asked) == [[0.0, -1.0, -2.0, -3.0]] * 40
    unanswered = [replace(one, answer=None) for one in asked]
    assert len(match(path, unanswered)) == 40
    few = [replace(one, answer=(one.answer or 0) % 4 + 1) if n < 12 else one for n, one in enumerate(asked)]
    assert len(match(path, few)) == 40  # labels that were corrected
    # The task has its choices in another order.
    turned = [one.reordered((3, 2, 1, 0)) for one in asked]
    keep(path, [sample(n, one, *says(one)) for n, one in enumerate(turned)])
    if kind == "option, without arguments":  # nothing tells the order of the choices
        assert len(match(path, asked)) == 40
        return
    said = r"its `target` is another answer than that of data.xlsx in (?:2[1-9]|[34]\d) of 40 questions, so that its"
    with pytest.raises(DataError, match=said):
        match(path, asked)


def test_a_target_that_tells_nothing_is_passed_over(tmp_path: Path) -> None:
    asked = ask(3)
    lines = [sample(n, one, target) for n, (one, target) in enumerate(zip(asked, ("[0, 2]", "", "無"), strict=True))]
    lines[1]["target"] = None
    assert len(match(keep(tmp_path / "s.jsonl", lines), asked)) == 3


def test_probabilities_in_the_place_of_scores_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ask(3)
    shares = [[0.7, 0.1, 0.1, 0.1], [0.33, 0.33, 0.33, None], [1, 0, 0.0, 0]]
    others = [[0.7, 0.1, 0.1, 0.2], [1.1, -0.1, 0.0, 0.0], [log(0.7), *[log(0.1)] * 3]]
    blank = [replace(one, options=(*one.options[:3], "")) if place == 1 else one for place, one in enumerate(asked)]

    def told(lines: Sequence[Sequence[float | None]]) -> list[str]:
        scores = [{"id": one.id, "scores": [*line]} for one, line in zip(asked, lines, strict=True)]
        match(keep(tmp_path / "s.jsonl", scores), blank)
        return capsys.readouterr().err.splitlines()

    assert told(shares) == [
        "warning: s.jsonl: its scores are at least 0 and sum to 1 in each line, like probabilities, and are taken as "
        "logarithms; write the natural logarithm of each probability into scores, null for 0"
    ]
    assert [told([*shares[:2], other]) for other in others] == [[], [], []]
