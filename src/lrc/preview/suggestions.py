"""Finds the cheapest change of a recipe with which a run fits, by making memory plans for several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from transformers import BitsAndBytesConfig

from lrc.config.accelerate_config import Topology
from lrc.packing.tree import PackedRow
from lrc.preview.memory_plan import MemoryPlan, Planner, bytes_on_device
from lrc.preview.meta_model import ModelSpec
from lrc.runtime.translation import _

EIGHT_BIT = "adamw_8bit"
PROCESSES = (2, 4, 8)


@dataclass(frozen=True)
class Setting:
    """Everything on which the memory of a run depends."""

    build: ModelSpec
    topology: Topology
    optim: str
    row_tokens: int
    row_of: Callable[[int], PackedRow]  # returns the largest row for a token budget
    changes: tuple[str, ...] = ()  # the changes made so far, as lines of a recipe

    def changed(self, change: str, **fields: object) -> Setting:
        """A copy with other values for some fields, and one more line in `changes`."""
        return replace(self, changes=(*self.changes, change), **fields)  # type: ignore[arg-type]


Change = Callable[[Setting], Iterator[Setting]]


@dataclass(frozen=True)
class Suggestion:
    """Changes with which a run fits, and its memory plan then."""

    changes: tuple[str, ...]
    plan: MemoryPlan


def suggest_changes(setting: Setting, capacity: int, planner: Planner) -> Suggestion | None:
    """Try changes, the cheapest first: each by itself, then all of them cumulatively.

    Args:
        setting: of a run that does not fit.
        capacity: bytes of a device.
        planner: makes the plans.

    Returns:
        The first that fits; None if none does.
    """
    for way in CHANGES:
        if found := _first(way(setting), capacity, planner):
            return found
    together = setting
    for way in CHANGES:
        tried: list[Setting] = []
        for candidate in way(together):
            tried.append(candidate)
            if found := _first([candidate], capacity, planner):
                return found
        together = tried[-1] if tried else together
    return None


def plan_of(setting: Setting, planner: Planner) -> MemoryPlan:
    """The memory plan of a setting."""
    return planner.plan(setting.build, setting.row_of(setting.row_tokens), setting.topology, setting.optim)


def _first(candidates: Iterable[Setting], capacity: int, planner: Planner) -> Suggestion | None:
    """The first setting that fits, as a suggestion; those that do not fit even without a row are not planned."""
    for candidate in candidates:
        if planner.without_row(candidate.build, candidate.topology, candidate.optim).total > capacity:
            continue
        plan = plan_of(candidate, planner)
        if plan.total <= capacity:
            return Suggestion(candidate.changes, plan)
    return None


def _checkpointing(setting: Setting) -> Iterator[Setting]:
    if not setting.build.checkpointing:
        build = replace(setting.build, checkpointing=True)
        yield setting.changed("gradient_checkpointing: true", build=build)


def _smaller_rows(setting: Setting) -> Iterator[Setting]:
    budget, length = setting.row_tokens, len(setting.row_of(setting.row_tokens))
    while budget > 64:
        budget //= 2
        shorter = len(setting.row_of(budget))
        if shorter < length:
            yield setting.changed(f"row_tokens: {budget}", row_tokens=budget)
        elif budget < length:
            return  # a single question is longer than the budget
        length = shorter


def _eight_bit_optimizer(setting: Setting) -> Iterator[Setting]:
    where = setting.topology
    if where.device == "cpu" or where.kind == "FSDP" or where.offloads_optimizer:  # where bitsandbytes' do not work
        return
    if bytes_on_device(setting.optim) > bytes_on_device(EIGHT_BIT):
        yield setting.changed(f"optim: {EIGHT_BIT}", optim=EIGHT_BIT)


def _four_bit(setting: Setting) -> Iterator[Setting]:
    quantization = setting.build.quantization
    if setting.build.adapter is None or quantization is not None and quantization.load_in_4bit:
        return
    dtype = setting.build.dtype if setting.build.dtype != torch.float64 else torch.float32
    nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    yield setting.changed("load_in_4bit: true", build=replace(setting.build, quantization=nf4))


def _more_devices(setting: Setting) -> Iterator[Setting]:
    now = setting.topology
    if now.device == "cpu":
        return
    for processes in PROCESSES:
        if processes > now.processes or not now.shards_weights and processes == now.processes:
            divided = Topology("fsdp", "FSDP", processes, now.device, True, True, True)
            yield setting.changed(
                _("fsdp or deepspeed_zero3 on {count} devices").format(count=processes), topology=divided
            )


def _smaller_base(setting: Setting) -> Iterator[Setting]:
    """A base of the same width with fewer layers, from large to small."""
    depth = setting.build.depth
    for eighths in (6, 4, 3, 2, 1):
        layers = depth * eighths // 8
        if 0 < layers < depth:
            small = setting.build.of_depth(layers)
            text = _("a smaller base: {layers} such layers rather than {depth}")
            yield setting.changed(text.format(layers=layers, depth=depth), build=small)


CHANGES: tuple[Change, ...] = (
    _checkpointing,
    _smaller_rows,
    _eight_bit_optimizer,
    _four_bit,
    _more_devices,
    _smaller_base,
)
