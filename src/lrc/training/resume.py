"""Which run may resume from which checkpoint: the same run, whatever its name and wherever its folder is.

Two runs are the same if everything is equal from which their weights are computed: the base and the data by their
contents, the prompt, the tokenizer, the number of processes, and all keys of the recipe except those in `MAY_CHANGE`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrc.config.ignored_keys import IGNORED
from lrc.config.rules import SCHEDULES_BY_EVALUATION
from lrc.config.run_record import Run, read_run
from lrc.config.schema import shipped_schema
from lrc.runtime.translation import Message, _

# Keys whose values do not affect the weights; docs/reliability.md has the same table.
MAY_CHANGE: dict[str, tuple[str, ...]] = {
    "where things are": (
        *("output_dir", "overwrite_output_dir", "resume_from_checkpoint"),
        # Their contents are compared all the same.
        *("model_name_or_path", "model_revision", "train_file", "validation_file", "soft_labels", "fold"),
        *("pseudo_labels", "pseudo_label_file"),
    ),
    "logging": (
        *("logging_strategy", "logging_steps", "logging_first_step", "log_on_each_node", "log_level"),
        *("log_level_replica", "disable_tqdm", "include_num_input_tokens_seen", "report_to", "run_name", "project"),
        *("trackio_space_id", "trackio_bucket_id", "trackio_static_space_id", "skip_memory_metrics"),
    ),
    "saving": ("save_strategy", "save_steps", "save_total_limit", "save_on_each_node", "enable_jit_checkpoint"),
    "publishing": (
        *("push_to_hub", "hub_private_repo", "hub_model_id", "hub_strategy", "hub_always_push", "hub_revision"),
    ),
    # Not bit for bit, though: other rows draw other dropout masks, and another device rounds differently.
    "speed and memory": (
        *("use_cpu", "attention", "row_tokens", "gradient_checkpointing", "gradient_checkpointing_kwargs"),
        *(
            "activation_checkpointing",
            "activation_checkpointing_kwargs",
            "activation_offloading",
            "torch_empty_cache_steps",
            "dataset_num_proc",
        ),
        *("dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers"),
        *("dataloader_prefetch_factor", "dataloader_multiprocessing_context", "ddp_bucket_cap_mb", "ddp_timeout"),
    ),
    "checks": ("expected_vocab_size",),
    # Whoever reads so may remove them before the run goes on.
    "without effect": tuple(IGNORED),
}
# Keys of evaluation: they may change, too, unless it decides which weights are the result, when the training ends, or
# the learning rate.
EVALUATION = (
    "eval_strategy",
    "eval_questions",
    "eval_steps",
    "eval_delay",
    "eval_on_start",
    "per_device_eval_batch_size",
)
DECIDED_BY_EVALUATION = ("load_best_model_at_end", "early_stopping_patience")
# If the learning rate does not depend on the length, a longer run takes the same steps as a shorter one until its end.
LENGTH = ("max_steps", "num_train_epochs")

PROCESSES = "world_size"
PARTS = {"": _("files"), "weights": _("weights"), "config": _("configuration"), "tokenizer": _("tokenizer")}
WHOLE = "contents_sha256"  # of all of a base's tensors; runs of older releases lack it
# Separate fields of the run, which hold what `auto` and defaults were resolved to.
_PROMPT = ("template", "answer_style", "list_options")


@dataclass(frozen=True)
class Difference:
    """One respect in which two runs differ."""

    what: str
    then: str
    now: str
    cure: str  # how to undo it, in the imperative

    @property
    def fact(self) -> Message:
        """The difference in words."""
        return _("{what} was {then} and is {now} now").format(what=self.what, then=self.then, now=self.now)


def nondeterminism(device: str, full_determinism: bool) -> str | None:
    """Why a resumed run may differ in its last bits from one that was never stopped; None if it does not.

    Args:
        device: `cpu`, `cuda` …; on a CPU the order of sums is fixed, in the fast kernels of a GPU it is not.
        full_determinism: the recipe's key of that name.
    """
    if device == "cpu" or full_determinism:
        return None
    return _(
        "on a GPU the result may differ in its last bits from a run without a stop; full_determinism: true keeps them"
    )


def differences(then: Run, now: Run) -> list[Difference]:
    """How two runs differ; empty if `now` may resume `then`."""
    return [*_compare_recipes(then, now), *_compare_contents(then, now)]


def is_longer(then: Run, now: Run) -> bool:
    """Whether `now` is the same run as `then`, but longer, with the same steps until the end of `then`."""
    found = {difference.what for difference in differences(then, now)}
    if not found or not found <= set(LENGTH):
        return False
    constant = _value_of(now, "lr_scheduler_type") == "constant"
    lengths = [(_value_of(one, "max_steps"), _value_of(one, "num_train_epochs")) for one in (then, now)]
    (steps, epochs), (more_steps, more_epochs) = lengths
    by_steps, by_epochs = steps > 0 and more_steps > steps, max(steps, more_steps) <= 0 and more_epochs > epochs
    return constant and (by_steps or by_epochs)


def run_of(checkpoint: Path) -> Run | None:
    """The run that a checkpoint belongs to, from the run file in it or next to it; None if there is none."""
    return next(filter(None, map(read_run, (checkpoint, checkpoint.resolve().parent))), None)


def changed_versions(then: Run, now: Run) -> tuple[str, ...]:
    """Which packages have changed, such as `torch 2.12, now 2.13`."""
    both = sorted(then.versions.keys() & now.versions.keys())
    changed = [name for name in both if then.versions[name] != now.versions[name]]
    text = _("{name} {then}, now {now}")
    return tuple(text.format(name=name, then=then.versions[name], now=now.versions[name]) for name in changed)


def _compare_recipes(then: Run, now: Run) -> Iterator[Difference]:
    for key in _PROMPT:
        if getattr(then, key) != getattr(now, key):
            yield _compare_key(key, getattr(then, key), getattr(now, key))
    free = {key for keys in MAY_CHANGE.values() for key in keys} | {*_PROMPT, PROCESSES}
    if not _is_decided_by_evaluation(now):
        free |= {*EVALUATION}
    for key in sorted((then.recipe.keys() | now.recipe.keys()) - free):
        before, after = _value_of(then, key), _value_of(now, key)
        if before != after:
            yield _compare_key(key, before, after)
    before, after = then.recipe.get(PROCESSES, 1), now.recipe.get(PROCESSES, 1)
    if before != after:
        cure = _("start it with {count}").format(count=before)
        yield Difference(_("the number of processes"), _show(before), _show(after), cure)


def _is_decided_by_evaluation(run: Run) -> bool:
    scheduled = _value_of(run, "lr_scheduler_type") in SCHEDULES_BY_EVALUATION
    return scheduled or any(_value_of(run, key) for key in DECIDED_BY_EVALUATION)


def _compare_contents(then: Run, now: Run) -> Iterator[Difference]:
    for role in sorted(then.data.keys() | now.data.keys()):
        before, after = then.data.get(role, {}), now.data.get(role, {})
        if before.get("sha256") != after.get("sha256"):
            cure = _("give {role} as it was") if before else _("remove {role}")
            yield Difference(role, _content(before), _content(after), cure.format(role=role))
    pairs = [(_("the base model's {part}"), then.base, now.base)]
    if then.versions.get("transformers") == now.versions.get("transformers"):  # which writes it in its own way
        pairs.append((_("the tokenizer's {part}"), then.tokenizer, now.tokenizer))
    for what, before, after in pairs:
        # Only what both runs have recorded can be compared.
        known = [key for key in before.keys() & after.keys() if key.endswith("sha256") and before[key] and after[key]]
        if WHOLE in known:  # weights_sha256 covers only samples of the same weights
            known = [key for key in known if key != "weights_sha256"]
        for key in sorted(known):
            if before[key] != after[key]:
                part = _("weights") if key == WHOLE else PARTS.get(key.removesuffix("sha256").strip("_"), key)
                was, now_is = (f"{one.get('name', '')} ({key} {one[key][:12]}…)".strip() for one in (before, after))
                cure = _("set model_name_or_path to the one that it began with")
                yield Difference(what.format(part=part), was, now_is, cure)


def _compare_key(key: str, before: Any, after: Any) -> Difference:
    return Difference(key, _show(before), _show(after), _("set {key}: {value}").format(key=key, value=_show(before)))


def _content(part: Mapping[str, Any]) -> str:
    return f"{part.get('name')} (sha256 {str(part.get('sha256'))[:12]}…)" if part else _("none")


def _show(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:199]}…"


def _value_of(run: Run, key: str) -> Any:
    """The recipe's value of a key, or its default."""
    schema = shipped_schema()
    return run.recipe.get(key, schema[key].default if key in schema else None)
