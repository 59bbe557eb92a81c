"""The record of a run, `lrc_run.json`, which is next to an adapter and in a merged model.

It has the recipe, the versions, the data (counts and checksums, but no text), and the fingerprints of base and
tokenizer, so that every later command prompts the model as it was trained.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

from lrc.runtime.errors import ModelError
from lrc.runtime.findings import abridge
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
_TEMPERATURES = 1e-6, 1e6  # far beyond what `calibration.fit_temperature` finds; with others, probabilities overflow
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


# What a run file may hold, as far as later commands read it: an object by its keys, a type, or a tuple of choices.
# A key with ? may be missing, and * is every key.
_FILE = {"name": str, "sha256": str}
_FIGURES = {
    **{"n": float, "accuracy": float, "ci_low": float, "ci_high": float, "baseline": str, "baseline_accuracy": float},
    **{"verdict?": str, "n_effective?": float, "passages?": float, "shared_passages?": int},
    **{"untrained_accuracy?": float, "untrained_ci_low?": float, "untrained_ci_high?": float},
}
_SHAPE: dict[str, Any] = {
    "template": TEMPLATE_NAMES,
    "answer_style": STYLES,
    "list_options": bool,
    "recipe?": {"dataset_name?": str | None, "dtype?": str | None, "bnb_4bit_quant_type?": str | None},
    "data?": {"*": {**_FILE, "questions": int}},
    "base?": {
        **{"name?": str, "revision?": str | None},
        **{f"{part}_sha256?": str | None for part in ("config", "weights", "contents", "tokenizer")},
        "quantized?": {"method": str, "model_type": str | None, "dtype": str, "vectors_sha256": str},
    },
    "tokenizer?": {"*": str},
    "versions?": {"*": str},
    "origin?": {"*": str},
    "finished?": bool,
    "step?": int,
    "score_normalisation?": NORMALISATIONS,
    "temperature?": float,
    "validation?": {},  # _FIGURES, unless it is empty
    "launch?": {
        **{"command?": str, "hardware?": str, "date?": str, "script?": str},
        "workbooks?": {"*": _FILE},
    },
    "chat_date?": str,
}


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
    if unknown := [name for name in values if not {name, f"{name}?"} & _SHAPE.keys()]:
        raise ValueError(_("{name} is unknown").format(name=unknown[0]))
    _check_shape(values, _SHAPE)
    run = Run(**values)
    if run.validation:
        _check_shape(run.validation, _FIGURES, "validation.")
    least, most = _TEMPERATURES
    if not least <= run.temperature <= most:  # nor is NaN
        text = _("{name} is {value}, expected a number from {least} to {most}")
        raise ValueError(text.format(name="temperature", value=abridge(repr(run.temperature)), least=least, most=most))
    if run.chat_date:
        date.fromisoformat(run.chat_date)
    return run


def _check_shape(values: Mapping[str, Any], shape: Mapping[str, Any], place: str = "") -> None:
    """Compare an object with its shape.

    Args:
        place: where it is in the file: empty, or `base.`.

    Raises:
        ValueError: a key is missing, or a value is another than the shape says.
    """
    for key, wanted in shape.items():
        name = key.removesuffix("?")
        if key == name != "*" and name not in values:
            raise ValueError(_("{name} is missing").format(name=f"{place}{name}"))
        for found in values if key == "*" else values.keys() & {name}:
            _check_value(values[found], wanted, f"{place}{found}")


def _check_value(value: Any, wanted: Any, name: str) -> None:
    if isinstance(wanted, tuple):
        if value not in wanted:
            text = _("{name} is {value}, expected one of {names}")
            raise ValueError(text.format(name=name, value=abridge(repr(value)), names=wanted))
        return
    kind: Any = dict if isinstance(wanted, dict) else int | float if wanted is float else wanted
    # To Python, true is a number.
    if not isinstance(value, kind) or (isinstance(value, bool) and wanted is not bool):
        text = _("{name} is {value}, which is of another type")
        raise ValueError(text.format(name=name, value=abridge(repr(value))))
    if isinstance(wanted, dict):
        _check_shape(value, wanted, f"{name}.")
