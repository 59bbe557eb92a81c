"""Decides where the weights of a model for answering go: on one GPU, over all GPUs of the machine, or in 4 bits.

One GPU is used if it has room: the first, or else the one with the most free memory. If a model is spread over several,
everything but the decoder layers goes to the latter, where the questions are; so does the last decoder layer, which
runs only at the positions whose logits are needed.

The processes of a launch have a copy each, on a GPU of their own. If one of the GPUs has no room for it, all copies are
in 4 bits, so that a question gets the same answer in every process.

Weights that are quantized on the disk are counted as they are there, or in 16 bits if loading dequantizes them. What
certainly fits nowhere is refused before anything is loaded.
"""

from __future__ import annotations

import platform
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from lrc.models.stored_quantization import StoredQuantization
from lrc.models.weights import TensorSpec, WeightFiles
from lrc.runtime.cards import CARDS
from lrc.runtime.errors import MachineError, ModelError
from lrc.runtime.memory import available_memory, format_size, free_swap
from lrc.runtime.system import WINDOWS
from lrc.runtime.translation import _, alternatives

ROOM = 0.9  # of a GPU's free memory is used for weights; the rest is for activations
FOUR_BITS = 0.5 + 4 / 64  # bytes per weight of NF4, with a float32 scale for each 64 weights
SURE = 0.9  # of the bytes of files that are quantized is in memory, too; the rest may be tables that are not kept
CLOSE = _("close other programs")
FOUR = _("give --load-in-4bit")
ALONE = _("start it without a launcher, which divides it over all GPUs")
SMALLER = _("use an adapter of a smaller base")
EITHER = _("{words}, or {last}")
IN_FOUR_BITS = _("{lacks}; loading in 4 bits (--no-load-in-4bit turns this off)")


@dataclass(frozen=True)
class ModelPart:
    """A module that is placed as a whole."""

    name: str
    nbytes: int  # of its weights
    is_layer: bool  # whether it is a decoder layer


@dataclass(frozen=True)
class Placement:
    """How a model is loaded."""

    four_bits: bool = False
    device_map: dict[str, int] | None = None  # None puts it on GPU `first`
    first: int = 0  # the GPU to which the questions go
    notice: str = ""  # what to tell the user

    @property
    def gpus(self) -> list[int]:
        """The GPUs that have a part of the model, in ascending order."""
        return sorted({self.first, *(self.device_map or {}).values()})


@dataclass(frozen=True)
class Weights:
    """The weights of a model, as they are when it is loaded.

    Args:
        config: the model's configuration.
        dtype: of weights that are not quantized.
        quantization: how they are quantized when they are loaded.
        folder: has the model's files, if these are quantized.
    """

    config: Any
    dtype: torch.dtype
    quantization: BitsAndBytesConfig | None = None
    folder: Path | None = None

    @property
    def is_whole(self) -> bool:
        """Whether they are not quantized in any way."""
        return self.quantization is None and StoredQuantization.of(self.config) is None

    def in_four_bits(self) -> Weights:
        """The same, quantized to 4 bits when they are loaded."""
        return replace(self, quantization=BitsAndBytesConfig(load_in_4bit=True))

    def parts(self, *, least: bool = False) -> list[ModelPart]:
        """The modules that are placed as a whole, with their bytes.

        Args:
            least: count only what they take for sure. Otherwise, the scales of quantized weights are included, too.
        """
        stored = StoredQuantization.of(self.config)
        if stored is not None and not stored.is_dequantized and self.folder is not None:
            return _stored_parts(self.config, self.dtype, self.folder, stored, SURE if least else 1.0)
        return list(list_parts(self.config, self.dtype, _bits(self.quantization), scales=not least))


