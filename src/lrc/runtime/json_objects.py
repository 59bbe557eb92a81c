"""Reads the JSON objects in a model's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lrc.runtime.errors import ModelError
from lrc.runtime.library_errors import describe_error
from lrc.runtime.translation import _


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a model's folder.

    Raises:
        ModelError: the file holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        reason = "" if isinstance(value, dict) else _("it holds a {kind}").format(kind=type(value).__name__)
    except (ValueError, RecursionError) as error:
        reason = describe_error(error)
    if reason:
        raise ModelError(
            _("{path}: not a JSON object ({reason}); download the file again").format(path=path, reason=reason)
        )
    return dict(value)
