"""What must not leave the machine: local paths and tokens, taken out of what is published."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from lrc.errors import OutputError

SECRET_KEY = re.compile(r"(^|_)(token|secret|password|api_key|auth)$")
SECRET = re.compile(r"\bhf_[A-Za-z0-9]{16,}\b")
PATH_KEY = re.compile(r"(^|_)(dir|file|folder|files|path)$")  # model_name_or_path, too
ABSOLUTE = re.compile(r"^(~?(/[^/\n]+){2,}/?|[A-Za-z]:[\\/].+)$")


def is_local(name: str) -> bool:
    """Whether the name of a model is a path of this machine rather than a name on the Hub."""
    outside = name.startswith((".", "~", "/")) or "\\" in name or name.count("/") > 1
    return outside or ABSOLUTE.match(name) is not None or Path(name).exists()


def scrub(value: Any, key: str = "") -> Any:
    """Copy a JSON value without its secrets; of a local path only the last part is kept.

    Args:
        value: any JSON value.
        key: the key under which it stands.
    """
    if isinstance(value, dict):
        kept = {name: part for name, part in value.items() if not _is_secret(name, part)}
        return {name: scrub(part, name) for name, part in kept.items()}
    if isinstance(value, list):
        return [scrub(part, key) for part in value if not _is_secret("", part)]
    if isinstance(value, str) and _is_path(value, key):
        return (PureWindowsPath if "\\" in value else PurePosixPath)(value).name
    return value


def refuse_leaks(files: list[Path], private: tuple[str, ...]) -> None:
    """Look through text files for what `scrub` cannot know.

    Args:
        files: the files that would be published.
        private: paths that must not be in them.

    Raises:
        OutputError: a finding for each file that holds one of them or a token.
    """
    findings = []
    for file in files:
        text = file.read_text(encoding="utf-8", errors="replace")
        if SECRET.search(text):
            findings.append(f"{file.name}: holds what looks like a token; take it out, then publish")
        findings += [
            f"{file.name}: holds the local path {path}; take it out, then publish" for path in private if path in text
        ]
    if findings:
        raise OutputError(*findings)


def _is_secret(key: str, value: Any) -> bool:
    return isinstance(value, str) and bool(SECRET_KEY.search(key) or SECRET.search(value))


def _is_path(value: str, key: str) -> bool:
    if key.endswith("name_or_path"):
        return is_local(value)
    return bool(PATH_KEY.search(key) or ABSOLUTE.match(value))
