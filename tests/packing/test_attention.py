"""What a token of a packed row may see, for each kind of layer, and which models can be given packed rows at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from oracle import log_likelihood
from small_models import FAMILIES, SIZES, WINDOW, make_model
from token_trees import VOCABULARY, questions, seen, sequence
from torch._dynamo.utils import counters
from torch.nn.attention.flex_attention import create_block_mask
from torch.utils._python_dispatch import TorchDispatchMode
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

from lrc.packing import equivalence
from lrc.packing.attention import (
    TILE,
    attention_form,
    choose_attention,
    head_mask,
    tile_mask,
    tree_mask,
    why_no_trees,
)
from lrc.packing.last_layer import prune_last_layer
from lrc.packing.log_probs import sequence_scores, target_log_probs
from lrc.packing.tree import PackedRow, TokenSequence, pack

CPU = torch.device("cpu")
SEQUENCES, _ = questions()


@pytest.fixture(autouse=True)
def _smallest_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut attention at every fork: these rows are too short to be worth it."""
    monkeypatch.setattr("lrc.packing.tree.MIN_SPARED", 1)


def mask_of(row: PackedRow, model: Any) -> Any:
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
        assert (mask["full_attention"][0, 0].numpy() == seen(row)).all()
    for place, line in enumerate(near[0, 0].numpy()):
        last = int(row.position_ids[place])
        assert row.position_ids[line].tolist() == list(range(max(0, last - WINDOW + 1), last + 1))
        assert not (line & ~seen(row)[place]).any()


@pytest.mark.parametrize("window", [1, WINDOW, 17, 10_000])
@pytest.mark.parametrize("seed", range(6))
def test_a_window_is_that_of_the_differences_of_positions(seed: int, window: int) -> None:
    row = pack(questions(2 + seed, seed=seed)[0], 10_000)[0].padded(TILE)  # the padding is after all, at position 0
    config = make_model("mistral", sliding_window=window).config
    apart = row.position_ids[:, None] - row.position_ids[None, :]
    wanted = seen(row) & (apart < window)
    ends, positions = torch.from_numpy(row.subtree_end), torch.from_numpy(row.position_ids)
    assert (tree_mask(ends, positions, config, torch.float32)[0, 0].numpy() == wanted).all()
    assert (head_mask(row, config, CPU, torch.float32)[0, 0].numpy() == wanted[row.heads]).all()


