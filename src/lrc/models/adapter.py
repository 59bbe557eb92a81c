"""Reads an adapter's files, and matches its tensors with the parameters of its base on the meta device."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, PeftType, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from lrc.models.loading import load_config
from lrc.models.weights import ADAPTER_BIN, ADAPTER_CONFIG, ADAPTER_WEIGHTS, unpickle_tensors
from lrc.runtime.errors import ModelError
from lrc.runtime.library_errors import describe_error
from lrc.runtime.progress import notify
from lrc.runtime.translation import _

ADAPTER_NAME = "default"
AVERAGE = "average"
# Initialisations that subtract their adapter from the base, or quantize the base, whenever PEFT loads the adapter.
CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
# Initialisations that use the base's weights, so that PEFT needs the base itself.
LOADS_BASE = (*CHANGES_BASE, "eva", "mica")
RANDOM_START = "pissa_niter"  # its fast SVD draws random numbers


def read_adapter_config(adapter: Path) -> PeftConfig:
    """Read `adapter_config.json`.

    Raises:
        ModelError: it is missing, is not a PEFT configuration, or describes an adapter that lrc does not support.
    """
    path = adapter / ADAPTER_CONFIG
    if not path.is_file():
        raise ModelError(
            _("{adapter}: no {adapter_config}; name the folder of a trained adapter").format(
                adapter=adapter, adapter_config=ADAPTER_CONFIG
            )
        )
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about unknown keys, which are refused below
            settings = PeftConfig.from_pretrained(str(adapter))
        if not given.get("peft_type"):  # without one, PEFT makes a configuration of no method
            raise ValueError(_("{name} is missing").format(name="peft_type"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelError(
            _("{path}: not an adapter's configuration ({reason}); copy it again, or train again").format(
                path=path, reason=describe_error(error)
            )
        ) from error
    _refuse_unknown(given, settings, path)
    _refuse_beyond_layers(settings, path)
    if (start := _start_of(settings)).startswith(RANDOM_START):
        raise ModelError(
            _(
                "{path}: init_lora_weights is {start}, whose start is random and not in the file; where it was "
                "trained, have PEFT convert it to plain LoRA (path_initial_model_for_weight_conversion)"
            ).format(path=path, start=start)
        )
    return settings


def refuse_changed_base(adapters: Sequence[Path]) -> None:
    """Refuse several adapters if one changes the base when it is loaded: the others were not trained on that.

    Raises:
        ModelError: one does, or its configuration cannot be read.
    """
    for adapter in adapters:
        start = _start_of(read_adapter_config(adapter))
        if len(adapters) > 1 and start.startswith(CHANGES_BASE):
            raise ModelError(
                _(
                    "{adapter}: init_lora_weights is {start}, which changes the base, for the other adapters as well; "
                    "answer with this one alone, or have PEFT convert it to plain LoRA "
                    "(path_initial_model_for_weight_conversion)"
                ).format(adapter=adapter, start=start)
            )


def _start_of(settings: PeftConfig) -> str:
    """The `init_lora_weights` of an adapter in lower case; empty if that has no name."""
    start = getattr(settings, "init_lora_weights", None)
    return start.lower() if isinstance(start, str) else ""


def _refuse_unknown(given: dict[str, Any], settings: PeftConfig, path: Path) -> None:
    """Refuse keys that the installed PEFT would ignore, unless they are null, false or empty."""
    known = {field.name for field in fields(settings)}
    beyond = {key: value for key, value in given.items() if value and key not in known}
    if unknown := [_("{key} is {value}").format(key=key, value=repr(value)) for key, value in beyond.items()]:
        raise ModelError(
            _(
                "{path}: {unknown}, which the installed PEFT {version} does not know; install the "
                "release that made the adapter (pip install -U peft)"
            ).format(path=path, unknown=tuple(unknown), version=version("peft"))
        )


def _refuse_beyond_layers(settings: PeftConfig, path: Path) -> None:
    """Refuse adapters that do more than change what a layer computes for each token.

    Their effect depends on the whole sequence, of which a packed tree has none, and cannot be merged into weights.
    """
    if settings.is_prompt_learning:
        what = _("peft_type is {method}, which puts tokens before the prompt")
    elif getattr(settings, "alora_invocation_tokens", None):
        what = _("alora_invocation_tokens is set, so that the adapter begins at a token of the prompt")
    elif getattr(settings, "arrow_config", None) or settings.peft_type == "XLORA":
        what = _("it chooses among several adapters as it runs")
    else:
        return
    raise ModelError(
        _("{path}: {what}; lrc merges and answers with adapters of single layers, such as LoRA").format(
            path=path, what=what.format(method=PeftType(settings.peft_type).value)
        )
    )


def read_adapter_weights(adapter: Path) -> dict[str, torch.Tensor]:
    """Read an adapter's tensors: safetensors, or a `.bin` file through the weights-only unpickler.

    Raises:
        ModelError: they are missing or damaged.
    """
    path = adapter / ADAPTER_WEIGHTS
    try:
        if path.is_file():
            return load_file(path)
    except (SafetensorError, ValueError) as error:
        raise ModelError(
            _("{path}: damaged ({reason}); use an earlier checkpoint, or train again").format(path=path, reason=error)
        ) from error
    if not (adapter / ADAPTER_BIN).is_file():
        raise ModelError(
            _("{adapter}: no {adapter_weights}; name the folder of a trained adapter").format(
                adapter=adapter, adapter_weights=ADAPTER_WEIGHTS
            )
        )
    text = _("{file}: no safetensors; reading it with torch's weights-only unpickler")
    notify(text.format(file=adapter / ADAPTER_BIN))
    return unpickle_tensors(adapter / ADAPTER_BIN)


def why_not_by_layer(settings: PeftConfig) -> str | None:
    """Why lrc cannot handle an adapter layer by layer and needs PEFT; None for LoRA without tensors across layers."""
    if settings.peft_type != PeftType.LORA:
        return _("its method is {method}").format(method=PeftType(settings.peft_type).value)
    if _start_of(settings).startswith(LOADS_BASE):
        return _("{key} is {value}").format(key="init_lora_weights", value=settings.init_lora_weights)
    for key in ("target_parameters", "trainable_token_indices", "ensure_weight_tying", "alora_invocation_tokens"):
        if getattr(settings, key, None):
            return _("it uses {key}").format(key=key)
    return None


def average_adapters(model: PeftModel, names: Sequence[str], folders: Sequence[Path]) -> str:
    """Replace several adapters by one whose update s·B·A of each weight is the mean of theirs.

    The factors are concatenated, not averaged (the product of means is not the mean of products), so the rank of the
    new adapter is the sum of their ranks.

    Args:
        model: a PEFT model with the adapters.
        names: their names in the model.
        folders: where each was loaded from, for messages.

    Returns:
        The name of the new adapter.

    Raises:
        ModelError: one of them is not plain LoRA, whose updates can be added.
    """
    for name, folder in zip(names, folders, strict=True):
        if why := _why_not_added(model.peft_config[name]):
            raise ModelError(
                _("{folder}: {why}, so its weights cannot be averaged; leave --average-weights out").format(
                    folder=folder, why=why
                )
            )
    everywhere = [
        path
        for path, module in model.get_base_model().named_modules()
        if isinstance(module, LoraLayer) and any(name in module.scaling for name in names)
    ]
    for name in names:
        # PEFT would give the new adapter only those layers that the first configuration selects.
        anywhere = {"exclude_modules": None, "layers_to_transform": None, "layers_pattern": None}
        model.peft_config[name] = replace(model.peft_config[name], target_modules=set(everywhere), **anywhere)
    model.add_weighted_adapter(list(names), [1 / len(names)] * len(names), AVERAGE, combination_type="cat")
    model.set_adapter(AVERAGE)
    for module in model.modules():
        # PEFT has multiplied A by each one's scaling, and would scale again by that of the first configuration.
        if isinstance(module, LoraLayer) and AVERAGE in module.scaling:
            module.scaling[AVERAGE] = 1.0
    for name in names:
        model.delete_adapter(name)
    return AVERAGE


def _why_not_added(settings: PeftConfig) -> str | None:
    """Why the update of an adapter cannot be added to that of others; None if it can."""
    if why := why_not_by_layer(settings):
        return why
    for key in ("use_dora", "modules_to_save", "lora_bias", "layer_replication"):
        if getattr(settings, key, None):
            return _("it has {key}").format(key=key)
    return _("it trains biases") if settings.bias != "none" else None


def refuse_incomplete_adapter(adapter: Path, base: Path) -> None:
    """Refuse an adapter that lacks tensors, or has some that do not fit its base; the base is not loaded.

    PEFT would load it all the same, and it would answer badly.

    Raises:
        ModelError: the adapter is incomplete, or does not fit.
    """
    settings = read_adapter_config(adapter)
    if why_not_by_layer(settings) is None:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(load_config(str(base)), trust_remote_code=False)
        match_weights(empty_adapter(model, settings, adapter), read_adapter_weights(adapter), adapter)


def empty_adapter(model: PreTrainedModel, settings: PeftConfig, adapter: Path) -> PeftModel:
    """Add the adapter's modules, on the meta device, to a model.

    Raises:
        ModelError: the model has no such modules.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PEFT warns about tied weights, which are handled by parameter here
            return get_peft_model(model, settings, low_cpu_mem_usage=True, autocast_adapter_dtype=False)
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError) as error:
        raise ModelError(
            _("{adapter}: does not fit the base model ({reason}); use the base model that it was trained on").format(
                adapter=adapter, reason=error
            )
        ) from error


