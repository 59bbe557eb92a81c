"""The file next to the data: where it came from, what was done to it, and the checksum of every file that
belongs to it.

A manifest is written in full under a temporary name, its draft, before any file of its set gets its own name,
and gets its own name last. A set that a killed convert left behind so has a draft that lists it, and no
manifest that agrees.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from lrc.runtime.errors import DataError, OutputError
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


def refuse_other(
    folder: Path, source: Path, layout: str, split: Mapping[str, Any], clustering: Mapping[str, Any]
) -> None:
    """Refuse, before the work, if another file was converted there, or the same otherwise.

    Args:
        split: the flags of the split, as a manifest of labelled data tells them.
        clustering: what decides that passages stay together, as a manifest tells it.

    Raises:
        OutputError: a manifest tells so.
    """
    try:
        document = json.loads((folder / f"{source.stem}{SUFFIX}").read_bytes())
        found, names = (document["source"]["sha256"], document["layout"]), list(document["files"])
        same = found == (checksum(source), layout) and document["split"] in (None, split)
        clustered = document.get("clustering")
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return  # none of lrc's: what it is is told later
    if not same:
        refuse_set(folder, [*names, f"{source.stem}{SUFFIX}"], force=False)
    if same and clustered != clustering:
        raise OutputError(
            _(
                "{folder}: {file} was converted by another version of lrc, which kept other passages together, so its "
                "split is another; choose another --output-dir, or convert anew with --force"
            ).format(folder=folder, file=source.name)
        )


def refuse_set(folder: Path, names: Iterable[str], *, force: bool) -> None:
    """Refuse if a file of a set exists that a killed convert did not leave behind.

    Raises:
        OutputError: it exists and `force` is false.
    """
    for name in names:
        path = folder / name
        refuse_existing(path, force=force or (not path.is_symlink() and _is_left_behind(path, partial(checksum, path))))


def refuse_incomplete(path: Path, own: Callable[[], str] | None = None) -> None:
    """Refuse a file that is part of a set and not as its manifest lists it. Files that none lists are fine.

    Args:
        own: gives the file's checksum, where it may be known already.

    Raises:
        DataError: a killed convert left it behind, or it was changed since.
    """
    own = own or partial(checksum, path)
    hashes = _find_checksums(path, path.parent.glob(f"*{SUFFIX}"))
    if hashes and own() not in hashes.values():
        name = next(iter(hashes)).name
        raise DataError(
            _(
                "{file}: not the file that {name} lists; run lrc convert again with --force, or delete "
                "{name} if you changed the file on purpose"
            ).format(file=path.name, name=name)
        )
    if not hashes and _is_left_behind(path, own):
        raise DataError(
            _("{file}: left behind by a convert that was killed; run lrc convert again").format(file=path.name)
        )


def source_of(path: Path) -> dict[str, str] | None:
    """What a file was converted from, `name` and `sha256`; None where no manifest beside it says so of its content."""
    own = checksum(path)
    for manifest, listed in _find_checksums(path, path.parent.glob(f"*{SUFFIX}")).items():
        source = json.loads(manifest.read_bytes()).get("source")
        if listed == own and isinstance(source, dict) and {"name", "sha256"} <= source.keys():
            return {"name": str(source["name"]), "sha256": str(source["sha256"])}
    return None


def _is_left_behind(path: Path, own: Callable[[], str]) -> bool:
    """Whether a draft lists the file as it is, and no manifest does."""
    drafts = _find_checksums(path, path.parent.glob(f".*{SUFFIX}.*{_DRAFT_SUFFIX}"))
    if not drafts or (sha256 := own()) not in drafts.values():
        return False
    return sha256 not in _find_checksums(path, path.parent.glob(f"*{SUFFIX}")).values()


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
