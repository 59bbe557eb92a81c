"""The verb: an adapter or a merged model → the Hub, with its card; of a data set the card alone."""

from __future__ import annotations

from pathlib import Path

from lrc.reporting.dataset_card import dataset_card
from lrc.reporting.hub import publish_dataset_card, publish_folder, staged
from lrc.reporting.model_card import CARD
from lrc.runtime.memory import format_size


def publish(folder: Path, *, repo_id: str, private: bool = False, dry_run: bool = False) -> None:
    """Publish an adapter or a merged model.

    Args:
        folder: the adapter's or the merged model's.
        repo_id: USER/NAME on the Hub.
        private: make the repository private.
        dry_run: print the model card and the list of files, and connect to nothing.

    Raises:
        ModelError: the folder does not hold a model.
        OutputError: the Hub refuses, cannot be reached, or the upload was interrupted.
    """
    if dry_run:
        with staged(folder, repo_id) as stage:
            files = sorted(stage.iterdir())
            print((stage / CARD).read_text(encoding="utf-8"))
            print(f"{len(files)} files would go to {repo_id}{' (private)' if private else ''}:")
            for file in files:
                print(f"{format_size(file.stat().st_size):>10}  {file.name}")
    else:
        print(publish_folder(folder, repo_id, private))


def publish_dataset(manifest: Path, *, repo_id: str, private: bool = False, dry_run: bool = False) -> None:
    """Publish the card of a data set: its counts and checksums, and no row of it.

    Args:
        manifest: the `*_manifest.json` that `lrc convert` wrote.
        repo_id, private, dry_run: see `publish`.

    Raises:
        DataError: it is no manifest.
        OutputError: the Hub refuses, or cannot be reached.
    """
    if dry_run:
        print(
            f"{dataset_card(manifest, repo_id)}\n1 file would go to {repo_id}{' (private)' if private else ''}: {CARD}"
        )
    else:
        print(publish_dataset_card(manifest, repo_id, private))
