"""The HTML page about a run: verdict, mistakes, charts, recipe and data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from lrc.config.run_record import Run
from lrc.data.score_files import tied_options
from lrc.metrics.accuracy import Figures, accuracy, accuracy_by, confusion, passages_of
from lrc.metrics.baselines import BASELINES, credit
from lrc.metrics.calibration import at_bound, calibration_error, is_guess, reliability
from lrc.metrics.predictions import Outcome
from lrc.metrics.training_log import Curve, Curves
from lrc.metrics.verdict import Verdict, judge
from lrc.reporting.charts import Line, by_group, over_steps, reliability_diagram
from lrc.reporting.scrub import scrub, scrub_recipe
from lrc.reporting.summary import best_point
from lrc.reporting.templates import render_page

MISTAKES, FIRST_MISTAKES = 200, 10  # on the page, the hardest first; and those that are visible at first
TABLE_ROWS = 200  # about the most rows in the table of a curve
LENGTH_GROUPS = 4


@dataclass(frozen=True)
class Answers:
    """The answers of a model, and of others, to labelled questions."""

    outcomes: Sequence[Outcome]
    others: Mapping[str, Sequence[Outcome]] = field(default_factory=dict)  # of other models, to the same questions
    training: Sequence[Outcome] = ()  # to questions of the training data
    file: str = ""  # the name of the file of the questions; empty for the run's own validation questions
    sha256: str = ""  # of that file


@dataclass(frozen=True)
class Mistake:
    """A wrong answer, and which models and baselines were wrong, too."""

    outcome: Outcome
    right_share: float  # the mean probability of the right answer over this model, the others and the best baseline
    also_wrong: tuple[str, ...]  # names of other models and of baselines
    guess: bool  # whether the answer is practically a guess


def render_report(name: str, run: Run, curves: Curves, answered: Answers) -> str:
    """Render the page as a complete HTML file.

    Args:
        name: of the run.
        run: the run file.
        curves: the run's logs.
        answered: the answers of the run, and of others.
    """
    answers = _answers(answered)
    return render_page(
        "report.html",
        name=name,
        run=run,
        curves=curves,
        recipe={key: one if isinstance(one, str) else json.dumps(one) for key, one in scrub_recipe(run).items()},
        temperature=run.temperature,
        temperature_bound=at_bound(run.temperature),
        data=[part | {"role": role, "name": scrub(part["name"], "file")} for role, part in run.data.items()],
        workbooks=_workbooks(run),
        facts=_facts(run, curves),
        trained_on=_was_trained_on(run, answered),
        asked_of=answered.file,
        untrained=next((point for point in curves["eval_accuracy"] if point.step == 0), None),
        **_training(curves, answers["baselines"]),
        **answers,
    )


def _facts(run: Run, curves: Curves) -> dict[str, Any]:
    """Facts about the run, as far as they are known, by the name of a text in the template."""
    launch, peak = scrub(run.launch), curves.totals.get("peak_memory_mb")
    trained = [part for role, part in run.data.items() if role.startswith("train_file")]
    found = {
        "base": run.base.get("name"),
        "workbook": ", ".join(book["name"] for book in _workbooks(run)),
        "questions": [part | {"name": scrub(part["name"], "file")} for part in trained],
        "hardware": launch.get("hardware"),
        "date": launch.get("date"),
        "memory": f"{peak / 1000:.1f} GB" if peak else None,
        "command": launch.get("command"),
    }
    return {fact: value for fact, value in found.items() if value}


def _workbooks(run: Run) -> list[dict[str, str]]:
    """The workbooks from which the data files were converted, without repetitions."""
    found = [scrub(book) for book in run.launch.get("workbooks", {}).values()]
    return [book for place, book in enumerate(found) if book not in found[:place]]


def _was_trained_on(run: Run, answered: Answers) -> bool:
    """Whether the answered questions are those of a training file."""
    own = answered.sha256 or run.data.get("validation_file", {}).get("sha256")
    sums = [part.get("sha256") for role, part in run.data.items() if role.startswith("train_file")]
    return own is not None and own in sums


def _training(curves: Curves, baselines: Mapping[str, Figures]) -> dict[str, Any]:
    """Charts and tables of the logs; empty if nothing was logged."""
    loss, validation, rate = curves["loss"], curves["eval_loss"], curves["learning_rate"]
    scored = curves["eval_accuracy"]
    best = dict(list(baselines.items())[:1])
    levels = {name: part["accuracy"] for name, part in best.items()}
    return {
        "loss_chart": _svg(over_steps("loss", [Line(loss), Line(validation, marked=True)], logarithmic=True))
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
        "best_point": best_point(scored),
        "peak_rate": best_point(rate),
    }


def _answers(answered: Answers) -> dict[str, Any]:
    """Figures and charts about the answers; None and empty without outcomes."""
    outcomes, training = answered.outcomes, answered.training
    shown = {"first_mistakes": FIRST_MISTAKES, "training_accuracy": _accuracy(training) if training else None}
    if not outcomes:
        return shown | {"overall": None, "verdict": None, "baselines": {}, "others": {}, "mistakes": [], "wrong": 0}
    predictions, answers = [one.prediction for one in outcomes], [one.answer for one in outcomes]
    questions = [one.question for one in outcomes]
    lengths = _by_length(outcomes)
    bins = reliability([one.confidence for one in outcomes], [one.right for one in outcomes], passages_of(questions))
    verdict = judge(questions, predictions)
    mistakes = _mistakes(answered, verdict)
    return shown | {
        "wrong": len(mistakes),
        "mistakes": mistakes[:MISTAKES],
        "overall": verdict.figures,
        "verdict": verdict,
        "ties": sum(len(tied_options(one.scores)) > 1 for one in outcomes if one.scores),
        "guesses": sum(is_guess(one.probabilities, len(one.question.choosable)) for one in outcomes),
        "baselines": verdict.baselines,
        "others": {name: _accuracy(other) for name, other in answered.others.items()},
        "size": range(1, max(len(question.options) for question in questions) + 1),
        "confusion": confusion(predictions, answers),
        "lengths": lengths,
        "length_chart": _svg(by_group("lengths", lengths)),
        "bins": bins,
        "calibration_error": calibration_error(bins),
        "calibration_chart": _svg(reliability_diagram("calibration", bins)),
    }


def _mistakes(answered: Answers, verdict: Verdict) -> list[Mistake]:
    """The wrong answers, the hardest first: those whose right answer has the lowest mean probability."""
    outcomes = answered.outcomes
    questions = [one.question for one in outcomes]
    answers = [one.answer for one in outcomes]
    credits = {name: credit(BASELINES[name](questions), answers) for name in verdict.baselines}
    found = []
    for place, one in enumerate(outcomes):
        if one.right:
            continue
        beside = {name: other[place] for name, other in answered.others.items()}
        wrong = [name for name, part in credits.items() if not part[place]]
        shares = [each.answer_probability for each in (one, *beside.values())]
        shares.append(float(credits[verdict.best][place]))
        also = [name for name, other in beside.items() if not other.right]
        also += [name for name in wrong if name != "majority"]  # which says nothing about a question
        guess = is_guess(one.probabilities, len(one.question.choosable))
        found.append(Mistake(one, sum(shares) / len(shares), tuple(also), guess))
    return sorted(found, key=lambda mistake: mistake.right_share)


def _accuracy(outcomes: Sequence[Outcome]) -> Figures:
    passages = passages_of(one.question for one in outcomes)
    return accuracy([one.prediction for one in outcomes], [one.answer for one in outcomes], passages)


def _by_length(outcomes: Sequence[Outcome]) -> dict[str, Figures]:
    """The accuracy by length of the passage, in groups of about equally many questions."""
    lengths = [len(one.question.passage) for one in outcomes]
    ordered = sorted(lengths)
    # Passages of the same length stay together, so groups may be larger, or empty.
    starts = sorted({ordered[len(ordered) * k // LENGTH_GROUPS] for k in range(LENGTH_GROUPS)})
    groups = [sum(length >= start for start in starts) for length in lengths]
    passages = passages_of(one.question for one in outcomes)
    figures = accuracy_by(groups, [one.prediction for one in outcomes], [one.answer for one in outcomes], passages)
    ends = {group: [n for n, own in zip(lengths, groups, strict=True) if own == group] for group in figures}
    return {"–".join(map(str, sorted({min(ends[group]), max(ends[group])}))): part for group, part in figures.items()}


def _by_step(first: Curve, second: Curve) -> list[tuple[int, float | None, float | None]]:
    ones, twos = ({point.step: point.value for point in curve} for curve in (first, second))
    return [(step, ones.get(step), twos.get(step)) for step in sorted(ones | twos)]


def _thin(rows: Sequence[Any]) -> list[Any]:
    """Evenly spaced rows, about `TABLE_ROWS` at most, which include the last one."""
    step = -(-len(rows) // TABLE_ROWS) or 1
    return list(rows[::-1][::step][::-1])


def _svg(drawing: str) -> Markup:
    return Markup(drawing)
