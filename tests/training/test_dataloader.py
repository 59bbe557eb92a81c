"""Which questions make a step: all of them once an epoch, passages together, the same steps in every process."""

from __future__ import annotations

import numpy as np
import pytest
from token_trees import questions

from lrc.packing.tree import TokenSequence
from lrc.training.dataloader import StepLoader, StepSampler

PASSAGES = [k for k in range(20) for _ in range(1 + k % 4)]  # 50 questions
SHUFFLED = np.random.default_rng(0).permutation(PASSAGES).tolist()


def drawn(sampler: StepSampler) -> list[list[int]]:
    return [[question for question, _ in step] for step in sampler]


@pytest.mark.parametrize("seed", [None, 0, 1])
@pytest.mark.parametrize(("step_questions", "world_size"), [(8, 1), (4, 2), (3, 5), (64, 1), (1, 1)])
def test_every_question_once_an_epoch(seed: int | None, step_questions: int, world_size: int) -> None:
    ranks = [
        StepSampler(SHUFFLED, step_questions, rank=rank, world_size=world_size, seed=seed) for rank in range(world_size)
    ]
    steps = [drawn(sampler) for sampler in ranks]
    assert len({len(mine) for mine in steps}) == 1 and len(steps[0]) == len(ranks[0])
    assert sorted(q for mine in steps for step in mine for q in step) == list(range(50))
    for step in list(zip(*steps, strict=True))[:-1]:
        assert [len(share) for share in step] == [step_questions] * world_size


@pytest.mark.parametrize("seed", [None, 3])
def test_processes_share_the_steps_of_one(seed: int | None) -> None:
    alone = drawn(StepSampler(SHUFFLED, 8, seed=seed))
    two = [drawn(StepSampler(SHUFFLED, 4, rank=rank, world_size=2, seed=seed)) for rank in (0, 1)]
    assert [[*a, *b] for a, b in zip(*two, strict=True)] == alone


def test_questions_of_a_passage_are_drawn_together() -> None:
    order = [q for step in drawn(StepSampler(SHUFFLED, 8, seed=1)) for q in step]
    passages = [SHUFFLED[q] for q in order]
    starts = [passage for i, passage in enumerate(passages) if i == 0 or passages[i - 1] != passage]
    assert len(starts) == len(set(starts)) == 20
    assert starts != sorted(starts)


def test_an_epoch_has_its_own_order_and_repeats_it() -> None:
    sampler = StepSampler(SHUFFLED, 8, seed=1)
    first = drawn(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert drawn(sampler) != first
    assert {epoch for step in second for _, epoch in step} == {1}
    sampler.set_epoch(0)
    assert drawn(sampler) == first == drawn(StepSampler(SHUFFLED, 8, seed=1))
    assert drawn(StepSampler(SHUFFLED, 8, seed=2)) != first


def test_without_a_seed_the_order_is_that_of_the_data() -> None:
    assert [q for step in drawn(StepSampler(SHUFFLED, 8)) for q in step] == list(range(50))


def test_a_last_step_that_is_not_full_is_dropped_on_demand() -> None:
    assert [len(step) for step in StepSampler(SHUFFLED, 8)] == [8] * 6 + [2]
    assert [len(step) for step in StepSampler(SHUFFLED, 8, drop_last=True)] == [8] * 6


def loader(rank: int, world_size: int, *, share: bool = True, num_workers: int = 0) -> StepLoader:
    sequences, passages = questions()

    def draw(draw: tuple[int, int]) -> list[TokenSequence]:
        return [sequences[draw[0]]]

    sampler = StepSampler(passages, 4, rank=rank, world_size=world_size)
    return StepLoader(draw, sampler, 60, share=share, num_workers=num_workers)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_batch_has_all_its_questions_and_their_rows(num_workers: int) -> None:
    batches = list(loader(0, 1, num_workers=num_workers))
    assert [len(batch.sequences) for batch in batches] == [4, 4, 2]
    for batch in batches:
        owners = {owner for row in batch.rows for owner in row.owners.tolist()}
        assert owners == set(range(len(batch.sequences)))
        assert batch.target_count == sum(len(s.tokens) - s.prompt_length for s in batch.sequences)


def test_without_sharing_a_row_is_a_question() -> None:
    assert [len(batch.rows) for batch in loader(0, 1, share=False)] == [4, 4, 2]


def test_a_last_step_is_dealt_out_evenly() -> None:
    assert [len(list(loader(rank, 4))[0].sequences) for rank in range(4)] == [3, 3, 2, 2]


def test_a_process_without_a_question_takes_part_idly() -> None:
    batches = [list(loader(rank, 12)) for rank in range(12)]
    assert [batch.idle for (batch,) in batches] == [False] * 10 + [True] * 2
    idle = batches[-1][0]
    assert idle.target_count == 0 and len(idle.rows) == 1


def test_repacked_rows_hold_the_same_questions() -> None:
    batches = list(loader(0, 1))
    narrow = [batch.repacked(1) for batch in batches]
    assert [one.target_count for one in narrow] == [batch.target_count for batch in batches]
    assert sum(len(one.rows) for one in narrow) > sum(len(batch.rows) for batch in batches)
