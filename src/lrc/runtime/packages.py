"""Versions of packages: are those that lrc needs installed, and which code, lrc's commit included, made a run?

The first is asked before any is imported: what an older one lacks would show as an ImportError from the middle of it,
or as a wrong result.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Collection
from importlib.metadata import PackageNotFoundError, distribution, requires, version
from pathlib import Path
from typing import TYPE_CHECKING

import lrc
from lrc.runtime.errors import MachineError

if TYPE_CHECKING:
    from packaging.requirements import Requirement

SEVERAL = 2  # findings, beyond which one command for all of them is named
# What only models need: workbooks and files are read without.
FOR_MODELS = frozenset({"torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes"})


def check_installed(*, dispensable: Collection[str] = ()) -> None:
    """Compare what is installed with the ranges of `setup.cfg`; extras are left to the verbs that need them.

    Args:
        dispensable: packages that may be missing; where they are there, their versions have to fit all the same.

    Raises:
        MachineError: a package is missing or outside its range; a finding each.
    """
    from packaging.requirements import Requirement  # `lrc --help` does without

    findings = []
    for needed in map(Requirement, _ranges()):
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        found = installed_version(needed.name)
        if found is None and needed.name in dispensable:
            continue
        if found is None or not _fits(found, needed):
            is_there = "is not installed" if found is None else f"{found} is installed"
            cure = f"pip install '{needed.name}{needed.specifier}'"
            findings.append(f"{needed.name}: {is_there}, lrc needs {needed.specifier}; run: {cure}")
    if len(findings) > SEVERAL:
        findings.append(f"or all of them at once: pip install --upgrade {lrc.DISTRIBUTION}")
    if findings:
        raise MachineError(*findings)


def check_installed_or_exit() -> None:
    """The same at the top of a module that runs as a script: what is wrong goes to stderr, and the status is 1."""
    try:
        check_installed()
    except MachineError as error:
        if os.environ.get("LOCAL_RANK", "0") == "0":  # the processes of a machine share what is installed
            print(*error.lines(), sep="\n", file=sys.stderr)
        sys.exit(1)


def install_extra(name: str) -> str:
    """The command that installs what an extra of lrc needs."""
    return f"pip install '{lrc.DISTRIBUTION}[{name}]'"


def constraints_file() -> Path:
    """constraints.txt, the versions that lrc is tested with: inside an installed lrc, or at the top of a clone."""
    package = Path(lrc.__file__).parent
    inside = package / "constraints.txt"
    return inside if inside.is_file() else package.parents[1] / "constraints.txt"


def tested_versions() -> dict[str, str]:
    """The tested versions of all packages, by the name that pip knows them by."""
    lines = constraints_file().read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {name: found for name, found in pairs}


def _ranges() -> list[str]:
    try:
        return requires(lrc.DISTRIBUTION) or []
    except PackageNotFoundError:  # run from its source alone
        return []


def installed_version(name: str) -> str | None:
    """The version of a package; None where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _fits(found: str, needed: Requirement) -> bool:
    """Whether a version is in the range; one built before its release counts as the release."""
    from packaging.version import InvalidVersion, Version

    try:
        return needed.specifier.contains(Version(found).base_version)
    except InvalidVersion:  # somebody's own build, who will know
        return True


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
    """What is checked out in a clone, with `+changes` where its files are others; None where it is not a clone."""
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
