"""What `pack` promises: every root-to-leaf path of a row is the separate sequence, and rows keep to their budget."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from token_trees import questions, seen, sequence

from lrc.packing.tree import PackedRow, TokenSequence, common_prefix, pack

# Three tokens and short lengths: most of what is drawn shares prefixes, is a prefix, or is the same.
TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=9)
DRAWN = st.builds(sequence, TOKENS, st.lists(st.integers(0, 2), min_size=1, max_size=4))
# Passages long enough to be kept together, with questions that differ in one token or not at all.
TRUNK = st.lists(st.integers(0, 50), min_size=10, max_size=30)
FAMILY = st.builds(
    lambda trunk, tails: [sequence(trunk + tail, [9, 1]) for tail in tails],
    TRUNK,
    st.lists(st.lists(st.integers(0, 3), min_size=0, max_size=5), min_size=1, max_size=5),
)
FAMILIES = st.lists(FAMILY, min_size=1, max_size=4).map(lambda families: [s for family in families for s in family])


def paths(row: PackedRow) -> list[tuple[int, list[int], list[int], list[tuple[int, int]]]]:
    """Of each sequence of a row: its place, the tokens and positions that its last source sees, and its targets."""
    visible, found = seen(row), []
    for owner in dict.fromkeys(row.owners.tolist()):
        mine = np.flatnonzero(row.owners == owner)
        sources = row.heads[row.sources[mine]]
        path = np.flatnonzero(visible[sources[-1]])
        pairs = list(zip(row.position_ids[sources].tolist(), row.targets[mine].tolist(), strict=True))
        found.append((owner, row.input_ids[path].tolist(), row.position_ids[path].tolist(), pairs))
    return found


def assert_separate(rows: list[PackedRow], sequences: list[TokenSequence]) -> None:
    """Every sequence stands in one row, as it is by itself."""
    seen = []
    for row in rows:
        for owner, tokens, positions, pairs in paths(row):
            whole = sequences[owner]
            length = len(whole.tokens) - 1
            assert tokens == whole.tokens[:-1].tolist()
            assert positions == list(range(length))
            assert pairs == [(i, whole.tokens[i + 1]) for i in range(whole.prompt_length - 1, length)]
            seen.append(owner)
        assert row.heads.tolist() == sorted(set(row.heads.tolist()))
    assert sorted(seen) == list(range(len(sequences)))


def assert_causal(rows: list[PackedRow]) -> None:
    """A token sees, of each position up to its own, exactly one token: its path and nothing beside it."""
    for row in rows:
        for place, line in enumerate(seen(row)):
            assert row.position_ids[line].tolist() == list(range(row.position_ids[place] + 1))
            assert line[place] and not line[place + 1 :].any()


@given(st.lists(DRAWN, max_size=12), st.integers(1, 40))
@settings(deadline=None, max_examples=300)
def test_a_path_is_the_separate_sequence(sequences: list[TokenSequence], row_tokens: int) -> None:
    rows = pack(sequences, row_tokens)
    assert_separate(rows, sequences)
    assert_causal(rows)


@given(FAMILIES, st.integers(1, 120), st.randoms())
@settings(deadline=None, max_examples=200)
def test_passages_in_any_order(sequences: list[TokenSequence], row_tokens: int, random: object) -> None:
    random.shuffle(sequences)  # type: ignore[attr-defined]
    rows = pack(sequences, row_tokens)
    assert_separate(rows, sequences)
    assert_causal(rows)


@given(st.one_of(st.lists(DRAWN, max_size=12), FAMILIES), st.integers(1, 120))
@settings(deadline=None, max_examples=200)
def test_only_a_prompt_that_is_too_long_exceeds_the_budget(sequences: list[TokenSequence], row_tokens: int) -> None:
    for row in pack(sequences, row_tokens):
        members = [sequences[owner] for owner in dict.fromkeys(row.owners.tolist())]
        of_one_prompt = min(one.prompt_length for one in members) <= min(
            (common_prefix(a.inputs, b.inputs) for a, b in combinations(members, 2)), default=len(row)
        )
        assert len(row) <= row_tokens or of_one_prompt


def test_a_question_whose_options_do_not_all_fit_gets_another_row() -> None:
    """The first option alone would fit beside the question before, with which it shares a passage."""
    passage = list(range(100, 120))
    other = TokenSequence(np.array([7, 8, 9]), 2)  # so that the passage is not what all of them begin with
    first = [TokenSequence(np.array([*passage, 1, 2, *[50 + k] * 4]), 22) for k in range(2)]
    second = [TokenSequence(np.array([*passage, 3, 4, *[60 + k] * 10]), 22) for k in range(4)]
    rows = pack([other, *first, *second], 60)
    assert sorted(len(row) for row in rows) == [28, 58 + 2]
    assert_separate(rows, [other, *first, *second])


def test_a_common_stem_keeps_sequences_together_around_others() -> None:
    """Sorted, the two in the middle begin with the stem of the outer two, but not with each other's."""
    stem = [1, 2, 3, 4, 5]
    outer = [TokenSequence(np.array([*stem, edge, *[edge] * 9, 0]), 12, stem_length=5) for edge in (6, 9)]
    inner = [TokenSequence(np.array([*stem, 7, 7, *[edge] * 9, 0]), 12, stem_length=12) for edge in (1, 2)]
    for sequences in ([*outer, *inner], [*inner, *outer], [outer[0], *inner, outer[1]]):
        rows = pack(sequences, 12)
        assert [sorted(set(row.owners.tolist())) for row in rows] == [[0, 1, 2, 3]]
        assert_separate(rows, sequences)


