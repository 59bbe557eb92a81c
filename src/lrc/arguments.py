"""The keys of a recipe: lrc's own, and those of TRL, transformers and PEFT with defaults that suit this work.

Importing this takes seconds (TRL, transformers and PEFT come with it), so `recipe` does it as late as it can.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from trl import ModelConfig, SFTConfig

from lrc.dtypes import device_type
from lrc.run import SCORED_AS_THEY_ARE, lists_options
from lrc.tracking import why_not_reported

# The first two leave the base as it is. PiSSA changes it, so what is saved is converted for the base as it was
# (pissa.py); upstream's others would need a base of their own to be merged into.
INIT_LORA_WEIGHTS = ("gaussian", "orthogonal", "pissa")
PISSA = re.compile(r"pissa(_niter_[1-9]\d{0,3})?")
# Upstream's keys that lrc has no use for, most of them because of packed trees, and the one value each may have.
WITHOUT_USE: dict[str, Any] = {
    "packing": False,
    "eval_packing": None,
    "padding_free": False,
    "assistant_only_loss": False,
    "auto_find_batch_size": False,
    "use_liger_kernel": False,
    "label_smoothing_factor": 0.0,
    "router_aux_loss_coef": 0.0,
    # Evaluation is done in the number formats that the model is trained in, and without a cache.
    "bf16_full_eval": False,
    "fp16_full_eval": False,
    "use_cache": False,
    "loss_type": "nll",
    "completion_only_loss": True,
    # Questions are tokenized with the base's own tokenizer, and the template decides how an answer ends.
    "eos_token": None,
    "chat_template_path": None,
}
SAMPLING = ("random", "sequential")
METRICS = ("loss", "accuracy", "ci_low", "ci_high")  # of an evaluation, see `validation.combine`


@dataclass
class DataArguments:
    """What is asked, how, and what happens to a question that does not fit.

    With a `fold`, `train_file` and `validation_file` become that fold's files.

    Raises:
        ValueError: keys do not go together, or a file's name has no folds.
    """

    train_file: list[str] | str = field(
        metadata={
            "help": "The JSON to train on, as `lrc convert` writes it; or several files of questions, of any kind that "
            "lrc reads."
        }
    )
    train_shares: list[float] | None = field(
        default=None,
        metadata={
            "help": "The part of each of several train_file in an epoch, which is as long as it can be without drawing "
            "a question twice; by default an epoch has all questions of all files."
        },
    )
    validation_file: str | None = field(
        default=None, metadata={"help": "The JSON to evaluate on during training; none by default."}
    )
    eval_questions: int | None = field(
        default=None,
        metadata={
            "help": "Evaluate on so many validation questions while training, whole passages and the same ones each "
            "time, and on all of them at the end; by default always on all."
        },
    )
    template: Literal["chinese-alpaca-2", "alpaca", "chat", "plain"] = field(
        default="chinese-alpaca-2",
        metadata={"help": "The prompt around a question; chat is the tokenizer's own chat template."},
    )
    answer_style: Literal["digit", "text", "judge"] = field(
        default="digit",
        metadata={
            "help": "Answer with the number of an option, with its text, or judge each option by itself: a prompt an "
            "option that asks whether it is right, 是 or 否."
        },
    )
    score_normalisation: Literal["character", "token", "sum", "auto"] = field(
        default="character",
        metadata={
            "help": "What the log-likelihood of an option's text is divided by: its characters, its tokens, or nothing "
            "(sum); auto takes what is most accurate on the validation questions, after training."
        },
    )
    list_options: bool | None = field(
        default=None,
        metadata={
            "help": "Show the options in the prompt. Default: true, but false for judge and for text with plain."
        },
    )
    on_too_long: Literal["shorten", "refuse", "skip"] = field(
        default="shorten",
        metadata={"help": "A question longer than max_length: shorten its passage, refuse to train, or skip it."},
    )
    option_orders: int = field(
        default=1, metadata={"help": "In how many rotations of its options each question is trained."}
    )
    option_contrast: float | None = field(
        default=None,
        metadata={
            "help": "The part of the loss, 0 to 1, that is the contrast between the options of a question rather than "
            "the likelihood of the right one, or of each verdict; for answer_style text and judge. Default: 0, but 1 "
            "for judge."
        },
    )
    contrast_temperature: float | None = field(
        default=None,
        metadata={
            "help": "What the options' scores are divided by in the contrast. Default: 0.25, but 1 for judge, whose "
            "scores are log-odds."
        },
    )
    soft_labels: str | None = field(
        default=None,
        metadata={
            "help": "Other models' scores of the training questions, as `lrc generate` and `lrc vote` write them with "
            "--scores: a part of what the contrast learns."
        },
    )
    soft_label_weight: float = field(
        default=0.5, metadata={"help": "Their part of the contrast's target; the rest is the right option's."}
    )
    soft_label_temperature: float = field(
        default=1.0, metadata={"help": "What they are divided by before they become probabilities."}
    )
    group_passages: bool = field(
        default=True,
        metadata={
            "help": "Draw the questions of a passage together, which computes it once a step; false draws one by one."
        },
    )
    tree_packing: bool = field(
        default=True, metadata={"help": "Compute a passage once for all of its questions in a batch."}
    )
    row_tokens: int | None = field(
        default=None,
        metadata={"help": "Tokens of a packed row at most; by default what suits the device."},
    )
    fold: int | None = field(
        default=None,
        metadata={"help": "Train on this fold, from 0: _train.json is read as _fold{k}_train.json."},
    )
    expected_vocab_size: int | None = field(
        default=None, metadata={"help": "Refuse a tokenizer of another size; no check by default."}
    )
    overwrite_output_dir: bool = field(
        default=False, metadata={"help": "Begin again in an output_dir that holds another run."}
    )

    def __post_init__(self) -> None:
        judged = self.answer_style == "judge"
        if self.list_options is None:
            self.list_options = lists_options(self.answer_style, self.template)
        if self.option_contrast is None:
            self.option_contrast = 1.0 if judged else 0.0
        if self.contrast_temperature is None:
            self.contrast_temperature = 1.0 if judged else 0.25
        if self.answer_style == "digit" and not self.list_options:
            raise ValueError("list_options is false, expected true where answer_style is digit")
        if self.option_orders > 1 and not self.list_options:
            raise ValueError(
                f"option_orders is {self.option_orders}, but the prompt lists no options, so their order is nothing "
                "to it; set list_options: true, or remove it"
            )
        if self.score_normalisation != "character" and self.answer_style != "text":
            raise ValueError(
                f"score_normalisation is {self.score_normalisation}, but {SCORED_AS_THEY_ARE[self.answer_style]} are "
                "scored as they are; remove it"
            )
        if not 0 <= self.option_contrast <= 1:
            raise ValueError(f"option_contrast is {self.option_contrast}, expected 0 to 1")
        if self.option_contrast and self.answer_style == "digit":
            raise ValueError(
                "option_contrast compares options, not digits; set answer_style: text or judge, or remove it"
            )
        if self.soft_labels is not None and not self.option_contrast:
            raise ValueError("soft_labels are a target of the contrast, but option_contrast is 0; raise it")
        if self.soft_label_weight > 1:
            raise ValueError(f"soft_label_weight is {self.soft_label_weight}, expected 0 to 1")
        if self.score_normalisation == "auto" and self.validation_file is None:
            raise ValueError("score_normalisation is auto, which chooses on a validation_file; give one")
        if self.eval_questions is not None and self.validation_file is None:
            raise ValueError("eval_questions is given, but validation_file is not; give one")
        self._check_files()
        if self.fold is not None:
            self.train_file = [_of_fold(file, self.fold, "train") for file in self.train_files]
            if self.validation_file is not None:
                self.validation_file = _of_fold(self.validation_file, self.fold, "validation")

    def _check_files(self) -> None:
        files, shares = self.train_files, self.train_shares
        if repeated := next((file for file in files if files.count(file) > 1), None):
            raise ValueError(f"train_file names {repeated} twice; name it once")
        if shares is None:
            return
        if len(shares) != len(files):
            raise ValueError(
                f"train_shares has {len(shares)} parts for {len(files)} files of train_file; give one each"
            )
        if not all(share > 0 for share in shares) or abs(sum(shares) - 1) > 1e-6:
            raise ValueError(f"train_shares is {shares}, expected numbers above 0 whose sum is 1")

    @property
    def train_files(self) -> list[str]:
        """The files of `train_file`, in order."""
        return [self.train_file] if isinstance(self.train_file, str) else list(self.train_file)

    @property
    def contrasted(self) -> str | None:
        """By what the scores of options are normalised that training compares; None where it compares none."""
        if not self.option_contrast:
            return None
        return "character" if self.score_normalisation == "auto" else self.score_normalisation


@dataclass
class AdapterArguments:
    """LoRA settings that TRL's `ModelConfig` lacks, under PEFT's names.

    Raises:
        ValueError: an initialisation that needs data or settings of its own, or a pattern that is not one.
    """

    init_lora_weights: str | None = field(
        default=None,
        metadata={"help": "gaussian, orthogonal, pissa, or pissa_niter_16, which starts faster; by default B is zero."},
    )
    rank_pattern: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": "Ranks of modules that differ from lora_r, by a pattern of their name."},
    )
    alpha_pattern: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": "Alphas of modules that differ from lora_alpha, by a pattern of their name."},
    )
    loraplus_lr_ratio: float | None = field(
        default=None, metadata={"help": "LoRA+: the learning rate of B is that of A times this."}
    )
    ensure_weight_tying: bool = field(
        default=False, metadata={"help": "Keep tied embeddings tied where lora_modules_to_save names them."}
    )

    def __post_init__(self) -> None:
        if self.init_lora_weights not in (None, *INIT_LORA_WEIGHTS) and not self.pissa:
            expected = ", ".join(INIT_LORA_WEIGHTS)
            raise ValueError(f"init_lora_weights is {self.init_lora_weights}, expected {expected} or pissa_niter_16")
        self.rank_pattern = _pattern("rank_pattern", self.rank_pattern)
        self.alpha_pattern = _pattern("alpha_pattern", self.alpha_pattern)

    @property
    def pissa(self) -> str | None:
        """The way to PiSSA's start; None for another one."""
        asked = self.init_lora_weights or ""
        return asked if PISSA.fullmatch(asked) else None


