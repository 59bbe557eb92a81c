"""Where tokens are kept from run to run: a folder of files under a name that says what they were made of.

The folders are in `lrc` under the cache of Hugging Face's datasets, `HF_DATASETS_CACHE`, and may be removed at any
time. One appears whole or not at all, and is made by one process at a time. Nothing here is a collective of the
processes of a run, which would end after its timeout: they wait for the folder, however long the first one takes.
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

SEAL = "seal.json"
WAIT = 0.1  # seconds between two looks
# Seconds after which a process that is not the first one of its machine does the work itself, where nobody does it.
GRACE = 10.0
# The packages that ids may depend on, apart from lrc.
PACKAGES = ("datasets", "jinja2", "sentencepiece", "tokenizers", "transformers")
# The modules and rooms of lrc that decide which tokens a file has, and how an entry is stored; an edit of one of them
# makes the entries of before worthless, an edit of any other does not. tests/tokenization/test_token_cache.py compares
# the list with what is imported.
DECIDE_TOKENS = ("config/run_record.py", "data", "packing/tree.py", "runtime/findings.py", "tokenization")


def cache_folder() -> Path:
    """The folder that holds all entries."""
    return Path(datasets.config.HF_DATASETS_CACHE) / "lrc"


def entry_name(facts: Mapping[str, Any]) -> str:
    """The name of what is made of `facts` by this version of lrc and of what it stands on.

    Args:
        facts: everything else that the entry's content depends on, as JSON can hold it.
    """
    whole = {**facts, "lrc": _source_digest(), "versions": {name: version(name) for name in PACKAGES}}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:32]


def tokenizer_digest(tokenizer: Any) -> str:
    """The SHA-256 of all that a tokenizer saves of itself: vocabulary, merges, special tokens, chat template.

    Raises:
        OutputError: the folder for temporary files cannot hold a copy of it.
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


def cached(name: str, make: Callable[[Path], None], *, first: bool = True) -> Path:
    """The entry of that name, made where it is missing or damaged.

    Args:
        name: see `entry_name`.
        make: writes the entry's files into the folder that it is given.
        first: whether this is the first process of its machine, which is the one that makes the entry.

    Raises:
        OutputError: it cannot be written.
        LrcError: what `make` raises; there is no entry then.
    """
    entry, began = cache_folder() / name, time.monotonic()
    damaged: int | None = None  # when the seal was written that does not agree
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
    """Make an entry; what a killed process left of this one or of another goes first."""
    for draft in entry.parent.glob(".*.part"):
        other = entry.with_name(draft.name.split(".")[1])
        with nullcontext(True) if other == entry else _lock(other) as held:
            if held:  # otherwise somebody is at work on it
                shutil.rmtree(draft, ignore_errors=True)
    try:
        with new_folder(entry, force=True) as draft:
            make(draft)
            sums = {file.name: _sum(file) for file in sorted(draft.iterdir())}
            (draft / SEAL).write_text(json.dumps(sums), encoding="utf-8")
    except OutputError as error:
        raise OutputError(
            _("{reason}; make room, or set HF_DATASETS_CACHE to a folder that has some").format(reason=error)
        ) from error


@contextmanager
def _lock(entry: Path) -> Iterator[bool]:
    """Lock an entry at once or not at all; gives whether that was done."""
    with ExitStack() as held:
        try:
            locked = held.enter_context(cache_lock(entry.with_name(f"{entry.name}.lock"), wait=False))
        except OSError as error:
            raise _refusal(entry, error) from error
        yield locked


def _refusal(entry: Path, error: OSError) -> OutputError:
    place, reason = error.filename or entry.parent, describe_os_error(error)
    return OutputError(
        _("{place}: {reason}; set HF_DATASETS_CACHE to a folder of yours").format(place=place, reason=reason)
    )


def _read_seal_time(entry: Path) -> int | None:
    """When an entry was sealed; None where there is none."""
    try:
        return (entry / SEAL).stat().st_mtime_ns
    except OSError:
        return None


def _is_whole(entry: Path) -> bool:
    """Whether every file of an entry is as it was sealed."""
    try:
        sums = json.loads((entry / SEAL).read_text(encoding="utf-8"))
        return bool(sums) and all(_sum(entry / name) == wanted for name, wanted in sums.items())
    except (OSError, ValueError, AttributeError):
        return False


def _sum(path: Path) -> str:
    """A checksum against damage, at the speed of the disk."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _source_digest() -> str:
    """Version of lrc and source of `DECIDE_TOKENS`: in an installation that is worked on, only the source changes.

    Raises:
        FileNotFoundError: what the list names has been moved.
    """
    digest, source = hashlib.sha256(lrc.__version__.encode()), Path(lrc.__file__).parent
    for name in DECIDE_TOKENS:
        place = source / name
        for file in sorted(place.rglob("*.py")) or [place]:
            digest.update(file.relative_to(source).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
