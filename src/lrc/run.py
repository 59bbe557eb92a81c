"""What a folder knows about the run that made it: `lrc_run.json`, beside an adapter and in a merged model.

The file holds the recipe as resolved, the versions, the data (counts and checksums, never a row), and the
fingerprints of base and tokenizer, so that every later verb asks the model the way it was trained.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lrc.errors import ModelError

RUN_FILE = "lrc_run.json"
METRICS_FILE = "metrics.jsonl"  # what training logged, a line a time
# How a model can be asked; prompt.py says what each of them is.
TEMPLATES = ("chinese-alpaca-2", "alpaca", "chat", "plain")
STYLES = ("digit", "text", "judge")
SCORED_AS_THEY_ARE = {"digit": "digits", "judge": "verdicts"}  # only texts differ in length
NORMALISATIONS = ("character", "token", "sum")  # what an option's text is scored by; scoring.py divides
IDENTITY = ("template", "answer_style", "list_options", "recipe", "data", "base")


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
    versions: dict[str, str] = field(default_factory=dict)
    finished: bool = False
    # What the validation questions decided once training was done.
    score_normalisation: str = "character"
    temperature: float = 1.0

    def same_as(self, other: Run) -> bool:
        """Whether the two are the same recipe on the same data and base."""
        return not self.difference(other)

    def difference(self, other: Run) -> str:
        """What the other run has otherwise, as names; empty for the same run."""
        mine, theirs = asdict(self), asdict(other)
        changed = []
        for part in IDENTITY:
            if isinstance(mine[part], dict):
                keys = sorted(mine[part].keys() | theirs[part].keys())
                changed += [f"{part} {key}" for key in keys if mine[part].get(key) != theirs[part].get(key)]
            elif mine[part] != theirs[part]:
                changed.append(part)
        return ", ".join(changed)

    def write(self, path: Path) -> None:
        """Write the run to a file, with sorted keys, so that equal runs give equal bytes."""
        text = json.dumps(asdict(self), ensure_ascii=False, indent=2, sort_keys=True)
        path.write_text(text + "\n", encoding="utf-8")


_LIKE = Run("", "", True)  # every field of a run file has the type that it has here


def read_run(folder: Path) -> Run | None:
    """Read the `lrc_run.json` of an adapter or a merged model; None where there is none.

    Raises:
        ModelError: the file is there and cannot be read.
    """
    path = folder / RUN_FILE
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
        raise ModelError(f"{path}: not a run file of lrc ({error}); train again, or remove the file") from error
