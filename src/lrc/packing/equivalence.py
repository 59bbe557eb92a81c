"""Tests on a small model of the same class whether a packed tree gives the same logits as separate sequences.

What a configuration declares about attention (windows, types of layer, positions) is checked in `attention`. The rest
shows only when the model runs: windows that a layer applies itself by place in the row, biases by distance, recurrent
states. The small model has the configuration of the real one except for its sizes. These include windows, so that a few
dozen tokens exceed them.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray

from lrc.packing.tree import TokenSequence, pack
from lrc.runtime.errors import first_line
from lrc.runtime.translation import _

Mask = Callable[[torch.Tensor, torch.Tensor, Any, torch.dtype], Any]

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "vocab_size": 64}
POSITIONS, LAYERS = 64, 4
SMALL, LARGE = 8, 16  # sizes of LARGE and more become SMALL, which is also the head width: some must agree with it
TOLERANCE = 1e-3  # relative to the largest logit; rounding in float32 gives 1e-6, wrong attention 1e-1
_known: dict[tuple[str, str], str | None] = {}
_verdicts: WeakKeyDictionary[Any, str | None] = WeakKeyDictionary()


def mismatch(model: Any, tree_mask: Mask) -> str | None:
    """What goes wrong with packed trees in models of this class and configuration; None if nothing does.

    The result is remembered for each class and configuration.

    Args:
        model: a causal language model; its weights are not used.
        tree_mask: `attention.tree_mask`.
    """
    if model in _verdicts:  # looking them up by configuration takes milliseconds
        return _verdicts[model]
    key = f"{type(model).__module__}.{type(model).__qualname__}", model.config.to_json_string(use_diff=False)
    if key not in _known:
        with _isolate():
            _known[key] = _try(model, tree_mask)
    _verdicts[model] = _known[key]
    return _known[key]


def _try(model: Any, tree_mask: Mask) -> str | None:
    try:
        small = _shrink_model(type(model), model.config)
    except Exception as error:  # an unknown class may raise anything
        return _("no small model of its kind could be built to test it ({reason})").format(
            reason=first_line(error, 100)
        )
    try:
        difference = _max_difference(small, tree_mask)
    except Exception as error:
        return _("a packed row cannot be run ({reason})").format(reason=first_line(error, 100))
    if not difference <= TOLERANCE:
        text = _(
            "tokens of a packed row attend, or are placed, differently than in their own sequence ({difference:.0e})"
        )
        return text.format(difference=difference)
    return None


def _max_difference(model: Any, tree_mask: Mask) -> float:
    """The largest difference of a logit between a packed row and separate sequences, over the largest logit."""
    sequences = _sequences()
    (row,) = pack(sequences, 10_000)
    positions = torch.from_numpy(row.position_ids)
    mask = tree_mask(torch.from_numpy(row.subtree_end), positions, model.config, torch.float32)
    packed = _logits(model, torch.from_numpy(row.input_ids), position_ids=positions[None], attention_mask=mask)
    differences, largest = [], []
    for owner, sequence in enumerate(sequences):
        alone = _logits(model, torch.from_numpy(sequence.tokens))[sequence.prompt_length - 1 : -1]
        places = np.sort(row.heads[row.sources[row.owners == owner]])
        differences.append((packed[places] - alone).abs().max().item())
        largest.append(alone.abs().max().item())
    return float(np.max(differences) / np.max(largest))  # NaN stays NaN


def _sequences() -> list[TokenSequence]:
    """Two trees with forks at two depths, each path longer than a small window."""
    random = np.random.default_rng(0)

    def draw(count: int) -> NDArray[np.int64]:
        return random.integers(3, SIZES["vocab_size"], count)

    made = []
    for _root in range(2):
        root = draw(9)
        for _branch in range(2):
            stem = draw(7)
            made += [TokenSequence(np.concatenate([root, stem, draw(8)]), 17) for _ in range(2)]
    return made


def _logits(model: Any, tokens: torch.Tensor, **seen: Any) -> torch.Tensor:
    if "output_router_logits" in inspect.signature(model.forward).parameters:
        seen["output_router_logits"] = False  # the router loss does not support tree masks
    return model(input_ids=tokens[None], use_cache=False, **seen).logits[0]


def _shrink_model(cls: type, config: Any) -> Any:
    """A model with random weights and small sizes."""
    small = copy.deepcopy(config)
    if small._attn_implementation not in ("sdpa", "eager"):
        small._attn_implementation = "sdpa"  # GPU kernels are not tested here
    for part in _parts(small):
        _shrink_sizes(part)
    large = [(part, name, getattr(part, name)) for part in _parts(small) for name in _large(part)]
    for part, name, before in large:
        setattr(part, name, _small(before))
    made = _try_to_make(cls, small)
    for part, name, before in large:  # one of them may have to stay as it was, such as a number of experts
        if made is None:
            setattr(part, name, before)
            made = _try_to_make(cls, small)
            setattr(part, name, before if made is not None else _small(before))
    return made if made is not None else _one_by_one(cls, small, large)


def _one_by_one(cls: type, config: Any, large: list[tuple[Any, str, Any]]) -> Any:
    """A small model in which each size is reduced only if the model still runs."""
    for part, name, before in large:
        setattr(part, name, before)
    for part, name, before in large:
        setattr(part, name, _small(before))
        if _try_to_make(cls, config) is None:
            setattr(part, name, before)
    return _make_model(cls, config)


def _try_to_make(cls: type, config: Any) -> Any:
    try:
        return _make_model(cls, config)
    except Exception:  # an unknown class may raise anything
        return None


def _make_model(cls: type, config: Any) -> Any:
    """A model with weights large enough for attention to matter.

    Raises:
        Exception: it cannot be built, or does not run a sequence with finite logits.
    """
    model = cls(copy.deepcopy(config)).float().eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=0.25)
    if not _logits(model, torch.from_numpy(_sequences()[0].tokens)).isfinite().all():
        raise ValueError("its logits are not finite")
    return model


def _parts(config: Any) -> Iterator[Any]:
    """A configuration and its sub-configurations."""
    yield config
    for name in getattr(config, "sub_configs", {}):
        if (part := getattr(config, name, None)) is not None:
            yield from _parts(part)


def _shrink_sizes(config: Any) -> None:
    heads, groups = (getattr(config, f"num_{kind}_heads", None) for kind in ("attention", "key_value"))
    for name, size in SIZES.items():
        if isinstance(getattr(config, name, None), int):
            setattr(config, name, size)
    if isinstance(groups, int) and isinstance(heads, int):
        config.num_key_value_heads = 4 if groups == heads else min(groups, 2)
    if isinstance(vars(config).get("head_dim"), int):
        config.head_dim = SMALL
    if isinstance(getattr(config, "max_position_embeddings", None), int):
        config.max_position_embeddings = POSITIONS
    if isinstance(getattr(config, "num_hidden_layers", None), int):
        kinds = getattr(config, "layer_types", None) or []
        covered = max((kinds.index(kind) + 1 for kind in set(kinds)), default=0)
        depth = min(config.num_hidden_layers, max(LAYERS, covered))
        config.num_hidden_layers = depth
        if kinds:
            config.layer_types = kinds[:depth]
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        if getattr(config, name, None) is not None:
            setattr(config, name, 0)


def _large(config: Any) -> list[str]:
    """The names of all other sizes, such as a window's."""
    known = {*SIZES, "head_dim", "max_position_embeddings", "num_hidden_layers", "num_key_value_heads"}
    known |= {config.attribute_map.get(name, name) for name in known}
    return [
        name
        for name, value in config.to_dict().items()
        if _small(value) != value and name not in known and not name.endswith("_id")
    ]


def _small(value: Any) -> Any:
    """A reduced size, or list of sizes; any other value as it is."""
    if isinstance(value, list):
        return [_small(one) for one in value]
    return SMALL if type(value) is int and value >= LARGE else value


@contextmanager
def _isolate() -> Iterator[None]:
    """Run the block on the CPU in float32, without effect on the caller's random numbers."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), torch.no_grad(), torch.device("cpu"):
        warnings.simplefilter("ignore")
        with torch.autocast("cpu", enabled=False):
            torch.manual_seed(0)
            yield
