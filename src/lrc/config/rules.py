"""Rules on which values of a recipe go together. Does not import torch, so that a recipe is refused before that.

These are lrc's own rules, and those of transformers' `TrainingArguments.__post_init__` that depend on the recipe alone.
Those that depend on the machine or on other files are left to upstream (`JUDGED_UPSTREAM`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lrc.config.optimizers import ARGUMENTS, IN_BACKWARD, LOW_RANK, missing_source
from lrc.config.run_record import DIGIT_STYLES, SCORED_AS_THEY_ARE, lists_options
from lrc.runtime.translation import _, message_of

# The first two do not change the base. PiSSA does, so its adapter is converted for the original base when it is saved
# (pissa.py). Upstream's other initialisations would have to be merged into a changed base.
INIT_LORA_WEIGHTS = ("gaussian", "orthogonal", "pissa")
PISSA = re.compile(r"pissa(_niter_[1-9]\d{0,3})?")
_PACKED = _("tree_packing, which is on unless a recipe says otherwise, packs questions by their passages")
_ANSWER_ALONE = _("the loss is always on the answer alone")
# Upstream's keys that lrc does not support, most of them because of packed trees, with the only value each may have.
UNSUPPORTED: dict[str, Any] = {
    "packing": False,
    "eval_packing": None,
    "padding_free": False,
    "assistant_only_loss": False,
    "auto_find_batch_size": False,
    "use_liger_kernel": False,
    "label_smoothing_factor": 0.0,
    "router_aux_loss_coef": 0.0,
    # Evaluation uses the number formats of training, and no cache.
    "bf16_full_eval": False,
    "fp16_full_eval": False,
    "use_cache": False,
    "loss_type": "nll",
    "completion_only_loss": True,
    # The base's own tokenizer is used, and the template decides how an answer ends.
    "eos_token": None,
    "chat_template_path": None,
    # Of accelerate's data loaders, which are not used: a step is a batch of questions.
    "accelerator_config": None,
}
# What lrc does instead; those that are not here have no counterpart.
INSTEAD = {
    "packing": _PACKED,
    "eval_packing": _PACKED,
    "padding_free": _PACKED,
    "completion_only_loss": _ANSWER_ALONE,
    "assistant_only_loss": _ANSWER_ALONE,
    "eos_token": _("template decides how an answer ends"),
    "chat_template_path": _("write template: chat for the tokenizer's own"),
}
SAMPLING = ("random", "sequential")
METRICS = ("loss", "accuracy", "ci_low", "ci_high")  # of an evaluation, see `validation.combine`
# Keys of which one decides what the best evaluation is the best by.
DECIDE_BEST = ("metric_for_best_model", "early_stopping_patience", "load_best_model_at_end")
SCHEDULES_BY_EVALUATION = ("reduce_lr_on_plateau", "greedy")  # values of `lr_scheduler_type`
# Keys whose values only upstream can check, since they depend on the machine or on a file.
JUDGED_UPSTREAM = (
    *("tf32", "torch_compile", "torch_compile_backend", "torch_compile_mode", "deepspeed", "fsdp", "fsdp_config"),
    *("parallelism_config", "debug", "pad_to_multiple_of", "report_to"),
)
# Keys that take a mapping, or on the command line the JSON of one.
MAPPINGS = (
    *("lr_scheduler_kwargs", "gradient_checkpointing_kwargs", "activation_checkpointing_kwargs"),
    *("model_init_kwargs", "dataset_kwargs"),
)
# The keys of `activation_checkpointing_kwargs`: those of `torch.utils.checkpoint`, and transformers' own.
CHECKPOINTING = ("use_reentrant", "preserve_rng_state", "determinism_check", "debug", "early_stop", "every_n_layers")

Values = Mapping[str, Any]  # every key of a recipe, with its default if it is not given


def broken_rules(values: Values) -> list[str]:
    """Find the values that do not go together.

    Args:
        values: each is of the type and within the bounds of its key.

    Returns:
        One message for each broken rule, without the place.
    """
    rules: tuple[Callable[[Values], Iterator[str]], ...] = (
        _check_answering,
        _check_contrast,
        _check_files,
        _check_adapter,
        _check_precision,
        _check_unsupported,
        _check_steps,
        _check_strategies,
        _check_early_stopping,
        _check_mappings,
        _check_packages,
        _check_optimizer,
    )
    return [line for rule in rules for line in rule(values)]


def train_files(given: Sequence[str] | str) -> list[str]:
    """The files of the key `train_file`, in order."""
    return [given] if isinstance(given, str) else list(given)


def best_metric(values: Values) -> str:
    """What the best evaluation is the best by, such as `loss`.

    Args:
        values: the keys of a recipe; those that are missing have their defaults.
    """
    default = "loss" if values.get("early_stopping_patience") is None else "accuracy"
    return str(values.get("metric_for_best_model") or default).removeprefix("eval_")


def fold_file(file: str, fold: int, part: str) -> str:
    """The file of a fold: `NAME_fold3_train.json` for `NAME_train.json`.

    Args:
        file: ends in `_train.json` or `_validation.json`.
        fold: its number, from 0.
        part: `train` or `validation`.

    Raises:
        ValueError: `file` does not have that ending.
    """
    ending, folded = f"_{part}.json", f"_fold{fold}_{part}.json"
    if not file.endswith(ending):
        raise ValueError(
            _("{part}_file is {file}, expected a name that ends in {ending} where fold is given").format(
                part=part, file=file, ending=ending
            )
        )
    return file if file.endswith(folded) else file.removesuffix(ending) + folded


def parse_pattern(key: str, value: dict[str, Any] | str | None) -> dict[str, Any] | None:
    """Parse `rank_pattern` or `alpha_pattern`: positive whole numbers by module name.

    Args:
        key: which of the two, for errors.
        value: a mapping, or its JSON on the command line, as for upstream's keys.

    Raises:
        ValueError: it is not such a mapping, or a name is not a valid regular expression.
    """
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        found = ()
    whole = isinstance(found, dict) and all(type(number) is int and number > 0 for number in found.values())
    if found is not None and not whole:
        raise ValueError(
            _("{key} is {value}, expected whole numbers by module name, such as {{q_proj: 8}}").format(
                key=key, value=value
            )
        )
    for name in found or ():
        _require_pattern(key, name)
    return found or None


def parse_target_modules(value: Any) -> Any:
    """Convert `lora_target_modules` to what PEFT takes: a list of names, or a text that is a regular expression.

    A list with one item is treated as that item, as upstream does; the name of a module becomes a list.

    Raises:
        ValueError: the list is empty, or the text is not a valid regular expression, or is several names in one text.
    """
    if value == []:
        raise ValueError(_("lora_target_modules is empty; name layers, or remove it for those of the architecture"))
    single = value[0] if isinstance(value, list) and len(value) == 1 else value
    if not isinstance(single, str):
        return value
    if single.isidentifier():
        return [single]
    names = re.sub(r"[\[\]'\"\s]", "", single).split(",")
    if len(names) > 1 and all(name.isidentifier() for name in names):  # no module's name has a comma
        text = _("lora_target_modules is {text}, which is one text; write a list, on the command line: {words}")
        raise ValueError(text.format(text=repr(single), words=" ".join(("--lora_target_modules", *names))))
    _require_pattern("lora_target_modules", single)
    return single


def _require_pattern(key: str, text: str) -> None:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(
            _("{key} has {text}, which is not a valid regular expression ({reason}); give the names of modules").format(
                key=key, text=repr(text), reason=error
            )
        ) from None


def _catch(check: Callable[[], Any]) -> Iterator[str]:
    try:
        check()
    except ValueError as error:
        yield message_of(error)


def _check_answering(values: Values) -> Iterator[str]:
    style, listed = values["answer_style"], values["list_options"]
    if listed is None:
        listed = lists_options(style, values["template"])
    if style in DIGIT_STYLES and not listed:
        yield _("list_options is false, expected true where answer_style is {style}").format(style=style)
    elif values["option_orders"] > 1 and not listed:
        yield (
            _(
                "option_orders is {value}, but the prompt lists no options, so their order has no "
                "effect; set list_options: true, or remove it"
            ).format(value=values["option_orders"])
        )
    normalisation = values["score_normalisation"]
    if normalisation != "character" and style != "text":
        yield (
            _(
                "score_normalisation is {normalisation}, but {scored_as_they_are} are scored as they are; remove it"
            ).format(normalisation=normalisation, scored_as_they_are=SCORED_AS_THEY_ARE[style])
        )
    elif normalisation == "auto" and values["validation_file"] is None:
        yield _("score_normalisation is auto, which chooses on a validation_file; give one")


def _check_contrast(values: Values) -> Iterator[str]:
    style, part = values["answer_style"], values["option_contrast"]
    if part is None:
        part = 1.0 if style == "judge" else 0.0
    if not 0 <= part <= 1:
        yield _("option_contrast is {part}, expected 0 to 1").format(part=part)
    elif part and style in DIGIT_STYLES:
        yield _("option_contrast compares options, not digits; set answer_style: text or judge, or remove it")
    if values["soft_labels"] is not None and not part:
        yield _("soft_labels are a target of the contrast, but option_contrast is 0; raise it")
    if values["soft_label_weight"] > 1:
        yield _("soft_label_weight is {value}, expected 0 to 1").format(value=values["soft_label_weight"])


def _check_files(values: Values) -> Iterator[str]:
    files, shares = train_files(values["train_file"]), values["train_shares"]
    real = [Path(file).expanduser().resolve() for file in files]  # ./a.json and links are no other files
    if repeated := next((file for file, path in zip(files, real, strict=True) if real.count(path) > 1), None):
        yield _("train_file names {repeated} twice; name it once").format(repeated=repeated)
    if shares is not None and values["pseudo_labels"] is not None:
        yield _("train_shares and pseudo_labels exclude each other: an epoch has every pseudo-labelled one; remove one")
    elif shares is not None and len(shares) != len(files):
        yield _("train_shares has {count} parts for {count2} files of train_file; give one each").format(
            count=len(shares), count2=len(files)
        )
    elif shares is not None and (not all(share > 0 for share in shares) or abs(sum(shares) - 1) > 1e-6):
        yield _("train_shares is {shares}, expected numbers above 0 whose sum is 1").format(shares=shares)
    if (values["pseudo_labels"] is None) != (values["pseudo_label_file"] is None):
        yield _("pseudo_labels and pseudo_label_file go together: the scores, and the questions that they are of")
    if values["pseudo_label_threshold"] > 1:
        yield _("pseudo_label_threshold is {value}, expected 0 to 1").format(value=values["pseudo_label_threshold"])
    if values["fold"] is None:
        return
    named = [(file, "train") for file in files] + [(values["validation_file"], "validation")]
    for file, part in named:
        if file is not None:
            yield from _catch(lambda file=file, part=part: fold_file(file, values["fold"], part))  # type: ignore[misc]


def _check_adapter(values: Values) -> Iterator[str]:
    start = values["init_lora_weights"]
    if start not in (None, *INIT_LORA_WEIGHTS) and not PISSA.fullmatch(start):
        yield _("init_lora_weights is {start}, expected {names_of_starts} or pissa_niter_16").format(
            start=start, names_of_starts=tuple(INIT_LORA_WEIGHTS)
        )
    for key in ("rank_pattern", "alpha_pattern"):
        yield from _catch(lambda key=key: parse_pattern(key, values[key]))  # type: ignore[misc]
    yield from _catch(lambda: parse_target_modules(values["lora_target_modules"]))
    if values["lora_task_type"] != "CAUSAL_LM":
        yield _("lora_task_type is {value}, expected CAUSAL_LM; remove it").format(value=values["lora_task_type"])
    if str(start).startswith("pissa"):
        yield from _check_pissa(values)


def _check_pissa(values: Values) -> Iterator[str]:
    start = values["init_lora_weights"]
    for key in ("load_in_4bit", "load_in_8bit"):
        if values[key]:
            yield _("init_lora_weights is {start}, which changes the base that {key} freezes; keep one").format(
                start=start, key=key
            )
    if values["use_dora"]:
        yield _(
            "init_lora_weights is {start}, and use_dora is true; DoRA cannot be converted to plain LoRA, keep one"
        ).format(start=start)
    if values["use_rslora"] and (values["rank_pattern"] or values["alpha_pattern"]):
        yield _(
            "init_lora_weights is {start}, which excludes use_rslora with a rank or alpha pattern; remove one"
        ).format(start=start)


def _check_precision(values: Values) -> Iterator[str]:
    if values["fp16"] and values["bf16"]:
        yield _("fp16 and bf16 are both true; keep one")
    if values["load_in_4bit"] and values["load_in_8bit"]:
        yield _("load_in_4bit and load_in_8bit are both true; keep one")
    for key in ("load_in_4bit", "load_in_8bit"):
        if values[key] and not values["use_peft"]:
            yield _(
                "{key} is true, and use_peft is false; quantized weights cannot be trained, only an adapter"
            ).format(key=key)


def _check_unsupported(values: Values) -> Iterator[str]:
    for key, only in UNSUPPORTED.items():
        # None is replaced by 0 in `TrainingArguments`.
        found = values[key] or 0.0 if key == "router_aux_loss_coef" else values[key]
        if found != only:
            text = _("{key} is {value}, which lrc does not support; remove it")
            if key in INSTEAD:
                text = _("{key} is {value}, which lrc does not support; remove it: {instead}")
            value = str(found).lower() if isinstance(found, bool) else values[key]
            yield text.format(key=key, value=value, instead=INSTEAD.get(key, ""))
    if values["train_sampling_strategy"] not in SAMPLING:
        yield (
            _("train_sampling_strategy is {value}, expected random or sequential; packed rows need no padding").format(
                value=values["train_sampling_strategy"]
            )
        )
    if values["save_only_model"]:
        yield _("save_only_model is true, but a run cannot be resumed without its optimizer state; remove it")
    if values["push_to_hub"] and not values["hub_model_id"]:
        yield _("push_to_hub is true, but hub_model_id is missing; give USER/NAME")
    if values["dataloader_prefetch_factor"] is not None and not values["dataloader_num_workers"]:
        yield _("dataloader_prefetch_factor needs data loader processes; set dataloader_num_workers, or remove it")


def _check_steps(values: Values) -> Iterator[str]:
    if values["max_steps"] == 0:
        yield _("max_steps is 0, which trains nothing; give more, or -1 for all of num_train_epochs")
    warmup = values["warmup_steps"]
    if warmup > 1 and warmup % 1:
        yield _("warmup_steps is {warmup}, expected whole steps, or a fraction of all below 1").format(warmup=warmup)


def _check_strategies(values: Values) -> Iterator[str]:
    """Check when a run logs, evaluates and saves."""
    best = values["metric_for_best_model"]
    if best and best.removeprefix("eval_") not in METRICS:
        yield _("metric_for_best_model is {best}, expected {first_metrics} or {last_metric}").format(
            best=best, first_metrics=tuple(METRICS[:-1]), last_metric=METRICS[-1]
        )
    yield from _check_direction(values)
    for event in ("logging", "eval", "save"):
        count = _interval(values, event)
        if values[f"{event}_strategy"] == "steps" and count > 1 and count % 1:
            yield _("{event}_steps is {count}, expected whole steps, or a fraction of all below 1").format(
                event=event, count=count
            )
    yield from _check_evaluations(values)
    if values["load_best_model_at_end"] and values["save_strategy"] != "best":
        yield from _check_best_model(values)


def _check_evaluations(values: Values) -> Iterator[str]:
    """Check that there are evaluations if something depends on them, and questions to evaluate on."""
    if values["eval_strategy"] == "no":
        for key, needing in (("lr_scheduler_type", SCHEDULES_BY_EVALUATION), ("save_strategy", ("best",))):
            if values[key] in needing:
                yield _("{key} is {value}, which needs evaluations; set eval_strategy").format(
                    key=key, value=values[key]
                )
    elif values["save_strategy"] == "best" and not any(values[key] for key in DECIDE_BEST):
        yield _("save_strategy is best, but metric_for_best_model is missing; give loss or accuracy")
    if values["validation_file"] is None:
        for key, off in (("eval_strategy", "no"), ("eval_on_start", False), ("eval_questions", None)):
            if values[key] != off:
                yield _("{key} is given, but validation_file is not; give one, or remove it").format(key=key)


def _check_direction(values: Values) -> Iterator[str]:
    metric, greater = best_metric(values), values["greater_is_better"]
    if metric in METRICS and greater not in (None, metric != "loss"):
        yield _(
            "greater_is_better is {greater}, which takes the worst {metric} for the best; remove it, or name another "
            "metric_for_best_model"
        ).format(greater=str(greater).lower(), metric=metric)


def _check_best_model(values: Values) -> Iterator[str]:
    evaluation, save = values["eval_strategy"], values["save_strategy"]
    if evaluation != save:
        yield (
            _(
                "load_best_model_at_end needs a checkpoint at each evaluation, but eval_strategy is "
                "{evaluation} and save_strategy is {save}; set both alike"
            ).format(evaluation=evaluation, save=save)
        )
        return
    if evaluation != "steps":
        return
    every, saved = _interval(values, "eval"), values["save_steps"]
    parts = every < 1, saved < 1
    # In millionths, since 0.3 is not a multiple of 0.1 in floating point.
    multiple = saved * 1_000_000 % (every * 1_000_000) == 0 if all(parts) else saved % every == 0
    if not multiple:
        yield (
            _(
                "load_best_model_at_end needs a checkpoint at each evaluation, but save_steps is {saved} and "
                "eval_steps is {every}; set save_steps to a multiple of eval_steps, such as the same number"
            ).format(saved=f"{saved:g}", every=f"{every:g}")
        )


def _interval(values: Values, event: str) -> float:
    """The number of steps between two events; evaluations are as frequent as log lines by default."""
    found: float = values[f"{event}_steps"] or values["logging_steps"]
    return found


def _check_early_stopping(values: Values) -> Iterator[str]:
    if values["early_stopping_patience"] is None:
        if values["early_stopping_threshold"]:
            yield _("early_stopping_threshold needs early_stopping_patience; set that as well")
    elif values["eval_strategy"] == "no":
        yield _("early_stopping_patience counts evaluations, but eval_strategy is no; set it to steps or epoch")


def _check_mappings(values: Values) -> Iterator[str]:
    for key in MAPPINGS:
        found = text = values[key]
        if isinstance(text, str):
            try:
                found = json.loads(text)
            except ValueError:
                found = text
        if found is not None and not isinstance(found, dict):
            yield _("{key} is {text}, expected a mapping, on the command line as JSON").format(key=key, text=text)
        elif "checkpointing" in key and (unknown := [name for name in found or () if name not in CHECKPOINTING]):
            yield _("{key} has {name}, expected {names}").format(key=key, name=unknown[0], names=CHECKPOINTING)


def _check_packages(values: Values) -> Iterator[str]:
    if values["deepspeed"] and find_spec("deepspeed") is None:
        yield _("deepspeed is given, but the package is not installed; pip install deepspeed, or remove it")


def _check_optimizer(values: Values) -> Iterator[str]:
    """Check what the optimizer needs, of which upstream says so only once the base is loaded."""
    optim, given = values["optim"], values["optim_args"]
    if optim in IN_BACKWARD:
        yield _(
            "optim is {optim}, which changes the weights in the backward pass of each row, but a step has several; "
            "name another, such as adamw_torch"
        ).format(optim=optim)
        return
    if source := missing_source(optim):
        text = _("optim is {optim}, but the package {package} is not installed; name another, such as adamw_torch")
        if source.package:
            text = _(
                "optim is {optim}, but the package {package} is not installed; pip install {package}, or name another, "
                "such as adamw_torch"
            )
        yield text.format(optim=optim, package=source.package or source.module)
    if optim.startswith(LOW_RANK) and not values["optim_target_modules"]:
        yield _("optim is {optim}, but optim_target_modules is missing; name the layers that it is for").format(
            optim=optim
        )
    if given and not ARGUMENTS.fullmatch(given.replace(" ", "")):
        yield _("optim_args is {given}, expected names and values, such as momentum=0.9,nesterov=true").format(
            given=given
        )
