"""Does a packed tree give what separate sequences give? Tried on a model of the same class that is small.

What a configuration declares of attention (windows, kinds of layer, positions) is looked at in `attention`. What it
does not declare shows here alone: windows that a layer cuts for itself by places in the row, biases by distance, states
that run through the row. The small model has the configuration of the real one in all but its sizes, and among the
sizes are those of windows, so that a few dozen tokens are more than one of them holds.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from lrc.packing.tree import TokenSequence, pack
from lrc.runtime.errors import first_line
from lrc.runtime.translation import _

Mask = Callable[[torch.Tensor, torch.Tensor, Any, torch.dtype], Any]

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "vocab_size": 64}
POSITIONS, LAYERS, SMALL, LARGE = 64, 4, 8, 16  # a head's width is SMALL, too: some sizes have to agree with it
TOLERANCE = 1e-3  # of the largest logit; float32 gives 1e-6, another attention 1e-1
_known: dict[tuple[str, str], str | None] = {}


def mismatch(model: Any, tree_mask: Mask) -> str | None:
    """How a packed tree goes wrong in models of this class and configuration; None where it does not.

    Args:
        model: a causal language model; its weights are not used.
        tree_mask: see `attention.tree_mask`.
    """
    key = f"{type(model).__module__}.{type(model).__qualname__}", model.config.to_json_string(use_diff=False)
    if key not in _known:
        with _isolate():
            _known[key] = _try(model, tree_mask)
    return _known[key]


def _try(model: Any, tree_mask: Mask) -> str | None:
    try:
        small = _shrink_model(type(model), model.config)
    except Exception as error:  # whatever a class that nobody has seen makes of a small configuration
        return _("no small model of its kind could be built to test it ({reason})").format(
            reason=first_line(error, 100)
        )
    try:
        apart = _apart(small, tree_mask)
    except Exception as error:
        return _("a packed row cannot be run ({reason})").format(reason=first_line(error, 100))
    if not apart <= TOLERANCE:
        text = _("tokens of a packed row attend, or are placed, differently than in their own sequence ({apart:.0e})")
        return text.format(apart=apart)
    return None


def _apart(model: Any, tree_mask: Mask) -> float:
    """The largest difference of a logit between a packed row and separate sequences, by the largest logit."""
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
    draw = lambda count: random.integers(3, SIZES["vocab_size"], count)  # noqa: E731
    made = []
    for _root in range(2):
        root = draw(9)
        for _branch in range(2):
            stem = draw(7)
            made += [TokenSequence(np.concatenate([root, stem, draw(8)]), 17) for _ in range(2)]
    return made


def _logits(model: Any, tokens: torch.Tensor, **seen: Any) -> torch.Tensor:
    if "output_router_logits" in inspect.signature(model.forward).parameters:
        seen["output_router_logits"] = False  # a loss that does not support tree masks
    return model(input_ids=tokens[None], use_cache=False, **seen).logits[0]


def _shrink_model(cls: type, config: Any) -> Any:
    """A model with random weights and small sizes."""
    small = copy.deepcopy(config)
    if small._attn_implementation not in ("sdpa", "eager"):
        small._attn_implementation = "sdpa"  # kernels for a GPU are not what is tried here
    for part in _parts(small):
        _shrink_sizes(part)
    large = [(part, name, getattr(part, name)) for part in _parts(small) for name in _large(part)]
    for part, name, before in large:
        setattr(part, name, _small(before))
    made = _try_to_make(cls, small)
    for part, name, before in large:  # one of them may have to be what it was, such as a number of experts
        if made is None:
            setattr(part, name, before)
            made = _try_to_make(cls, small)
            setattr(part, name, before if made is not None else _small(before))
    return made if made is not None else _one_by_one(cls, small, large)


def _one_by_one(cls: type, config: Any, large: list[tuple[Any, str, Any]]) -> Any:
    """The same with those small that can be small by themselves."""
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
    except Exception:  # whatever a class that nobody has seen makes of these sizes
        return None


def _make_model(cls: type, config: Any) -> Any:
    """A model that runs a sequence, with weights large enough for attention to matter."""
    model = cls(copy.deepcopy(config)).float().eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=0.25)
    if not _logits(model, torch.from_numpy(_sequences()[0].tokens)).isfinite().all():
        raise ValueError("its logits are not finite")
    return model


def _parts(config: Any) -> Iterator[Any]:
    """A configuration and those in it."""
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
    """Names of what else is a size, a window's among them."""
    known = {*SIZES, "head_dim", "max_position_embeddings", "num_hidden_layers", "num_key_value_heads"}
    known |= {config.attribute_map.get(name, name) for name in known}
    return [
        name
        for name, value in config.to_dict().items()
        if _small(value) != value and name not in known and not name.endswith("_id")
    ]


def _small(value: Any) -> Any:
    """A size, or one for each layer, made small; anything else as it is."""
    if isinstance(value, list):
        return [_small(one) for one in value]
    return SMALL if type(value) is int and value >= LARGE else value


@contextmanager
def _isolate() -> Iterator[None]:
    """Leave random numbers, devices and mixed precision of the caller as they are."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), torch.no_grad(), torch.device("cpu"):
        warnings.simplefilter("ignore")
        with torch.autocast("cpu", enabled=False):
            torch.manual_seed(0)
            yield
