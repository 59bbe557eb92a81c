"""Answers → the HTML that the page of `lrc app` shows; whatever came from a user is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from importlib.resources import files as packaged
from typing import Any

from jinja2 import Environment, StrictUndefined

from lrc.answering.app.translations import Language, say

TAGS: dict[Language, str] = {"en": "en", "zh": "zh-Hant"}
MAX_FINDINGS = 20  # shown; a workbook may have one for every row


def fragment(name: str, language: Language, **values: Any) -> str:
    """One of the macros of `fragments.html`, rendered."""
    macro = getattr(_macros(), name)
    return str(macro(partial(say, language), TAGS[language], **values))


def findings(language: Language, lines: Sequence[str]) -> str:
    """What prevents an answer, a line each; only the first of very many."""
    shown = list(lines[:MAX_FINDINGS])
    if len(lines) > len(shown):
        shown.append(f"… and {len(lines) - len(shown)} more; `lrc check` shows all")
    return fragment("findings", language, lines=shown)


@cache
def _macros() -> Any:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["percent"] = lambda share: f"{share:.1%}"
    text = packaged(__package__).joinpath("fragments.html").read_text(encoding="utf-8")
    return environment.from_string(text).module
