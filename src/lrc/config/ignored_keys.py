"""Names the keys of a recipe that change nothing: those taken for compatibility, and those that need another key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lrc.config.optimizers import LOW_RANK, TAKES_ARGUMENTS, TAKES_BETAS, TAKES_EPSILON, WITHOUT_WARMUP
from lrc.runtime.translation import _

# Upstream's keys without effect, and why they have none.
IGNORED = {
    "per_device_eval_batch_size": _("evaluation fills rows up to a number of tokens"),
    "prediction_loss_only": _("evaluation has its own loop"),
    "eval_do_concat_batches": _("evaluation has its own loop"),
    "eval_use_gather_object": _("evaluation has its own loop"),
    "eval_accumulation_steps": _("evaluation has its own loop"),
    "include_for_metrics": _("evaluation has its own loop"),
    "batch_eval_metrics": _("evaluation has its own loop"),
    "label_names": _("rows carry their own targets"),
    "remove_unused_columns": _("rows carry their own targets"),
    "length_column_name": _("nothing is padded"),
    "pad_to_multiple_of": _("nothing is padded"),
    "pad_token": _("nothing is padded"),
    "packing_strategy": _("token trees are packed instead"),
    "truncation_mode": _("`on_too_long` decides; nothing is truncated"),
    "dataset_text_field": _("the data is Alpaca records"),
    "dataset_kwargs": _("the data is Alpaca records"),
    "shuffle_dataset": _("`train_sampling_strategy` decides"),
    "model_init_kwargs": _("the keys under Base model decide"),
    "liger_kernel_config": _("`use_liger_kernel` is refused"),
    "logging_nan_inf_filter": _("a loss that is not finite ends the run"),
    "disable_tqdm": _("lrc shows its own progress"),
    "dataloader_pin_memory": _("the process that uses the rows also packs them"),
    "dataloader_persistent_workers": _("the process that uses the rows also packs them"),
    "dataloader_prefetch_factor": _("the process that uses the rows also packs them"),
    "dataloader_multiprocessing_context": _("the process that uses the rows also packs them"),
    "dataloader_in_order": _("the process that uses the rows also packs them"),
    "hub_strategy": _("the result is sent once, at the end"),
    "hub_always_push": _("the result is sent once, at the end"),
    "hub_revision": _("the result is sent once, at the end"),
    "do_train": _("lrc train always trains"),
    "do_eval": _("`validation_file` decides"),
    "do_predict": _("`lrc generate` answers"),
    "local_rank": _("the launcher decides"),
}


@dataclass(frozen=True)
class Dependence:
    """Keys that change nothing by themselves.

    Args:
        keys: those keys.
        met: whether other keys, given all values of the recipe, let them have an effect.
        reason: why they have none otherwise.
    """

    keys: tuple[str, ...]
    met: Callable[[Mapping[str, Any]], Any]
    reason: str


DEPENDENT = (
    Dependence(
        (
            *("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_target_parameters"),
            *("lora_modules_to_save", "use_rslora", "use_dora", "init_lora_weights", "rank_pattern", "alpha_pattern"),
            *("loraplus_lr_ratio", "loraplus_lr_embedding", "ensure_weight_tying"),
        ),
        lambda values: values["use_peft"],
        _("use_peft is false"),
    ),
    Dependence(
        ("loraplus_lr_embedding",),
        lambda values: values["loraplus_lr_ratio"] is not None,
        _("loraplus_lr_ratio is not given"),
    ),
    Dependence(
        ("bnb_4bit_quant_type", "use_bnb_nested_quant", "bnb_4bit_quant_storage"),
        lambda values: values["load_in_4bit"],
        _("load_in_4bit is false"),
    ),
    Dependence(
        ("contrast_temperature",),
        lambda values: values["answer_style"] == "judge" if (part := values["option_contrast"]) is None else part,
        _("option_contrast is 0"),
    ),
    Dependence(
        ("soft_label_weight", "soft_label_temperature"),
        lambda values: values["soft_labels"] is not None,
        _("soft_labels is not given"),
    ),
    Dependence(
        ("pseudo_label_threshold",),
        lambda values: values["pseudo_labels"] is not None,
        _("pseudo_labels is not given"),
    ),
    Dependence(("eval_steps",), lambda values: values["eval_strategy"] == "steps", _("eval_strategy is not steps")),
    Dependence(("save_steps",), lambda values: values["save_strategy"] == "steps", _("save_strategy is not steps")),
    Dependence(
        ("gradient_checkpointing_kwargs", "activation_checkpointing_kwargs"),
        lambda values: values["gradient_checkpointing"] or values["activation_checkpointing"],
        _("gradient_checkpointing is false"),
    ),
    Dependence(
        ("optim_target_modules",),
        lambda values: values["optim"].startswith(LOW_RANK),
        _("optim is neither GaLore nor APOLLO"),
    ),
    Dependence(("optim_args",), lambda values: TAKES_ARGUMENTS.fullmatch(values["optim"]), _("this optim takes none")),
    Dependence(
        ("adam_beta1", "adam_beta2"),
        lambda values: TAKES_BETAS.fullmatch(values["optim"]),
        _("this optim does not use it"),
    ),
    Dependence(
        ("adam_epsilon",), lambda values: TAKES_EPSILON.fullmatch(values["optim"]), _("this optim does not use it")
    ),
    Dependence(
        ("warmup_steps",),
        lambda values: values["lr_scheduler_type"] not in WITHOUT_WARMUP,
        _("this lr_scheduler_type has no warmup"),
    ),
    Dependence(
        ("lr_scheduler_kwargs",),
        lambda values: values["lr_scheduler_type"] not in ("constant", "constant_with_warmup"),
        _("this lr_scheduler_type takes none"),
    ),
)


def describe_ignored(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> str | None:
    """Name the keys that are given without effect, each with the reason; None if there are none.

    Args:
        given: the keys of a recipe.
        defaults: of all keys. A value that is the default changes nothing anyway, and is not mentioned.
    """
    values = {**defaults, **given}
    reasons = {key: one.reason for one in reversed(DEPENDENT) if not one.met(values) for key in one.keys} | IGNORED
    named = tuple(
        _("{key} ({reason})").format(key=key, reason=reasons[key])
        for key, value in given.items()
        if key in reasons and value is not None and value != defaults.get(key)
    )
    return _("has no effect: {keys}").format(keys=named) if named else None
