"""Bases that are quantized on the disk: bitsandbytes' 4-bit and 8-bit repositories, GPTQ, AWQ and the like.

Their weights are loaded as they are, or dequantized where adapters need that. A recipe or a flag that asks for another
quantization is refused. An adapter that was trained on such a base is merged into the 16-bit model that the base was
made from, which is identified by the tensors that quantization leaves unchanged. With AWQ there is no such model: it
divides the inputs of layers by scales, and multiplies their weights (Lin et al. 2023, section 3.2), so that an adapter
has learnt from other inputs than those of the original.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch
from transformers import AwqConfig, CompressedTensorsConfig, FineGrainedFP8Config, GPTQConfig, Mxfp4Config
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

from lrc.models.weights import WeightFiles
from lrc.runtime.errors import ModelError
from lrc.runtime.memory import format_size
from lrc.runtime.progress import notify
from lrc.runtime.translation import _

UNKNOWN = _("an unknown method")
# The packages that transformers and PEFT need for a method, and that lrc does not install.
PACKED = ("gptqmodel", "optimum")
NEEDED = {"gptq": PACKED, "awq": PACKED, "compressed-tensors": ("compressed_tensors",)}
DEQUANTIZED = {"fp8": FineGrainedFP8Config, "mxfp4": Mxfp4Config, "compressed-tensors": CompressedTensorsConfig}
TRAINABLE = {"gptq": GPTQConfig, "awq": AwqConfig}
# Names of the tensors that stand for a quantized weight, or beside it: bitsandbytes', GPTQ's and AWQ's.
QUANTIZED_PARTS = re.compile(r"\.(qweight|SCB|weight\.(quant_state\..+|absmax))$")
CURE = _("or name the 16-bit model that it was made from, with load_in_{bits}bit: true")


@dataclass(frozen=True)
class StoredQuantization:
    """How a base's weights are quantized on the disk.

    Args:
        method: `bitsandbytes`, `gptq`, `awq` …, as in its config.json.
        bits: per weight; None if the configuration does not say.
        storage: the dtype of the tensors that hold bitsandbytes' 4-bit weights.
    """

    method: str
    bits: int | None = None
    storage: str = "uint8"

    @classmethod
    def of(cls, config: Mapping[str, Any] | Any) -> StoredQuantization | None:
        """Read it from a configuration or the object of a config.json; None if the weights are not quantized."""
        given = _find_settings(config)
        if given is None:
            return None
        found: Mapping[str, Any] = given.to_dict() if hasattr(given, "to_dict") else given
        if not isinstance(found, Mapping):
            return cls(UNKNOWN)
        method, bits = found.get("quant_method") or UNKNOWN, found.get("bits")
        method = str(getattr(method, "value", method))  # transformers' own configurations have an enum
        if found.get("load_in_4bit") or found.get("load_in_8bit"):
            method, bits = "bitsandbytes", 4 if found.get("load_in_4bit") else 8
        storage = str(found.get("bnb_4bit_quant_storage") or "uint8")
        return cls(method, bits if isinstance(bits, int) else None, storage)

    def __str__(self) -> str:
        # Stays a message, which is translated where it is part of another.
        return _("{method}, {bits} bits").format(method=self.method, bits=self.bits) if self.bits else self.method

    def refuse_unknown(self, name: str) -> None:
        """Refuse a method that transformers does not read: it would take the weights for ordinary ones.

        Raises:
            ModelError: it does not.
        """
        if self.method not in {"bitsandbytes", *AUTO_QUANTIZATION_CONFIG_MAPPING}:
            text = _(
                "{name}: its weights are quantized ({self}), which transformers {version} does not read; name the "
                "16-bit model that it was made from"
            )
            raise ModelError(text.format(name=name, self=self, version=version("transformers")))

    def require(self, name: str) -> None:
        """Refuse a method that transformers does not read, or whose packages are not installed.

        Raises:
            ModelError: it does not, or one is missing.
        """
        self.refuse_unknown(name)
        missing = [package for package in NEEDED.get(self.method, ()) if find_spec(package) is None]
        if missing:
            text = _(
                "{name}: its weights are quantized ({self}), which takes {missing}; pip install {missing2}, {cure}"
            )
            words = {"missing": tuple(missing), "missing2": " ".join(missing), "cure": CURE.format(bits=4)}
            raise ModelError(text.format(name=name, self=self, **words))

    def require_quantized(self, name: str, model: Any) -> None:
        """Refuse weights of a bitsandbytes repository that are not quantized in its way, contrary to its config.json.

        They would fail in the first forward.

        Args:
            name: the base's folder or name.
            model: the loaded model.

        Raises:
            ModelError: there are some.
        """
        if self.method != "bitsandbytes":
            return
        for path, module in model.named_modules():
            weight = getattr(module, "weight", None)
            layer = type(module).__name__ in ("Linear4bit", "Linear8bitLt")
            if layer and type(weight) is torch.nn.Parameter and not weight.is_meta and not hasattr(weight, "ds_id"):
                text = _(
                    "{name}: its config.json says that weights are quantized ({self}), but {path} is not; remove "
                    "quantization_config there if they are ordinary weights, or download the files again"
                )
                raise ModelError(text.format(name=name, self=self, path=f"{path}.weight"))

    @property
    def rescales(self) -> bool:
        """Whether layers have other inputs than those of the model that was quantized."""
        return self.method == "awq"

    @property
    def is_dequantized(self) -> bool:
        """Whether loading makes ordinary weights of them."""
        return self.method in DEQUANTIZED

    @property
    def loading(self) -> Any:
        """What transformers has to be given to load weights that take an adapter; None takes its default.

        On some GPUs it would compute in FP8 and MXFP4: with kernels that it fetches from the Hub in the first forward,
        on layers whose weights lack their scales, of which PiSSA and DoRA know nothing. Compressed tensors would be
        decompressed after PEFT has found no weights to adapt. And for GPTQ and AWQ it would take the fastest kernels,
        which have no backward.
        """
        if self.is_dequantized:
            return DEQUANTIZED[self.method](dequantize=True)
        if self.method in TRAINABLE:
            return TRAINABLE[self.method](bits=4, backend="auto_trainable")  # bits are those of the files
        return None

    def finish_dequantized(self, name: str, model: Any, dtype: torch.dtype, *, tell: bool) -> None:
        """Give all weights of a model one dtype, if transformers has dequantized them, and say so.

        Args:
            name: the base's folder or name.
            model: the loaded model; is changed.
            dtype: of the weights.
            tell: whether this process says so.

        Raises:
            ModelError: some weights have no scales, and are still in 8 bits.
        """
        if getattr(model, "is_quantized", False):
            return
        if any(parameter.itemsize < 2 for parameter in model.parameters()):
            text = _("{name}: its weights are quantized ({self}), and their scales are missing; download them again")
            raise ModelError(text.format(name=name, self=self))
        model.to(dtype)
        if tell:
            size = format_size(sum(parameter.nbytes for parameter in model.parameters()))
            text = _(
                "{name}: its weights are quantized ({self}), and are dequantized here: in {dtype} they take {size}"
            )
            notify(text.format(name=name, self=self, dtype=str(dtype).removeprefix("torch."), size=size))

    def agree(self, name: str, load_in_4bit: bool, load_in_8bit: bool) -> None:
        """Refuse a quantization other than that of the files.

        Raises:
            ModelError: the weights would have to be quantized twice.
        """
        for asked, bits in ((load_in_4bit, 4), (load_in_8bit, 8)):
            if asked and (self.method, self.bits) != ("bitsandbytes", bits):
                raise ModelError(
                    _(
                        "{name}: its weights are quantized already ({self}), and load_in_{bits}bit asks for "
                        "another quantization; leave it out, {replace}"
                    ).format(name=name, self=self, bits=bits, replace=CURE.format(bits=bits))
                )


def _find_settings(config: Mapping[str, Any] | Any) -> Any:
    """The `quantization_config` of a configuration, or of its text part; None if there is none."""
    if isinstance(config, Mapping):
        text = config.get("text_config")
        own = config.get("quantization_config")
        return own if own is not None or not isinstance(text, Mapping) else text.get("quantization_config")
    own = getattr(config, "quantization_config", None)
    return own if own is not None else getattr(config.get_text_config(), "quantization_config", None)


def compute_in(model: Any, dtype: torch.dtype) -> None:
    """Set the compute dtype of a loaded model's 4-bit layers, whatever its files say."""
    for module in model.modules():
        if hasattr(module, "quant_state") and hasattr(module, "compute_dtype"):
            module.compute_dtype = dtype
            module.compute_type_is_set = True


