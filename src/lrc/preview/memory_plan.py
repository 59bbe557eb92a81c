"""The memory plan of a run: what each device holds at the peak, part by part.

Weights and adapter are counted on a model that is built on the meta device from its configuration; activations and
logits are the peak of one row's forward and backward there (`lrc.preview.meta_model`); the rest is arithmetic. What an
accelerator's libraries take, `OVERHEAD`, is one number for all; how DeepSpeed and FSDP shard is an assumption.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from lrc.config.accelerate_config import ZERO_BUCKET, Topology
from lrc.packing.tree import PackedRow
from lrc.preview.meta_model import ModelSpec, StaticMemory, count_static_memory, form_of, peak_of_row
from lrc.runtime.translation import _
from lrc.training.optimizer import optimizer_bytes

GIB = 1024**3
# What torch's allocator reserves beyond the allocated peak, 0.91 GiB in the first run on an H100, 0.13 to 1.13 with
# seven recipes (docs/results.md), and a third of a GiB for the CUDA context, which is not measured.
OVERHEAD = GIB * 5 // 4
# On a CPU: threads, generated kernels and late imports. Measured by benchmarks/memory.py.
OVERHEAD_CPU = 20 * 10**6


@dataclass(frozen=True)
class MemoryPlan:
    """What one device holds at the peak of training, in bytes."""

    weights: int  # frozen ones
    adapter: int  # trained weights: the adapter, or all weights in full fine-tuning
    gradients: int
    optimizer: int  # its states
    activations: int
    logits: int  # at the moment of the peak
    overhead: int

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return sum(asdict(self).values())


@dataclass
class Planner:
    """Makes memory plans, and caches what was counted for them."""

    counted: dict[Any, Any] = field(default_factory=dict)

    def plan(self, build: ModelSpec, row: PackedRow, topology: Topology, optim: str) -> MemoryPlan:
        """The memory plan of one device.

        Args:
            build: the model.
            row: the largest row of the run.
            topology: the launch.
            optim: the optimizer's name in a recipe.

        Raises:
            ModelError: the adapter does not fit the model.
        """
        key = (_key(build), build.checkpointing, form_of(build, len(row)), len(row))
        if key not in self.counted:
            self.counted[key] = peak_of_row(build, row)
        activations, logits = self.counted[key]
        return replace(self.without_row(build, topology, optim), activations=activations, logits=logits)

    def without_row(self, build: ModelSpec, topology: Topology, optim: str) -> MemoryPlan:
        """The plan without activations and logits, which is much faster to make."""
        model = self.model(build)
        return MemoryPlan(
            weights=_weights(model, topology),
            adapter=_divide(model.adapter, topology, topology.shards_weights),
            gradients=_gradients(model, topology),
            optimizer=_optimizer(model, topology, optim, half=build.autocast is not None),
            activations=0,
            logits=0,
            overhead=OVERHEAD_CPU if topology.device == "cpu" else OVERHEAD,
        )

    def model(self, build: ModelSpec) -> StaticMemory:
        """What the model holds between steps, unsharded."""
        key = _key(build)
        if key not in self.counted:
            self.counted[key] = count_static_memory(build)
        found: StaticMemory = self.counted[key]
        return found


def bytes_on_device(optim: str, element_size: int = 4) -> int:
    """`optimizer_bytes` on the device: 0 for paged states, which are moved away when the device is full."""
    return 0 if "paged" in optim else optimizer_bytes(optim, element_size)


def gib(nbytes: int) -> str:
    """A number of bytes in words, in GiB or MiB: `11.30 GiB`."""
    return f"{nbytes / GIB:.2f} GiB" if nbytes >= GIB // 10 else f"{nbytes / 1024**2:.1f} MiB"


# What people call them.
PARTS: dict[str, str] = {
    "weights": _("weights"),
    "adapter": _("adapter"),
    "gradients": _("gradients"),
    "optimizer": _("optimizer"),
    "activations": _("activations"),
    "logits": _("logits"),
    "overhead": _("overhead"),
}


def parts_by_name(plan: MemoryPlan) -> dict[str, int]:
    """The parts in bytes, by name, in the order in which they are shown."""
    return {part.name: getattr(plan, part.name) for part in fields(plan)}


def _weights(model: StaticMemory, topology: Topology) -> int:
    if not topology.shards_weights:
        return model.weights
    # Layers are gathered when they are needed: one that computes, and the next one, which is prefetched.
    working = min(2 * model.largest_layer, model.weights)
    if topology.kind == "FSDP":  # accelerate has it keep the output layer from the end of forward to that of backward
        working = min(working + model.head, model.weights)
    if topology.offloads_weights:
        return working
    return model.weights // topology.processes + (working if topology.processes > 1 else 0)


def _gradients(model: StaticMemory, topology: Topology) -> int:
    own = 0 if topology.offloads_weights else _divide(model.adapter, topology, topology.shards_gradients)
    if topology.kind.startswith("ZeRO"):
        # One bucket is filled while the one before it is reduced; those in 16 bits are reduced in a copy in float32.
        return own + 2 * ZERO_BUCKET * 4
    # DDP reduces gradients in buckets of its own, which together are as large as the gradients.
    return own + (model.adapter if topology.kind == "DDP" else 0)


def _optimizer(model: StaticMemory, topology: Topology, optim: str, *, half: bool) -> int:
    if topology.offloads_optimizer:
        return 0
    element = model.adapter // max(model.trained, 1)
    each = bytes_on_device(optim, element)
    if half and topology.kind.startswith("ZeRO"):
        each += 4  # float32 master weights
    return _divide(model.trained * each, topology, topology.shards_optimizer)


def _divide(nbytes: int, topology: Topology, shared: bool) -> int:
    return -(-nbytes // topology.processes) if shared else nbytes


def _key(build: ModelSpec) -> tuple[Any, ...]:
    quantization = build.quantization
    bits = None
    if quantization:
        bits = quantization.load_in_4bit, quantization.load_in_8bit, quantization.bnb_4bit_use_double_quant
    return build.depth, bits, build.dtype, build.autocast, build.device
