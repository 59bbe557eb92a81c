"""`lrc compare`: compares two models on the same questions, as text and as a page."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lrc.data.sources import read_labelled, require_file
from lrc.metrics.comparison import Comparison, Pair, compare_answers
from lrc.metrics.predictions import answers_of, holds_questions, name_models, read_predictions
from lrc.metrics.verdict import describe_size, spell
from lrc.runtime.errors import DataError
from lrc.runtime.findings import columns_of, name_line, pad, print_json, print_next, wrap_line
from lrc.runtime.finished_outputs import Inputs, refuse_other_output, write_once
from lrc.runtime.outputs import refuse_file
from lrc.runtime.system import command_line
from lrc.runtime.translation import _, localized

SHOWN = 10  # questions of a group in the terminal; the page has more


def compare_models(
    first: Path,
    second: Path,
    *,
    data: Path | None = None,
    output: Path | None = None,
    as_json: bool = False,
    force: bool = False,
) -> None:
    """Print how two models differ on the same questions, and write a page about it.

    Args:
        first: a run's folder, or a file of `lrc evaluate --scores`.
        second: likewise.
        data: the labelled questions to which files of scores belong.
        output: the page; None writes none.
        as_json: print the figures as JSON.
        force: overwrite an existing page.

    Raises:
        LrcError: the two were not asked the same questions, or a file cannot be used.
    """
    asked = {"first": first, "second": second, "data": data}
    if output is not None:
        refuse_other_output(output, asked, force=force)
        refuse_file(output, *filter(None, (first, second, data)), force=True)
    if data is not None:
        _refuse_useless(data, first, second)
    inputs = Inputs(answers_of(source) for source in (first, second, data) if source)
    questions = read_labelled(data) if data is not None else []
    sources = (first, second)
    names = name_models(sources)
    answers = [read_predictions(source, data, questions) for source in sources]
    found = compare_answers((names[0], names[1]), sources, answers[0], answers[1])
    written = output is not None and _write(output, asked, inputs, found, force=force)
    if as_json:
        print_json(_figures(found))
    else:
        print(*_lines(found), sep="\n")
    if written:
        told = localized(_("wrote {output}").format(output=output))
        print(told, file=sys.stderr if as_json else sys.stdout)
    if output is None and not as_json:
        print()
        flags = ["--data", str(data)] if data else []
        print_next(command_line(["lrc", "compare", str(first), str(second), *flags, "--output", "compare.html"]))


def _write(output: Path, asked: Mapping[str, Path | None], inputs: Inputs, found: Comparison, *, force: bool) -> bool:
    """Write the page; false if the same command had already written it."""
    from lrc.reporting.compare_page import render_comparison

    def write(path: Path) -> None:
        path.write_text(render_comparison(found), encoding="utf-8", errors="replace", newline="\n")

    return write_once(output, asked, inputs, write, force=force)


def _refuse_useless(data: Path, *sources: Path) -> None:
    """Refuse --data if both sides contain their questions."""
    require_file(data)
    if all(holds_questions(answers_of(source)) for source in sources):
        raise DataError(
            _("{data}: is not needed, since both sides hold their questions; leave out --data").format(data=data)
        )


def _figures(found: Comparison) -> dict[str, Any]:
    return {
        "first": {"name": found.names[0], **found.figures[0]},
        "second": {"name": found.names[1], **found.figures[1]},
        "paired": found.test,
        "both_right": found.both_right,
        "both_wrong": len(found.both_wrong),
        "same_choice": found.same_choice,
        "verdict": found.text,
        "questions": [
            {
                "id": one.question.id,
                "row": one.question.row,
                "answer": one.answer,
                "first": one.prediction,
                "second": two.prediction,
            }
            for one, two in found.pairs
        ],
    }


def _spell_points(difference: float) -> str:
    """A difference of two shares in percentage points, with a sign unless it is rounded to 0.0."""
    shown = f"{100 * difference:+.1f}"
    return shown.lstrip("+-") if float(shown) == 0 else shown


def _lines(found: Comparison) -> list[str]:
    test, n = found.test, len(found.pairs)
    width = max(20, *(7 + columns_of(name) for name in found.names)) + 2
    points, low, high = (_spell_points(test[key]) for key in ("difference", "ci_low", "ci_high"))
    points = _("{points} points ({low} to {high})").format(points=points, low=low, high=high)
    by_question = _("p = {p:.2g} (McNemar, as if questions were independent)").format(p=test["p_value_mcnemar"])
    groups: dict[str, list[tuple[str, str]]] = {
        _("Accuracy"): [
            *(
                (name, _("{share}, {size}").format(share=spell(one), size=describe_size(one)))
                for name, one in zip(found.names, found.figures, strict=True)
            ),
            (_("difference"), points),
        ],
        _("Questions"): [
            (_("both right"), f"{found.both_right:,}"),
            *(
                (_("only {name}").format(name=name), f"{len(pairs):,}")
                for name, pairs in zip(found.names, (found.first_only, found.second_only), strict=True)
            ),
            (_("both wrong"), f"{len(found.both_wrong):,}"),
            (_("same answer"), _("{count:,} of {n:,}").format(count=found.same_choice, n=n)),
        ],
        _("Tests"): [
            (_("by passage"), _("p = {p:.2g} (permutation)").format(p=test["p_value"])),
            (_("by question"), by_question),
        ],
    }
    lines = wrap_line(localized(found.text))
    for title, rows in groups.items():
        lines += ["", localized(title), *(name_line(name, text, width) for name, text in rows)]
    for name, pairs in zip(found.names, (found.first_only, found.second_only), strict=True):
        if pairs:
            title = localized(_("Only {name} is right").format(name=name))
            lines += ["", title, *_side_by_side(pairs, found.names)]
    return lines


def _side_by_side(pairs: Sequence[Pair], names: tuple[str, str]) -> Iterator[str]:
    """A line for each question, with the right answer, and both models' answers with their probabilities."""
    head = [localized(word) for word in (_("id"), _("right"), _("question"))]
    width = max(columns_of(head[0]), *(columns_of(one.question.id) for one, _other in pairs[:SHOWN])) + 2
    column = max(8, *map(columns_of, names)) + 2
    sides = "".join(pad(name, column) for name in names)
    yield f"{pad(head[0], width)}{pad(head[1], 7)}{sides}{head[2]}".rstrip()
    room = shutil.get_terminal_size().columns - width - 7 - 2 * column
    for one, two in pairs[:SHOWN]:
        chosen = [f"{side.prediction} ({side.confidence:.0%})" for side in (one, two)]
        asked = _cut(" ".join(one.question.question.split()), room)
        sides = "".join(pad(side, column) for side in chosen)
        yield f"{pad(one.question.id, width)}{one.answer:<7}{sides}{asked}".rstrip()
    if len(pairs) > SHOWN:
        text = _("and {count:,} more; --output page.html shows them with their passages")
        yield localized(text.format(count=len(pairs) - SHOWN))


def _cut(text: str, columns: int) -> str:
    """Truncate a text to a number of terminal columns, of which a Chinese character takes two."""
    from rich.cells import cell_len, set_cell_size

    if not sys.stdout.isatty() or cell_len(text) <= columns:
        return text
    return set_cell_size(text, max(columns - 1, 0)).rstrip() + "…" if columns > 1 else ""
