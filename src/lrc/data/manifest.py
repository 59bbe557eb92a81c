"""The file next to the data: where it came from, what was done to it, and the checksum of every file that
belongs to it.

A manifest is written in full under a temporary name, its draft, before any file of its set gets its own name,
and gets its own name last. A set that a killed convert left behind so has a draft that lists it, and no
manifest that agrees.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lrc.runtime.errors import DataError
from lrc.runtime.outputs import checksum, flush, new_file, refuse_existing
from lrc.runtime.translation import _

SUFFIX = "_manifest.json"
_DRAFT_SUFFIX = ".part"  # what lrc.runtime.locks appends to a name while the file is written


def write_set(
    folder: Path,
    stem: str,
    texts: Mapping[str, Iterable[str]],
    facts: Mapping[str, Any],
    *,
    force: bool = False,
) -> None:
    """Write files and their manifest, `<stem>_manifest.json`: all of them or none.

    Args:
        folder: where to; it is made where it is missing.
        texts: the pieces of each file's text, by file name.
        facts: what else the manifest says.
        force: replace files that exist; those that a killed convert left behind are replaced anyway.

    Raises:
        OutputError: a file exists, or the file system refuses.
    """
    names = (*texts, f"{stem}{SUFFIX}")
    refuse_set(folder, names, force=force)
    with ExitStack() as stack:
        # They get their names in reverse order: the manifest, entered first, comes last.
        draft = stack.enter_context(new_file(folder / names[-1], force=True))
        parts = {name: stack.enter_context(new_file(folder / name, force=True)) for name in texts}
        hashes = {name: _write(parts[name], text) for name, text in texts.items()}
        document = {**facts, "files": {name: {"sha256": sha256} for name, sha256 in hashes.items()}}
        draft.write_text(json.dumps(document, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        # Flushed here already, so that renames alone are left for the moment in which the set is incomplete.
        for part in (*parts.values(), draft):
            flush(part)


def is_finished(folder: Path, stem: str, names: Iterable[str], facts: Mapping[str, Any]) -> bool:
    """Whether a set is there already, whole, and made of the same: then there is nothing to write.

    Args:
        names: of all files but the manifest.
        facts: as for `write_set`.
    """
    try:
        document = json.loads((folder / f"{stem}{SUFFIX}").read_bytes())
        files = document.pop("files")
        return (
            document == json.loads(json.dumps(facts))
            and files.keys() == set(names)
            and all(checksum(folder / name) == files[name]["sha256"] for name in files)
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def refuse_set(folder: Path, names: Iterable[str], *, force: bool) -> None:
    """Refuse if a file of a set exists that a killed convert did not leave behind.

    Raises:
        OutputError: it exists and `force` is false.
    """
    for name in names:
        path = folder / name
        refuse_existing(path, force=force or (not path.is_symlink() and _is_left_behind(path)))


def refuse_incomplete(path: Path) -> None:
    """Refuse a file that is part of a set and not as its manifest lists it. Files that none lists are fine.

    Raises:
        DataError: a killed convert left it behind, or it was changed since.
    """
    hashes = _find_checksums(path, path.parent.glob(f"*{SUFFIX}"))
    if hashes and checksum(path) not in hashes.values():
        name = next(iter(hashes)).name
        raise DataError(
            _(
                "{file}: not the file that {name} lists; run lrc convert again with --force, or delete "
                "{name} if you changed the file on purpose"
            ).format(file=path.name, name=name)
        )
    if not hashes and _is_left_behind(path):
        raise DataError(
            _("{file}: left behind by a convert that was killed; run lrc convert again").format(file=path.name)
        )


def _is_left_behind(path: Path) -> bool:
    """Whether a draft lists the file as it is, and no manifest does."""
    drafts = _find_checksums(path, path.parent.glob(f".*{SUFFIX}.*{_DRAFT_SUFFIX}"))
    if not drafts or checksum(path) not in drafts.values():
        return False
    return checksum(path) not in _find_checksums(path, path.parent.glob(f"*{SUFFIX}")).values()


def _find_checksums(path: Path, manifests: Iterable[Path]) -> dict[Path, str]:
    """The checksum that each manifest lists for the file; those that list none are left out."""
    found: dict[Path, str] = {}
    if not path.is_file():
        return found
    for manifest in sorted(manifests):
        try:
            found[manifest] = str(json.loads(manifest.read_bytes())["files"][path.name]["sha256"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            # Not for this file, not of lrc, or a draft that was not finished.
            continue
    return found


def _write(path: Path, pieces: Iterable[str]) -> str:
    """Write a text, and give its sha256."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for piece in pieces:
            data = piece.encode()
            digest.update(data)
            file.write(data)
    return digest.hexdigest()
