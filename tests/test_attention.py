"""What a token of a packed row may see, for each kind of layer, and which models can be given packed rows at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from oracle import log_likelihood
from small_models import FAMILIES, SIZES, WINDOW, make_model
from token_trees import VOCABULARY, questions, sequence
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTJConfig,
    GPTJForCausalLM,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from lrc import equivalence
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


class OwnWindowForCausalLM(MistralForCausalLM):
    """A model whose tokens see the three places before them and nothing else, whatever is declared and given."""

    def forward(self, input_ids: Any, attention_mask: Any = None, position_ids: Any = None, **kwargs: Any) -> Any:
        place = torch.arange(input_ids.shape[1])
        near = (place[:, None] - place < 4) & (place[:, None] >= place)
        if attention_mask is not None:
            near = near & attention_mask
        return super().forward(input_ids, near.expand(1, 1, -1, -1), position_ids, **kwargs)


def others() -> dict[str, Any]:
    torch.manual_seed(0)
    small = {"vocab_size": VOCABULARY, "hidden_size": 32, "initializer_range": 0.2}
    falcon = {**small, "num_hidden_layers": 2, "num_attention_heads": 4}
    return {
        "gpt2": GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=64)),
        "falcon": FalconForCausalLM(FalconConfig(**falcon, alibi=False)),
        "falcon-alibi": FalconForCausalLM(FalconConfig(**falcon, alibi=True)),
        "bloom": BloomForCausalLM(BloomConfig(**small, n_layer=2, n_head=4)),
        "gpt-neo": GPTNeoForCausalLM(
            GPTNeoConfig(
                **small, num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]], window_size=WINDOW
            )
        ),
        "opt": OPTForCausalLM(OPTConfig(**falcon, ffn_dim=48, word_embed_proj_dim=32, init_std=0.2)),
        "gptj": GPTJForCausalLM(GPTJConfig(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, rotary_dim=4)),
        "gemma2": Gemma2ForCausalLM(
            Gemma2Config(**falcon, intermediate_size=48, num_key_value_heads=2, head_dim=8, sliding_window=WINDOW)
        ),
        "undeclared-window": OwnWindowForCausalLM(MistralConfig(**SIZES, sliding_window=None)),
        "mamba": MambaForCausalLM(MambaConfig(**small, num_hidden_layers=2, state_size=4)),
    }


def separate_scores(model: Any, sequences: list[TokenSequence]) -> list[float]:
    cut = [(s.tokens.tolist(), s.prompt_length) for s in sequences]
    return [log_likelihood(model, (tokens[:end], tokens[end:])) for tokens, end in cut]


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


@pytest.mark.parametrize("name", others())
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
        ("gpt-neo", "gpt_neo: a packed row cannot be run"),
        (
            "undeclared-window",
            "mistral: tokens of a packed row see others, or stand elsewhere, than in their own sequence",
        ),
    ],
)
def test_what_takes_no_trees_says_why(name: str, reason: str) -> None:
    assert str(why_no_trees(others()[name])).startswith(reason)


@pytest.mark.parametrize("name", ["gpt2", "falcon", "opt", "gptj", "gemma2"])
def test_what_is_tried_and_right_takes_trees(name: str) -> None:
    assert why_no_trees(others()[name]) is None


def test_trying_leaves_no_trace() -> None:
    model = make_model("qwen3-window")
    before, state = model.config.to_json_string(use_diff=False), torch.get_rng_state()
    equivalence._known.clear()
    assert why_no_trees(model) is None and len(equivalence._known) == 1
    assert model.config.to_json_string(use_diff=False) == before and torch.equal(torch.get_rng_state(), state)


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
