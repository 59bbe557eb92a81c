"""PiSSA (Meng et al. 2024): the adapter starts as the principal components of the base, which keeps the residual.

PEFT computes the decomposition. The base is changed in memory only: what is saved, checkpoints included, is an ordinary
LoRA of twice the rank on the original base, BA - B₀A₀ = [B, -B₀][A; A₀]. So merging and answering treat it like any
other, and its two halves are all that a resumed run needs: A₀ and B₀ are read from them and never computed again,
because another machine may find other components.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import torch
from peft import set_peft_model_state_dict
from peft.tuners.lora import Linear, LoraLayer
from safetensors.torch import load, load_file, save_file

from lrc.models.adapter import ADAPTER_NAME
from lrc.models.weights import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from lrc.runtime.errors import RecipeError
from lrc.runtime.translation import _

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Pissa:
    """The initial adapter of a run with PiSSA: A₀ and B₀ of every layer, by their names in an adapter's file."""

    start: Tensors

    @classmethod
    def begin(cls, model: Any, method: str, checkpoint: Path | None = None) -> Pissa:
        """Initialize the adapter in a model with PiSSA, and subtract it from the base.

        Args:
            model: a PEFT model with a new LoRA adapter; it is changed.
            method: `pissa`, or `pissa_niter_N` for fast SVD with N iterations.
            checkpoint: the folder of a resumed run, from which A₀ and B₀ are read; `load` reads the trained weights.

        Raises:
            RecipeError: a layer cannot be initialized so, or the checkpoint was not trained with PiSSA.
        """
        saved = load_file(checkpoint / ADAPTER_WEIGHTS) if checkpoint else None
        start: Tensors = {}
        for name, layer in _layers(model):
            original = layer.get_base_layer().weight.data
            if saved is None:
                layer.pissa_init(ADAPTER_NAME, method)
            else:
                _put(layer, name, saved, str(checkpoint))
            delta = layer.get_delta_weight(ADAPTER_NAME)
            layer.get_base_layer().weight.data = (original.float() - delta).to(original.dtype)
            start |= {key: matrix.data.detach().clone().cpu() for key, matrix in _matrices(name, layer).items()}
        return cls(start)

    def convert(self, folder: Path) -> None:
        """Convert the adapter that PEFT saved in a folder to an ordinary LoRA on the original base."""
        saved = load((folder / ADAPTER_WEIGHTS).read_bytes())  # Windows replaces no file that is mapped into memory
        converted = {name: self._double(name, tensor).contiguous() for name, tensor in saved.items()}
        save_file(converted, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
        path = folder / ADAPTER_CONFIG
        settings = _double_ranks(json.loads(path.read_text(encoding="utf-8")))
        path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    def load(self, model: Any, folder: Path) -> None:
        """Load the trained adapter from a converted one, such as that of a checkpoint of this run."""
        saved = load_file(folder / ADAPTER_WEIGHTS)
        halves = {name: _halves(name, tensor)[0] if name in self.start else tensor for name, tensor in saved.items()}
        set_peft_model_state_dict(model, halves, adapter_name=ADAPTER_NAME)

    def _double(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        if name not in self.start:
            return tensor  # of modules_to_save
        start = self.start[name].to(tensor.dtype)
        return torch.cat([tensor, start]) if ".lora_A." in name else torch.cat([tensor, -start], dim=1)


def _layers(model: Any) -> Iterator[tuple[str, Linear]]:
    """The LoRA layers of a model, by name.

    Raises:
        RecipeError: one is not an ordinary linear layer with a weight of its own.
    """
    users = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    for name, layer in model.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        if not isinstance(layer, Linear) or not layer.get_base_layer().weight.is_floating_point():
            raise RecipeError(
                _(
                    "init_lora_weights: PiSSA needs linear layers in 16 or 32 bit, and {name} is not one; leave it out"
                ).format(name=name)
            )
        if users[id(layer.get_base_layer().weight)] > 1:
            raise RecipeError(
                _("init_lora_weights: PiSSA would change what {name} is tied to; leave it out").format(name=name)
            )
        yield name, layer


def _matrices(name: str, layer: LoraLayer) -> Tensors:
    parts = (("lora_A", layer.lora_A), ("lora_B", layer.lora_B))
    return {f"{name}.{part}.weight": matrices[ADAPTER_NAME].weight for part, matrices in parts}


def _put(layer: Linear, name: str, saved: Tensors, place: str) -> None:
    """Set A and B of a layer to A₀ and B₀ from a checkpoint."""
    for key, matrix in _matrices(name, layer).items():
        halves = _halves(key, saved[key]) if key in saved else ()
        if not halves or halves[1].shape != matrix.shape:
            raise RecipeError(
                _("resume_from_checkpoint: {place}: has no PiSSA start of {name}; name one of this run's").format(
                    place=place, name=name
                )
            )
        matrix.data = halves[1].to(matrix.device)


def _halves(name: str, tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The trained matrix and its initial value, from a matrix of a converted adapter."""
    if ".lora_A." in name:
        trained, start = tensor.tensor_split(2)
        return trained.clone(), start.clone()
    trained, start = tensor.tensor_split(2, dim=1)
    return trained.clone(), -start


def _double_ranks(settings: dict[str, Any]) -> dict[str, Any]:
    """An adapter's configuration with twice the rank, and the same scaling of BA."""
    factor = settings["lora_alpha"] / sqrt(settings["r"]) if settings.get("use_rslora") else None
    alpha = 2 * settings["lora_alpha"] if factor is None else factor * 2 * settings["r"]
    patterns = {
        key: {name: 2 * value for name, value in (settings.get(key) or {}).items()}
        for key in ("rank_pattern", "alpha_pattern")
    }
    return {**settings, **patterns, "r": 2 * settings["r"], "lora_alpha": alpha, "use_rslora": False}
