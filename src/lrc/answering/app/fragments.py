"""Renders answers as HTML for the page of `lrc app`; all values are escaped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache, partial
from importlib.resources import files as packaged
from typing import Any

from jinja2 import Environment, StrictUndefined

from lrc.answering.app.session import Answered, AppSession
from lrc.answering.app.translations import Language, spell_baseline, translate
from lrc.config.run_record import Run
from lrc.runtime.findings import format_findings
from lrc.runtime.translation import localized

TAGS: dict[Language, str] = {"en": "en", "zh_TW": "zh-Hant"}
MAX_FINDINGS = 20  # shown; a workbook may have one for every row
FLAGS = ("--sheet", "--columns")  # which lines of findings name, and a visitor cannot give
MAX_ANSWERS = 20  # likewise; the download has all


def fragment(name: str, language: Language, **values: Any) -> str:
    """Render one of the macros of `fragments.html`."""
    macro = getattr(_macros(), name)
    page = str(macro(partial(translate, language), TAGS[language], **values))
    # Half a character (an unpaired surrogate), which a file may have in a name, cannot be sent.
    return page.encode(errors="replace").decode()


def findings(language: Language, lines: Sequence[str]) -> str:
    """The lines that say why there is no answer; at most `MAX_FINDINGS`."""
    return fragment("findings", language, lines=_first(language, lines))


def header(language: Language, names: Sequence[str], session: AppSession) -> str:
    """The description of the model for a visitor."""
    prompt = session.scorer.prompt
    asked = {"template": prompt.template, "style": prompt.answer_style, "votes": session.scorer.votes}
    text = (" " if language == "en" else "").join(_about(language, session.run))
    return fragment("header", language, names=names, text=text, asked=asked)


def _about(language: Language, run: Run | None) -> Iterator[str]:
    """Sentences that say what the model does, what it was trained on, and how accurate it was."""
    yield translate(language, "intro")
    parts = [part for role, part in run.data.items() if role.startswith("train_file")] if run else []
    trained = sum(part.get("drawn") or part.get("questions") or 0 for part in parts)
    yield translate(language, "trained", n=trained) if trained else translate(language, "untrained")
    found = run.validation if run else {}
    if not found.get("n"):
        yield translate(language, "not_validated")
        return
    baseline = spell_baseline(language, str(found["baseline"]))
    shares = {"accuracy": found["accuracy"], "baseline_accuracy": found["baseline_accuracy"]}
    low, high = (found.get(bound, found["accuracy"]) for bound in ("ci_low", "ci_high"))
    yield translate(language, "validated", n=int(found["n"]), low=low, high=high, baseline=baseline, **shares)
    own = (run.data.get("validation_file") or {}).get("sha256") if run else None
    if own and own in [part.get("sha256") for part in parts]:
        yield translate(language, "validated_on_training")
    elif found.get("shared_passages"):
        yield translate(language, "shared_passages", n=int(found["shared_passages"]))
    else:
        yield translate(language, "new_passages")


def summary(language: Language, answered: Answered) -> str:
    """A file's answers: their number, accuracy if known, the first of them, and the findings about the file."""
    verdict = answered.verdict
    baseline = spell_baseline(language, verdict.best) if verdict else ""
    lines = _first(language, list(format_findings(answered.findings, language)))
    shown = answered.answers[:MAX_ANSWERS]
    return fragment("summary", language, answered=answered, shown=shown, baseline=baseline, lines=lines)


def _first(language: Language, lines: Sequence[str]) -> list[str]:
    more = len(lines) - MAX_FINDINGS
    shown = [*lines[:MAX_FINDINGS], *([translate(language, "more", n=more)] if more > 0 else [])]
    return [*shown, *(translate(language, flag) for flag in FLAGS if any(flag in line for line in shown))]


@cache
def _macros() -> Any:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"percent": lambda share: f"{share:.1%}", "localized": localized}
    text = packaged(__package__).joinpath("fragments.html").read_text(encoding="utf-8")
    return environment.from_string(text).module
