"""What must not leave the machine: local paths and secrets, taken out of what is published."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal

from lrc.runtime.errors import OutputError
from lrc.runtime.secrets import SECRET
from lrc.runtime.translation import _

By = Literal["key", "value"]

# The same keys where a value is nothing else, under a key that promises no checksum.
_BARE_KEY = re.compile(r"[0-9a-f]{40}|(?=.*[a-z])(?=.*[A-Z])(?=.*\d)[A-Za-z0-9/+]{40}")
_CHECKSUM = re.compile(r"revision|commit|version|sha\d*|hash|digest")
SECRET_KEY = re.compile(r"(^|_)(token|secret|password|passwd|api_key|access_key|auth)$", re.IGNORECASE)
# In the settings of tokenizers and models, `bos_token` and its like are not secrets, and these are.
ACCESS_KEY = re.compile(
    r"(^|_)(secret|password|passwd|api_key|access_key|auth|(access|api|auth|hf|hub|private|secret)_token)$",
    re.IGNORECASE,
)
PATH_KEY = re.compile(r"(^|_)(dir|file|folder|files|path)$")  # model_name_or_path, too
ABSOLUTE = re.compile(r"^(~?(/[^/\n]+){2,}/?|[A-Za-z]:[\\/].+)$")


def is_local(name: str) -> bool:
    """Whether the name of a model is a path of this machine rather than a name on the Hub."""
    outside = name.startswith((".", "~", "/")) or "\\" in name or name.count("/") > 1
    return outside or ABSOLUTE.match(name) is not None or Path(name).exists()


def scrub(value: Any, key: str = "", by: By = "key") -> Any:
    """Copy a JSON value without its secrets; of a local path only the last part is kept.

    Args:
        value: any JSON value.
        key: the key that it is the value of.
        by: `key` removes every value under the key of a secret, for recipes and adapters; `value` what looks like
            a secret, for tokenizers and models, whose `bos_token` is none.
    """
    if isinstance(value, dict):
        return {name: scrub(part, name, by) for name, part in value.items() if not _is_secret(name, part, by)}
    if isinstance(value, list):
        return [scrub(part, key, by) for part in value if not _is_secret("", part, by)]
    if isinstance(value, str) and _is_path(value, key, by):
        return (PureWindowsPath if "\\" in value else PurePosixPath)(value).name
    return value


def refuse_leaks(files: Iterable[Path], private: tuple[str, ...] = ()) -> None:
    """Look through text files for what `scrub` cannot know.

    Args:
        files: the files that would be published.
        private: paths that must not be in them.

    Raises:
        OutputError: a finding for each file that holds one of them or a secret.
    """
    findings = []
    for file in files:
        text = file.read_text(encoding="utf-8", errors="replace")
        if SECRET.search(text):
            findings.append(_("{file}: holds what looks like a token; remove it, then publish").format(file=file.name))
        local = _("{file}: holds the local path {path}; remove it, then publish")
        findings += [local.format(file=file.name, path=path) for path in private if path in text]
    if findings:
        raise OutputError(*findings)


def _is_secret(key: str, value: Any, by: By) -> bool:
    if not isinstance(value, str):
        return False
    named = (SECRET_KEY if by == "key" else ACCESS_KEY).search(key)
    bare = _BARE_KEY.fullmatch(value) and not _CHECKSUM.search(key)
    return bool(named or bare or SECRET.search(value))


def _is_path(value: str, key: str, by: By) -> bool:
    if key.endswith("name_or_path"):
        return is_local(value)
    # Anywhere else in a tokenizer, text that looks like a path is a token.
    return bool(PATH_KEY.search(key) or (by == "key" and ABSOLUTE.match(value)))