def place_model(name: str, weights: Weights, *, may_quantize: bool) -> Placement:
    """Find room on the CUDA GPUs of this machine.

    Args:
        name: the model's, for messages.
        weights: of the model, quantized as was asked for.
        may_quantize: whether 4 bits may be used if the weights do not fit otherwise.

    Returns:
        The placement. If the weights leave less than the usual room for activations, it is tried nevertheless.

    Raises:
        MachineError: the weights alone take more than there is, by a count that leaves out what may be smaller.
    """
    free = [torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count())]
    roomiest = max(range(len(free)), key=free.__getitem__)  # on a tie, the first
    whole = weights.parts()
    needed = _total(whole)
    if needed <= ROOM * free[0]:
        return Placement()
    sizes = {"needed": format_size(needed), "free": format_size(free[0])}
    lacks = _("its weights take {needed}, and the GPU has {free} free").format(**sizes)
    if len(free) > 1:
        lacks = _("its weights take {needed}, and GPU 0 has {free} free").format(**sizes)
    if needed <= ROOM * free[roomiest]:
        text = _("{lacks}: GPU {roomiest} is used, with {free} free")
        notice = text.format(lacks=lacks, roomiest=roomiest, free=format_size(free[roomiest]))
        return Placement(first=roomiest, notice=notice)
    if found := spread(whole, free, roomiest):
        text = _("{lacks}: they are divided over {count} GPUs")
        notice = text.format(lacks=lacks, count=len(set(found.values())))
        return Placement(device_map=found, first=roomiest, notice=notice)
    told = IN_FOUR_BITS.format(lacks=lacks) if may_quantize else ""
    first, device_map = _place_last(name, weights, free, roomiest, may_quantize=may_quantize)
    return Placement(may_quantize, device_map, first, told)


def _place_last(
    name: str, weights: Weights, free: Sequence[int], roomiest: int, *, may_quantize: bool
) -> tuple[int, dict[str, int] | None]:
    """`first` and `device_map` of a model without room as it is; in 4 bits, if it may be quantized."""
    last = weights.in_four_bits() if may_quantize else weights
    parts = last.parts()
    if _total(parts) <= ROOM * free[roomiest]:
        return roomiest, None
    least = last.parts(least=True)
    if (found := spread(parts, free, roomiest)) or _total(least) <= free[roomiest]:
        return roomiest, found
    for first in range(len(free)):
        if found := spread(least, free, first, share=1.0):
            return first, found
    if _may_exceed():
        return roomiest, None
    text = _("GPU {index} has {free} free")
    places = [text.format(index=index, free=format_size(each)) for index, each in enumerate(free)]
    ways = _ways(weights, _total(parts), may_quantize=may_quantize)
    raise _too_large(name, weights, places, ways, may_quantize=may_quantize)


def place_copies(name: str, weights: Weights, free: Sequence[int], *, may_quantize: bool) -> Placement:
    """Decide on 4 bits for all processes of a launch, each of which has a copy on its own GPU.

    Args:
        name: the model's, for messages.
        weights: of the model, quantized as was asked for.
        free: bytes of free memory of each process's GPU.
        may_quantize: whether 4 bits may be used if a copy does not fit otherwise.

    Raises:
        MachineError: the weights alone take more than one of the GPUs has, counted as by `place_model`.
    """
    needed = _total(weights.parts())
    least = min(free)
    if needed <= ROOM * least:
        return Placement()
    has = {"number": free.index(least), "free": format_size(least)}
    last = weights.in_four_bits() if may_quantize else weights
    if _total(last.parts(least=True)) > least and not _may_exceed():
        place = _("the GPU of process {number} has {free} free").format(**has)
        alone: list[str] = [ALONE] if torch.cuda.device_count() > 1 else []
        ways = [*alone, *_ways(weights, _total(last.parts()), may_quantize=may_quantize)]
        raise _too_large(name, weights, [place], ways, may_quantize=may_quantize)
    if not may_quantize:
        return Placement()
    lacks = _("its weights take {needed}, and the GPU of process {number} has {free} free")
    return Placement(True, notice=IN_FOUR_BITS.format(lacks=lacks.format(needed=format_size(needed), **has)))


