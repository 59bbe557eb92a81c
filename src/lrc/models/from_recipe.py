"""Builds what a recipe trains: the base model, and the configuration of its adapter."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from copy import copy, deepcopy
from difflib import get_close_matches
from typing import Any

import torch
from accelerate.utils import gather_object
from peft import LoraConfig
from peft.tuners.lora.layer import ParamWrapper
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import BitsAndBytesConfig
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from trl.trainer.utils import get_peft_config, get_quantization_config

from lrc.config.recipe import COMMAND_LINE, Recipe
from lrc.models.loading import load_base, load_config, positions, stored_dtype
from lrc.models.stored_quantization import CURE, StoredQuantization
from lrc.runtime.devices import FORMATS, SWITCHES, common_dtype, instead, why_not
from lrc.runtime.errors import MachineError, RecipeError
from lrc.runtime.progress import notify
from lrc.runtime.translation import Message, _

SMALLER = _("take a smaller base, or a GPU with more memory; `lrc preview` tells what fits")
FOUR_BITS = _("set load_in_4bit: true, or take a smaller base; `lrc preview` tells what fits")
NO_MODULE = _("{key} has {name}, but the base model has no such module; {cure}")


def quantization_of(recipe: Recipe) -> BitsAndBytesConfig | None:
    """How the recipe quantizes the base; None if it does not.

    If FSDP or ZeRO-3 shards the weights, `bnb_4bit_quant_storage` is set to the dtype in which the run computes: FSDP
    does not shard uint8 tensors, and would cast packed weights in another floating-point dtype to that of mixed
    precision, which destroys them; ZeRO-3 shards tensors that have the dtype of the other weights.

    Raises:
        RecipeError: the recipe asks for another storage dtype, or for 8 bits, and the weights are sharded; or the base
            is quantized on the disk, and the recipe cannot train it.
        ModelError: there is no such base.
    """
    quantization = get_quantization_config(_with_dtype(recipe))
    check_stored(recipe)
    if recipe.model.load_in_8bit and _uses_fsdp(recipe):
        text = _(
            "{path}: load_in_8bit is true, and FSDP does not divide weights in 8 bits; write load_in_4bit: true, or "
            "launch with multi_gpu"
        )
        raise RecipeError(text.format(path=recipe.path or COMMAND_LINE))
    if quantization is None or not quantization.load_in_4bit or not _divides_weights(recipe):
        return quantization
    storage, asked = _find_compute_dtype(recipe), recipe.model.bnb_4bit_quant_storage
    if asked is not None and asked != storage:
        raise RecipeError(
            _(
                "{path}: bnb_4bit_quant_storage is {asked}, expected {storage}, in which this run "
                "computes, where FSDP or ZeRO-3 divides the weights; remove it"
            ).format(path=recipe.path or COMMAND_LINE, asked=asked, storage=storage)
        )
    quantization.bnb_4bit_quant_storage = getattr(torch, storage)
    return quantization


def _read_stored(recipe: Recipe) -> StoredQuantization | None:
    """How the base is quantized on the disk; None if it is not."""
    base = recipe.model
    return StoredQuantization.of(
        load_config(base.model_name_or_path, base.model_revision, trust_remote_code=recipe.training.trust_remote_code)
    )


def check_stored(recipe: Recipe) -> None:
    """Refuse what cannot be done with weights that are quantized on the disk.

    Raises:
        RecipeError: the recipe is full fine-tuning, or the launch shards the weights.
        ModelError: the weights cannot be read here, or the recipe asks for another quantization.
    """
    stored = _read_stored(recipe)
    if stored is None:
        return
    stored.require(recipe.model.model_name_or_path)
    stored.agree(recipe.model.model_name_or_path, recipe.model.load_in_4bit, recipe.model.load_in_8bit)
    place = {"file": recipe.path or COMMAND_LINE, "name": recipe.model.model_name_or_path, "stored": stored}
    if not recipe.model.use_peft:
        raise RecipeError(
            _(
                "{file}: {name} is quantized on the disk ({stored}), and use_peft is false; its weights cannot be "
                "trained, only an adapter on them"
            ).format(**place)
        )
    if _divides_weights(recipe) and stored.storage != _find_compute_dtype(recipe):
        raise RecipeError(
            _(
                "{file}: {name} is quantized on the disk ({stored}) and stored as {storage}, which FSDP and ZeRO-3 do "
                "not divide; launch with multi_gpu, {cure}"
            ).format(**place, storage=stored.storage, cure=CURE.format(bits=4))
        )


def clamp_max_length(recipe: Recipe, config: Any) -> None:
    """Lower the recipe's `max_length` to the number of positions that its base has; None becomes that number.

    Args:
        recipe: is changed.
        config: the base's configuration.
    """
    limit, args = positions(config), recipe.training
    if limit is None or (args.max_length is not None and args.max_length <= limit):
        return
    if args.max_length is not None and args.process_index == 0:
        base = recipe.model.model_name_or_path
        text = _("max_length: lowered from {max_length} to {limit}, the positions of {base}")
        notify(text.format(max_length=args.max_length, limit=limit, base=base))
    args.max_length = limit


def check_formats(recipe: Recipe, config: Any) -> None:
    """Refuse formats of which only the base's configuration, or another process of the launch, shows that they fail.

    Args:
        recipe: adapted to the device of this process, and to the base as far as its name tells.
        config: the base's configuration.

    Raises:
        MachineError: the base overflows float16, or the devices of the processes would compute in different formats.
    """
    args, family, device = recipe.training, config.get_text_config().model_type, recipe.training.device.type
    if "float16" in (_mixed_precision(recipe), recipe.model.dtype) and (reason := why_not("float16", device, family)):
        taken = instead("float16", device, family)
        text = _("{base}: {reason}; set {cure} in the recipe")
        cure = _settings(taken, dtype=taken)
        raise MachineError(text.format(base=recipe.model.model_name_or_path, reason=reason, cure=cure))
    if args.world_size == 1:
        return
    every = gather_object([(_mixed_precision(recipe), str(_with_dtype(recipe).dtype))])
    if len(set(every)) > 1:
        mixed, dtypes = ([one for one in some if one in FORMATS] for some in zip(*every, strict=True))
        cure = _settings(common_dtype(mixed), dtype=common_dtype(dtypes) if len(set(dtypes)) > 1 else None)
        text = _("launch: on their devices the processes would compute in {dtypes}; set {cure} in the recipe")
        kinds = mixed if len(set(mixed)) > 1 else dtypes
        raise MachineError(text.format(dtypes=tuple(kinds), cure=cure))


def _mixed_precision(recipe: Recipe) -> str:
    args = recipe.training
    return "bfloat16" if args.bf16 else "float16" if args.fp16 else "float32"


def _settings(mixed: str, dtype: str | None) -> str:
    """The keys of a recipe for mixed precision in a dtype, and for weights in another."""
    keys = {key: str(wanted == mixed).lower() for key, wanted in SWITCHES.items()} | ({"dtype": dtype} if dtype else {})
    return ", ".join(f"{key}: {value}" for key, value in keys.items())


def load_base_model(recipe: Recipe) -> Any:
    """Load the base model, quantized if the recipe says so.

    Raises:
        RecipeError: see `quantization_of`.
        ModelError: there is no such model, or its files cannot be read.
        MachineError: memory ran out.
    """
    model, args = recipe.model, recipe.training
    quantization, stored = quantization_of(recipe), _read_stored(recipe)
    as_it_is = not model.use_peft or model.load_in_4bit or stored is not None
    return load_base(
        model.model_name_or_path,
        dtype=_with_dtype(recipe, tell=args.process_index == 0).dtype or "auto",
        revision=model.model_revision,
        quantization=quantization,
        attn_implementation=model.attn_implementation,
        # Straight to its device, so that main memory never holds the whole model; otherwise the trainer moves it.
        device_map={"": args.device} if _is_placed_at_once(recipe, quantization or stored) else None,
        trust_remote_code=args.trust_remote_code,
        cure=SMALLER if as_it_is else FOUR_BITS,
    )


def build_lora_config(recipe: Recipe) -> LoraConfig | None:
    """The adapter's configuration; None for full fine-tuning.

    It does not contain PiSSA, which `pissa.Pissa` applies to an ordinary adapter in the model.
    """
    config = get_peft_config(recipe.model)
    if config is None:
        return None
    extra = recipe.adapter
    for key in ("rank_pattern", "alpha_pattern", "ensure_weight_tying"):
        if getattr(extra, key):
            setattr(config, key, getattr(extra, key))
    if extra.init_lora_weights is not None and extra.pissa is None:
        config.init_lora_weights = extra.init_lora_weights
    return deepcopy(config)  # PEFT extends lists, and these are the recipe's, which the run records


def check_modules(recipe: Recipe, model: Any) -> None:
    """Refuse names of modules that the base does not have: PEFT ignores them as long as one name is right.

    Raises:
        RecipeError: with a line for each such name.
    """
    if not recipe.model.use_peft:
        return
    known = [name for name, _module in model.named_modules() if name]
    targets = recipe.model.lora_target_modules
    strangers = [
        *_strangers("lora_target_modules", targets if isinstance(targets, list) else (), known, _is_target),
        *_strangers("lora_modules_to_save", recipe.model.lora_modules_to_save or (), known, str.endswith),
    ]
    if (tied := _tied_to_save(recipe, model)) and _uses_fsdp(recipe):
        text = _(
            "lora_modules_to_save has {name}, which this base ties to another layer, and FSDP cannot divide "
            "what is tied and trained; launch with multi_gpu or deepspeed_zero3, or remove it"
        )
        strangers.append(text.format(name=tied))
    _refuse(recipe, strangers)


def check_adapted(recipe: Recipe, model: Any) -> None:
    """Refuse patterns and parameters that no adapted layer has: PEFT would only warn, and ignore them.

    Args:
        recipe: the recipe.
        model: with its adapter; in full fine-tuning there is nothing to check.

    Raises:
        RecipeError: with a line for each such name.
    """
    if not recipe.model.use_peft:
        return
    layers, parameters = _adapted(model.get_base_model())
    base, extra, known = recipe.model, recipe.adapter, [*layers, *parameters]
    pattern = _("{key} has {name}, but lora_target_modules names no such layer; name it there, too, or remove it")
    targets = [base.lora_target_modules] if isinstance(base.lora_target_modules, str) and not layers else []
    strangers = [
        *_strangers("lora_target_modules", targets, known, _is_like),  # a regular expression
        *_strangers("lora_target_parameters", base.lora_target_parameters or (), parameters, _is_target),
        *_strangers("rank_pattern", list(extra.rank_pattern or ()), known, _is_like, pattern),
        *_strangers("alpha_pattern", list(extra.alpha_pattern or ()), known, _is_like, pattern),
    ]
    _refuse(recipe, strangers)


def _adapted(base: Any) -> tuple[list[str], list[str]]:
    """The names of a model's layers that have an adapter, and of single parameters that have one."""
    layers, parameters = [], []
    for name, module in base.named_modules():
        plain = name.replace(".base_layer", "")  # layers of several parameters are nested
        if isinstance(module, ParamWrapper):
            parameters.append(f"{plain}.{module.parameter_name}")
        elif isinstance(module, BaseTunerLayer):
            layers.append(plain)
    return layers, parameters


