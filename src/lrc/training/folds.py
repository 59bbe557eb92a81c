"""Cross-validation: a file of questions is split by passage into folds, and each fold is held out by a run of its own.

The folder holds `folds.json`, the data of each fold and its run; when all are trained, also the out-of-fold scores:
those of each question from the model that was not trained on its passage.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrc.data.alpaca import Record, dump_records
from lrc.data.near_duplicates import CLUSTERING, group_passages
from lrc.data.sources import read_records
from lrc.data.splits import folds as deal
from lrc.metrics.predictions import OUTCOMES_FILE, Outcome, read_outcomes
from lrc.runtime.errors import DataError, OutputError
from lrc.runtime.locks import remove
from lrc.runtime.outputs import checksum, new_file
from lrc.runtime.progress import notify
from lrc.runtime.translation import _

FOLDS_FILE = "folds.json"
SCORES_FILE, FIGURES_FILE = "out_of_fold_scores.jsonl", "out_of_fold.json"
_NAMES = {"clustering": _("version of lrc, which kept other passages together")}


@dataclass(frozen=True)
class Folds:
    """The folds of one training file, and where they are.

    Args:
        folder: the `output_dir` of the recipe.
        source: the training file.
        count: the number of folds.
        seed: for the split.
    """

    folder: Path
    source: Path
    count: int
    seed: int

    def train_file(self, fold: int) -> Path:
        """The questions that a fold's run trains on: those of the other folds."""
        return self.folder / "data" / f"{self.source.stem}_fold{fold}_train.json"

    def validation_file(self, fold: int) -> Path:
        """The questions that a fold's run does not train on."""
        return self.folder / "data" / f"{self.source.stem}_fold{fold}_validation.json"

    def output_dir(self, fold: int) -> Path:
        """The run folder of a fold."""
        return self.folder / f"fold{fold}"

    def overrides(self, fold: int) -> list[str]:
        """The command-line keys of a fold's run, which override all others."""
        paths = {"train_file": self.train_file(fold), "validation_file": self.validation_file(fold)}
        paths["output_dir"] = self.output_dir(fold)
        return [word for key, path in paths.items() for word in (f"--{key}", str(path))]

    def identity(self) -> dict[str, Any]:
        """What distinguishes these folds from others, as it is kept in `folds.json`."""
        source = {"name": self.source.name, "sha256": checksum(self.source)}
        return {"train_file": source, "folds": self.count, "seed": self.seed, "clustering": CLUSTERING}

    def refuse_other(self, *, overwrite: bool) -> None:
        """Refuse a folder that holds other folds, or anything else.

        Raises:
            OutputError: it does, and `overwrite` is false; or it is not a folder.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise OutputError(_("{folder}: is not a folder; choose another output_dir").format(folder=self.folder))
        found = self._read()
        if overwrite or found == self.identity():
            return
        if found is not None:
            changed = tuple(_NAMES.get(key, key) for key, value in self.identity().items() if found.get(key) != value)
            text = _(
                "{folder}: holds other folds (another {changed}); choose another output_dir, or set "
                "overwrite_output_dir: true"
            )
            raise OutputError(text.format(folder=self.folder, changed=changed))
        if self.folder.is_dir() and any(path.name[0] != "." for path in self.folder.iterdir()):
            text = _(
                "{folder}: holds something that is not the folds of a run; choose another output_dir, or set "
                "overwrite_output_dir: true"
            )
            raise OutputError(text.format(folder=self.folder))

    def write(self) -> None:
        """Split the questions, and write the data of each fold; do nothing if the same folds are there.

        Raises:
            DataError: the file cannot be read, has questions without an answer, or too few passages.
        """
        if self._read() == self.identity() and all(
            file(fold).is_file() for fold in range(self.count) for file in (self.train_file, self.validation_file)
        ):
            return
        records = read_records(self.source)
        held_out = self._deal(records)
        self._remove_others()
        self.train_file(0).parent.mkdir(parents=True, exist_ok=True)
        for fold in range(self.count):
            pairs = list(zip(records, held_out, strict=True))
            self._dump(self.train_file(fold), [record for record, one in pairs if one != fold])
            self._dump(self.validation_file(fold), [record for record, one in pairs if one == fold])
        with new_file(self.folder / FOLDS_FILE, force=True) as file:
            file.write_text(json.dumps(self.identity(), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")

    def outcomes(self) -> list[Outcome]:
        """The out-of-fold outcome of every question, fold by fold.

        Raises:
            DataError: a fold's run has left no outcomes.
        """
        found: list[Outcome] = []
        for fold in range(self.count):
            answered = read_outcomes(self.output_dir(fold) / OUTCOMES_FILE)
            if not answered:
                raise DataError(
                    _("{output_dir}: has no {outcomes_file}; remove the folder and train again").format(
                        output_dir=self.output_dir(fold), outcomes_file=OUTCOMES_FILE
                    )
                )
            found += answered
        return found

    def _remove_others(self) -> None:
        """Remove other folds that are to be overwritten."""
        if (found := self._read()) is None or found == self.identity():
            return
        (self.folder / FOLDS_FILE).unlink()
        for old in [self.folder / "data", *map(self.output_dir, range(int(found.get("folds", 0))))]:
            if old.exists():
                remove(old)

    def _deal(self, records: Sequence[Record]) -> list[int | None]:
        """The fold that holds out each record; None for a record that is not a question, on which all folds train."""
        places = [place for place, record in enumerate(records) if record.question is not None]
        questions = [records[place].question for place in places]
        unanswered = [question.id for question in questions if question is not None and question.answer is None]
        if unanswered:
            raise DataError(
                _(
                    "{source}: {count:,} questions have no answer, first {unanswered}; fold labelled questions only"
                ).format(source=self.source, count=len(unanswered), unanswered=unanswered[0])
            )
        clusters = group_passages(question.passage for question in questions if question is not None).clusters
        if len(set(clusters)) < self.count:
            raise DataError(
                _(
                    "{source}: {count:,} passages (near-duplicates and parts of one another are one), too few "
                    "for {count2} folds; use fewer --folds"
                ).format(source=self.source, count=len(set(clusters)), count2=self.count)
            )
        answers = [question.answer for question in questions if question is not None]
        held_out: list[int | None] = [None] * len(records)
        for place, fold in zip(places, deal(clusters, answers, self.count, self.seed), strict=True):
            held_out[place] = fold
        sizes = tuple(f"{held_out.count(fold):,}" for fold in range(self.count))
        text = _("{file}: split by passage into {count} folds of {sizes} questions")
        notify(text.format(file=self.source, count=self.count, sizes=sizes))
        if alone := len(records) - len(places):
            text = _("{file}: {count:,} records are not questions; every fold trains on all of them")
            notify(text.format(file=self.source, count=alone))
        return held_out

    def _dump(self, path: Path, records: Sequence[Record]) -> None:
        with new_file(path, force=True) as temporary, temporary.open("w", encoding="utf-8") as file:
            for piece in dump_records(records):
                file.write(piece)

    def _read(self) -> dict[str, Any] | None:
        try:
            found = json.loads((self.folder / FOLDS_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None