def check_main_memory(name: str, weights: Weights, *, mapped: bool) -> str:
    """Look whether a model fits the memory of this machine.

    Args:
        name: the model's, for messages.
        weights: of the model, quantized as was asked for.
        mapped: whether weights stay in their files, and are read from there again when memory is short.

    Returns:
        What to tell the user, if anything.

    Raises:
        MachineError: the weights alone take more than is available, counted as by `place_model`, swap space included.
    """
    needed, free = _total(weights.parts(least=True)), available_memory()
    if needed <= free:
        return ""
    sizes = {"needed": format_size(needed), "free": format_size(free)}
    if not mapped and needed <= free + free_swap():
        return _("its weights take {needed}, and {free} of memory are free: swap space is used").format(**sizes)
    if mapped:
        text = _("its weights take {needed}, and {free} of memory are free: they are read again and again")
        return text.format(**sizes)
    ways = [CLOSE, *([FOUR] if weights.is_whole else []), SMALLER]
    text = _("{name}: its weights take {needed}, and {free} of memory are free; {ways}")
    raise MachineError(text.format(name=name, **sizes, ways=alternatives(ways, EITHER)))


def _too_large(
    name: str, weights: Weights, places: Iterable[str], ways: Sequence[str], *, may_quantize: bool
) -> MachineError:
    """The refusal of a model that fits nowhere: its sizes, what is free in which places, and what could be done."""
    needed = {"needed": format_size(_total(weights.parts())), "dtype": str(weights.dtype).removeprefix("torch.")}
    sizes = _("its weights take {needed}").format(**needed)
    if may_quantize:
        small = format_size(_total(weights.in_four_bits().parts()))
        sizes = _("its weights take {needed} in {dtype} and {small} in 4 bits").format(**needed, small=small)
    text = _("{name}: {sizes}, and {places}; {ways}")
    return MachineError(text.format(name=name, sizes=sizes, places=tuple(places), ways=alternatives(ways, EITHER)))


def _ways(weights: Weights, needed: int, *, may_quantize: bool) -> list[str]:
    """What else could be done with a model that fits nowhere; `needed` bytes would have to fit."""
    ways = []
    if weights.is_whole and not may_quantize:
        ways.append(_("leave --no-load-in-4bit out"))
    large = [card for card in CARDS if needed <= ROOM * card.memory]
    if large:
        text = _("use a card such as {card}, or several")
        ways.append(text.format(card=min(large, key=lambda card: card.memory).name))
    else:
        ways.append(_("use several cards"))
    if weights.is_whole and _total(replace(weights, dtype=torch.float32).parts()) <= available_memory():
        ways.append(_("answer on the CPU with CUDA_VISIBLE_DEVICES=-1"))
    return [*ways, SMALLER]


def _may_exceed() -> bool:
    """Whether a GPU may hold more than torch says is free.

    On Windows, and so under WSL, the driver takes memory of the host if need be. And what shares the memory of the host
    counts what the system caches as taken.
    """
    if WINDOWS or "microsoft" in platform.release().lower():
        return True
    found = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return any(getattr(card, "is_integrated", False) for card in found)


def _total(parts: Iterable[ModelPart]) -> int:
    return sum(part.nbytes for part in parts)


def _bits(quantization: BitsAndBytesConfig | None) -> int:
    return 16 if quantization is None else 4 if quantization.load_in_4bit else 8


def spread(
    whole: Sequence[ModelPart], free: Sequence[int], roomiest: int = 0, share: float = ROOM
) -> dict[str, int] | None:
    """Spread a model over GPUs, neighbouring layers together.

    Args:
        whole: its parts, with decoder layers in order.
        free: bytes of free memory of each GPU.
        roomiest: the GPU for everything but the layers, for the last layer, and for as many of the first as fit.
        share: of the free memory is used.

    Returns:
        The GPU of each part, by name; None if there is no room.
    """
    layers = [part for part in whole if part.is_layer]
    fixed = [part for part in whole if not part.is_layer] + layers[-1:]
    room = [share * nbytes for nbytes in free]
    room[roomiest] -= sum(part.nbytes for part in fixed)
    if room[roomiest] < 0:
        return None
    places = dict.fromkeys((part.name for part in fixed), roomiest)
    order = [roomiest, *(gpu for gpu in range(len(free)) if gpu != roomiest)]
    for layer in layers[:-1]:
        while order and room[order[0]] < layer.nbytes:
            del order[0]
        if not order:
            return None
        room[order[0]] -= layer.nbytes
        places[layer.name] = order[0]
    return places