class Sizes(TorchDispatchMode):
    """The bytes of the largest tensor that is made."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **kwargs or {})
        if isinstance(made, torch.Tensor):
            self.largest = max(self.largest, made.numel() * made.itemsize)
        return made


def test_no_square_of_a_row_takes_more_than_a_byte_for_each_pair() -> None:
    row = pack(long_questions(), 2048)[0]
    config, windowed = make_model("gemma3").config, make_model("mistral").config
    with Sizes() as made:
        tree_mask(torch.from_numpy(row.subtree_end), torch.from_numpy(row.position_ids), config, torch.float32)
    assert made.largest == len(row) ** 2
    with Sizes() as made:
        head_mask(row, windowed, CPU, torch.float32)
    assert made.largest == len(row.heads) * len(row)


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
        ("falcon-alibi", "falcon computes positions itself (ALiBi)"),
        ("bloom", "bloom does not read position_ids"),
        ("mamba", "mamba has layers that are not plain attention"),
        ("gpt-neo", "gpt_neo: a packed row cannot be run"),
        (
            "undeclared-window",
            "mistral: tokens of a packed row attend, or are placed, differently than in their own sequence",
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
    assert why_no_trees(model) == "attention flex_attention does not support tree masks"
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


@pytest.fixture
def _flex_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """FlexAttention by its own reference, uncompiled, whose backward torch shuts off on a CPU."""
    monkeypatch.setattr("lrc.packing.attention.why_no_flex", lambda model, device: None)
    monkeypatch.setattr("torch.nn.attention.flex_attention._validate_device", lambda *states: None)
    with torch.compiler.set_stance("force_eager"):
        yield


def long_questions() -> list[TokenSequence]:
    """Two passages of several tiles with two questions each."""
    random = np.random.default_rng(5)

    def tokens(count: int) -> list[int]:
        return random.integers(3, VOCABULARY, count).tolist()

    system = tokens(20)
    passages = [system + tokens(300), system + tokens(170)]
    return [sequence(passage + tokens(count), tokens(3)) for passage in passages for count in (40, 150)]


def separate_step(model: Any, sequences: list[TokenSequence]) -> tuple[float, dict[str, torch.Tensor]]:
    total = 0.0
    for s in sequences:
        log_probs = model(input_ids=torch.from_numpy(s.tokens)[None]).logits[0].log_softmax(-1)
        loss = -sum(log_probs[i - 1, s.tokens[i]] for i in range(s.prompt_length, len(s.tokens)))
        loss.backward()
        total += loss.item()
    return total, taken_gradients(model)


def taken_gradients(model: Any) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("form", ["flex", "block", "dense"])
@pytest.mark.parametrize("family", ["llama", "qwen3-window", "mistral", "gemma3", "mixtral"])
@pytest.mark.parametrize("window", [WINDOW, 200])
@pytest.mark.usefixtures("_flex_on_a_cpu")
def test_every_form_gives_the_gradients_of_separate_sequences(family: str, form: str, window: int) -> None:
    settings = {} if "window" not in family and family not in ("mistral", "gemma3") else {"sliding_window": window}
    model = make_model(family, max_position_embeddings=1024, **settings).train()
    wanted, gradients = separate_step(model, long_questions())
    prune_last_layer(model)
    choose_attention(model, form, CPU)
    (row,) = pack(long_questions(), 2048)
    loss = -target_log_probs(model, row, CPU).sum()
    loss.backward()
    assert loss.item() == pytest.approx(wanted, rel=1e-5)
    for name, gradient in taken_gradients(model).items():
        assert (gradient - gradients[name]).norm() <= 1e-4 * gradients[name].norm(), name


@pytest.mark.parametrize("window", [None, 8, 140, 10_000])
def test_tiles_hold_what_torch_finds_by_looking_at_every_pair(window: int | None) -> None:
    config = make_model("mistral", sliding_window=window).config
    row = pack(long_questions(), 2048)[0].padded(TILE)
    found = tile_mask(row, config, CPU)
    wanted = create_block_mask(found.mask_mod, None, None, len(row), len(row), device="cpu")
    # A window is bounded by a tile's least and greatest position, so that a tile more may be looked at, but none less.
    exact = window in (None, 10_000)
    assert ((found.to_dense() == wanted.to_dense()) if exact else (found.to_dense() >= wanted.to_dense())).all()
    assert (found.full_kv_num_blocks <= wanted.full_kv_num_blocks).all()
    assert not exact or (found.full_kv_num_blocks == wanted.full_kv_num_blocks).all()
    assert found.full_kv_num_blocks.sum() > 0 or window in (8, 140)
    index = torch.arange(len(row))
    seen = found.mask_mod(0, 0, index[:, None], index[None])
    assert (seen == tree_mask(*map(torch.from_numpy, (row.subtree_end, row.position_ids)), config, torch.float32)).all()


def test_flex_is_refused_where_there_is_none() -> None:
    with pytest.raises(
        ValueError, match=r"attention is flex, but it has no backward pass on cpu devices; set it to auto"
    ):
        choose_attention(make_model("llama"), "flex", CPU)


@pytest.mark.parametrize(
    ("capability", "width", "dtype", "tokens", "form"),
    [
        ((7, 5), 64, "bfloat16", 4096, "block"),
        ((8, 0), 64, "bfloat16", 4096, "flex"),
        ((8, 6), 128, "float16", 4096, "flex"),
        ((8, 6), 256, "bfloat16", 4096, "block"),
        ((9, 0), 256, "bfloat16", 4096, "flex"),
        ((9, 0), 64, "bfloat16", 1024, "dense"),
        ((8, 9), 64, "float32", 4096, "flex"),
        ((8, 9), 128, "float32", 4096, "block"),  # its tiles need 145 KiB of 99
        ((12, 0), 128, "float32", 4096, "block"),
        ((8, 0), 128, "float32", 4096, "flex"),
    ],
)
def test_what_suits_a_gpu(
    capability: tuple[int, int], width: int, dtype: str, tokens: int, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: capability)
    monkeypatch.setattr("lrc.packing.attention.find_spec", lambda name: name)
    model = make_model("qwen3", head_dim=width)
    weights = model.to(getattr(torch, dtype))
    assert attention_form(weights, torch.device("cuda"), tokens) == form
    assert attention_form(model, CPU, tokens) == "block"
    choose_attention(model.float(), "auto", torch.device("cuda"), getattr(torch, dtype))  # autocast
    assert attention_form(model, torch.device("cuda"), tokens) == form


def test_attention_never_goes_to_cudnn() -> None:
    assert not torch.backends.cuda.cudnn_sdp_enabled()


def test_no_sequences_have_no_scores() -> None:
    assert sequence_scores(make_model("llama"), [], CPU, 100).tolist() == []


@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="needs a C++ compiler")
def test_compiled_flex_gives_the_scores_of_separate_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward only, which is all that torch compiles for a CPU: in layers with a window and without."""
    monkeypatch.setattr("lrc.packing.attention.why_no_flex", lambda model, device: None)
    model = make_model("gemma3", max_position_embeddings=1024, sliding_window=140).eval()
    wanted = separate_scores(model, long_questions())
    prune_last_layer(model)
    choose_attention(model, "flex", CPU)
    counters.clear()
    assert sequence_scores(model, long_questions(), CPU, 2048) == pytest.approx(wanted, abs=1e-4)
    assert counters["stats"]["unique_graphs"] > 0
