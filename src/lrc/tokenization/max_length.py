"""Shortens, skips or refuses records that are longer than `max_length`.

A shortened passage keeps, in their order, the sentences that share most character bigrams with the question and its
options, relative to the square root of a sentence's length. If the first of these sentences does not fit, clauses take
the place of sentences. Question, options and answer are never changed.
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
    """A record after the length policy was applied to it."""

    record: Record  # with a shorter passage if it was shortened
    outcome: LengthOutcome
    sequence: TokenSequence  # to train on; too long if the record is skipped or refused

    @property
    def kept(self) -> bool:
        """Whether the record can be used."""
        return self.outcome in ("fits", "shortened")


@dataclass(frozen=True)
class LengthPolicy:
    """What to do with a record that is too long.

    Args:
        max_length: the largest number of tokens in prompt and completion; None sets no limit.
        on_too_long: `shorten` the passage, `refuse` the record, or `skip` it.
    """

    max_length: int | None = None
    on_too_long: str = "refuse"


@dataclass(frozen=True)
class RecordFitter:
    """Applies a length policy to records."""

    prompt: Prompt
    lengths: LengthPolicy

    def __call__(self, record: Record) -> FittedRecord:
        """Apply the policy to the longest sequence of a record, over all of its options.

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
        if question is None:
            return None
        return with_question(record, replace(question, full_passage=record.question.source_passage))


@dataclass(frozen=True)
class LengthReport:
    """The ids of the records of a file that did not fit, and the findings about the file."""

    shortened: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def add(self, fitted: Iterable[FittedRecord]) -> None:
        """Add the records that did not fit."""
        for one in fitted:
            if one.outcome != "fits":
                getattr(self, one.outcome).append(one.record.id)

    def extend(self, other: LengthReport) -> None:
        """Append the ids of a report on later records."""
        self.shortened.extend(other.shortened)
        self.skipped.extend(other.skipped)
        self.refused.extend(other.refused)

    def check(self, kept: int, max_length: int | None) -> None:
        """Refuse data that cannot be used.

        Args:
            kept: the number of records that fit.
            max_length: in tokens, for the message.

        Raises:
            DataError: a record was refused, or none is left.
        """
        if self.refused:
            text = _("record {name}: longer than max_length {max_length}; raise it, or set on_too_long: skip")
            raise DataError(*(text.format(name=name, max_length=max_length) for name in self.refused))
        if not kept:
            raise DataError(_("no record fits max_length {max_length}; raise it").format(max_length=max_length))


_SENTENCE = re.compile(r".*?(?:[。！？!?；;\n]|\.(?=\s|$))[。！？!?；;\n]*[」』”’）)]*|.+", re.DOTALL)
# Up to 40 characters, so that a text without any marks is divided, too: after a comma, else before white space.
_CLAUSE = re.compile(r".{1,40}?[，,、：:]|.{1,40}(?=\s)|.{1,40}", re.DOTALL)


def split_sentences(passage: str) -> list[str]:
    """Split a passage after full stops, exclamation and question marks, semicolons and line breaks; loses no text."""
    return _SENTENCE.findall(passage)


def split_clauses(passage: str) -> list[str]:
    """Split a passage after commas and colons, and at least every 40 characters; loses no text."""
    return _CLAUSE.findall(passage)


def bigrams(text: str) -> set[str]:
    """The set of character bigrams of a text, without white space."""
    text = "".join(text.split())
    return {text[i : i + 2] for i in range(len(text) - 1)}


def shorten(question: Question, fits: Callable[[Question], bool]) -> Question | None:
    """Drop the sentences that are least related to question and options until `fits` returns true.

    If not even one sentence fits, such as one without a full stop, all is done by clauses.

    Args:
        question: the question to shorten.
        fits: whether a question is short enough; must be monotonic: true for fewer sentences if true for more.

    Returns:
        The question with as many sentences or clauses as fit; None if not even an empty passage fits.
    """
    if not fits(replace(question, passage="")):
        return None
    shorter = _keep_nearest(question, split_sentences(question.passage), fits)
    return shorter if shorter.passage else _keep_nearest(question, split_clauses(question.passage), fits)


def _keep_nearest(question: Question, pieces: list[str], fits: Callable[[Question], bool]) -> Question:
    """Keep as many pieces of the passage as fit, those that are most related to question and options, in order."""
    wanted = bigrams(question.question).union(*(bigrams(option) for option in question.options))
    # The earlier one of two pieces with the same score: passages tend to begin with what they are about.
    ranked = sorted(range(len(pieces)), key=lambda i: (-_score_piece(pieces[i], wanted), i))

    def keeping(count: int) -> Question:
        return replace(question, passage="".join(pieces[i] for i in sorted(ranked[:count])))

    low, high = 0, len(pieces)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(keeping(middle)) else (low, middle - 1)
    return keeping(low)


def _score_piece(piece: str, wanted: set[str]) -> float:
    """The number of shared bigrams over the square root of the piece's own, so that length alone does not win."""
    own = bigrams(piece)
    return len(own & wanted) / max(len(own), 1) ** 0.5
