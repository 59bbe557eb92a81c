"""The cache of tokenized files: each entry is a folder whose name is a hash of all that its content depends on.

The entries are in `lrc` under the cache of Hugging Face's datasets, `HF_DATASETS_CACHE`, and may be deleted at any
time. An entry appears complete or not at all, and is made by one process at a time. The other processes of a run poll
for the entry; they do not use a collective, which would time out if the first process took long.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import datasets
import xxhash

import lrc
from lrc.runtime.errors import OutputError, describe_os_error
from lrc.runtime.locks import cache_lock
from lrc.runtime.outputs import new_folder
from lrc.runtime.progress import notify
from lrc.runtime.translation import _

SEAL = "seal.json"  # the checksums of an entry's files
WAIT = 0.1  # seconds between polls
# Seconds after which a process that is not the first of its machine makes the entry itself, if nobody else does.
GRACE = 10.0
# The packages, apart from lrc, that the ids may depend on.
PACKAGES = ("datasets", "jinja2", "sentencepiece", "tokenizers", "transformers")
# The modules and rooms of lrc that decide which tokens a file has and how an entry is stored: an edit to one of them
# invalidates all entries. tests/tokenization/test_token_cache.py compares the list with the imports.
DECIDE_TOKENS = ("config/run_record.py", "data", "packing/tree.py", "runtime/findings.py", "tokenization")


def cache_folder() -> Path:
    """The folder of all entries."""
    return Path(datasets.config.HF_DATASETS_CACHE) / "lrc"


def entry_name(facts: Mapping[str, Any]) -> str:
    """The name of an entry: a hash of `facts`, the source of lrc and the versions of `PACKAGES`.

    Args:
        facts: everything else that the content depends on; must be serializable as JSON.
    """
    whole = {**facts, "lrc": _source_digest(), "versions": {name: version(name) for name in PACKAGES}}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:32]


def tokenizer_digest(tokenizer: Any) -> str:
    """The SHA-256 of all files that a tokenizer saves: vocabulary, merges, special tokens, chat template.

    Raises:
        OutputError: the tokenizer cannot be saved to the folder for temporary files.
    """
    digest = hashlib.sha256(type(tokenizer).__name__.encode())
    with TemporaryDirectory() as folder:
        try:
            tokenizer.save_pretrained(folder)
        except Exception as error:  # the tokenizers library raises nothing narrower for a full disk
            raise OutputError(
                _("{folder}: the tokenizer cannot be copied here ({reason}); make room for it").format(
                    folder=folder, reason=error
                )
            ) from error
        for file in sorted(Path(folder).rglob("*")):
            if file.is_file():
                digest.update(f"\n{file.relative_to(folder)} {file.stat().st_size}\n".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()


def fetch(name: str, make: Callable[[Path], None], *, first: bool = True) -> Path:
    """Return the folder of an entry, after making it if it is missing or damaged.

    Args:
        name: from `entry_name`.
        make: writes the files of the entry into a folder.
        first: whether this is the first process of its machine; the others wait for it.

    Raises:
        OutputError: the entry cannot be written.
        LrcError: what `make` raises; then there is no entry.
    """
    entry, began = cache_folder() / name, time.monotonic()
    damaged: int | None = None  # the modification time of a seal that does not match its files
    notified = False
    while True:
        sealed = _read_seal_time(entry)
        if sealed is not None and sealed != damaged:
            if _is_whole(entry):
                return entry
            damaged = sealed
        if first or time.monotonic() - began > GRACE:
            with _lock(entry) as held:
                if held and _read_seal_time(entry) in (None, damaged):
                    _make(entry, make)
            if held:
                continue
            if first and not notified:
                notify(_("waiting for another run, which is tokenizing the same data"))
                notified = True
        time.sleep(WAIT)


def _make(entry: Path, make: Callable[[Path], None]) -> None:
    """Make an entry, after deleting the drafts of this and other entries that killed processes left."""
    for draft in entry.parent.glob(".*.part"):
        other = entry.with_name(draft.name.split(".")[1])
        with nullcontext(True) if other == entry else _lock(other) as held:
            if held:  # otherwise another process is making it
                shutil.rmtree(draft, ignore_errors=True)
    try:
        with new_folder(entry, force=True) as draft:
            make(draft)
            sums = {file.name: _hash_file(file) for file in sorted(draft.iterdir())}
            (draft / SEAL).write_text(json.dumps(sums), encoding="utf-8")
    except OutputError as error:
        raise OutputError(
            _("{reason}; make room, or set HF_DATASETS_CACHE to a folder that has some").format(reason=error)
        ) from error


@contextmanager
def _lock(entry: Path) -> Iterator[bool]:
    """Try to lock an entry without waiting; yields whether it is locked."""
    with ExitStack() as held:
        try:
            locked = held.enter_context(cache_lock(entry.with_name(f"{entry.name}.lock"), wait=False))
        except OSError as error:
            place, reason = error.filename or entry.parent, describe_os_error(error)
            raise OutputError(
                _("{place}: {reason}; set HF_DATASETS_CACHE to a folder of yours").format(place=place, reason=reason)
            ) from error
        yield locked


def _read_seal_time(entry: Path) -> int | None:
    """The modification time of an entry's seal in nanoseconds; None if there is no seal."""
    try:
        return (entry / SEAL).stat().st_mtime_ns
    except OSError:
        return None


def _is_whole(entry: Path) -> bool:
    """Whether every file of an entry is as it was sealed."""
    try:
        sums = json.loads((entry / SEAL).read_text(encoding="utf-8"))
        return bool(sums) and all(_hash_file(entry / name) == wanted for name, wanted in sums.items())
    except (OSError, ValueError, AttributeError):
        return False


def _hash_file(path: Path) -> str:
    """A checksum that detects damage, at the speed of the disk; not a cryptographic one."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _source_digest() -> str:
    """A hash of lrc's version and of the source of `DECIDE_TOKENS`, which changes during development.

    Raises:
        FileNotFoundError: a file in the list has been moved.
    """
    digest, source = hashlib.sha256(lrc.__version__.encode()), Path(lrc.__file__).parent
    for name in DECIDE_TOKENS:
        place = source / name
        for file in sorted(place.rglob("*.py")) or [place]:
            digest.update(file.relative_to(source).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
