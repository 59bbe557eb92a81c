"""Suggests what to write instead of an unknown key of a recipe: its name here, or what has replaced it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from lrc.config.ignored_keys import IGNORED
from lrc.config.rules import UNSUPPORTED
from lrc.runtime.translation import _

_NO_PADDING = _("packed rows need no padding; remove it")
_TREES = _("it is tree_packing, which is on unless a recipe says otherwise; remove it")
_ANSWER_ALONE = _("the answer alone is learnt; remove it")
_SPLIT = _("`lrc convert --validation-fraction` splits the data; give the file as validation_file")
_FILES = _("the data is in the files of train_file and validation_file; remove it")
_NEW_ADAPTER = _("training starts with a new adapter; merge the old one into its base with `lrc merge`, and train that")
_NO_BIAS = _("an adapter has no biases here; remove it")
_PATTERN = _("lora_target_modules takes a regular expression")
_SCHEDULE = _("give it in lr_scheduler_kwargs")
_LOG_IN = _("log in with `hf auth login`, or set HF_TOKEN; remove it")
# Keys of older recipes, and what has replaced them upstream.
GONE = {
    "env": _("set environment variables where the run is started"),
    "warmup_ratio": _("write warmup_steps: a value below 1 is a ratio"),
    "max_seq_length": _("it is now max_length"),
    "torch_dtype": _("it is now dtype"),
    "bnb_4bit_compute_dtype": _("4-bit weights are computed in the format of dtype; remove it"),
    "bnb_4bit_use_double_quant": _("it is use_bnb_nested_quant"),
    "tokenizer_name": _("the base model's own tokenizer is used; remove it"),
    "tokenizer_name_or_path": _("the base model's own tokenizer is used; remove it"),
    "save_safetensors": _("nothing else is saved; remove it"),
    "logging_dir": _("trackers have their own places; remove it"),
    "evaluation_strategy": _("it is now eval_strategy"),
    "group_by_length": _NO_PADDING,
    "no_cuda": _("it is now use_cpu"),
    "target_modules": _("it is lora_target_modules"),
    "modules_to_save": _("it is lora_modules_to_save"),
}
# Flags of other commands of lrc, and keys of other trainers that are not keys here.
ELSEWHERE = {
    "help": _("`lrc train --help` explains it, and docs/recipes.md lists the keys"),
    "force": _("to train into a folder that holds another run, set overwrite_output_dir"),
    "votes": _("it is a flag of `lrc generate` and `lrc evaluate`"),
    "gpu": _("it is a flag of `lrc preview`"),
    "gpu_memory": _("it is a flag of `lrc preview`"),
    "num_processes": _(
        "it is set in the accelerate config, or is that of the GPUs; choose one with --accelerate-config, or fewer "
        "GPUs by CUDA_VISIBLE_DEVICES=0,1"
    ),
    "quantization_bit": _("write load_in_4bit: true, or load_in_8bit: true"),
    "load_in_kbits": _("write load_in_4bit: true, or load_in_8bit: true"),
    "quantization": _("write load_in_4bit: true, or load_in_8bit: true"),
    "validation_fraction": _("it is a flag of `lrc convert`, which splits the data"),
    "neat_packing": _TREES,
    "sample_packing": _TREES,
    "eval_sample_packing": _TREES,
    "pad_to_sequence_len": _NO_PADDING,
    "train_on_prompt": _ANSWER_ALONE,
    "train_on_inputs": _ANSWER_ALONE,
    "response_template": _ANSWER_ALONE,
    "instruction_template": _ANSWER_ALONE,
    "formatting_func": _("template and answer_style decide about the prompt; remove it"),
    "val_set_size": _SPLIT,
    "val_size": _SPLIT,
    "validation_split_percentage": _SPLIT,
    "dataset_config": _FILES,
    "dataset_train_split": _FILES,
    "dataset_test_split": _FILES,
    "dataset_streaming": _FILES,
    "streaming": _FILES,
    "adapter_name_or_path": _NEW_ADAPTER,
    "peft_path": _NEW_ADAPTER,
    "lora_model_dir": _NEW_ADAPTER,
    "bias": _NO_BIAS,
    "lora_bias": _NO_BIAS,
    "exclude_modules": _PATTERN,
    "layers_to_transform": _PATTERN,
    "layers_pattern": _PATTERN,
    "min_lr": _SCHEDULE,
    "min_learning_rate": _SCHEDULE,
    "lr_end": _SCHEDULE,
    "hf_hub_token": _LOG_IN,
    "ms_hub_token": _LOG_IN,
    "cache_dir": _("set HF_HOME where the run is started"),
    "wandb_project": _("set WANDB_PROJECT where the run is started"),
}
# Names of the keys in other libraries and in papers, and abbreviations.
SYNONYMS = {
    "num_train_epochs": "epoch epochs num_epochs n_epochs max_epochs train_epochs",
    "max_steps": "steps num_steps total_steps max_train_steps iterations",
    "learning_rate": "lr max_lr base_lr",
    "per_device_train_batch_size": "batch batch_size bs train_batch_size micro_batch_size per_gpu_train_batch_size",
    "per_device_eval_batch_size": "eval_batch_size val_batch_size per_gpu_eval_batch_size",
    "bnb_4bit_quant_type": "quant_type quantization_type",
    "gradient_accumulation_steps": "grad_accum grad_accumulation gradient_accumulation accumulation accumulation_steps"
    " accumulate_grad_batches grad_acc_steps",
    "gradient_checkpointing": "checkpointing grad_checkpointing use_gradient_checkpointing",
    "lora_r": "r rank lora_rank lora_dim",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "lora_target_modules": "target targets lora_target lora_modules lora_target_linear trainable",
    "lora_modules_to_save": "additional_target",
    "max_length": "max_len max_seq_len seq_len seq_length sequence_len sequence_length cutoff_len block_size"
    " context_length model_max_length max_tokens",
    "model_name_or_path": "model base base_model model_name model_path model_id pretrained_model_name_or_path",
    "model_revision": "revision",
    "train_file": "data dataset data_file data_path dataset_name training_file train_data train_dataset datasets"
    " dataset_dir dataset_mixture",
    "train_shares": "interleave_probs",
    "validation_file": "eval_file val_file dev_file eval_dataset validation_data validation eval_data",
    "output_dir": "output out out_dir save_dir output_path",
    "lr_scheduler_type": "scheduler lr_scheduler scheduler_type lr_schedule schedule",
    "optim": "optimizer optimizer_type",
    "warmup_steps": "warmup num_warmup_steps",
    "weight_decay": "wd decay",
    "max_grad_norm": "clip grad_clip gradient_clipping gradient_clip_val max_norm clip_grad_norm",
    "neftune_noise_alpha": "neftune neft_alpha",
    "load_in_4bit": "4bit int4 use_4bit qlora load_4bit",
    "load_in_8bit": "8bit int8 use_8bit load_8bit",
    "use_bnb_nested_quant": "double_quant double_quantization use_nested_quant",
    "attn_implementation": "flash_attn attention_implementation attn use_flash_attention_2",
    "template": "prompt prompt_template chat_template",
    "answer_style": "style",
    "resume_from_checkpoint": "resume checkpoint",
    "eval_steps": "val_steps evaluation_steps",
    "early_stopping_patience": "patience early_stopping",
    "loraplus_lr_ratio": "loraplus",
    "init_lora_weights": "pissa pissa_init init_lora init",
    "overwrite_output_dir": "overwrite",
    "report_to": "logger tracker trackers log_with",
    "run_name": "wandb_name wandb_run_name experiment_name",
    "use_peft": "peft lora use_lora adapter finetuning_type",
    "use_dora": "dora",
    "use_rslora": "rslora",
    "bf16": "bfloat16",
    "fp16": "float16 half",
    "use_cpu": "cpu",
    "seed": "random_seed random_state",
    "dataset_num_proc": "num_proc num_workers preprocessing_num_workers",
}
_NAMED = {synonym: key for key, synonyms in SYNONYMS.items() for synonym in synonyms.split()}
_NEGATIONS = ("no_", "not_", "disable_", "without_")
# 0.8 takes epcohs for epochs; below that, use_unsloth is taken for use_rslora and lora_bias for lora_r.
_ALIKE = 0.8


def cure(key: str, known: Iterable[str]) -> str:
    """What to do about an unknown key, such as `did you mean 'lora_r'?`.

    Args:
        key: as written.
        known: the keys of a recipe.
    """
    names, plain = list(known), key.lower().replace("-", "_")
    if told := _tell(plain, names):
        return told
    negated = next((plain.removeprefix(word) for word in _NEGATIONS if plain.startswith(word)), "")
    if negated and (near := nearest(negated, names)) in names:
        return _("write {key}: false").format(key=near)
    near = nearest(plain, names)
    return (_tell(near, names) if near else None) or _("remove it")


def _tell(name: str, known: Sequence[str]) -> str | None:
    """The cure for a name that is meant for sure: what is known of it, or the key that it stands for."""
    if name in GONE or name in ELSEWHERE:
        return {**GONE, **ELSEWHERE}[name]
    meant = _NAMED.get(name, name)
    if meant in IGNORED:
        return _("{reason}; remove it").format(reason=IGNORED[meant])
    return _("did you mean {near}?").format(near=repr(meant)) if meant in known and meant not in UNSUPPORTED else None


def nearest(key: str, known: Iterable[str]) -> str | None:
    """The name most similar to an unknown one, by spelling or by common words: a key, or a name that has a cure.

    A name that is only somewhat alike is another one: advice to write it would change what is trained.
    """
    names = [*known]
    spelt = {name.replace("_", ""): name for name in (*GONE, *ELSEWHERE, *_NAMED, *names)}
    if near := get_close_matches(key.replace("_", ""), list(spelt), n=1, cutoff=_ALIKE):
        return spelt[near[0]]
    words = set(key.split("_"))
    holding = [name for name in names if words <= set(name.split("_")) and name not in IGNORED]
    return min(holding, key=len) if len(holding) == 1 or (holding and len(words) > 1) else None
