"""The keys of a recipe, as dataclasses: lrc's own, and those of TRL, transformers and PEFT with suitable defaults.

Importing this module takes seconds, since it imports TRL, transformers and PEFT. So `recipe` first checks the keys
against `schema`, and imports this module last. Rules on which values go together are in `rules`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from trl import ModelConfig, SFTConfig

from lrc.config.rules import PISSA, fold_file, parse_pattern, parse_target_modules, train_files
from lrc.config.run_record import lists_options
from lrc.config.trackers import why_not_reported
from lrc.runtime.devices import device_type


@dataclass
class DataArguments:
    """The data of a run, its prompts and its packing.

    With a `fold`, `train_file` and `validation_file` become that fold's files.
    """

    train_file: list[str] | str = field(
        metadata={
            "help": "The questions to train on: the JSON file that `lrc convert` writes, or a list of files of any "
            "kind that lrc reads."
        }
    )
    train_shares: list[float] | None = field(
        default=None,
        metadata={
            "help": "With several files in train_file, the share of each in an epoch. The epoch is as long as it can "
            "be without repeating a question. By default it has all questions of all files."
        },
    )
    validation_file: str | None = field(
        default=None, metadata={"help": "The JSON file to evaluate on during training. Default: none."}
    )
    eval_questions: int | None = field(
        default=None,
        metadata={
            "help": "How many validation questions to evaluate on during training: whole passages, the same ones each "
            "time. The evaluation at the end uses all questions. Default: all."
        },
    )
    template: Literal["chinese-alpaca-2", "alpaca", "chat", "plain"] = field(
        default="chinese-alpaca-2",
        metadata={"help": "The prompt around a question; chat is the tokenizer's own chat template."},
    )
    answer_style: Literal["digit", "digit_after", "text", "judge"] = field(
        default="digit",
        metadata={
            "help": "How the model answers: with the number of an option, which the list has before its text (digit) "
            "or after it (digit_after), with its text (text), or with 是 or 否 to a prompt for each option that asks "
            "whether it is right (judge)."
        },
    )
    score_normalisation: Literal["character", "token", "sum", "auto"] = field(
        default="character",
        metadata={
            "help": "What the log-likelihood of an option's text is divided by: its characters, its tokens, or nothing "
            "(sum); auto picks the one that is most accurate on the validation questions, after training."
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
        default=1, metadata={"help": "In how many orders of its options (rotations) each question is trained."}
    )
    option_contrast: float | None = field(
        default=None,
        metadata={
            "help": "Weight in the loss, 0 to 1, of the contrast between the options of a question; the rest is the "
            "likelihood of the right option, or of each verdict. For answer_style text and judge. Default: 0, but 1 "
            "for judge."
        },
    )
    contrast_temperature: float | None = field(
        default=None,
        metadata={
            "help": "Temperature of the contrast: what the options' scores are divided by. Default: 0.25, but 1 for "
            "judge, whose scores are log-odds."
        },
    )
    soft_labels: str | None = field(
        default=None,
        metadata={
            "help": "Other models' scores of the training questions, as `lrc generate` and `lrc vote` write them with "
            "--scores: soft targets for the contrast."
        },
    )
    soft_label_weight: float = field(
        default=0.5,
        metadata={"help": "Weight of soft_labels in the target of the contrast; the right option has the rest."},
    )
    soft_label_temperature: float = field(
        default=1.0,
        metadata={"help": "Temperature of the softmax that turns the scores of soft_labels into probabilities."},
    )
    pseudo_labels: str | None = field(
        default=None,
        metadata={
            "help": "Scores of the questions in pseudo_label_file, as `lrc vote` and `lrc generate` write them with "
            "--scores. Questions with a sufficiently certain answer are added to the training data."
        },
    )
    pseudo_label_file: str | None = field(
        default=None,
        metadata={"help": "The questions without answers that pseudo_labels belong to, such as a test workbook."},
    )
    pseudo_label_threshold: float = field(
        default=0.9,
        metadata={"help": "The probability, 0 to 1, that the best option needs for a question to be added."},
    )
    group_passages: bool = field(
        default=True,
        metadata={
            "help": "Draw the questions of a passage together, so that a step computes it once; false: one by one."
        },
    )
    tree_packing: bool = field(
        default=True, metadata={"help": "Compute a passage once for all of its questions in a batch."}
    )
    attention: Literal["auto", "flex", "block", "dense"] = field(
        default="auto",
        metadata={
            "help": "Attention over a packed row: FlexAttention (flex), one segment of the tree at a time (block), "
            "or a dense mask (dense); auto picks by device and row length. The results are equal."
        },
    )
    row_tokens: int | None = field(
        default=None,
        metadata={"help": "Maximum number of tokens in a packed row; the default depends on the device."},
    )
    fold: int | None = field(
        default=None,
        metadata={"help": "Train on this fold, counted from 0: NAME_fold{k}_train.json is read for NAME_train.json."},
    )
    expected_vocab_size: int | None = field(
        default=None, metadata={"help": "Refuse a tokenizer of any other size. Default: no check."}
    )
    overwrite_output_dir: bool = field(
        default=False, metadata={"help": "Start over in an output_dir that holds another run."}
    )

    def __post_init__(self) -> None:
        judged = self.answer_style == "judge"
        if self.list_options is None:
            self.list_options = lists_options(self.answer_style, self.template)
        if self.option_contrast is None:
            self.option_contrast = 1.0 if judged else 0.0
        if self.contrast_temperature is None:
            self.contrast_temperature = 1.0 if judged else 0.25
        if self.fold is not None:
            files = [fold_file(file, self.fold, "train") for file in self.train_files]
            self.train_file = files[0] if isinstance(self.train_file, str) else files
            if self.validation_file is not None:
                self.validation_file = fold_file(self.validation_file, self.fold, "validation")

    @property
    def train_files(self) -> list[str]:
        """The files of `train_file`, in order."""
        return train_files(self.train_file)

    @property
    def contrasted(self) -> str | None:
        """The normalisation of the options' scores in the contrast; None if there is no contrast."""
        if not self.option_contrast:
            return None
        return "character" if self.score_normalisation == "auto" else self.score_normalisation


