"""Between what numbers a recipe's keys may be, where upstream checks that late or not at all."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bounds:
    """Between what numbers a value may be."""

    least: float | None = None
    above: float | None = None
    below: float | None = None

    def passed(self, value: float) -> str | None:
        """What is expected of a number that is out of bounds; None where it is not."""
        if self.least is not None and value < self.least:
            return f"{self.least} or more"
        if self.above is not None and value <= self.above:
            return f"more than {self.above}"
        if self.below is not None and value >= self.below:
            return f"less than {self.below}"
        return None

    def __str__(self) -> str:
        """In words, as in `from 0 and below 1`."""
        words = {"from": self.least, "above": self.above, "below": self.below}
        return " and ".join(f"{word} {number}" for word, number in words.items() if number is not None)


ANY = Bounds()
BOUNDS = {
    "per_device_train_batch_size": Bounds(1),
    "per_device_eval_batch_size": Bounds(1),
    "gradient_accumulation_steps": Bounds(1),
    "num_train_epochs": Bounds(above=0),
    "max_steps": Bounds(-1),
    "learning_rate": Bounds(0),
    "weight_decay": Bounds(0),
    "warmup_steps": Bounds(0),
    "adam_beta1": Bounds(0, below=1),
    "adam_beta2": Bounds(0, below=1),
    "adam_epsilon": Bounds(0),
    "max_grad_norm": Bounds(0),
    "logging_steps": Bounds(above=0),
    "eval_steps": Bounds(above=0),
    "save_steps": Bounds(above=0),
    "max_length": Bounds(1),
    "lora_r": Bounds(1),
    "lora_alpha": Bounds(1),
    "lora_dropout": Bounds(0, below=1),
    "loraplus_lr_ratio": Bounds(1),
    "loraplus_lr_embedding": Bounds(above=0),
    "neftune_noise_alpha": Bounds(0),
    "early_stopping_patience": Bounds(1),
    "early_stopping_threshold": Bounds(0),
    "option_orders": Bounds(1),
    "eval_questions": Bounds(1),
    "option_contrast": Bounds(0),
    "contrast_temperature": Bounds(above=0),
    "soft_label_weight": Bounds(0),
    "soft_label_temperature": Bounds(above=0),
    "row_tokens": Bounds(1),
    "fold": Bounds(0),
    "expected_vocab_size": Bounds(1),
    "seed": Bounds(0, below=2**32),
    "data_seed": Bounds(0, below=2**32),
    "dataset_num_proc": Bounds(1),
    "dataloader_num_workers": Bounds(0),
}