def _refuse(recipe: Recipe, strangers: Sequence[str]) -> None:
    place = recipe.path.name if recipe.path else COMMAND_LINE
    if strangers:
        raise RecipeError(*(_("{place}: {text}").format(place=place, text=line) for line in strangers))


def _tied_to_save(recipe: Recipe, model: Any) -> str | None:
    """The first in `lora_modules_to_save` that is embeddings or an LM head with shared weights; None if none is."""
    if not model.config.get_text_config().tie_word_embeddings:
        return None
    tables = [model.get_input_embeddings(), model.get_output_embeddings()]
    paths = [path for path, module in model.named_modules() if any(module is table for table in tables)]
    names = recipe.model.lora_modules_to_save or ()
    return next((name for name in names if any(path.endswith(name) for path in paths)), None)


def _strangers(
    key: str,
    names: Sequence[str],
    known: Sequence[str],
    means: Callable[[str, str], Any],
    text: Message = NO_MODULE,
) -> list[str]:
    """A line for each of a key's names that none of the known ones is meant by."""
    found: list[str] = []
    for name in names:
        if name != "all-linear" and not any(means(module, name) for module in known):
            near = get_close_matches(name, {module.rpartition(".")[2] for module in known}, n=1)
            cure = _("did you mean {near}?").format(near=repr(near[0])) if near else _("remove it")
            found.append(text.format(key=key, name=repr(name), cure=cure))
    return found


