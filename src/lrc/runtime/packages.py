"""Versions of packages: checks those that lrc needs, and records those (and lrc's commit) that a run uses.

The check comes before any import: an older package would otherwise show as an ImportError from its middle, or as a
wrong result.
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
from lrc.runtime.system import command_line
from lrc.runtime.translation import _

if TYPE_CHECKING:
    from packaging.requirements import Requirement

SEVERAL = 2  # with more findings than this, one command for all of them is added
# Needed for models only; workbooks and other files can be read without them.
FOR_MODELS = frozenset({"torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes"})


def check_installed(*, dispensable: Collection[str] = ()) -> None:
    """Compare installed packages with the ranges in `setup.cfg`; extras are left to the commands that need them.

    Args:
        dispensable: packages that may be missing; where they are there, their versions have to fit all the same.

    Raises:
        MachineError: packages are missing or outside their range, with a finding for each.
    """
    from packaging.requirements import Requirement  # `lrc --help` does without

    findings: list[str] = []
    for needed in map(Requirement, _ranges()):
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        found = installed_version(needed.name)
        if found is None and needed.name in dispensable:
            continue
        if found is None or not _fits(found, needed):
            text = _("{package}: {version} is installed, lrc needs {range}; run: {command}")
            if found is None:
                text = _("{package}: is not installed, lrc needs {range}; run: {command}")
            command = command_line(["pip", "install", f"{needed.name}{needed.specifier}"])
            findings.append(text.format(package=needed.name, version=found, range=needed.specifier, command=command))
    if "torch" not in dispensable:
        findings += _stray_torchvision()
    if len(findings) > SEVERAL:
        text = _("or all of them at once: pip install --upgrade {distribution}")
        findings.append(text.format(distribution=lrc.DISTRIBUTION))
    if findings:
        raise MachineError(*findings)


def _stray_torchvision() -> list[str]:
    """A line for a torchvision of another torch, if one is installed: transformers imports it, and cannot be imported.

    lrc does not need it, but Kaggle's and Colab's images have it. It works with torch's patch releases.
    """
    from packaging.requirements import Requirement
    from packaging.version import InvalidVersion, Version

    found, torch = installed_version("torchvision"), installed_version("torch")
    wanted = (
        [needed for needed in map(Requirement, requires("torchvision") or []) if needed.name == "torch"]
        if found
        else []
    )
    exact = [one.version for needed in wanted for one in needed.specifier if one.operator == "=="]
    try:
        if torch is None or not exact or Version(exact[0]).release[:2] == Version(torch).release[:2]:
            return []
    except InvalidVersion:  # custom builds
        return []
    text = _(
        "torchvision: {version} is installed, which was built for torch {wanted}, and torch is {found}; pip "
        "uninstall torchvision, which lrc does not need, or install the one for this torch"
    )
    return [text.format(version=found, wanted=exact[0], found=torch)]


def check_installed_or_exit() -> None:
    """Check at the top of a module that runs as a script: print errors on stderr and exit with status 1."""
    try:
        check_installed()
    except MachineError as error:
        if os.environ.get("LOCAL_RANK", "0") == "0":  # the processes of a machine share what is installed
            print(*error.lines(), sep="\n", file=sys.stderr)
        sys.exit(1)


def install_extra(name: str) -> str:
    """The command that installs an extra of lrc."""
    return command_line(["pip", "install", f"{lrc.DISTRIBUTION}[{name}]"])


def constraints_file() -> Path:
    """The path of constraints.txt, with the tested versions: in an installed lrc, or at the top of a clone."""
    package = Path(lrc.__file__).parent
    inside = package / "constraints.txt"
    return inside if inside.is_file() else package.parents[1] / "constraints.txt"


def tested_versions() -> dict[str, str]:
    """The tested versions of all packages, by their names in pip."""
    lines = constraints_file().read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {name: found for name, found in pairs}


def _ranges() -> list[str]:
    try:
        return requires(lrc.DISTRIBUTION) or []
    except PackageNotFoundError:  # run from its source alone
        return []


def installed_version(name: str) -> str | None:
    """The version of a package; None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _fits(found: str, needed: Requirement) -> bool:
    """Whether a version is in the range; a pre-release counts as the release."""
    from packaging.version import InvalidVersion, Version

    try:
        return needed.specifier.contains(Version(found).base_version)
    except InvalidVersion:  # a custom build
        return True


PACKAGES = ("lrc", "torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "datasets")
COMMIT = "lrc commit"


def versions() -> dict[str, str]:
    """The versions of the packages that affect the result of a run, and lrc's commit if it is known."""
    commit = _commit_of(Path(lrc.__file__).parents[2]) or _commit_installed()
    return versions_of(*PACKAGES) | ({COMMIT: commit} if commit else {})


def versions_of(*names: str) -> dict[str, str]:
    """The installed versions of packages, by their names in pip; `lrc` stands for its distribution."""
    return {name: version(lrc.DISTRIBUTION if name == "lrc" else name) for name in names}


def _commit_of(folder: Path) -> str | None:
    """The commit that is checked out in a clone, with `+changes` if src/ is modified; None if it is not a clone."""
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
    """The commit that `pip install git+https://…` recorded (PEP 610); None without one."""
    try:
        noted = json.loads(distribution(lrc.DISTRIBUTION).read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return None
    commit = noted.get("vcs_info", {}).get("commit_id")
    return str(commit) if commit else None