@given(st.lists(DRAWN, max_size=12), st.integers(1, 40))
@settings(deadline=None)
def test_without_sharing_a_row_is_one_sequence(sequences: list[TokenSequence], row_tokens: int) -> None:
    rows = pack(sequences, row_tokens, share=False)
    assert_separate(rows, sequences)
    assert [row.input_ids.tolist() for row in rows] == [s.tokens[:-1].tolist() for s in sequences]
    assert all((np.tri(len(row), dtype=bool) == seen(row)).all() for row in rows)


def assert_blocks(row: PackedRow) -> None:
    """The blocks are the row in order, and what a token sees lies in its own and in those above it."""
    blocks, reach = row.blocks(), np.zeros((len(row), len(row)), dtype=bool)
    assert sum(block.size for block in blocks) == len(row)
    spans, start = [], 0
    for block in blocks:
        span = slice(start, start + block.size)
        assert block.heads == sum(span.start <= head < span.stop for head in row.heads)
        above = [] if block.parent is None else spans[block.parent]
        spans.append([*above, span])
        for stretch in spans[-1]:
            reach[span, stretch] = True
        start = span.stop
    assert not (seen(row) & ~reach).any()


@given(st.one_of(st.lists(DRAWN, min_size=1, max_size=12), FAMILIES), st.sampled_from([0, 1, 30, 10_000]))
@settings(deadline=None, max_examples=200)
def test_blocks_hold_all_that_is_seen(sequences: list[TokenSequence], least: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lrc.packing.tree.MIN_SPARED", least)
        for row in pack(sequences, 10_000):
            assert_blocks(row)


def test_a_block_is_a_stretch_between_forks() -> None:
    system, passages = list(range(50)), [[100] * 200, [101] * 220]
    asked = [sequence(system + passage + [102 + i] * 80, [1, 2]) for passage in passages for i in range(2)]
    (row,) = pack(asked, 10_000)
    assert [(block.size, block.parent) for block in row.blocks()] == [
        (50, None),
        *[(200, 0), (81, 1), (81, 1)],
        *[(220, 0), (81, 4), (81, 4)],
    ]
    (short,) = pack([sequence(system + passages[0] + [i] * 9, [1]) for i in (104, 105)], 10_000)
    assert len(short.blocks()) == 1  # two short questions are not worth a block each


@given(FAMILIES)
@settings(deadline=None)
def test_one_row_holds_each_common_prefix_once(sequences: list[TokenSequence]) -> None:
    (row,) = pack(sequences, 10_000)
    prefixes = {tuple(s.tokens[:n].tolist()) for s in sequences for n in range(1, len(s.tokens))}
    assert len(row) == len(prefixes)


def test_nothing_gives_no_row() -> None:
    assert pack([], 100) == []
    assert pack([], 100, share=False) == []


def test_a_single_sequence() -> None:
    (row,) = pack([sequence([5, 6, 7], [8, 2])], 100)
    assert row.input_ids.tolist() == [5, 6, 7, 8]
    assert row.position_ids.tolist() == [0, 1, 2, 3]
    assert (seen(row) == np.tri(4, dtype=bool)).all()
    assert row.heads[row.sources].tolist() == [2, 3] and row.targets.tolist() == [8, 2]


def test_options_after_one_prompt_share_the_position_that_predicts() -> None:
    prompt = list(range(20))
    (row,) = pack([sequence(prompt, [50, digit]) for digit in (61, 62, 63, 64)], 100)
    assert len(row) == 21  # the prompt and the 50 before the digits, once
    assert len(row.heads) == 2
    assert row.targets.tolist() == [50, 61, 50, 62, 50, 63, 50, 64]


@pytest.mark.parametrize("row_tokens", [5, 100])
def test_identical_sequences_cost_one(row_tokens: int) -> None:
    (row,) = pack([sequence(list(range(30)), [1])] * 4, row_tokens)
    assert len(row) == 30 and row.owners.tolist() == [0, 1, 2, 3]


def test_identical_sequences_over_the_budget_cost_one_beside_others() -> None:
    long = sequence(list(range(30)), [1])
    rows = pack([long, sequence([4, 5], [6]), long], 10)
    assert sorted(len(row) for row in rows) == [2, 30]


def test_questions_of_a_passage_share_it() -> None:
    sequences, _ = questions()
    rows = pack(sequences, 10_000)
    assert sum(map(len, rows)) < 0.6 * sum(len(one.inputs) for one in sequences)


def test_questions_of_a_passage_stay_in_one_row_where_it_holds_them() -> None:
    sequences, passages = questions(8)
    rows = pack(sequences[3:], 120)
    assert len(rows) > 1
    for passage in set(passages[3:]):
        mine = {i for i, number in enumerate(passages[3:]) if number == passage}
        assert sum(bool(mine & set(row.owners.tolist())) for row in rows) == 1


def test_rows_are_well_filled() -> None:
    random = np.random.default_rng(0)
    lengths = random.integers(100, 600, 200)
    sequences = [sequence([i + 10, *random.integers(0, 9, n - 1).tolist()], [1]) for i, n in enumerate(lengths)]
    rows = pack(sequences, 1000)
    assert sum(len(row) for row in rows) == lengths.sum()
    assert len(rows) <= 1.1 * lengths.sum() / 1000 + 1
    assert min(a + b for a, b in pairwise(sorted(len(row) for row in rows))) > 1000  # no two would have fitted in one


@pytest.mark.parametrize("prompt_length", [0, 3, 4])
def test_a_sequence_needs_a_prompt_and_a_completion(prompt_length: int) -> None:
    with pytest.raises(ValueError, match=f"prompt_length is {prompt_length}, expected 1 to 2"):
        TokenSequence(np.arange(3), prompt_length)


@given(TOKENS, TOKENS)
def test_common_prefix(a: list[int], b: list[int]) -> None:
    n = common_prefix(np.array(a), np.array(b))
    assert a[:n] == b[:n]
    assert n == min(len(a), len(b)) or a[n] != b[n]
