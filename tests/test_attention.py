"""What a token of a packed row may see, for each kind of layer, and which models can be given packed rows at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from small_models import FAMILIES, WINDOW, make_model
from token_trees import VOCABULARY, questions, sequence
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    MambaConfig,
    MambaForCausalLM,
)

from lrc.attention import tree_mask, why_no_trees
from lrc.lastlayer import prune_last_layer
from lrc.likelihood import sequence_scores
from lrc.tree import Row, TokenSequence, pack

CPU = torch.device("cpu")
SEQUENCES, _ = questions()


@pytest.fixture(autouse=True)
def _smallest_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut attention at every fork: these rows are too short to be worth it."""
    monkeypatch.setattr("lrc.tree.MIN_SPARED", 1)


def mask_of(row: Row, model: Any) -> Any:
    return tree_mask(torch.from_numpy(row.subtree_end), torch.from_numpy(row.position_ids), model.config, torch.float32)


def others() -> dict[str, Any]:
    torch.manual_seed(0)
    small = {"vocab_size": VOCABULARY, "hidden_size": 32, "initializer_range": 0.2}
    falcon = {**small, "num_hidden_layers": 2, "num_attention_heads": 4}
    return {
        "gpt2": GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=64)),
        "falcon": FalconForCausalLM(FalconConfig(**falcon, alibi=False)),
        "falcon-alibi": FalconForCausalLM(FalconConfig(**falcon, alibi=True)),
        "bloom": BloomForCausalLM(BloomConfig(**small, n_layer=2, n_head=4)),
        "mamba": MambaForCausalLM(MambaConfig(**small, num_hidden_layers=2, state_size=4)),
    }


@torch.inference_mode()
def separate_scores(model: Any, sequences: list[TokenSequence]) -> list[float]:
    scores = []
    for s in sequences:
        log_probs = model(input_ids=torch.from_numpy(s.tokens)[None]).logits[0].log_softmax(-1)
        scores.append(sum(log_probs[i - 1, s.tokens[i]].item() for i in range(s.prompt_length, len(s.tokens))))
    return scores


def test_two_branches_see_their_prompt_and_not_each_other() -> None:
    (row,) = pack([sequence([1, 2, 3], [4, 5]), sequence([1, 2, 6], [7])], 100)
    assert row.input_ids.tolist() == [1, 2, 3, 4, 6]
    mask = mask_of(row, make_model("llama"))
    assert mask.shape == (1, 1, 5, 5) and mask.dtype == torch.bool
    wanted = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 0, 0, 1]]
    assert mask[0, 0].int().tolist() == wanted


def test_eager_attention_gets_a_mask_to_add() -> None:
    row = pack(SEQUENCES, 10_000)[0]
    seen = mask_of(row, make_model("llama"))
    added = mask_of(row, make_model("llama", attention="eager"))
    assert added.dtype == torch.float32
    assert (added[seen] == 0).all() and (added[~seen] == torch.finfo(torch.float32).min).all()


@pytest.mark.parametrize(("family", "kinds"), [("mistral", None), ("gemma3", 2), ("qwen3-window", 2)])
def test_a_window_counts_positions_along_the_path(family: str, kinds: int | None) -> None:
    row = pack(SEQUENCES, 10_000)[0]
    mask = mask_of(row, make_model(family))
    near = mask if kinds is None else mask["sliding_attention"]
    if kinds:
        assert mask.keys() == {"full_attention", "sliding_attention"}
        assert (mask["full_attention"][0, 0].numpy() == row.visible()).all()
    for place, line in enumerate(near[0, 0].numpy()):
        last = int(row.position_ids[place])
        assert row.position_ids[line].tolist() == list(range(max(0, last - WINDOW + 1), last + 1))
        assert not (line & ~row.visible()[place]).any()


@pytest.mark.parametrize("family", FAMILIES)
def test_known_families_take_trees(family: str) -> None:
    assert why_no_trees(make_model(family)) is None


@pytest.mark.parametrize("name", ["gpt2", "falcon", "falcon-alibi", "bloom", "mamba"])
def test_any_other_model_scores_as_it_does_by_itself(name: str) -> None:
    model = others()[name].eval()
    wanted = separate_scores(model, SEQUENCES)
    prune_last_layer(model)
    assert sequence_scores(model, SEQUENCES, CPU, 1000) == pytest.approx(wanted, abs=1e-4)
    assert np.std(wanted) > 0.1


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("falcon-alibi", "falcon counts positions by itself (ALiBi)"),
        ("bloom", "bloom does not read position_ids"),
        ("mamba", "mamba has layers that are not plain attention"),
    ],
)
def test_what_takes_no_trees_says_why(name: str, reason: str) -> None:
    assert why_no_trees(others()[name]) == reason


def test_attention_without_a_tree_mask_keeps_its_last_layer_whole() -> None:
    model = make_model("llama", attention="flex_attention")
    assert why_no_trees(model) == "attention flex_attention takes no tree mask"
    assert prune_last_layer(model) == "the last layer of llama is computed at every position"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pruned", [False, True])
def test_scores_are_those_of_separate_sequences(family: str, pruned: bool) -> None:
    model = make_model(family).eval()
    wanted = separate_scores(model, SEQUENCES)
    if pruned:
        whole = "the last layer of mixtral is computed at every position" if family == "mixtral" else None
        assert prune_last_layer(model) == whole
    for row_tokens in (1, 60, 10_000):
        assert sequence_scores(model, SEQUENCES, CPU, row_tokens) == pytest.approx(wanted, abs=1e-4)


def test_no_sequences_have_no_scores() -> None:
    assert sequence_scores(make_model("llama"), [], CPU, 100).tolist() == []
