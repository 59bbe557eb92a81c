"""Many token sequences → packed rows in which a common prefix is computed once.

Sequences are sorted and merged by common token prefix; a row lays the resulting tree out depth first. Each token keeps
the position that it has in its own sequence and sees its ancestors and itself, which in depth-first order is one
comparison: token k is seen by token q where ``k <= q < subtree_end[k]``. The tokens of every root-to-leaf path, their
positions and what they see are thus exactly those of the separate sequence, and so are losses and gradients.

A completion's last token predicts nothing and is left out. Predictions are kept as pairs of (source position, target
token) rather than one label per position: a position may have several targets, so that the options of a question, or
equal prompts with different answers, share all of their tokens up to there.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
# Sequences that share more than this many tokens beyond the prefix of all are kept in one row if it has room for them:
# they have a passage in common, while fewer shared tokens are chance.
MIN_SHARED = 8
# On a CPU, a subtree is cut at its first fork if that saves at least this many masked query-key pairs.
MIN_SPARED = 16384


@dataclass(frozen=True)
class TokenSequence:
    """A prompt and its completion.

    Args:
        tokens: (length,) the ids of prompt and completion.
        prompt_length: how many of them are the prompt; 1 to length - 1.
        stem_length: sequences that share this many first tokens have to be in the same row; None is the whole prompt.

    Raises:
        ValueError: `prompt_length` is out of range.
    """

    tokens: Ints
    prompt_length: int
    stem_length: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not 0 < self.prompt_length < len(self.tokens):
            raise ValueError(f"prompt_length is {self.prompt_length}, expected 1 to {len(self.tokens) - 1}")

    @property
    def inputs(self) -> Ints:
        """(length - 1,) all tokens but the last, which predicts nothing."""
        return self.tokens[:-1]

    @property
    def stem(self) -> int:
        """`stem_length`, or its default."""
        return self.prompt_length if self.stem_length is None else self.stem_length


@dataclass(frozen=True)
class Block:
    """Consecutive tokens of a row: those between two forks of the tree, or a subtree that is not worth cutting."""

    size: int  # tokens
    heads: int  # how many of them are in `PackedRow.heads`
    parent: int | None  # index of the block whose tokens all tokens of this one see, as they do its ancestors'


@dataclass(frozen=True)
class PackedRow:
    """One packed row of a forward pass; L tokens, H positions where the LM head runs, T predicted tokens."""

    input_ids: Ints  # (L,)
    position_ids: Ints  # (L,) the position in the token's own sequence
    subtree_end: Ints  # (L,) one past the last descendant of the token
    heads: Ints  # (H,) positions whose logits are needed, ascending
    sources: Ints  # (T,) index into `heads` of the position that predicts
    targets: Ints  # (T,) the token that is predicted
    owners: Ints  # (T,) which of the packed sequences the prediction belongs to

    def __len__(self) -> int:
        return len(self.input_ids)

    def padded(self, multiple: int) -> PackedRow:
        """The row, padded to a multiple of so many tokens with one-token trees that predict nothing."""
        total = len(self)
        more = np.arange(total, -(-total // multiple) * multiple)
        return replace(
            self,
            input_ids=np.concatenate([self.input_ids, np.zeros_like(more)]),
            position_ids=np.concatenate([self.position_ids, np.zeros_like(more)]),
            subtree_end=np.concatenate([self.subtree_end, more + 1]),
        )

    def blocks(self, least: int | None = None) -> list[Block]:
        """Cut the row into blocks, in order, such that a token sees nothing outside its own block and its ancestors.

        Args:
            least: the least number of query-key pairs that a cut must save; None takes the default for a CPU.
        """
        least = MIN_SPARED if least is None else least
        blocks: list[Block] = []

        def block(start: int, size: int, parent: int | None) -> int:
            heads = np.searchsorted(self.heads, [start, start + size])
            blocks.append(Block(size, int(heads[1] - heads[0]), parent))
            return len(blocks) - 1

        def cut(start: int, end: int, parent: int | None) -> None:
            chain, children = self._fork(start, end)
            rest = end - start - chain
            if chain * rest + rest**2 - sum((last - first) ** 2 for first, last in children) < least:
                block(start, end - start, parent)
                return
            below = block(start, chain, parent) if chain else parent
            for first, last in children:
                cut(first, last, below)

        cut(0, len(self), None)
        return blocks

    def _fork(self, start: int, end: int) -> tuple[int, list[tuple[int, int]]]:
        """The number of tokens before the first fork of a subtree, and the (start, end) of each subtree there."""
        inner = np.flatnonzero(self.subtree_end[start:end] < end)
        chain = int(inner[0]) if len(inner) else end - start
        children, child = [], start + chain
        while child < end:
            children.append((child, int(self.subtree_end[child])))
            child = children[-1][1]
        return chain, children


def pack(sequences: Sequence[TokenSequence], row_tokens: int, *, share: bool = True) -> list[PackedRow]:
    """Merge sequences into trees, and fill rows with them by best-fit decreasing.

    Args:
        sequences: any number, in any order; `PackedRow.owners` has their indices.
        row_tokens: the most tokens that a row may have. Sequences with a common stem (`TokenSequence.stem`) are kept
            together even if they exceed it; then they get a row of their own.
        share: false gives every sequence a row of its own, for models that cannot run trees.
    """
    if not sequences:
        return []
    if not share:
        return [_lay_out([(i, sequence)], [0]) for i, sequence in enumerate(sequences)]
    # Bytes of big-endian tokens sort as the token tuples do, and much faster.
    order = sorted(range(len(sequences)), key=lambda i: (sequences[i].inputs.astype(">u4").tobytes(), i))
    ordered = [(i, sequences[i]) for i in order]
    shared = [0] + [common_prefix(a.inputs, b.inputs) for (_, a), (_, b) in zip(ordered, ordered[1:], strict=False)]
    trunk = min(shared[1:], default=0)
    rows = _fill(_bundles([s for _, s in ordered], shared, trunk, row_tokens - trunk), row_tokens - trunk)
    return [_lay_out([ordered[k] for k in row], _prefixes(row, shared)) for row in rows]


def common_prefix(a: Ints, b: Ints) -> int:
    """The length of the common prefix of `a` and `b`."""
    length = min(len(a), len(b))
    differ = np.flatnonzero(a[:length] != b[:length])
    return int(differ[0]) if len(differ) else length


def _bundles(ordered: Sequence[TokenSequence], shared: list[int], trunk: int, room: int) -> list[tuple[int, list[int]]]:
    """Divide the sorted sequences into bundles that go into the same row: (tokens beyond the trunk, indices)."""
    bundles: list[tuple[int, list[int]]] = []
    for members in _families(ordered, shared):
        first = members[0]
        size = sum(len(ordered[k].inputs) for k in members) - sum(shared[k] for k in members[1:])
        added = size - shared[first]
        if bundles and shared[first] > trunk + MIN_SHARED and bundles[-1][0] + added <= room:
            bundles[-1] = (bundles[-1][0] + added, bundles[-1][1] + members)
        else:
            bundles.append((size - trunk, members))
    return bundles


def _families(ordered: Sequence[TokenSequence], shared: list[int]) -> list[list[int]]:
    """The indices of the sorted sequences, those with a common stem together, even where no row has room for them.

    A sequence belongs with the one before if both begin with the stem of one of the family, on either side of them.
    """
    stems, last = [sequence.stem for sequence in ordered], len(ordered) - 1
    joined = [False] * len(ordered)
    least = stems[0]
    for place in range(1, len(ordered)):
        joined[place] = shared[place] >= least
        least = min(least, stems[place]) if joined[place] else stems[place]
    least = stems[last]
    for place in range(last, 0, -1):
        back = shared[place] >= least
        joined[place] |= back
        least = min(least, stems[place - 1]) if back else stems[place - 1]
    families: list[list[int]] = []
    for place in range(len(ordered)):
        if joined[place]:
            families[-1].append(place)
        else:
            families.append([place])
    return families


def _fill(bundles: list[tuple[int, list[int]]], room: int) -> list[list[int]]:
    """Best-fit decreasing: each bundle goes where it leaves the least room. Returns the sorted indices of each row."""
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (room left, row), sorted
    for size, members in sorted(bundles, key=lambda bundle: (-bundle[0], bundle[1])):
        best = bisect_left(free, (size, -1))
        if best < len(free):
            left, row = free.pop(best)
        else:
            left, row = room, len(rows)
            rows.append([])
        rows[row].extend(members)
        insort(free, (left - size, row))
    return [sorted(row) for row in rows]


def _prefixes(row: list[int], shared: list[int]) -> list[int]:
    """How many tokens each sequence of a row shares with the one before: the minimum over those between them."""
    gaps = zip(row, row[1:], strict=False)
    return [0] + [min(shared[before + 1 : place + 1]) for before, place in gaps]


def _lay_out(row: Sequence[tuple[int, TokenSequence]], prefixes: list[int]) -> PackedRow:
    """Lay out sorted sequences depth first; `prefixes` is how many tokens each shares with the one before."""
    sizes = [len(sequence.inputs) - prefix for (_, sequence), prefix in zip(row, prefixes, strict=True)]
    total = sum(sizes)
    ids, positions, ends = (
        np.empty(total, np.int64),
        np.empty(total, np.int64),
        np.full(total, total, np.int64),
    )
    path = np.empty(0, np.int64)  # the place in the row of each token of the current sequence
    sources, targets, owners = [], [], []
    start = 0
    for (owner, sequence), prefix, size in zip(row, prefixes, sizes, strict=True):
        ends[path[prefix:]] = start
        path = np.concatenate([path[:prefix], np.arange(start, start + size)])
        ids[start : start + size] = sequence.inputs[prefix:]
        positions[start : start + size] = np.arange(prefix, prefix + size)
        sources.append(path[sequence.prompt_length - 1 :])
        targets.append(sequence.tokens[sequence.prompt_length :])
        owners.append(np.full(len(targets[-1]), owner))
        start += size
    heads, index = np.unique(np.concatenate(sources), return_inverse=True)
    return PackedRow(ids, positions, ends, heads, index, np.concatenate(targets), np.concatenate(owners))
