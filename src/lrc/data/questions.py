"""The domain object: a multiple-choice question about a passage. Knows no file format and no torch."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from lrc.runtime.translation import _

MIN_OPTIONS, MAX_OPTIONS = 2, 8


@dataclass(frozen=True)
class Question:
    """One multiple-choice question.

    An empty string in `options` is an option that the workbook leaves blank; it is never chosen.

    Raises:
        ValueError: there are fewer than 2 or more than 8 options, or the answer is not the number of one.
    """

    id: str
    passage: str
    question: str
    options: tuple[str, ...]
    answer: int | None = None  # 1 to len(options); None in a test workbook
    row: int | None = None  # the row number in the workbook, since ids may repeat
    full_passage: str | None = None  # the passage before it was shortened to fit a model; None if it was not

    def __post_init__(self) -> None:
        if not MIN_OPTIONS <= len(self.options) <= MAX_OPTIONS:
            text = _("{count} options, expected {least} to {most}")
            raise ValueError(text.format(count=len(self.options), least=MIN_OPTIONS, most=MAX_OPTIONS))
        if self.answer is not None and not 1 <= self.answer <= len(self.options):
            text = _("answer is {answer}, expected 1 to {last}")
            raise ValueError(text.format(answer=self.answer, last=len(self.options)))

    @property
    def source_passage(self) -> str:
        """The passage as the file has it, by which questions are counted, split and compared with others."""
        return self.passage if self.full_passage is None else self.full_passage

    @property
    def choosable(self) -> tuple[int, ...]:
        """The numbers of the options that have text, from 1; only 1 if none has."""
        return tuple(i for i, option in enumerate(self.options, start=1) if option) or (1,)

    @property
    def content(self) -> str:
        """A hash of its texts, see `hash_content`."""
        return hash_content(self.source_passage, self.question, self.options)

    def reordered(self, order: tuple[int, ...]) -> Question:
        """The same question with its options in another order; the answer follows its option.

        Args:
            order: for each new position the old position of its option, from 0: `(1, 2, 3, 0)` puts option 2 first.

        Raises:
            ValueError: `order` is not a permutation of the positions.
        """
        if sorted(order) != list(range(len(self.options))):
            raise ValueError(f"order is {order}, expected each of 0 to {len(self.options) - 1} once")
        answer = None if self.answer is None else order.index(self.answer - 1) + 1
        return replace(self, options=tuple(self.options[place] for place in order), answer=answer)


def hash_content(passage: str, question: str, options: Sequence[str]) -> str:
    """A short hash of a question's texts, in the order of its options; white space has no effect on it.

    Returns:
        16 hexadecimal digits.
    """
    texts = ["".join(text.split()) for text in (passage, question, *options)]
    # ASCII: a text of a notebook may have half of a character, which UTF-8 does not encode.
    return hashlib.sha256(json.dumps(texts).encode("ascii")).hexdigest()[:16]


def cyclic_orders(n_options: int, count: int) -> list[tuple[int, ...]]:
    """The first `count` rotations of `n_options` positions, at most all of them, the identity first.

    Over all rotations each option is in each position once, so an average over them has no position bias.
    """
    count = min(count, n_options)
    return [tuple((place + shift) % n_options for place in range(n_options)) for shift in range(count)]


_SIGN = "[1-8A-H①-⑧甲乙丙丁一二三四]"
_ONE = rf"[(（]?\s*{_SIGN}\s*[)）]?"
_AND = r"\s*(?:[和與与及跟或、,，&+]|(?:and|or|nor)\b)\s*"
_RIGHT = r"\s*(?:[皆都均]|[兩两二三][者項项]|正[確确]|[對对錯错]|(?:are|is)\b|[.。]?\s*$)"
# An option that refers to others by their positions; it is searched in the text in half width.
_REFERS = re.compile(
    r"以上|上述|皆是|皆非|\b(?:of the|the) above\b"
    rf"|(?:[选選][項项]|\b(?:option|choice)s?\b)\s*(?:[0-9]|{_ONE})|第\s*{_SIGN}\s*[個个]?[選选][項项]"
    r"|前(?:[兩两二三述][項项者]|面[兩两二三]?[項项])"
    rf"|^\s*第{_SIGN}[項项](?:{_AND}第{_SIGN}[項项])*{_RIGHT}"
    rf"|^\s*(?:(?:both|either|neither|only)\s+)?{_ONE}(?:{_AND}{_ONE})+{_RIGHT}"  # A與B, (1)、(3)皆對
    r"|^\s*(?-i:(?=[A-H①-⑧甲乙丙丁]{2})(?:A?B?C?D?E?F?G?H?|①?②?③?④?⑤?⑥?⑦?⑧?|甲?乙?丙?丁?))" + _RIGHT + "|"
    rf"^\s*(?:[(（]{_SIGN}[)）]){{2,}}{_RIGHT}"
    rf"|(?:只有|[僅仅]有?|除了?|\bonly)\s*{_ONE}(?:\s*以?之?外|{_RIGHT})|^\s*{_ONE}\s*[以之]外",
    re.IGNORECASE,
)
HALF_WIDTH = str.maketrans({0xFF01 + place: 0x21 + place for place in range(94)})


def option_orders(question: Question, count: int) -> list[tuple[int, ...]]:
    """Up to `count` orders of the options in which to ask a question, its own first; see `Question.reordered`.

    A question keeps its own order if one of its options refers to others by position (以上皆是, A和B), or if all of its
    options are blank.
    """
    if any(_REFERS.search(option.translate(HALF_WIDTH)) for option in question.options) or not any(question.options):
        count = 1
    return cyclic_orders(len(question.options), count)


def script_of(texts: Iterable[str]) -> str | None:
    """The script of Chinese texts: `Hant` (traditional) or `Hans` (simplified).

    A character counts as traditional if only Big5 encodes it, and as simplified if only GB 2312 does.

    Returns:
        The script with at least nine times as many characters as the other; None if neither has, or no text has such a
        character.
    """
    counts = Counter(character for text in texts for character in text if "\u4e00" <= character <= "\u9fff")
    found = {"Hant": 0, "Hans": 0}
    for character, count in counts.items():
        traditional, simplified = (_is_encodable(character, codec) for codec in ("big5", "gb2312"))
        if traditional != simplified:
            found["Hant" if traditional else "Hans"] += count
    most, other = sorted(found.values(), reverse=True)
    return max(found, key=lambda script: found[script]) if most and most >= 9 * other else None


def _is_encodable(character: str, codec: str) -> bool:
    try:
        character.encode(codec)
    except UnicodeEncodeError:
        return False
    return True