@dataclass
class AdapterArguments:
    """LoRA settings that TRL's `ModelConfig` lacks, under PEFT's names."""

    init_lora_weights: str | None = field(
        default=None,
        metadata={"help": "gaussian, orthogonal, pissa, or pissa_niter_16, which starts faster. Default: B is zero."},
    )
    rank_pattern: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": "Ranks that differ from lora_r, by patterns of module names."},
    )
    alpha_pattern: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": "Alphas that differ from lora_alpha, by patterns of module names."},
    )
    loraplus_lr_ratio: float | None = field(
        default=None, metadata={"help": "LoRA+: ratio of the learning rate of B to that of A."}
    )
    loraplus_lr_embedding: float | None = field(
        default=None,
        metadata={"help": "LoRA+: the learning rate of LoRA on embeddings. Default: learning_rate."},
    )
    ensure_weight_tying: bool = field(
        default=False, metadata={"help": "Keep tied embeddings tied if lora_modules_to_save names them."}
    )

    def __post_init__(self) -> None:
        self.rank_pattern = parse_pattern("rank_pattern", self.rank_pattern)
        self.alpha_pattern = parse_pattern("alpha_pattern", self.alpha_pattern)

    @property
    def pissa(self) -> str | None:
        """The value of `init_lora_weights` if it is one of PiSSA's; otherwise None."""
        asked = self.init_lora_weights or ""
        return asked if PISSA.fullmatch(asked) else None


@dataclass
class ModelArguments(ModelConfig):
    """TRL's `ModelConfig`, with an adapter unless the recipe says otherwise."""

    use_peft: bool = field(default=True, metadata={"help": "Train a LoRA adapter rather than all weights."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.lora_target_modules = parse_target_modules(vars(self)["lora_target_modules"])


@dataclass
class TrainingArguments(SFTConfig):
    """TRL's `SFTConfig`, with other defaults where upstream's are slower or wrong for this task.

    Raises:
        ValueError: a tracker in `report_to` is unknown or not installed, or upstream refuses a value.
    """

    bf16: bool | None = field(default=False, metadata={"help": "Mixed precision in bfloat16."})
    gradient_checkpointing: bool = field(
        default=False,
        metadata={"help": "Recompute activations to save memory, in 1.1 to 1.4 times the time."},
    )
    # accelerate joins several CPU processes into one run only if the training arguments say so.
    use_cpu: bool = field(
        default_factory=lambda: device_type() == "cpu",
        metadata={"help": "Train on the CPU. Default: only if there is no accelerator."},
    )
    completion_only_loss: bool | None = field(default=True, metadata={"help": "Compute the loss on the answer only."})
    project: str = field(default="lrc", metadata={"help": "The Trackio project of the run."})
    run_name: str | None = field(
        default=None, metadata={"help": "Name of the run in trackers. Default: the name of output_dir."}
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={
            "help": "Stop after this many evaluations in a row without improvement of metric_for_best_model, which is "
            "accuracy by default."
        },
    )
    early_stopping_threshold: float = field(
        default=0.0, metadata={"help": "Only an improvement larger than this counts for early_stopping_patience."}
    )

    def __post_init__(self) -> None:
        # None would take the value from the base's config.
        self.router_aux_loss_coef = vars(self)["router_aux_loss_coef"] or 0.0
        if self.early_stopping_patience is not None:
            self.metric_for_best_model = vars(self)["metric_for_best_model"] or "accuracy"
        # So that a resumed run continues in the tracker under the same name.
        self.run_name = self.run_name or Path(self.output_dir or ".").resolve().name
        super().__post_init__()
        if reason := why_not_reported(self.report_to or []):
            raise ValueError(reason)


# The classes whose fields are the keys of a recipe.
CLASSES = (DataArguments, TrainingArguments, ModelArguments, AdapterArguments)
