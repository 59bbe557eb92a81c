"""`lrc publish`: uploads an adapter or a merged model with its card to the Hub, or the card of a dataset."""

from __future__ import annotations

from pathlib import Path

from lrc.reporting.dataset_card import dataset_card
from lrc.reporting.hub import publish_dataset_card, publish_folder, staged
from lrc.reporting.model_card import CARD
from lrc.runtime.memory import format_size
from lrc.runtime.translation import _, localized


def publish(folder: Path, *, repo_id: str, private: bool = False, dry_run: bool = False) -> None:
    """Publish an adapter or a merged model.

    Args:
        folder: of the adapter or the merged model.
        repo_id: USER/NAME on the Hub.
        private: make the repository private.
        dry_run: print the model card and the list of files, and send nothing.

    Raises:
        ModelError: the folder does not hold a model.
        OutputError: the Hub refuses, cannot be reached, or the upload was interrupted.
    """
    if dry_run:
        with staged(folder, repo_id) as stage:
            files = sorted(stage.iterdir())
            print((stage / CARD).read_text(encoding="utf-8"))
            text = _("{count} files would go to {repo_id}:")
            text = _("{count} files would go to {repo_id} (private):") if private else text
            print(localized(text.format(count=len(files), repo_id=repo_id)))
            for file in files:
                print(f"{format_size(file.stat().st_size):>10}  {file.name}")
    else:
        print(publish_folder(folder, repo_id, private))


def publish_dataset(manifest: Path, *, repo_id: str, private: bool = False, dry_run: bool = False) -> None:
    """Publish the card of a dataset, with counts and checksums, but without any row.

    Args:
        manifest: the `*_manifest.json` that `lrc convert` wrote.
        repo_id: see `publish`.
        private: see `publish`.
        dry_run: print the card, and send nothing.

    Raises:
        DataError: the file is not a manifest.
        OutputError: the Hub refuses, or cannot be reached.
    """
    if dry_run:
        text = _("1 file would go to {repo_id}: {file}")
        text = _("1 file would go to {repo_id} (private): {file}") if private else text
        print(dataset_card(manifest, repo_id), localized(text.format(repo_id=repo_id, file=CARD)), sep="\n")
    else:
        print(publish_dataset_card(manifest, repo_id, private))
