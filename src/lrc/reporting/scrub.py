"""Removes local paths and secrets from what is published."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal

from lrc.config.run_record import Run
from lrc.runtime.errors import OutputError
from lrc.runtime.secrets import SECRET
from lrc.runtime.translation import _

By = Literal["key", "value"]

# Values that consist only of what may be a key of W&B or AWS, unless their own key says that it is a checksum.
_BARE_KEY = re.compile(r"[0-9a-f]{40}|(?=.*[a-z])(?=.*[A-Z])(?=.*\d)[A-Za-z0-9/+]{40}")
_CHECKSUM = re.compile(r"revision|commit|version|sha\d*|hash|digest")
SECRET_KEY = re.compile(r"(^|_)(token|secret|password|passwd|api_key|access_key|auth)$", re.IGNORECASE)
# In the settings of tokenizers and models, `bos_token` and the like are not secrets, but these are.
ACCESS_KEY = re.compile(
    r"(^|_)(secret|password|passwd|api_key|access_key|auth|(access|api|auth|hf|hub|private|secret)_token)$",
    re.IGNORECASE,
)
PATH_KEY = re.compile(r"(^|_)(dir|file|folder|files|path)$")  # includes model_name_or_path
ABSOLUTE = re.compile(r"^(~?(/[^/\n]+){2,}/?|[A-Za-z]:[\\/].+)$")

# A path inside a text: of two parts or more, relative with a leading dot, of Windows, of a server, or a file's URL.
_PART = r"[^\s\"'<>|,;]+"
_PATH = rf"(?:~|\.\.?)?(?:/[^\s/\"'<>|,;]+){{2,}}/?|\.\.?/{_PART}|[A-Za-z]:[\\/]{_PART}|\\\\\w+\\{_PART}"
_EMBEDDED = re.compile(rf"(?<![\w.~/\\:])(?:file:(?://)?)?(?:{_PATH})")


def is_local(name: str) -> bool:
    """Whether the name of a model is a path of this machine rather than a name on the Hub."""
    outside = name.startswith((".", "~", "/")) or "\\" in name or name.count("/") > 1
    return outside or ABSOLUTE.match(name) is not None or Path(name).exists()


def scrub(value: Any, key: str = "", by: By = "key") -> Any:
    """Copy a JSON value without secrets, and with only the last part of local paths.

    Args:
        value: any JSON value.
        key: the key under which it stands.
        by: `key`, for recipes and adapters, removes all values whose key names a secret; `value`, for tokenizers and
            models, keeps those of keys such as `bos_token`. Both remove what looks like a secret.
    """
    if isinstance(value, dict):
        return {name: scrub(part, name, by) for name, part in value.items() if not _is_secret(name, part, by)}
    if isinstance(value, list):
        return [scrub(part, key, by) for part in value if not _is_secret("", part, by)]
    if isinstance(value, str) and _is_path(value, key, by):
        return _last_part(value)
    if isinstance(value, str) and by == "key":
        return _EMBEDDED.sub(lambda found: _last_part(found[0]), value)
    return value


def _last_part(path: str) -> str:
    return (PureWindowsPath if "\\" in path else PurePosixPath)(path).name


def scrub_recipe(run: Run) -> dict[str, Any]:
    """A run's recipe and prompt, sorted by key, without secrets and local paths; the base by its recorded name."""
    style = {"template": run.template, "answer_style": run.answer_style, "list_options": run.list_options}
    recipe: dict[str, Any] = scrub({**style, **run.recipe})
    if "model_name_or_path" in recipe and run.base.get("name"):
        recipe["model_name_or_path"] = run.base["name"]
    return dict(sorted(recipe.items()))


def refuse_leaks(files: Iterable[Path], private: tuple[str, ...] = ()) -> None:
    """Search text files for secrets and private paths.

    Args:
        files: the files that would be published.
        private: paths that must not occur in them.

    Raises:
        OutputError: a secret or a path was found, with a finding for each.
    """
    findings = [
        finding
        for file in files
        for finding in _find_leaks(file.name, file.read_text(encoding="utf-8", errors="replace"), private)
    ]
    if findings:
        raise OutputError(*findings)


def refuse_leaks_in(name: str, text: str, private: tuple[str, ...]) -> None:
    """Search a text of the file `name`; see `refuse_leaks`.

    Raises:
        OutputError: a secret or a path was found.
    """
    if findings := list(_find_leaks(name, text, private)):
        raise OutputError(*findings)


def _find_leaks(name: str, text: str, private: tuple[str, ...]) -> Iterator[str]:
    if SECRET.search(text):
        yield _("{file}: holds what looks like a token; remove it, then publish").format(file=name)
    local = _("{file}: holds the local path {path}; remove it, then publish")
    yield from (local.format(file=name, path=path) for path in private if path in text)


def _is_secret(key: str, value: Any, by: By) -> bool:
    if not isinstance(value, str):
        return False
    named = (SECRET_KEY if by == "key" else ACCESS_KEY).search(key)
    bare = _BARE_KEY.fullmatch(value) and not _CHECKSUM.search(key)
    return bool(named or bare or SECRET.search(value))


def _is_path(value: str, key: str, by: By) -> bool:
    if key.endswith("name_or_path"):
        return is_local(value)
    # In a tokenizer's files, any other text that looks like a path may be a token.
    return bool(PATH_KEY.search(key) or (by == "key" and ABSOLUTE.match(value)))
