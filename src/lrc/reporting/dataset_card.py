"""The card of a dataset: its source, counts and checksums, but no rows."""

from __future__ import annotations

import json
from importlib.resources import files as packaged
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData
from jinja2 import Environment, StrictUndefined, UndefinedError

from lrc import DISTRIBUTION
from lrc.data.manifest import SUFFIX
from lrc.reporting.scrub import scrub
from lrc.runtime.errors import DataError, describe_os_error
from lrc.runtime.findings import spell_kind
from lrc.runtime.library_errors import describe_error
from lrc.runtime.translation import _

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
# The keys of a manifest of `lrc convert` that the card may use, and their types.
WANTED: dict[str, type | tuple[type, ...]] = {
    "source": dict,
    "files": dict,
    "questions": dict,
    "rows_read": int,
    "passages": int,
    "clusters": int,
    "skipped": dict,
    "skipped_rows": list,
    "repaired": dict,
    "warned": dict,
    "split": (dict, type(None)),  # None without answers
}
CURE = _("give the file *{suffix} that `lrc convert` wrote").format(suffix=SUFFIX)


def dataset_card(manifest: Path, repo_id: str) -> DatasetCard:
    """Make the card of a dataset that `lrc convert` wrote.

    Args:
        manifest: its `*_manifest.json`, from which counts, names and checksums are taken.
        repo_id: the name that it will have on the Hub.

    Returns:
        The card, parsed by huggingface_hub.

    Raises:
        DataError: the file is not a manifest.
    """
    facts = _read(manifest)
    count = facts["rows_read"] - len(facts["skipped_rows"])
    data = DatasetCardData(
        language="zh",
        task_categories=["multiple-choice", "question-answering"],
        size_categories=[next((name for most, name in SIZES if count < most), "1M<n<10M")],
        pretty_name=repo_id.rpartition("/")[2],
        tags=["lrc", "reading-comprehension"],
    )
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
    environment.filters |= {"cell": lambda value: str(value).replace("|", "\\|"), "words": spell_kind}
    template = packaged(__package__).joinpath("dataset_card.md").read_text(encoding="utf-8")
    named = {"name": repo_id.rpartition("/")[2], "distribution": DISTRIBUTION}
    try:
        text = environment.from_string(template).render(metadata=data.to_yaml().strip(), **named, **facts)
    except (UndefinedError, TypeError) as error:
        text = _("{path}: not a manifest ({reason}); {cure}")
        raise DataError(text.format(path=manifest, reason=error, cure=CURE)) from error
    return DatasetCard(text.rstrip() + "\n")


def _read(manifest: Path) -> dict[str, Any]:
    try:
        found = json.loads(manifest.read_text(encoding="utf-8"))
    except OSError as error:
        reason = describe_os_error(error)
        raise DataError(_("{path}: {reason}; {cure}").format(path=manifest, reason=reason, cure=CURE)) from error
    except (ValueError, RecursionError) as error:
        text = _("{path}: not JSON ({reason}); {cure}")
        raise DataError(text.format(path=manifest, reason=describe_error(error), cure=CURE)) from error
    found = found if isinstance(found, dict) else {}
    wrong = [key for key, kind in WANTED.items() if not isinstance(found.get(key, ...), kind)]
    if wrong or not {"name", "sha256"} <= found["source"].keys():
        text = _("{path}: not a manifest, {key} is missing; {cure}")
        raise DataError(text.format(path=manifest, key=(wrong or ["source"])[0], cure=CURE))
    counts = ("questions", "skipped", "repaired", "warned")
    if any(type(value) is not int for key in counts for value in found[key].values()):
        text = _("{path}: not a manifest, its counts are not all whole numbers; {cure}")
        raise DataError(text.format(path=manifest, cure=CURE))
    named: dict[str, Any] = scrub({key: found[key] for key in WANTED})
    # Earlier versions kept only near-duplicates together, and have no such key.
    return named | {"parts_joined": "clustering" in found}
