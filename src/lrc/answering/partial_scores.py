"""Keeps scores on disk while answering, so that a kill costs one chunk of questions and not the run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lrc.metrics.option_scores import OptionScores
from lrc.runtime.errors import OutputError
from lrc.runtime.finished_outputs import key_of, side_file
from lrc.runtime.locks import left_behind, remove
from lrc.runtime.outputs import new_file
from lrc.runtime.progress import notify
from lrc.runtime.translation import _


@dataclass(frozen=True)
class PartialScores:
    """The scores of an unfinished answering run: a line with its key, then a JSON line for each question.

    Args:
        path: a hidden file next to the output.
        key: a hash of everything that the scores depend on; a file with another key is ignored.
    """

    path: Path
    key: str

    @classmethod
    def for_output(cls, output: Path, facts: Iterable[Any], process: int = 0) -> PartialScores:
        """The partial scores for an output.

        Args:
            output: the file that the answers will go into.
            facts: everything that the scores depend on, as JSON values.
            process: the index of this process; each process of a launch has a file of its own.
        """
        return cls(side_file(output, process), key_of(list(facts)))

    @property
    def exists(self) -> bool:
        """Whether the same run was started before."""
        return self._head.get("key") == self.key

    def start(self, computed: str = "") -> dict[int, OptionScores]:
        """Read what the same run has scored before, and prepare the file for more.

        Args:
            computed: how the model computes now, which depends on the device and its free memory. Scores that were
                computed otherwise are not used, which is reported.

        Returns:
            The scores by index in the run's questions; a line that was cut short is left out.

        Raises:
            OutputError: the file system refuses.
        """
        known: dict[int, OptionScores] = {}
        before, lines = self._head.get("computed"), self._lines()[1:] if self.exists else []
        if before != computed and lines:
            text = _("{path}: {count} questions were answered in {before}, and now again in {computed}")
            notify(text.format(path=self.path, count=len(lines), before=before, computed=computed))
            lines = []
        for line in lines:
            try:
                place, fields = json.loads(line)
                known[place] = _scores(fields)
            except (ValueError, TypeError, KeyError):
                break
        with new_file(self.path, force=True) as temporary:
            head = json.dumps({"key": self.key, "computed": computed})
            temporary.write_text(f"{head}\n{_encode(known)}", encoding="utf-8")
        return known

    def append(self, scores: Mapping[int, OptionScores]) -> None:
        """Append the scores of a chunk.

        Raises:
            OutputError: the file system refuses; earlier lines remain.
        """
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(_encode(scores))
        except OSError as error:
            raise OutputError(
                _("{path}: {strerror}; free some space and run again to resume").format(
                    path=self.path, strerror=error.strerror
                )
            ) from error

    @property
    def _head(self) -> dict[str, Any]:
        """The object of the first line; empty if there is none."""
        try:
            found = json.loads(self._lines()[0])
        except (IndexError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _lines(self) -> list[str]:
        try:
            return self.path.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError):
            return []


def remove_partial_scores(output: Path) -> None:
    """Remove the partial scores of all processes, killed ones included, once the output is written."""
    name = re.compile(rf"\.{re.escape(output.name)}\.partial(\.\d+)?\.jsonl")
    for path in output.parent.iterdir():
        if name.fullmatch(path.name):
            path.unlink(missing_ok=True)
    for part in left_behind(output.parent, output.name):
        remove(part)


def _encode(scores: Mapping[int, OptionScores]) -> str:
    return "".join(f"{json.dumps([place, asdict(score)])}\n" for place, score in scores.items())


def _scores(fields: dict[str, Any]) -> OptionScores:
    read: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in fields.items()}
    return OptionScores(**read)
