"""Which code a run was made with: the versions of packages, and the commit that lrc is from."""

from __future__ import annotations

import json
import subprocess
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

import lrc

PACKAGES = ("lrc", "torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "datasets")
COMMIT = "lrc commit"


def versions() -> dict[str, str]:
    """The versions of the packages that decide what a run gives, and lrc's commit where it is known."""
    commit = _commit_of(Path(lrc.__file__).parents[2]) or _commit_installed()
    return versions_of(*PACKAGES) | ({COMMIT: commit} if commit else {})


def versions_of(*names: str) -> dict[str, str]:
    """The installed versions of packages; `lrc` is named as it is imported, whatever its distribution is called."""
    return {name: version(lrc.DISTRIBUTION if name == "lrc" else name) for name in names}


def _commit_of(folder: Path) -> str | None:
    """What is checked out in a clone, with `+changes` where its files are others; None where it is no clone."""
    if not (folder / ".git").exists():
        return None
    try:
        commit, changes = (
            subprocess.run(
                ["git", *words], cwd=folder, capture_output=True, check=True, encoding="utf-8", errors="replace"
            ).stdout.strip()
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no", "--", "src"))
        )
    except (OSError, subprocess.CalledProcessError):  # no git, a clone without a commit, or somebody else's folder
        return None
    return f"{commit}+changes" if changes else commit


def _commit_installed() -> str | None:
    """What `pip install git+https://…` noted, as PEP 610 has it."""
    try:
        noted = json.loads(distribution(lrc.DISTRIBUTION).read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return None
    commit = noted.get("vcs_info", {}).get("commit_id")
    return str(commit) if commit else None
