"""What a folder knows about the run that made it: `lrc_run.json`, next to an adapter and in a merged model.

The file holds the recipe as resolved, the versions, the data (counts and checksums, never a row), and the
fingerprints of base and tokenizer, so that every later verb asks the model the way it was trained.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lrc.runtime.errors import ModelError
from lrc.runtime.translation import _

RUN_FILE = "lrc_run.json"
METRICS_FILE = "metrics.jsonl"  # what training logged, a line a time
# How a model can be asked; prompt.py says what each of them is.
TEMPLATE_NAMES = ("chinese-alpaca-2", "alpaca", "chat", "plain")
STYLES = ("digit", "text", "judge")
SCORED_AS_THEY_ARE = {"digit": "digits", "judge": "verdicts"}  # only texts differ in length
NORMALISATIONS = ("character", "token", "sum")  # what an option's text is scored by; scoring.py divides
_CHECKPOINT = re.compile(r"checkpoint-\d+")
# Keys that say nothing about what was trained; `resume.MAY_CHANGE` says which others may differ in one run.
NOT_RECORDED = (
    *("output_dir", "overwrite_output_dir", "resume_from_checkpoint"),
    *("attention", "row_tokens", "dataset_num_proc", "report_to", "run_name", "project"),
)
# What a run holds the checksums of instead of the names.
FILES = ("train_file", "validation_file", "soft_labels", "pseudo_labels", "pseudo_label_file")


def train_roles(files: Sequence[str]) -> dict[str, str]:
    """What a run calls the files that it trains on: the first by the key's name alone."""
    return {f"train_file {number}" if number > 1 else "train_file": file for number, file in enumerate(files, start=1)}


def lists_options(answer_style: str, template: str) -> bool:
    """Whether the prompt lists the options where nobody says: not where each is judged, or its text follows plain."""
    return answer_style != "judge" and (answer_style, template) != ("text", "plain")


@dataclass(frozen=True)
class Run:
    """One training run, as later verbs need it."""

    template: str
    answer_style: str
    list_options: bool
    recipe: dict[str, Any] = field(default_factory=dict)  # every key that the recipe or the command line gave
    data: dict[str, Any] = field(default_factory=dict)  # file name, sha256 and number of questions by role
    base: dict[str, Any] = field(default_factory=dict)  # name, revision and fingerprints, see fingerprint.py
    tokenizer: dict[str, Any] = field(default_factory=dict)  # the sha256 of all that it saves of itself
    versions: dict[str, str] = field(default_factory=dict)
    origin: dict[str, Any] = field(default_factory=dict)  # the checkpoint of another folder that it went on from
    finished: bool = False
    step: int = 0  # after which the weights in the folder were saved; 0 until there are any
    # What the validation questions decided once training was done.
    score_normalisation: str = "character"
    temperature: float = 1.0
    validation: dict[str, Any] = field(default_factory=dict)  # accuracy on them, see summary.validation_figures
    launch: dict[str, Any] = field(default_factory=dict)  # of a finished run, see training/launch_record.py
    chat_date: str = ""  # what a chat template prints for today; empty where it is none or the run is an older one's

    def write(self, path: Path) -> None:
        """Write the run to a file, with sorted keys, so that equal runs give equal bytes."""
        text = json.dumps(asdict(self), ensure_ascii=False, indent=2, sort_keys=True)
        path.write_text(text + "\n", encoding="utf-8")


_LIKE = Run("", "", True)  # every field of a run file has the type that it has here


def read_run(folder: Path) -> Run | None:
    """Read the `lrc_run.json` of an adapter or a merged model; None where there is none.

    Of a checkpoint its run's folder may have it, and knows more once the run is finished.

    Raises:
        ModelError: the file is there and cannot be read.
    """
    own, real = _read(folder / RUN_FILE), folder.resolve()
    whole = _read(real.parent / RUN_FILE) if _CHECKPOINT.fullmatch(real.name) else None
    if whole is None or (own and (own.recipe, own.data, own.base) != (whole.recipe, whole.data, whole.base)):
        return own
    # A temperature is fitted to the answers of the weights that the run ended with.
    return whole if real.name == f"checkpoint-{whole.step}" else replace(whole, temperature=1.0)


def _read(path: Path) -> Run | None:
    if not path.is_file():
        return None
    try:
        run = Run(**json.loads(path.read_text(encoding="utf-8")))
        for name, like in asdict(_LIKE).items():
            found = getattr(run, name)
            if not isinstance(found, (int, float) if isinstance(like, float) else type(like)):
                raise ValueError(f"{name} is a {type(found).__name__}")
        return run
    except (ValueError, TypeError, RecursionError) as error:
        raise ModelError(
            _("{path}: not a run file of lrc ({reason}); train again, or remove the file").format(
                path=path, reason=error
            )
        ) from error
