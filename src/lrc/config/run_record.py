"""The record of a run, `lrc_run.json`, which is next to an adapter and in a merged model.

It has the recipe, the versions, the data (counts and checksums, but no text), and the fingerprints of base and
tokenizer, so that every later command prompts the model as it was trained.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lrc.runtime.errors import ModelError
from lrc.runtime.library_errors import describe_error
from lrc.runtime.translation import _

RUN_FILE = "lrc_run.json"
METRICS_FILE = "metrics.jsonl"  # what training logged, one line per entry
# How a model can be prompted; see prompt.py.
TEMPLATE_NAMES = ("chinese-alpaca-2", "alpaca", "chat", "plain")
DIGIT_STYLES = ("digit", "digit_after")  # the answer is the number of an option, before or after its text in the list
STYLES = (*DIGIT_STYLES, "text", "judge")
# Only texts differ in length and are normalised.
SCORED_AS_THEY_ARE = {"digit": "digits", "digit_after": "digits", "judge": "verdicts"}
DTYPES = ("auto", "float32", "bfloat16", "float16")  # in which a model can be asked to answer
NORMALISATIONS = ("character", "token", "sum")  # see `option_scores.option_lengths`
_CHECKPOINT = re.compile(r"checkpoint-\d+")
# Keys that do not affect what is trained. `resume.MAY_CHANGE` has the others that may differ when a run is resumed.
NOT_RECORDED = (
    *("output_dir", "overwrite_output_dir", "resume_from_checkpoint"),
    *("attention", "row_tokens", "dataset_num_proc", "report_to", "run_name", "project"),
)
# Keys whose files a run records by checksum instead of by name.
FILES = ("train_file", "validation_file", "soft_labels", "pseudo_labels", "pseudo_label_file")


def train_roles(files: Sequence[str]) -> dict[str, str]:
    """The training files by their role in a run: `train_file`, `train_file 2` and so on."""
    return {f"train_file {number}" if number > 1 else "train_file": file for number, file in enumerate(files, start=1)}


def lists_options(answer_style: str, template: str) -> bool:
    """Whether the prompt lists the options by default: always, except for `judge`, and for `text` with `plain`."""
    return answer_style != "judge" and (answer_style, template) != ("text", "plain")


@dataclass(frozen=True)
class Run:
    """One training run, as later commands need it."""

    template: str
    answer_style: str
    list_options: bool
    recipe: dict[str, Any] = field(default_factory=dict)  # every key that the recipe or the command line gave
    data: dict[str, Any] = field(default_factory=dict)  # file name, sha256 and number of questions by role
    base: dict[str, Any] = field(default_factory=dict)  # name, revision and fingerprints, see fingerprint.py
    tokenizer: dict[str, Any] = field(default_factory=dict)  # see `token_cache.tokenizer_digest`
    versions: dict[str, str] = field(default_factory=dict)  # of packages
    origin: dict[str, Any] = field(default_factory=dict)  # the checkpoint of another folder that it was resumed from
    finished: bool = False
    step: int = 0  # the step at which the weights in the folder were saved; 0 before the first time
    # Chosen on the validation questions after training.
    score_normalisation: str = "character"
    temperature: float = 1.0
    validation: dict[str, Any] = field(default_factory=dict)  # accuracy on them, see summary.validation_figures
    launch: dict[str, Any] = field(default_factory=dict)  # of a finished run, see training/launch_record.py
    chat_date: str = ""  # the date that a chat template prints; empty for other templates and in older runs

    def write(self, path: Path) -> None:
        """Write the run to a file; keys are sorted, so that equal runs give equal bytes."""
        text = json.dumps(asdict(self), ensure_ascii=False, indent=2, sort_keys=True)
        path.write_text(text + "\n", encoding="utf-8")


_EXAMPLE = Run("", "", True)  # has the type of every field


def read_run(folder: Path) -> Run | None:
    """Read the `lrc_run.json` of an adapter or a merged model.

    For a checkpoint, the one in the folder of its run is preferred if it is of the same run, since it has the results
    of a finished run.

    Returns:
        None if there is no such file.

    Raises:
        ModelError: the file is there and cannot be read.
    """
    own, real = _read(folder / RUN_FILE), folder.resolve()
    whole = _read(real.parent / RUN_FILE) if _CHECKPOINT.fullmatch(real.name) else None
    if whole is None or (own and (own.recipe, own.data, own.base) != (whole.recipe, whole.data, whole.base)):
        return own
    # Temperature and accuracy are those of the final weights, and not valid for those of other checkpoints.
    return whole if real.name == f"checkpoint-{whole.step}" else replace(whole, temperature=1.0, validation={})


def _read(path: Path) -> Run | None:
    if not path.is_file():
        return None
    try:
        return _make_run(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, RecursionError) as error:
        raise ModelError(
            _("{path}: not a run file of lrc ({reason}); train again, or remove the file").format(
                path=path, reason=describe_error(error)
            )
        ) from error


def _make_run(values: Any) -> Run:
    """Make a run of what its file holds.

    Raises:
        ValueError: it is not that of a run.
    """
    if not isinstance(values, dict):
        raise ValueError(_("is not a JSON object"))
    if unknown := [name for name in values if name not in asdict(_EXAMPLE)]:
        raise ValueError(_("{name} is unknown").format(name=unknown[0]))
    if missing := [name for name in ("template", "answer_style", "list_options") if name not in values]:
        raise ValueError(_("{name} is missing").format(name=missing[0]))
    run = Run(**values)
    for name, like in asdict(_EXAMPLE).items():
        found = getattr(run, name)
        if not isinstance(found, (int, float) if isinstance(like, float) else type(like)):
            text = _("{name} is {value}, which is of another type")
            raise ValueError(text.format(name=name, value=repr(found)[:40]))
    return run
