"""Questions as the model sees them: token by token, with what is supervised set apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from lrc.data.alpaca import Record
from lrc.models.loading import tokenizer_backend
from lrc.packing.tree import TokenSequence
from lrc.tokenization.prompt import Prompt

BROKEN = "\ufffd"  # what decoding gives for a part of a character
SUPERVISED, PLAIN, OTHER = "bold black on green", "default on grey15", "default on grey30"
# What would not show, and its sign.
SIGNS = str.maketrans({"\n": "⏎", "\t": "⇥", " ": "␣"})


@dataclass(frozen=True)
class TokenView:
    """One question's sequence."""

    id: str
    row: int | None  # in the workbook
    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    prompt_length: int
    merges: bool  # whether prompt and completion, tokenized in one piece, would be other tokens

    @property
    def mask(self) -> list[int]:
        """1 where a token is supervised."""
        return [int(place >= self.prompt_length) for place in range(len(self.ids))]

    def text(self) -> Text:
        """The tokens in colours: the prompt's in turn, the supervised ones apart; without colours ⟦…⟧ marks these."""
        text = Text()
        for place, piece in enumerate(self.pieces):
            supervised = place >= self.prompt_length
            text.append(piece.translate(SIGNS), SUPERVISED if supervised else (PLAIN, OTHER)[place % 2])
        return text

    def plain(self) -> str:
        """The same without colours: a bar between tokens, and ⟦…⟧ around a supervised one."""
        shown = [piece.translate(SIGNS) for piece in self.pieces]
        return "|".join(f"⟦{s}⟧" if place >= self.prompt_length else s for place, s in enumerate(shown))


def view_tokens(prompt: Prompt, drawn: Iterable[tuple[Record, TokenSequence]]) -> list[TokenView]:
    """Show records with the sequences that are trained on.

    Args:
        drawn: each record with the sequence that was drawn of it.
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
    """The text of each token; a character of several tokens is shown at the last of them, and … at the others."""
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
