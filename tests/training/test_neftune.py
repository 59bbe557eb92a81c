"""NeftuneNoise on the embeddings: of each sample's own strength in a packed row, and while training only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from one_step import config, tree_step, tree_trainer
from small_models import adapted, make_model
from token_trees import questions, seen

from lrc.packing.tree import pack
from lrc.training.neftune import NeftuneNoise, sample_lengths
from lrc.training.trainer import Packing

ALPHA = 5.0


@pytest.mark.parametrize("share", [True, False], ids=["shared", "a row each"])
def test_lengths_are_those_of_the_longest_sample_through_a_token(share: bool) -> None:
    sequences, _ = questions()
    for row in pack(sequences, 4096, share=share):
        wanted = np.zeros(len(row), dtype=int)
        for owner in set(row.owners.tolist()):
            last = max(row.heads[row.sources[row.owners == owner]])
            on_path = seen(row)[last]
            assert len(sequences[owner].inputs) == on_path.sum()
            wanted[on_path] = np.maximum(wanted[on_path], len(sequences[owner].tokens))
        assert sample_lengths(row).tolist() == wanted.tolist()


def test_each_token_gets_the_noise_of_its_sample() -> None:
    model, (sequences, _) = make_model("llama"), questions()
    (row,) = pack(sequences, 4096)
    embed, ids = model.get_input_embeddings(), torch.from_numpy(row.input_ids)[None]
    plain = embed(ids)
    noise = NeftuneNoise(model, ALPHA)
    noise.set_row(row, torch.device("cpu"))
    drawn = torch.stack([(embed(ids) - plain)[0] for _ in range(50)]).detach()
    reach = ALPHA / torch.from_numpy(sample_lengths(row) * plain.shape[-1]).sqrt()
    largest = drawn.abs().amax(dim=(0, 2))
    assert bool((largest <= reach * 1.001).all()) and bool((largest > reach * 0.97).all())
    assert len(set(reach.tolist())) > 1
    model.eval()
    assert torch.equal(embed(ids), plain)


def loss_and_evaluation(folder: Path, **settings: Any) -> tuple[float, torch.Tensor]:
    """The first training loss, and what the untrained model is worth in evaluation mode."""
    sequences, passages = questions()
    made = tree_trainer(
        adapted(make_model("llama")), sequences, passages, config(folder, learning_rate=0.0, **settings)
    )
    loss, _ = tree_step(made)
    embed = made.model.eval().get_input_embeddings()
    return loss, embed(torch.arange(9)[None])


def test_it_acts_in_training_and_not_in_evaluation(tmp_path: Path) -> None:
    plain, before = loss_and_evaluation(tmp_path / "plain")
    noisy, after = loss_and_evaluation(tmp_path / "noisy", neftune_noise_alpha=ALPHA)
    again, _ = loss_and_evaluation(tmp_path / "again", neftune_noise_alpha=ALPHA)
    assert abs(noisy - plain) > 1e-3 and noisy == again
    assert torch.equal(before, after)


def test_a_step_has_this_noise_and_none_of_upstreams(tmp_path: Path) -> None:
    """Upstream's hook would add noise for a whole row, on top of it."""
    (sequences, passages), model = questions(), adapted(make_model("llama"))
    args = config(tmp_path, learning_rate=0.0, neftune_noise_alpha=ALPHA)
    made = tree_trainer(model, sequences, passages, args, packing=Packing(trees=False))
    rows: list[tuple[torch.Tensor, torch.Tensor]] = []
    embed, first = model.get_input_embeddings(), model.get_base_model().model.layers[0]
    embed.register_forward_pre_hook(lambda module, given: rows.append((given[0], given[0])))
    first.register_forward_pre_hook(lambda module, given: rows.append((rows.pop()[0], given[0].detach())))
    made.train()
    assert len(rows) == 8
    for ids, states in rows:
        noise = (states - embed.weight.detach()[ids]).abs().max()
        reach = ALPHA / ((ids.numel() + 1) * states.shape[-1]) ** 0.5  # a sample's last token is not in its row
        assert 0.97 * reach < noise <= 1.001 * reach