def _is_target(module: str, name: str) -> bool:
    return module == name or module.endswith(f".{name}")


def _is_like(module: str, pattern: str) -> bool:
    return re.match(rf"(.*\.)?({pattern})$", module) is not None


def _is_placed_at_once(recipe: Recipe, quantization: BitsAndBytesConfig | StoredQuantization | None) -> bool:
    """Whether the base is loaded straight onto its device: if it is quantized, or goes to a GPU unsharded."""
    if is_deepspeed_zero3_enabled():
        return False
    return quantization is not None or (recipe.training.device.type == "cuda" and not _divides_weights(recipe))


def _divides_weights(recipe: Recipe) -> bool:
    return _uses_fsdp(recipe) or is_deepspeed_zero3_enabled()


def _uses_fsdp(recipe: Recipe) -> bool:
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true" or bool(recipe.training.fsdp)


def _find_compute_dtype(recipe: Recipe) -> str:
    """The dtype of mixed precision, otherwise of the weights."""
    if (mixed := _mixed_precision(recipe)) != "float32":
        return mixed
    dtype = _with_dtype(recipe).dtype
    return "float32" if dtype in (None, "auto") else str(dtype)


def _with_dtype(recipe: Recipe, *, tell: bool = False) -> Any:
    """The recipe's model arguments with `dtype: auto` resolved: to that of the base, or a substitute for this device.

    If the base's configuration has no dtype, it stays `auto`, or for 4-bit weights becomes None, which is float32.

    Args:
        recipe: is not changed.
        tell: report a substitution.
    """
    model = recipe.model
    if model.dtype not in (None, "auto"):
        return model
    config = load_config(
        model.model_name_or_path, model.model_revision, trust_remote_code=recipe.training.trust_remote_code
    )
    own, family = stored_dtype(config) or "", config.get_text_config().model_type
    device, settled = recipe.training.device.type, copy(model)
    settled.dtype = None if model.load_in_4bit else "auto"
    if own in ("float32", *SWITCHES.values()):
        reason = why_not(own, device, family)
        settled.dtype = instead(own, device, family) if reason else own
        if reason and tell:
            text = _("dtype: auto is {own} for this base, but {reason}; {taken} is used")
            notify(text.format(own=own, reason=reason, taken=settled.dtype))
    return settled
