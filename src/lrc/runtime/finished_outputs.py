"""Records which command made an output, so that the same command, run again, has nothing to do instead of refusing.

A CSV and a model folder have no room for such a record, so it is kept in the folder `lrc-finished` of the cache of
Hugging Face's datasets. `lrc run`, whose folder can be moved to another machine, keeps it there, in `lrc_finished`. If
it is lost, the output is refused like any other. Does not import torch, so that existing outputs are reported before
torch is imported.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lrc.runtime.errors import DataError, LrcError, cannot_read
from lrc.runtime.outputs import checksum, new_file, refuse_existing
from lrc.runtime.packages import versions_of
from lrc.runtime.progress import notify
from lrc.runtime.system import expand_home
from lrc.runtime.translation import _

DONE = _("{output}: already exists, made by the same command from the same input; nothing to do")


BESIDE = "lrc_finished"  # a folder beside outputs, for their records where it exists


def records_folder(output: Path) -> Path:
    """The folder with the record of an output, which may be removed at any time."""
    beside = output.resolve().parent / BESIDE
    if beside.is_dir():
        return beside
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    folder = os.environ.get("HF_DATASETS_CACHE") or Path(home, "datasets")
    return Path(expand_home(str(folder)), "lrc-finished")


def side_file(output: Path, process: int = 0) -> Path:
    """The file in which a process keeps partial results until a long-running output is written."""
    return output.with_name(f".{output.name}.partial{f'.{process}' if process else ''}.jsonl")


def refuse_other_output(output: Path, asked: Mapping[str, Any], *, force: bool, beside: Path | None = None) -> None:
    """Refuse an output that exists, unless a command with the same arguments has made it.

    Args:
        output: what the command writes.
        asked: the arguments of this command.
        force: whether outputs may be overwritten; then nothing is refused.
        beside: a second file that it writes, which is refused likewise unless the output has been started.

    Raises:
        OutputError: one of them exists, `force` is false, and another command made it.
    """
    if not force and (_read(output) or {}).get("asked") != _plain(asked):
        refuse_existing(output, force=False)
        if beside is not None and not side_file(output).exists():
            refuse_existing(beside, force=False)


def is_finished(output: Path, asked: Mapping[str, Any], key: str) -> bool:
    """Whether the output exists, unchanged since the same command wrote it.

    Args:
        output: what the command writes.
        asked: the arguments of this command.
        key: a hash of everything that the content depends on, see `key_of`.
    """
    found = _read(output)
    return found is not None and found["asked"] == _plain(asked) and found["key"] == key


def remember(output: Path, asked: Mapping[str, Any], key: str, content: Any, *others: Path) -> None:
    """Record an output just before it is renamed into place; if the cache cannot be written, nothing is recorded.

    Args:
        output: what the command writes.
        asked: the arguments of this command.
        key: a hash of everything that the content depends on, see `key_of`.
        content: see `content_of`.
        others: further files that were written with it.
    """
    folder = records_folder(output)
    record = {"output": _name(output, folder), "asked": _plain(asked), "key": key, "content": content}
    record["others"] = {_name(other, folder): checksum(other) for other in others}
    with suppress(OSError, LrcError), new_file(_record(output, folder), force=True) as file:
        file.write_text(json.dumps(record), encoding="ascii")  # escaped: a name may be no text


def write_once(
    output: Path,
    asked: Mapping[str, Any],
    inputs: Inputs,
    write: Callable[[Path], object],
    *,
    key: str = "",
    force: bool = False,
) -> bool:
    """Write a file, unless the same command has already made it from the same input; then say so.

    Args:
        output: the file.
        asked: the arguments of this command.
        inputs: the files that were read.
        write: writes to the path that it is given.
        key: a hash of everything that the content depends on, see `key_of`; by default that of the inputs.
        force: overwrite whatever is there.

    Returns:
        Whether it was written now.

    Raises:
        DataError: an input has changed since it was hashed.
        OutputError: the output exists, `force` is false, and another command made it; or the file system refuses.
    """
    inputs.refuse_changed()
    key = key or inputs.key
    if not force and is_finished(output, asked, key):
        notify(DONE.format(output=output))
        return False
    with new_file(output, force=force) as temporary:
        write(temporary)
        remember(output, asked, key, content_of(temporary))
    return True


def content_of(path: Path) -> Any:
    """A file's checksum; for a folder, whose files may be large, their sizes and modification times."""
    if not path.is_dir():
        return checksum(path)
    files = (file for file in sorted(path.rglob("*")) if file.is_file())
    return {file.relative_to(path).as_posix(): [file.stat().st_size, file.stat().st_mtime_ns] for file in files}


def key_of(facts: Any) -> str:
    """A hash of everything that an output depends on, given as JSON values."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


class Inputs:
    """The files that a command reads, hashed before it reads them: what it writes is of just this content.

    Args:
        files: their paths; of those that are no files, nothing is kept.

    Raises:
        DataError: a file cannot be read.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self.sums = {file: self._sum(file) for file in files if file.is_file()}

    @property
    def key(self) -> str:
        """The key of an output that depends only on these files and the version of lrc."""
        return key_of([{str(file): sha256 for file, sha256 in self.sums.items()}, versions_of("lrc")])

    def refuse_changed(self) -> None:
        """Refuse files that have changed since; to be called once they are read, before anything is written.

        Raises:
            DataError: a file has another content, or is gone.
        """
        for file, sha256 in self.sums.items():
            if self._sum(file) != sha256:
                raise DataError(_("{path}: was changed while it was read; run again").format(path=file))

    @staticmethod
    def _sum(file: Path) -> str:
        try:
            return checksum(file)
        except OSError as error:
            raise DataError(cannot_read(file.name, error)) from error


def _read(output: Path) -> dict[str, Any] | None:
    """The record of an output; None if there is none, or the output has changed since."""
    try:
        folder = records_folder(output)
        record: dict[str, Any] = json.loads(_record(output, folder).read_text(encoding="utf-8"))
        same = record["output"] == _name(output, folder) and record["content"] == content_of(output)
        others = all(checksum(folder.parent / other) == wanted for other, wanted in record["others"].items())
        return record if same and others and not output.is_symlink() else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _record(output: Path, folder: Path) -> Path:
    name = hashlib.sha256(_name(output, folder).encode(errors="surrogatepass")).hexdigest()[:32]
    return folder / f"{name}.json"


def _name(path: Path, folder: Path) -> str:
    """How a record names a file: as seen from outputs that may be moved together with their records, or in full."""
    path = path.resolve()
    if folder.name == BESIDE and path.is_relative_to(folder.parent):
        return path.relative_to(folder.parent).as_posix()
    return str(path)


def _plain(asked: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(dict(asked), default=str))
