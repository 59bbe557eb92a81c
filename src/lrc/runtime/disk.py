"""Disk space: what a run will need is compared with what is free, and a disk that fills up is said in one line."""

from __future__ import annotations

import errno
import math
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import SaveStrategy

from lrc.models.fingerprint import TOKENIZER_FILES
from lrc.runtime.errors import MachineError
from lrc.runtime.memory import size
from lrc.training.checkpoint import checkpoints

# Writers in Rust raise a plain Exception whose text ends in the operating system's number.
_OS_ERROR = re.compile(r"os error (\d+)")
# What a file system says when it takes no more; another number may be about a file that is read.
_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
_TORCH_WRITER = re.compile(r"PytorchStreamWriter|inline_container")


class Space(TrainerCallback):
    """Refuses a run before its first step where the disk cannot hold its checkpoints and its adapter."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Compare need and space.

        Raises:
            MachineError: there is too little.
        """
        folder = Path(args.output_dir or ".")
        tokenizer = _tokenizer_bytes(kwargs.get("processing_class"))
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        adapter = sum(parameter.numel() * parameter.element_size() for parameter in trained) + tokenizer
        weights = sum(parameter.numel() for parameter in trained)
        one = adapter + weights * _optimizer_bytes(getattr(args.optim, "value", args.optim))
        count = _checkpoints_to_come(args, state, len(checkpoints(folder)))
        need, free = count * one + adapter, shutil.disk_usage(folder).free
        if need > free:
            raise MachineError(
                f"{folder}: {count} checkpoints of {size(one)} and the adapter need {size(need)}, {size(free)} is "
                "free; free some, set save_total_limit, or raise save_steps"
            )


def _checkpoints_to_come(args: TrainingArguments, state: TrainerState, existing: int) -> int:
    """How many more checkpoints there will be at once; one more than the limit while the next is written."""
    if args.save_strategy == SaveStrategy.NO:
        return 0
    interval = state.save_steps if args.save_strategy == SaveStrategy.STEPS else state.max_steps / args.num_train_epochs
    count = math.ceil((state.max_steps - state.global_step) / max(interval, 1))
    return min(count, max(args.save_total_limit + 1 - existing, 1)) if args.save_total_limit else count


def _optimizer_bytes(name: str) -> int:
    """What an optimizer keeps of each weight: Adam's two moments in float32 or 8 bits, or next to nothing."""
    if "8bit" in name:
        return 2
    return 0 if "adafactor" in name or "sgd" in name else 8


def _tokenizer_bytes(tokenizer: Any) -> int:
    folder = Path(str(getattr(tokenizer, "name_or_path", None) or ""))
    return sum((folder / name).stat().st_size for name in TOKENIZER_FILES if (folder / name).is_file())


@contextmanager
def disk_failures_told(path: Path, stage: Path | None = None) -> Iterator[None]:
    """Make one line of whatever a library raises when it cannot write.

    Args:
        path: what is being written, for people.
        stage: the folder that holds what of it was written so far.

    Raises:
        MachineError: the file system refused.
    """
    try:
        yield
    except Exception as error:  # tokenizers raise nothing narrower
        reason = disk_failure(error)
        if reason is None:
            raise
        written = f" after {size(_size_of(stage))}" if stage else ""
        raise MachineError(
            f"{path}: {reason}{written}; free some space and run again, what was complete before is kept"
        ) from error


def disk_failure(error: Exception) -> str | None:
    """What the file system said, where that is what an exception is about."""
    if isinstance(error, OSError):
        return error.strerror if error.errno in _REFUSALS else None
    if found := _OS_ERROR.search(str(error)):
        return os.strerror(int(found[1]))
    if isinstance(error, RuntimeError) and _TORCH_WRITER.search(str(error)):
        return "the disk did not take all of a file"
    return None


def _size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