@dataclass
class ModelArguments(ModelConfig):
    """TRL's `ModelConfig`, with an adapter unless the recipe says otherwise."""

    use_peft: bool = field(default=True, metadata={"help": "Train a LoRA adapter rather than all weights."})

    def __post_init__(self) -> None:
        super().__post_init__()
        # Upstream takes a list of one for its member, and PEFT a text for a pattern of whole paths.
        targets: Any = vars(self)["lora_target_modules"]
        if isinstance(targets, str) and targets.isidentifier():
            self.lora_target_modules = [targets]
        elif isinstance(targets, str):
            _refuse_no_pattern("lora_target_modules", targets)
        if self.lora_task_type != "CAUSAL_LM":
            raise ValueError(f"lora_task_type is {self.lora_task_type}, expected CAUSAL_LM; remove it")


@dataclass
class TrainingArguments(SFTConfig):
    """TRL's `SFTConfig` with defaults that suit this work; upstream's are slower, or wrong here.

    Raises:
        ValueError: a key that would do nothing here.
    """

    bf16: bool | None = field(default=False, metadata={"help": "Mixed precision in bfloat16."})
    gradient_checkpointing: bool = field(
        default=False,
        metadata={"help": "Compute activations twice to save memory; 1.1 to 1.4 times the time."},
    )
    # accelerate joins several CPU processes into one run only where the training arguments say so.
    use_cpu: bool = field(
        default_factory=lambda: device_type() == "cpu",
        metadata={"help": "Stay on the CPU. Default: where there is no accelerator."},
    )
    completion_only_loss: bool | None = field(default=True, metadata={"help": "Learn the answer, not the question."})
    project: str = field(default="lrc", metadata={"help": "What trackio files the run under."})
    run_name: str | None = field(
        default=None, metadata={"help": "What trackers call the run. Default: the name of output_dir."}
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={
            "help": "Stop after so many evaluations in a row that are not better by metric_for_best_model, which is "
            "accuracy where it is not given."
        },
    )
    early_stopping_threshold: float = field(
        default=0.0, metadata={"help": "By more than what an evaluation has to be better, for early_stopping_patience."}
    )

    def __post_init__(self) -> None:
        # Unset, it would be what the base declares.
        self.router_aux_loss_coef = vars(self)["router_aux_loss_coef"] or 0.0
        for key, value in WITHOUT_USE.items():
            if getattr(self, key) != value:
                raise ValueError(f"{key} is {getattr(self, key)}, which lrc has no use for; remove it")
        if self.train_sampling_strategy not in SAMPLING:
            raise ValueError(
                f"train_sampling_strategy is {self.train_sampling_strategy}, expected random or sequential; "
                "packed trees leave nothing to pad"
            )
        if self.max_steps == 0:
            raise ValueError("max_steps is 0, which trains nothing; give more, or -1 for all of num_train_epochs")
        if self.warmup_steps > 1 and self.warmup_steps % 1:
            raise ValueError(f"warmup_steps is {self.warmup_steps}, expected whole steps, or below 1 a part of all")
        best: Any = vars(self)["metric_for_best_model"]
        if best and best.removeprefix("eval_") not in METRICS:
            expected = f"{', '.join(METRICS[:-1])} or {METRICS[-1]}"
            raise ValueError(f"metric_for_best_model is {best}, expected {expected}")
        if self.save_only_model:
            raise ValueError(
                "save_only_model is true, but without its optimizer a run cannot go on where it stopped; remove it"
            )
        if self.early_stopping_patience is not None:
            if self.eval_strategy == "no":
                raise ValueError(
                    "early_stopping_patience counts evaluations, but eval_strategy is no; set it to steps or epoch"
                )
            self.metric_for_best_model = best or "accuracy"
        elif self.early_stopping_threshold:
            raise ValueError("early_stopping_threshold goes with early_stopping_patience; give that as well")
        if self.push_to_hub and not self.hub_model_id:
            raise ValueError("push_to_hub is true, but hub_model_id is missing; give USER/NAME")
        # So that a tracker goes on with the run where the run itself does.
        self.run_name = self.run_name or Path(self.output_dir or ".").resolve().name
        super().__post_init__()
        if fault := why_not_reported(self.report_to or []):
            raise ValueError(fault)


def _of_fold(file: str, fold: int, part: str) -> str:
    ending, folded = f"_{part}.json", f"_fold{fold}_{part}.json"
    if not file.endswith(ending):
        raise ValueError(f"{part}_file is {file}, expected a name that ends in {ending} where fold is given")
    return file if file.endswith(folded) else file.removesuffix(ending) + folded


def _pattern(key: str, value: dict[str, Any] | str | None) -> dict[str, Any] | None:
    # On the command line a mapping is written as JSON, as for upstream's keys that hold one.
    try:
        pattern = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        pattern = ()
    whole = isinstance(pattern, dict) and all(type(number) is int and number > 0 for number in pattern.values())
    if pattern is not None and not whole:
        raise ValueError(f"{key} is {value}, expected whole numbers by module name, such as {{q_proj: 8}}")
    for name in pattern or ():
        _refuse_no_pattern(key, name)
    return pattern or None


def _refuse_no_pattern(key: str, text: str) -> None:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{key} has {text!r}, which is no pattern ({error}); give the names of modules") from None