def vectors_sum(weights: WeightFiles, dtype: str | None = None) -> dict[str, Any]:
    """A fingerprint of a model's norms and biases, which quantization leaves unchanged.

    Args:
        weights: of a quantized base, or of what may be its original.
        dtype: the dtype to which values are cast before hashing; None takes that of the files.

    Returns:
        `dtype`, and `vectors_sha256` over names and values of all one-dimensional tensors.
    """
    names = weights.specs.keys()
    # The scales of a quantized weight are named after it.
    vectors = {
        name: spec
        for name, spec in sorted(weights.specs.items())
        if len(spec.shape) == 1 and spec.dtype.is_floating_point and not _belongs_to_weight(name, names)
    }
    kinds = {str(spec.dtype).removeprefix("torch.") for spec in vectors.values()}
    taken = dtype or (min(kinds) if kinds else "float32")
    total = hashlib.sha256()
    for name in vectors:
        value = weights.read(name).to(getattr(torch, taken))
        total.update(f"{name} {tuple(value.shape)}\n".encode())
        total.update(value.float().numpy().tobytes())
    return {"dtype": taken, "vectors_sha256": total.hexdigest()}


def _belongs_to_weight(name: str, names: Any) -> bool:
    """Whether a tensor is a scale, or the like, of a quantized weight."""
    parts = name.split(".")
    owners = {".".join(parts[:end]) for end in range(1, len(parts))}
    if owners & set(names):  # bitsandbytes' 4 bits: `weight.absmax`
        return True
    layer, last = ".".join(parts[:-1]), parts[-1]
    # GPTQ and AWQ have no `weight`, but scales, and at times a bias of zeros, beside packed integers in `qweight`.
    if f"{layer}.qweight" in names:
        return True
    # 8 bits have `SCB`, FP8 `weight_scale_inv`, compressed-tensors `weight_scale` beside the weight.
    beside = any(f"{layer}.{kind}" in names for kind in ("weight", "weight_packed"))
    return beside and last not in ("weight", "bias")
