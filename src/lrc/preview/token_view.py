"""Shows questions as the model sees them: token by token, with supervised tokens highlighted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from lrc.data.alpaca import Record
from lrc.models.loading import tokenizer_backend
from lrc.packing.tree import TokenSequence
from lrc.tokenization.prompt import Prompt

BROKEN = "\ufffd"  # to which an incomplete character is decoded
SUPERVISED, PLAIN, OTHER = "bold black on green", "default on grey15", "default on grey30"
# Visible symbols for white space.
SIGNS = str.maketrans({"\n": "⏎", "\t": "⇥", " ": "␣"})


@dataclass(frozen=True)
class TokenView:
    """One question's sequence."""

    id: str
    row: int | None  # in the workbook
    ids: tuple[int, ...]  # of the tokens
    pieces: tuple[str, ...]  # the text of each token
    prompt_length: int
    merges: bool  # whether prompt and completion would get other tokens if tokenized as one text

    @property
    def mask(self) -> list[int]:
        """1 for each supervised token, 0 for the others."""
        return [int(place >= self.prompt_length) for place in range(len(self.ids))]

    def text(self) -> Text:
        """The tokens in colours: two alternating ones for the prompt, another one for supervised tokens."""
        text = Text()
        for place, piece in enumerate(self.pieces):
            supervised = place >= self.prompt_length
            text.append(piece.translate(SIGNS), SUPERVISED if supervised else (PLAIN, OTHER)[place % 2])
        return text

    def plain(self) -> str:
        """The tokens without colours: a bar between tokens, and ⟦…⟧ around each supervised one."""
        shown = [piece.translate(SIGNS) for piece in self.pieces]
        return "|".join(f"⟦{s}⟧" if place >= self.prompt_length else s for place, s in enumerate(shown))


def view_tokens(prompt: Prompt, drawn: Iterable[tuple[Record, TokenSequence]]) -> list[TokenView]:
    """Make views of records.

    Args:
        prompt: with which they are tokenized.
        drawn: records, each with a sequence that is trained.
    """
    return [
        TokenView(
            record.id,
            record.question.row if record.question else None,
            tuple(sequence.tokens.tolist()),
            tuple(pieces(prompt.tokenizer, sequence.tokens.tolist())),
            sequence.prompt_length,
            record.question is not None and prompt.boundary_merges(record),
        )
        for record, sequence in drawn
    ]


def pieces(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """The text of each token; a character of several tokens is shown at the last of them, with … at the others."""
    if tokenizer_backend(tokenizer) == "sentencepiece":
        return [str(piece) for piece in tokenizer.convert_ids_to_tokens(list(ids))]
    shown: list[str] = []
    pending: list[int] = []
    for token in ids:
        pending.append(token)
        text = tokenizer.decode(pending)
        if BROKEN in text and len(pending) < 4:
            shown.append("…")
        else:
            shown.append(text)
            pending = []
    return shown
