"""Token sequences such as questions give: passages shared by several, all behind one system prefix."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lrc.packing.tree import PackedRow, TokenSequence

VOCABULARY = 96


def sequence(prompt: list[int], completion: list[int]) -> TokenSequence:
    """Join a prompt and a completion."""
    return TokenSequence(np.array(prompt + completion, dtype=np.int64), len(prompt))


def questions(n_passages: int = 4, *, seed: int = 1) -> tuple[list[TokenSequence], list[int]]:
    """Two or three questions a passage, the awkward ones among them.

    Returns:
        The sequences, and the passage of each.
    """
    random = np.random.default_rng(seed)

    def tokens(low: int, high: int) -> list[int]:
        return random.integers(3, VOCABULARY, random.integers(low, high)).tolist()

    system = tokens(6, 7)
    sequences, passages = [], []
    for passage in range(n_passages):
        text = system + tokens(14, 26)
        for _ in range(2 + passage % 2):
            sequences.append(sequence(text + tokens(4, 9), tokens(1, 5)))
            passages.append(passage)
    asked, answered = sequences[-1].tokens, sequences[-1].prompt_length
    sequences[0] = sequence(asked[:answered].tolist(), tokens(2, 3))  # the prompt of another, answered otherwise
    sequences[1] = sequences[-1]  # the same question twice
    sequences[2] = sequence(asked[: answered - 3].tolist(), tokens(1, 2))  # a prompt that another goes on from
    return sequences, passages


def seen(row: PackedRow) -> NDArray[np.bool_]:
    """(L, L) whether the token of the line sees the token of the column: itself, and what is before it on its path."""
    index = np.arange(len(row))
    return (index[None, :] <= index[:, None]) & (index[:, None] < row.subtree_end[None, :])
