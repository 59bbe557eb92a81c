"""Outings in Chinese, whose passages have to be read: what `lrc demo` trains and asks about.

A passage tells in four sentences who went where and who took what along. In a sentence stand one person and what he or
she did not choose, or three people and three choices in the same order. All options of a question stand in the passage,
the likeliest wrong ones in the same sentence, so that counting common characters does not find the answer.

`lrc demo` writes the two workbooks, and so does `python examples/outings.py FOLDER`; `examples/build_demo_base.py`
trains the base.
"""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

WORKBOOKS = {"outings.xlsx": (1, 320), "outings_test.xlsx": (2, 20)}  # seed and passages

NAMES = [first + second for first in "小阿大" for second in "明華美強玲德珠義"]


class Topic(NamedTuple):
    """Something that people choose.

    Attributes:
        choices: the words for what can be chosen.
        verb: what one does with it; `done` and 沒有 with it are also words of the base's tokenizer.
        state: the verb that says how that left them.
        asked: the word that asks for it.
    """

    choices: list[str]
    verb: str
    state: str
    asked: str

    @property
    def done(self) -> str:
        """The verb of what somebody did."""
        return f"{self.verb}了"


def _pairs(characters: str) -> list[str]:
    return [characters[at : at + 2] for at in range(0, len(characters), 2)]


TOPICS = (
    Topic(
        [
            *_pairs("公園學校市場車站海邊廟口醫院書店工廠農場河邊郵局餐廳銀行機場碼頭"),
            "動物園",
            "圖書館",
            "體育館",
            "博物館",
        ],
        "去",
        "在",
        "哪裡",
    ),
    Topic(
        [*_pairs("雨傘蘋果帽子鉛筆相機餅乾地圖鑰匙茶杯手錶吉他毛線籃球花盆鈴鐺水壺背包"), "故事書", "望遠鏡"],
        "帶",
        "有",
        "什麼",
    ),
)


class Fact(NamedTuple):
    """Something that a passage says, to be completed by a word.

    Attributes:
        stated: the beginning of a sentence that the word completes.
        asked: the same as a question.
        answer: the word.
        others: the other words of its kind in the same sentence, and then those of the other sentences.
    """

    stated: str
    asked: str
    answer: str
    others: tuple[list[str], list[str]]


class Sentence(NamedTuple):
    """A sentence, its topic, who it tells of, what they chose, and what they did not."""

    text: str
    topic: Topic
    people: list[str]
    chosen: list[str]
    refused: list[str]


def write_sentence(random: Random, topic: Topic, names: list[str], choices: list[str]) -> Sentence:
    """A sentence about three people or one; takes its words off the ends of the lists."""
    verb, done = topic.verb, topic.done
    if random.random() < 1 / 3:
        people, chosen = [names.pop() for _ in range(3)], [choices.pop() for _ in range(3)]
        return Sentence(f"{'、'.join(people)}分別{done}{'、'.join(chosen)}。", topic, people, chosen, [])
    who, refused, chosen_one = names.pop(), choices.pop(), choices.pop()
    text = random.choice(
        [
            f"{who}沒有{verb}{refused}，而是{done}{chosen_one}。",
            f"原本想{verb}{refused}的{who}，後來{done}{chosen_one}。",
            f"{who}{done}{chosen_one}，沒有{verb}{refused}。",
            f"{who}{done}{chosen_one}，沒有{verb}{refused}。",
        ]
    )
    return Sentence(text, topic, [who], [chosen_one], [refused])


class Passage(NamedTuple):
    """A text and what it says."""

    text: str
    facts: list[Fact]


def write_passage(random: Random, sentences: int = 4) -> Passage:
    """A passage of as many sentences, in turn about the topics, in any order."""
    topics = [TOPICS[number % len(TOPICS)] for number in range(sentences)]
    random.shuffle(topics)
    names = random.sample(NAMES, len(NAMES))
    choices = {topic.verb: random.sample(topic.choices, len(topic.choices)) for topic in TOPICS}
    told = [write_sentence(random, topic, names, choices[topic.verb]) for topic in topics]
    return Passage("".join(one.text for one in told), [fact for one in told for fact in _facts(one, told)])


def _facts(sentence: Sentence, told: list[Sentence]) -> list[Fact]:
    topic, words = sentence.topic, sentence.chosen + sentence.refused
    elsewhere = [one.chosen + one.refused for one in told if one is not sentence and one.topic == topic]
    return [
        Fact(
            f"{who}{topic.state}",
            f"{who}{topic.done}{topic.asked}？",
            what,
            ([word for word in words if word != what], sum(elsewhere, [])),
        )
        for who, what in zip(sentence.people, sentence.chosen, strict=True)
    ]


class Asked(NamedTuple):
    """A question of four options with the number of the right one, from 1."""

    passage: str
    question: str
    options: list[str]
    answer: int


def questions(seed: int, passages: int, each: int = 3) -> list[Asked]:
    """Questions about as many passages, at most `each` of a passage."""
    random = Random(seed)
    asked = []
    for _ in range(passages):
        passage = write_passage(random)
        facts = random.sample(passage.facts, min(each, len(passage.facts)))
        asked += [_ask(random, passage, fact) for fact in facts]
    return asked


def _ask(random: Random, passage: Passage, fact: Fact) -> Asked:
    here, elsewhere = fact.others
    wrong = [*random.sample(here, len(here)), *random.sample(elsewhere, len(elsewhere))][:3]
    options = random.sample([fact.answer, *wrong], 4)
    return Asked(passage.text, fact.asked, options, options.index(fact.answer) + 1)


def build_all() -> dict[str, bytes]:
    """The bytes of the two workbooks, by file name."""
    from lrc.examples.build_sample import LABELLED, UNLABELLED, build

    made = {}
    for name, (seed, passages) in WORKBOOKS.items():
        sheet: dict[str, dict[str, Any]] = {}
        for one in questions(seed, passages):
            passage = sheet.setdefault(one.passage, {"passage": one.passage, "questions": [], "topic": "出遊"})
            passage["questions"].append({"question": one.question, "options": one.options, "answer": one.answer})
        made[name] = build(list(sheet.values()), UNLABELLED if "test" in name else LABELLED, {})
    return made


def write_workbooks(folder: Path) -> None:
    """Write the two workbooks into a folder that exists."""
    for name, workbook in build_all().items():
        (folder / name).write_bytes(workbook)


if __name__ == "__main__":
    write_workbooks(Path(sys.argv[1]))
