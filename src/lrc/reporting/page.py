"""The page about a run, for people who would rather look than read logs: charts, answers, recipe."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from importlib.resources import files as packaged
from math import inf, isnan
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from lrc.config.run_record import Run
from lrc.metrics.accuracy import Figures, accuracy_by, confusion, passages_of
from lrc.metrics.calibration import at_bound, calibration_error, is_guess, reliability
from lrc.metrics.predictions import Outcome
from lrc.metrics.training_log import Curve, Curves, Point
from lrc.metrics.verdict import judge
from lrc.reporting.charts import Line, by_group, over_steps, reliability_diagram
from lrc.reporting.scrub import scrub

MISTAKES = 200  # shown on the page, hardest first
TABLE_ROWS = 200  # of a curve's table
LENGTH_GROUPS = 4


def render(name: str, run: Run, curves: Curves, outcomes: Sequence[Outcome]) -> str:
    """The page as HTML, whole.

    Args:
        name: what the run is called.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"percent": _percent, "number": _number}
    script = _read_asset("report.js")
    facts = {
        "name": name,
        "run": run,
        "curves": curves,
        # Not escaped: these two ship with lrc.
        "style": Markup(_read_asset("report.css")),
        "script": Markup(script),
        # The page runs this script and no other, whatever a passage may hold.
        "script_hash": b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "recipe": _recipe(run),
        "temperature": run.temperature,
        "temperature_bound": at_bound(run.temperature),
        "data": [part | {"role": role, "name": scrub(part.get("name", ""), "file")} for role, part in run.data.items()],
    }
    answers = _answers(outcomes)
    text = environment.from_string(_read_asset("report.html")).render(
        **facts, **_training(curves, answers["baselines"]), **answers
    )
    return text + "\n"


def _recipe(run: Run) -> dict[str, str]:
    """The recipe by key, as a YAML file would have it, without secrets and local folders."""
    style = {"template": run.template, "answer_style": run.answer_style, "list_options": run.list_options}
    recipe = scrub({**style, **run.recipe})
    if "model_name_or_path" in recipe and run.base.get("name"):
        recipe["model_name_or_path"] = run.base["name"]
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in recipe.items()}
    return dict(sorted(texts.items()))


def _training(curves: Curves, baselines: Mapping[str, Figures]) -> dict[str, Any]:
    """Charts and tables of what was logged; empty where nothing was."""
    loss, validation, rate = curves["loss"], curves["eval_loss"], curves["learning_rate"]
    scored = curves["eval_accuracy"]
    best = dict(list(baselines.items())[:1])
    levels = {name: part["accuracy"] for name, part in best.items()}
    return {
        "loss_chart": _svg(over_steps("loss", [Line(loss), Line(validation, marked=True)]))
        if loss or validation
        else "",
        "loss_rows": _thin(_by_step(loss, validation)),
        "accuracy_chart": _svg(over_steps("accuracy", [Line(scored, marked=True)], levels=levels, shares=True))
        if scored
        else "",
        "accuracy_rows": _thin(scored),
        "rate_chart": _svg(over_steps("rate", [Line(rate)])) if rate else "",
        "rate_rows": _thin(rate),
        "best_baseline": best,
        "best_point": _top(scored),
        "peak_rate": _top(rate),
    }


def _answers(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Figures and charts about the answers to the validation questions; None and empty without outcomes."""
    wrong = sorted((one for one in outcomes if not one.right), key=lambda one: one.answer_probability)
    shown = {"wrong": len(wrong), "mistakes": wrong[:MISTAKES], "is_guess": is_guess}
    if not outcomes:
        return shown | {"overall": None, "verdict": None, "baselines": {}}
    predictions, answers = [one.prediction for one in outcomes], [one.answer for one in outcomes]
    questions = [one.question for one in outcomes]
    lengths = _by_length(outcomes)
    passages = passages_of(questions)
    bins = reliability([one.confidence for one in outcomes], [one.right for one in outcomes], passages)
    verdict = judge(questions, predictions)
    return shown | {
        "overall": verdict.figures,
        "verdict": verdict,
        "guesses": sum(is_guess(one.probabilities, len(one.question.choosable)) for one in outcomes),
        "baselines": verdict.baselines,
        "size": max(len(question.options) for question in questions),
        "confusion": confusion(predictions, answers),
        "lengths": lengths,
        "length_chart": _svg(by_group("lengths", lengths)),
        "bins": bins,
        "calibration_error": calibration_error(bins),
        "calibration_chart": _svg(reliability_diagram("calibration", bins)),
    }


def _by_length(outcomes: Sequence[Outcome]) -> dict[str, Figures]:
    """The accuracy of about equally many questions each, from the shortest passages to the longest."""
    lengths = [len(one.question.passage) for one in outcomes]
    ordered = sorted(lengths)
    # Passages of one length stay together, so a group may come out larger, or not at all.
    starts = sorted({ordered[len(ordered) * k // LENGTH_GROUPS] for k in range(LENGTH_GROUPS)})
    groups = [sum(length >= start for start in starts) for length in lengths]
    passages = passages_of(one.question for one in outcomes)
    figures = accuracy_by(groups, [one.prediction for one in outcomes], [one.answer for one in outcomes], passages)
    ends = {group: [n for n, own in zip(lengths, groups, strict=True) if own == group] for group in figures}
    return {"–".join(map(str, sorted({min(ends[group]), max(ends[group])}))): part for group, part in figures.items()}


def _by_step(first: Curve, second: Curve) -> list[tuple[int, float | None, float | None]]:
    ones, twos = ({point.step: point.value for point in curve} for curve in (first, second))
    return [(step, ones.get(step), twos.get(step)) for step in sorted(ones | twos)]


def _top(curve: Curve) -> Point | None:
    return max(curve, key=lambda point: -inf if isnan(point.value) else point.value, default=None)


def _thin(rows: Sequence[Any]) -> list[Any]:
    """At most about TABLE_ROWS of the rows, evenly, the last among them."""
    step = -(-len(rows) // TABLE_ROWS) or 1
    return list(rows[::-1][::step][::-1])


def _svg(drawing: str) -> Markup:
    return Markup(drawing)


def _read_asset(name: str) -> str:
    return packaged(__package__).joinpath(name).read_text(encoding="utf-8")


def _percent(value: float) -> str:
    return "–" if isnan(value) else f"{value:.1%}"


def _number(value: float | None) -> str:
    """A logged number: what was not logged is empty, and what was not finite says so."""
    if value is None:
        return ""
    return "NaN" if isnan(value) else f"{value:.4g}"