def match_weights(model: PeftModel, tensors: dict[str, torch.Tensor], adapter: Path) -> dict[int, torch.Tensor]:
    """Find the parameter for each of an adapter's tensors.

    Returns:
        The tensors by the `id` of their parameter.

    Raises:
        ModelError: a tensor is missing, has no parameter, or has another shape.
    """
    state = model.state_dict(keep_vars=True)
    expected = get_peft_model_state_dict(model, state_dict=state, save_embedding_layers=False)
    known = {**state, **expected}  # an adapter may also hold base embeddings, under their own names
    for name in [*expected, *tensors]:
        if name not in tensors or name not in known:
            text = _("{value}: the adapter lacks {name}; use the base model that it was trained on")
            if name in tensors:
                text = _("{value}: the base model has no parameter for {name}; use the base that it was trained on")
            raise ModelError(text.format(value=adapter / ADAPTER_WEIGHTS, name=name))
        if tensors[name].shape != known[name].shape:
            have, want = str(tuple(tensors[name].shape)), str(tuple(known[name].shape))
            raise ModelError(
                _(
                    "{value}: {name} has shape {have}, expected {want}; use the base model that it was trained on"
                ).format(value=adapter / ADAPTER_WEIGHTS, name=name, have=have, want=want)
            )
    return {id(known[name]): tensor for name, tensor in tensors.items()}
