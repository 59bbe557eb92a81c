"""A record that is longer than the model takes: shortened, skipped or refused, and its tokens.

Of a passage that is shortened, those sentences are kept that share the most character bigrams with the question and its
options, in their own order; question, options and answer are never touched.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from lrc.data.alpaca import Record, with_question
from lrc.data.questions import Question
from lrc.packing.tree import TokenSequence
from lrc.runtime.errors import DataError
from lrc.runtime.findings import Finding
from lrc.runtime.translation import _
from lrc.tokenization.prompt import Prompt

LengthOutcome = Literal["fits", "shortened", "skipped", "refused"]


@dataclass(frozen=True)
class FittedRecord:
    """What became of a record."""

    record: Record  # as it fits, perhaps with a shorter passage; else as it was
    outcome: LengthOutcome
    sequence: TokenSequence  # what is trained; of no use where the record is skipped or refused

    @property
    def kept(self) -> bool:
        """Whether it is trained."""
        return self.outcome in ("fits", "shortened")


@dataclass(frozen=True)
class LengthPolicy:
    """What is done with a record that is too long.

    Args:
        max_length: tokens of prompt and completion; None sets no limit.
        on_too_long: `shorten` the passage, `refuse`, or `skip` the question.
    """

    max_length: int | None = None
    on_too_long: str = "refuse"


@dataclass(frozen=True)
class RecordFitter:
    """Makes records fit."""

    prompt: Prompt
    lengths: LengthPolicy

    def __call__(self, record: Record) -> FittedRecord:
        """Make a record fit, with whichever option it is asked.

        Raises:
            DataError: the record has no answer, or the prompt needs parts that it does not have.
        """
        sequence, length = self.prompt.measured(record)
        policy = self.lengths
        if policy.max_length is None or length <= policy.max_length:
            return FittedRecord(record, "fits", sequence)
        if policy.on_too_long == "skip":
            return FittedRecord(record, "skipped", sequence)
        shorter = self._shorten(record) if policy.on_too_long == "shorten" else None
        if shorter is None:
            return FittedRecord(record, "refused", sequence)
        return FittedRecord(shorter, "shortened", self.prompt.sequence(shorter))

    def _shorten(self, record: Record) -> Record | None:
        if record.question is None:
            return None
        limit = self.lengths.max_length or 0
        fits = lambda question: self.prompt.measured(with_question(record, question))[1] <= limit  # noqa: E731
        question = shorten(record.question, fits)
        return None if question is None else with_question(record, question)


@dataclass(frozen=True)
class LengthReport:
    """What became of the records that were not left as they were: their ids; and what was found in their file."""

    shortened: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def add(self, fitted: Iterable[FittedRecord]) -> None:
        """Note what became of some records."""
        for one in fitted:
            if one.outcome != "fits":
                getattr(self, one.outcome).append(one.record.id)

    def extend(self, other: LengthReport) -> None:
        """Append what was noted of the records after these."""
        self.shortened.extend(other.shortened)
        self.skipped.extend(other.skipped)
        self.refused.extend(other.refused)

    def check(self, kept: int, max_length: int | None) -> None:
        """Refuse what nobody could train on.

        Raises:
            DataError: a record does not fit, and may not or cannot be shortened; or none is left.
        """
        if self.refused:
            text = _("record {name}: longer than max_length {max_length}; raise it, or set on_too_long: skip")
            raise DataError(*(text.format(name=name, max_length=max_length) for name in self.refused))
        if not kept:
            raise DataError(_("no record fits max_length {max_length}; raise it").format(max_length=max_length))


_SENTENCE = re.compile(r"[^。！？!?；;\n]*[。！？!?；;\n]+[」』”’）)]*|[^。！？!?；;\n]+$")


def sentences(passage: str) -> list[str]:
    """Cut a passage behind its full stops, question marks, semicolons and line breaks; joined, they are the passage."""
    return _SENTENCE.findall(passage) or [passage]


def bigrams(text: str) -> set[str]:
    """The pairs of neighbouring characters, white space left out."""
    text = "".join(text.split())
    return {text[i : i + 2] for i in range(len(text) - 1)}


def shorten(question: Question, fits: Callable[[Question], bool]) -> Question | None:
    """Leave out the sentences farthest from question and options until `fits` is content.

    Args:
        fits: whether a question is short enough; true for fewer sentences wherever it is for more.

    Returns:
        The question with the longest passage that fits; None where not even an empty passage does.
    """
    pieces = sentences(question.passage)
    wanted = bigrams(question.question).union(*(bigrams(option) for option in question.options))
    # Of two sentences as close as each other, the earlier one: passages put first what they are about.
    ranked = sorted(range(len(pieces)), key=lambda i: (-_closeness(pieces[i], wanted), i))

    def keeping(count: int) -> Question:
        return replace(question, passage="".join(pieces[i] for i in sorted(ranked[:count])))

    if not fits(keeping(0)):
        return None
    low, high = 0, len(pieces)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(keeping(middle)) else (low, middle - 1)
    return keeping(low)


def _closeness(sentence: str, wanted: set[str]) -> float:
    """Shared bigrams over the root of the sentence's own, so that length alone does not win."""
    own = bigrams(sentence)
    return len(own & wanted) / max(len(own), 1) ** 0.5
