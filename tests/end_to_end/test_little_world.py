"""The little world: its answers by rules of their own, and nothing that is held out leaks."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from lrc.examples import little_world

from lrc.data.questions import Question
from lrc.data.sources import read_questions
from lrc.metrics.baselines import BASELINES, credit

ROOT = Path(__file__).parents[2]

WORD = "(..)"
GIVEN = [  # giver, taker, thing
    (rf"{WORD}把{WORD}交給{WORD}", (1, 3, 2)),
    (rf"{WORD}從{WORD}拿到{WORD}", (2, 1, 3)),
    (rf"{WORD}給了{WORD}一個{WORD}", (1, 2, 3)),
    (rf"{WORD}是{WORD}向{WORD}要來的", (3, 2, 1)),
]
WENT = [  # who, where to
    (rf"{WORD}本來想去{WORD}，後來去了{WORD}", [(1, 3)]),
    (rf"{WORD}去了{WORD}，沒有去{WORD}", [(1, 2)]),
    (rf"{WORD}離開{WORD}，到了{WORD}", [(1, 3)]),
    (rf"{WORD}從{WORD}搬到{WORD}", [(1, 3)]),
    (rf"{WORD}和{WORD}分別去了{WORD}和{WORD}", [(1, 3), (2, 4)]),
    (rf"{WORD}和{WORD}，{WORD}去了前者，{WORD}去了後者", [(3, 1), (4, 2)]),
]


def solve(passage: str, question: str) -> set[str]:
    """All words that answer a question, from the text alone."""
    gave: set[tuple[str, str, str]] = set()
    place: dict[str, str] = {}
    taller: set[tuple[str, str]] = set()
    for sentence in passage.split("。"):
        for pattern, pairs in WENT:
            if found := re.fullmatch(pattern, sentence):
                place |= {found[who]: found[where] for who, where in pairs}
        for part in sentence.split("，"):
            for pattern, (a, b, c) in GIVEN:
                if found := re.fullmatch(pattern, part):
                    gave.add((found[a], found[b], found[c]))
            if found := re.fullmatch(rf"{WORD}比{WORD}([高矮])", part):
                taller.add((found[1], found[2]) if found[3] == "高" else (found[2], found[1]))
    name = re.sub("送出|收到|高過|不如|現在在|的是|什麼|哪裡|誰|高|？", "", question)
    if question.startswith("送出"):
        return {giver for giver, _, thing in gave if thing == name}
    if question.startswith("收到"):
        return {taker for _, taker, thing in gave if thing == name}
    if question.endswith("送出的是什麼？"):
        return {thing for giver, _, thing in gave if giver == name}
    if question.endswith("收到的是什麼？"):
        return {thing for _, taker, thing in gave if taker == name}
    if question.startswith("高過"):
        return {high for high, low in taller if low == name}
    if question.startswith("不如"):
        return {low for high, low in taller if high == name}
    assert question.endswith("現在在哪裡？")
    return {place[name]}


@pytest.mark.parametrize("held_out", [False, True])
def test_each_question_has_one_answer_and_it_is_the_one_that_the_passage_tells(held_out: bool) -> None:
    asked = little_world.questions(11, 60, held_out=held_out)
    assert len(asked) > 150
    for one in asked:
        assert len(set(one.options)) == 4 and all(option in one.passage for option in one.options)
        assert solve(one.passage, one.question) & set(one.options) == {one.options[one.answer - 1]}
    assert len({one.question[-6:] for one in asked}) > 3
    places = Counter(one.answer for one in asked)
    assert all(places[number] > len(asked) / 8 for number in range(1, 5))


def test_no_word_of_a_held_out_passage_is_ever_trained_on() -> None:
    trained = {word for kind in little_world.KINDS for word in little_world.words(kind, held_out=False)}
    kept = {word for kind in little_world.KINDS for word in little_world.words(kind, held_out=True)}
    assert not trained & kept and len(kept) > len(trained) / 8
    held_out = little_world.questions(3, 40, held_out=True)
    assert {option for one in held_out for option in one.options} <= kept
    text = "".join(one.passage for one in little_world.questions(4, 200, held_out=False))
    named = {option for one in held_out for option in one.options}
    # Two words may stand side by side by chance; but for that, no held-out word is in what is trained on.
    assert sum(word in text for word in named) < len(named) / 20
    assert {character for word in named for character in word} <= set(text)  # each character is known, the pair is not


def test_the_shipped_workbooks_are_what_the_script_makes_and_cannot_be_answered_by_overlap() -> None:
    made = little_world.build_all()
    for name, content in made.items():
        assert (ROOT / "examples/little_world" / name).read_bytes() == content
    learnt, asked = (read_questions(ROOT / "examples/little_world" / name).questions for name in made)
    assert len(asked) > 200 and not {one.passage for one in learnt} & {one.passage for one in asked}
    answers = [one.answer or 0 for one in asked]
    for name, choose in BASELINES.items():
        assert sum(credit(choose(asked), answers)) / len(asked) < 0.45, name
    assert all(isinstance(one, Question) and solve(one.passage, one.question) >= {answer(one)} for one in asked)


def answer(question: Question) -> str:
    assert question.answer is not None
    return question.options[question.answer - 1]