def list_parts(config: Any, dtype: torch.dtype, bits: int, *, scales: bool = True) -> Iterator[ModelPart]:
    """The modules that are placed as a whole, with the bytes of their weights.

    Args:
        config: the model's configuration.
        dtype: of weights that are not quantized.
        bits: 4 or 8 if bitsandbytes quantizes the linear layers of the decoder; otherwise 16.
        scales: count those of weights in 4 bits, too; nested ones are smaller.
    """
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    counted: set[int] = set()
    each = {4: FOUR_BITS if scales else 0.5, 8: 1.0}.get(bits)
    layers = getattr(model.get_decoder(), "layers", None)  # without them the model is one part

    def walk(name: str, module: Any) -> Iterator[ModelPart]:
        if module is layers:
            for number, layer in enumerate(layers):
                yield ModelPart(f"{name}.{number}", _nbytes(layer, each, counted), True)
        elif layers is not None and any(inner is layers for inner in module.modules()):
            for child, inner in module.named_children():
                yield from walk(f"{name}.{child}" if name else child, inner)
        else:
            yield ModelPart(name, _nbytes(module, None, counted), False)

    yield from walk("", model)


def _nbytes(module: Any, each: float | None, counted: set[int]) -> int:
    """The bytes of a module's weights, without those in `counted`, to which they are added.

    Args:
        module: its linear layers may be quantized.
        each: bytes of a quantized weight; None if none is quantized.
        counted: the ids of parameters; is changed.
    """
    total = 0.0
    for owner in module.modules():
        for parameter in owner.parameters(recurse=False):
            if id(parameter) in counted:
                continue
            counted.add(id(parameter))
            quantized = each is not None and isinstance(owner, torch.nn.Linear) and parameter.dim() == 2
            total += parameter.numel() * each if each is not None and quantized else parameter.nbytes
    return int(total)


def _stored_parts(
    config: Any, dtype: torch.dtype, folder: Path, stored: StoredQuantization, share: float
) -> list[ModelPart]:
    """The modules of a model whose files are quantized, with the bytes that they have there.

    Args:
        config: the model's configuration.
        dtype: to which weights that are not quantized are cast.
        folder: has the files.
        stored: how they are quantized.
        share: of the bytes is counted.
    """
    whole = list(list_parts(config, dtype, 16))
    try:
        specs = WeightFiles(folder).specs
    except ModelError:  # of a format that only its own library reads; other damage is told when the files are loaded
        return list(list_parts(config, dtype, stored.bits if stored.bits in (4, 8) else 4, scales=share == 1))
    # Without what is tied to another part.
    marks = {f".{part.name}." if part.name else ".": part.name for part in whole if part.nbytes}
    sizes = dict.fromkeys((part.name for part in whole), 0)
    for name, spec in specs.items():
        if (mark := next((mark for mark in marks if mark in f".{name}"), None)) is not None:
            sizes[marks[mark]] += _loaded_bytes(name, spec, dtype)
    if not all(sizes[part.name] for part in whole if part.is_layer):  # the files have other names
        ratio = min(sum(spec.nbytes for spec in specs.values()) / _total(whole), 1.0)
        sizes = {part.name: int(ratio * part.nbytes) for part in whole}
    return [replace(part, nbytes=int(share * sizes[part.name])) for part in whole]


def _loaded_bytes(name: str, spec: TensorSpec, dtype: torch.dtype) -> int:
    """The bytes of a tensor when it is loaded: a weight that is not quantized is cast, all else is as it is stored."""
    whole = name.endswith((".weight", ".bias")) and spec.dtype.is_floating_point and spec.dtype.itemsize > 1
    return prod(spec.shape) * dtype.itemsize if whole else spec.nbytes
