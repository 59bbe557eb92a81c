"""The card of a data set: where it came from, counts and checksums, and never a row."""

from __future__ import annotations

import json
from importlib.resources import files as packaged
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData
from jinja2 import Environment, StrictUndefined

from lrc import DISTRIBUTION
from lrc.data.manifest import SUFFIX
from lrc.reporting.scrub import scrub
from lrc.runtime.errors import DataError
from lrc.runtime.findings import spell_kind

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
# What a manifest of `lrc convert` holds, with the type of each; nothing else of it gets onto the card.
WANTED: dict[str, type] = {
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
    "split": dict,
}


def dataset_card(manifest: Path, repo_id: str) -> DatasetCard:
    """Write the card of what `lrc convert` wrote.

    Args:
        manifest: its `*_manifest.json`, of which counts, names and checksums are taken.
        repo_id: the name that it will have on the Hub.

    Returns:
        a card that huggingface_hub has parsed.

    Raises:
        DataError: the file is no manifest.
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
    text = environment.from_string(
        packaged(__package__).joinpath("dataset_card.md").read_text(encoding="utf-8")
    ).render(metadata=data.to_yaml().strip(), name=repo_id.rpartition("/")[2], distribution=DISTRIBUTION, **facts)
    return DatasetCard(text.rstrip() + "\n")


def _read(manifest: Path) -> dict[str, Any]:
    cure = f"give the file *{SUFFIX} that `lrc convert` wrote"
    try:
        found = json.loads(manifest.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{manifest}: {error.strerror or error}; {cure}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{manifest}: not JSON ({error}); {cure}") from error
    wrong = [key for key, kind in WANTED.items() if not isinstance(found, dict) or not isinstance(found.get(key), kind)]
    if wrong or not {"name", "sha256"} <= found["source"].keys():
        raise DataError(f"{manifest}: not a manifest, {(wrong or ['source'])[0]} is missing; {cure}")
    counts = ("questions", "skipped", "repaired", "warned")
    if any(type(value) is not int for key in counts for value in found[key].values()):
        raise DataError(f"{manifest}: not a manifest, its counts are not all whole numbers; {cure}")
    named: dict[str, Any] = scrub({key: found[key] for key in WANTED})
    # Earlier versions kept near-duplicates together only, and said nothing of it.
    return named | {"parts_joined": "clustering" in found}
