"""`lrc publish`: uploads an adapter or a merged model with its card to the Hub, or the card of a dataset."""

from __future__ import annotations

from pathlib import Path

from lrc.reporting.dataset_card import dataset_card
from lrc.reporting.hub import is_adapter, publish_dataset_card, publish_folder, staged
from lrc.reporting.model_card import CARD
from lrc.runtime.findings import print_lines, print_next
from lrc.runtime.memory import format_size
from lrc.runtime.system import command_line
from lrc.runtime.translation import _


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
            print_lines(text.format(count=len(files), repo_id=repo_id))
            for file in files:
                print(f"{format_size(file.stat().st_size):>10}  {file.name}")
        print_next(_command("--adapter" if is_adapter(folder) else "--merged", folder, repo_id, private))
    else:
        print_lines(_("published: {url}").format(url=publish_folder(folder, repo_id, private)))
        print_next(command_line(["hf", "download", repo_id, "--local-dir", repo_id.rpartition("/")[2]]))


def _command(flag: str, path: Path, repo_id: str, private: bool) -> str:
    """The command that sends what a dry run has shown."""
    return command_line(["lrc", "publish", flag, str(path), "--repo-id", repo_id, *["--private"] * private])


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
        print(dataset_card(manifest, repo_id))
        print_lines(text.format(repo_id=repo_id, file=CARD))
        print_next(_command("--dataset", manifest, repo_id, private))
    else:
        print_lines(_("published: {url}").format(url=publish_dataset_card(manifest, repo_id, private)))
