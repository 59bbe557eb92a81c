"""Answers → the HTML that the page of `lrc app` shows; whatever came from a user is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from importlib.resources import files as packaged
from typing import Any

from jinja2 import Environment, StrictUndefined

from lrc.answering.app.session import Answered, Trial
from lrc.answering.app.translations import Language, say, spell_baseline
from lrc.runtime.findings import told

TAGS: dict[Language, str] = {"en": "en", "zh_TW": "zh-Hant"}
MAX_FINDINGS = 20  # shown; a workbook may have one for every row
MAX_ANSWERS = 20  # likewise; the download has all


def fragment(name: str, language: Language, **values: Any) -> str:
    """One of the macros of `fragments.html`, rendered."""
    macro = getattr(_macros(), name)
    return str(macro(partial(say, language), TAGS[language], **values))


def findings(language: Language, lines: Sequence[str]) -> str:
    """What prevents an answer, a line each; only the first of very many."""
    return fragment("findings", language, lines=_first(language, lines))


def header(language: Language, names: Sequence[str], trial: Trial) -> str:
    """What the model is, for a visitor."""
    prompt, run = trial.scorer.prompt, trial.run
    trained = (run.data.get("train_file") or {}).get("questions") if run else None
    validated = dict(run.validation) if run and run.validation.get("n") else None
    if validated:
        validated["baseline"] = spell_baseline(language, str(validated.get("baseline", "")))
    asked = {"template": prompt.template, "style": prompt.answer_style, "votes": trial.scorer.votes}
    return fragment("header", language, names=names, trained=trained, validated=validated, asked=asked)


def summary(language: Language, answered: Answered) -> str:
    """A file's answers: how many, how good where that is known, the first of them, and what was found in the file."""
    verdict = answered.verdict
    baseline = spell_baseline(language, verdict.best) if verdict else ""
    lines = _first(language, list(told(answered.findings, language)))
    shown = answered.answers[:MAX_ANSWERS]
    return fragment("summary", language, answered=answered, shown=shown, baseline=baseline, lines=lines)


def _first(language: Language, lines: Sequence[str]) -> list[str]:
    more = len(lines) - MAX_FINDINGS
    return [*lines[:MAX_FINDINGS], *([say(language, "more", n=more)] if more > 0 else [])]


@cache
def _macros() -> Any:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["percent"] = lambda share: f"{share:.1%}"
    text = packaged(__package__).joinpath("fragments.html").read_text(encoding="utf-8")
    return environment.from_string(text).module
