"""Suggests what to write instead of an unknown key of a recipe: its name here, or what has replaced it."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from lrc.runtime.translation import _

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
    "group_by_length": _("packed rows need no padding; remove it"),
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
    "num_processes": _("it is set in the accelerate config; choose one with --accelerate-config"),
    "quantization_bit": _("write load_in_4bit: true, or load_in_8bit: true"),
    "load_in_kbits": _("write load_in_4bit: true, or load_in_8bit: true"),
    "quantization": _("write load_in_4bit: true, or load_in_8bit: true"),
    "validation_fraction": _("it is a flag of `lrc convert`, which splits the data"),
    "neat_packing": _("it is tree_packing, which is on unless a recipe says otherwise; remove it"),
    "train_on_prompt": _("the answer alone is learnt; remove it"),
    "val_set_size": _("`lrc convert --validation-fraction` splits the data; give the file as validation_file"),
}
# Names of the keys in other libraries and in papers, and abbreviations.
SYNONYMS = {
    "num_train_epochs": "epoch epochs num_epochs n_epochs max_epochs train_epochs",
    "max_steps": "steps num_steps total_steps max_train_steps iterations",
    "learning_rate": "lr max_lr base_lr",
    "per_device_train_batch_size": "batch batch_size bs train_batch_size micro_batch_size per_gpu_train_batch_size",
    "per_device_eval_batch_size": "eval_batch_size val_batch_size per_gpu_eval_batch_size",
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
    "train_file": "data dataset data_file data_path dataset_name training_file train_data train_dataset datasets"
    " dataset_dir",
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
    "init_lora_weights": "pissa init_lora init",
    "overwrite_output_dir": "overwrite",
    "report_to": "logger tracker trackers log_with",
    "use_peft": "peft lora use_lora",
    "use_dora": "dora",
    "use_rslora": "rslora",
    "bf16": "bfloat16",
    "fp16": "float16 half",
    "use_cpu": "cpu",
    "seed": "random_seed random_state",
    "dataset_num_proc": "num_proc num_workers preprocessing_num_workers",
}
_NAMED = {synonym: key for key, synonyms in SYNONYMS.items() for synonym in synonyms.split()}


def cure(key: str, known: Iterable[str]) -> str:
    """What to do about an unknown key, such as `did you mean 'lora_r'?`.

    Args:
        key: as written.
        known: the keys of a recipe.
    """
    plain = key.lower().replace("-", "_")
    if plain in GONE or plain in ELSEWHERE:
        return {**GONE, **ELSEWHERE}[plain]
    near = _NAMED.get(plain) or nearest(plain, known)
    return _("did you mean {near}?").format(near=repr(near)) if near else _("remove it")


def nearest(key: str, known: Iterable[str]) -> str | None:
    """The known key most similar to an unknown one: by spelling, then by common words."""
    names = list(known)
    if near := get_close_matches(key, [*names, *_NAMED], n=1, cutoff=0.75):
        return _NAMED.get(near[0], near[0]) if near[0] not in names else near[0]
    words = set(key.split("_"))
    holding = [name for name in names if words <= set(name.split("_"))]
    if holding:
        return min(holding, key=len)
    return next(iter(get_close_matches(key, names, n=1)), None)
