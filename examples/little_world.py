"""A little world in Chinese, whose passages have to be read: what `make demo-real` trains and asks about.

A passage tells in four sentences who gave what to whom, who went where instead of where, who is taller than
whom, and who did which of two things. All options of a question stand in the passage, and sentences of one kind are
worded in ways that turn the order round, so that counting common characters does not find the answer.

Names, things and places are pairs of two characters. One pair in four is kept for held-out passages: what an adapter is
trained on has none of them.

`python examples/little_world.py` writes the two workbooks.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

# Seed, number of passages, and whether their words are those that are kept for held-out ones.
WORKBOOKS = {"little_world.xlsx": (1, 240, False), "little_world_held_out.xlsx": (2, 80, True)}

KINDS = {
    "name": (
        "王李張林陳黃吳劉蔡楊許鄭謝郭洪曾邱廖賴徐周葉蘇莊江何蕭羅潘簡",
        "明美強玲德珠義佳宏芬國惠豪婷安平春秋冬雲月星海雪梅",
    ),
    "thing": ("紅藍綠白黑紫灰木鐵銀銅布紙玉皮舊新", "傘帽盒鈴杯筆刀鏡梳球燈琴扇碗包書鞋鐘瓶箱"),
    "place": ("東西南北上下左右內外大小", "村街橋站園湖山港巷城井寺林店"),
}


def is_held_out(first: str, second: str) -> bool:
    """Whether a pair of characters is kept for held-out passages: one in four."""
    return (ord(first) * 7 + ord(second) * 3) % 4 == 0


def words(kind: str, *, held_out: bool) -> list[str]:
    """All words of a kind that may stand in held-out passages, or in the others."""
    firsts, seconds = KINDS[kind]
    return [one + two for one in firsts for two in seconds if is_held_out(one, two) == held_out]


class Fact(NamedTuple):
    """Something that a passage says, to be completed by a word.

    Attributes:
        kind: of the word.
        stated: the beginning of a sentence that the word completes.
        asked: the same as a question.
        answer: the word.
    """

    kind: str
    stated: str
    asked: str
    answer: str


Draw = Callable[[str], str]  # a word of a kind that the passage does not have yet
Event = Callable[[Random, Draw], tuple[str, list[Fact]]]


def gifts(random: Random, draw: Draw) -> tuple[str, list[Fact]]:
    """One gives a thing to another, who gives another thing to a third."""
    a, b, c, x, y = draw("name"), draw("name"), draw("name"), draw("thing"), draw("thing")
    text = _give(random, a, b, x) + "，" + _give(random, b, c, y) + "。"
    facts = [Fact("name", f"送出{x}的是", f"送出{x}的是誰？", a), Fact("name", f"收到{x}的是", f"收到{x}的是誰？", b)]
    facts += [Fact("name", f"送出{y}的是", f"送出{y}的是誰？", b), Fact("name", f"收到{y}的是", f"收到{y}的是誰？", c)]
    got = Fact("thing", f"{b}收到的是", f"{b}收到的是什麼？", x)
    return text, [*facts, got, Fact("thing", f"{b}送出的是", f"{b}送出的是什麼？", y)]


def _give(random: Random, giver: str, taker: str, thing: str) -> str:
    return random.choice(
        [
            f"{giver}把{thing}交給{taker}",
            f"{taker}從{giver}拿到{thing}",
            f"{giver}給了{taker}一個{thing}",
            f"{thing}是{taker}向{giver}要來的",
        ]
    )


def journey(random: Random, draw: Draw) -> tuple[str, list[Fact]]:
    """Somebody goes to a place instead of another."""
    who, left, reached = draw("name"), draw("place"), draw("place")
    text = random.choice(
        [
            f"{who}本來想去{left}，後來去了{reached}。",
            f"{who}去了{reached}，沒有去{left}。",
            f"{who}離開{left}，到了{reached}。",
            f"{who}從{left}搬到{reached}。",
        ]
    )
    return text, [Fact("place", f"{who}現在在", f"{who}現在在哪裡？", reached)]


def heights(random: Random, draw: Draw) -> tuple[str, list[Fact]]:
    """Three in order of height, told in either direction."""
    a, b, c = draw("name"), draw("name"), draw("name")
    first = random.choice([f"{a}比{b}高", f"{b}比{a}矮"])
    second = random.choice([f"{b}比{c}高", f"{c}比{b}矮"])
    text = random.choice([f"{first}，{second}。", f"{second}，{first}。"])
    taller = Fact("name", f"高過{b}的是", f"高過{b}的是誰？", a)
    return text, [taller, Fact("name", f"不如{b}高的是", f"不如{b}高的是誰？", c)]


def errands(random: Random, draw: Draw) -> tuple[str, list[Fact]]:
    """Two people each go to a place, told as a pair."""
    a, b, p, q = draw("name"), draw("name"), draw("place"), draw("place")
    text = random.choice([f"{a}和{b}分別去了{p}和{q}。", f"{p}和{q}，{a}去了前者，{b}去了後者。"])
    return text, [Fact("place", f"{who}現在在", f"{who}現在在哪裡？", where) for who, where in ((a, p), (b, q))]


EVENTS: tuple[Event, ...] = (gifts, journey, heights, errands)


class Passage(NamedTuple):
    """A text, what it says, and its words by kind."""

    text: str
    facts: list[Fact]
    named: dict[str, list[str]]


def write_passage(random: Random, *, held_out: bool, sentences: int = 4) -> Passage:
    """A passage of as many events, whose words have no character in common within a kind."""
    named: dict[str, list[str]] = {kind: [] for kind in KINDS}

    def draw(kind: str) -> str:
        used = set("".join(named[kind]))
        word = random.choice([one for one in _WORDS[kind, held_out] if used.isdisjoint(one)])
        named[kind].append(word)
        return word

    told = [random.choice(EVENTS)(random, draw) for _ in range(sentences)]
    return Passage("".join(text for text, _ in told), [fact for _, facts in told for fact in facts], named)


_WORDS = {(kind, kept): words(kind, held_out=kept) for kind in KINDS for kept in (False, True)}


class Asked(NamedTuple):
    """A question of four options with the number of the right one, from 1."""

    passage: str
    question: str
    options: list[str]
    answer: int


def ask(random: Random, passage: Passage, count: int) -> list[Asked]:
    """At most `count` questions about a passage, whose wrong options are other words of the passage."""
    fit = [fact for fact in passage.facts if len(passage.named[fact.kind]) >= 4]
    return [_ask(random, passage, fact) for fact in random.sample(fit, min(count, len(fit)))]


def _ask(random: Random, passage: Passage, fact: Fact) -> Asked:
    others = [word for word in passage.named[fact.kind] if word != fact.answer]
    random.shuffle(others)
    sentence = next(one for one in passage.text.split("。") if fact.answer in one)
    # Who is told of in the same sentence is the likeliest to be taken for the answer; who is asked about is no answer.
    others.sort(key=lambda word: (word in fact.asked, word not in sentence))
    options = [fact.answer, *others[:3]]
    random.shuffle(options)
    return Asked(passage.text, fact.asked, options, options.index(fact.answer) + 1)


def questions(seed: int, passages: int, *, held_out: bool, each: int = 3) -> list[Asked]:
    """Questions about as many passages, at most `each` of a passage."""
    random = Random(seed)
    return [one for _ in range(passages) for one in ask(random, write_passage(random, held_out=held_out), each)]


def build_all() -> dict[str, bytes]:
    """The bytes of the two workbooks, by file name."""
    from lrc.examples.build_sample import LABELLED, build

    made = {}
    for name, (seed, passages, held_out) in WORKBOOKS.items():
        sheet: dict[str, dict[str, Any]] = {}
        for one in questions(seed, passages, held_out=held_out):
            passage = sheet.setdefault(one.passage, {"passage": one.passage, "questions": [], "topic": "小世界"})
            passage["questions"].append({"question": one.question, "options": one.options, "answer": one.answer})
        made[name] = build(list(sheet.values()), LABELLED, {})
    return made


if __name__ == "__main__":
    for name, workbook in build_all().items():
        (Path(__file__).parent / "little_world" / name).write_bytes(workbook)
