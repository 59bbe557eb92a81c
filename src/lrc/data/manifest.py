"""The manifest of converted data: its source, how it was converted, and the checksum of each file.

The manifest and its files are a set. A manifest is written in full under a temporary name, its draft, before any file
of the set is renamed to its final name, and is itself renamed last. So if convert is killed between the renames, the
files are listed in a draft but in no manifest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from glob import escape
from pathlib import Path
from typing import Any

from lrc.runtime.errors import DataError, OutputError
from lrc.runtime.outputs import checksum, flush, is_same, new_file, refuse_existing
from lrc.runtime.translation import _

SUFFIX = "_manifest.json"
_DRAFT_SUFFIX = ".part"  # which lrc.runtime.locks appends to a name while the file is written


def write_set(
    folder: Path,
    stem: str,
    texts: Mapping[str, Iterable[str]],
    facts: Mapping[str, Any],
    *,
    force: bool = False,
) -> list[str]:
    """Write files and their manifest, `<stem>_manifest.json`: all of them or none.

    Files of the set that this one replaces, which would pass for files of the new one, are removed.

    Args:
        folder: where to write; created if it is missing.
        stem: the first part of the manifest's name.
        texts: the pieces of each file's text, by file name.
        facts: the content of the manifest, apart from `files` with the checksums.
        force: replace existing files; those that a killed convert left behind are replaced in any case.

    Returns:
        The names of the files that were removed. One that was changed since it was written is kept.

    Raises:
        OutputError: a file exists, or the file system refuses.
    """
    names = (*texts, f"{stem}{SUFFIX}")
    refuse_set(folder, names, force=force)
    with new_file(folder / names[-1], force=True) as draft:  # the manifest, which is renamed last
        with ExitStack() as stack:
            parts = {name: stack.enter_context(new_file(folder / name, force=True)) for name in texts}
            hashes = {name: _write_hashed(parts[name], text) for name, text in texts.items()}
            document = {**facts, "files": {name: {"sha256": sha256} for name, sha256 in hashes.items()}}
            draft.write_text(json.dumps(document, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
            # Flushed here, so that nothing but renames and removals happens while the set is incomplete.
            for part in (*parts.values(), draft):
                flush(part)
        earlier = _find_earlier(folder, stem, texts)
        for path in earlier:
            path.unlink()
    return [path.name for path in earlier]


def is_finished(folder: Path, stem: str, names: Iterable[str], facts: Mapping[str, Any]) -> bool:
    """Whether the set exists already, complete and with the same facts, so that there is nothing to write.

    Args:
        folder: where the set would be written.
        stem: as for `write_set`.
        names: of all files except the manifest.
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
    """Refuse a folder whose manifest is of another source or other flags, before the source is read.

    Args:
        folder: where the data is to be written.
        source: the file to convert.
        layout: of the records, as in the manifest.
        split: the flags of the split, as in the manifest of labelled data.
        clustering: the thresholds by which passages are kept together, as in the manifest.

    Raises:
        OutputError: the folder holds such a manifest.
    """
    try:
        document = json.loads((folder / f"{source.stem}{SUFFIX}").read_bytes())
        found, names = (document["source"]["sha256"], document["layout"]), list(map(str, document["files"]))
        same = found == (checksum(source), layout) and document["split"] in (None, split)
        clustered = document.get("clustering")
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return  # not a manifest of lrc; `refuse_set` says so later
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
    """Refuse to overwrite a file of the set, unless a killed convert left it behind.

    Raises:
        OutputError: one exists and `force` is false.
    """
    for name in names:
        path = folder / name
        refuse_existing(path, force=force or (not path.is_symlink() and _is_left_behind(path, partial(checksum, path))))


def refuse_incomplete(path: Path, own: Callable[[], str] | None = None) -> None:
    """Refuse a file whose checksum is not the one in its manifest. A file without a manifest is accepted.

    Args:
        path: the file.
        own: returns the file's checksum; by default it is computed.

    Raises:
        DataError: a killed convert left the file behind, or it was changed since.
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
    """Find what a file was converted from.

    Returns:
        `name` and `sha256` of the source; None if no manifest next to the file lists its current content.
    """
    own = checksum(path)
    for manifest, listed in _find_checksums(path, path.parent.glob(f"*{SUFFIX}")).items():
        source = json.loads(manifest.read_bytes()).get("source")
        if listed == own and isinstance(source, dict) and {"name", "sha256"} <= source.keys():
            return {"name": str(source["name"]), "sha256": str(source["sha256"])}
    return None


def _find_earlier(folder: Path, stem: str, names: Iterable[str]) -> list[Path]:
    """The files, other than `names`, that the manifest in the folder or a draft of it lists with their checksums."""
    manifests = [folder / f"{stem}{SUFFIX}", *folder.glob(f".{escape(stem)}{SUFFIX}.*{_DRAFT_SUFFIX}")]
    listed = {name for manifest in manifests for name in _list_files(manifest)}
    new = [folder / name for name in names]
    return [
        path
        for path in sorted(folder / name for name in listed if Path(name).name == name)
        if path.is_file()
        and not any(is_same(path, one) for one in new)
        and checksum(path) in _find_checksums(path, manifests).values()
    ]


def _is_left_behind(path: Path, own: Callable[[], str]) -> bool:
    """Whether a draft lists the file's checksum, and no manifest does."""
    drafts = _find_checksums(path, path.parent.glob(f".*{SUFFIX}.*{_DRAFT_SUFFIX}"))
    if not drafts or (sha256 := own()) not in drafts.values():
        return False
    return sha256 not in _find_checksums(path, path.parent.glob(f"*{SUFFIX}")).values()


def _find_checksums(path: Path, manifests: Iterable[Path]) -> dict[Path, str]:
    """The checksum of the file in each of the manifests that list it."""
    found: dict[Path, str] = {}
    if not path.is_file():
        return found
    for manifest in sorted(manifests):
        if (sha256 := _list_files(manifest).get(path.name)) is not None:
            found[manifest] = sha256
    return found


def _list_files(manifest: Path) -> dict[str, str]:
    """The checksums that a manifest lists by name; empty if it is not one of lrc, or an unfinished draft."""
    try:
        return {name: str(file["sha256"]) for name, file in json.loads(manifest.read_bytes())["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _write_hashed(path: Path, pieces: Iterable[str]) -> str:
    """Write a text, and return its SHA-256."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for piece in pieces:
            data = piece.encode()
            digest.update(data)
            file.write(data)
    return digest.hexdigest()
